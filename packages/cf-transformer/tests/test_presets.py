import pytest
from cf_transformer import PRESETS, preset


def test_an_unknown_preset_lists_the_known():
    with pytest.raises(ValueError, match=r"unknown preset 'dimr-1b'; known: dimr-70m, .*dimr-389m-512"):
        preset("dimr-1b")


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_starts_from_16_by_16_tokens_and_ends_at_full_resolution(name):
    config = preset(name)
    assert config.grid(config.stages[0]) == (16, 16)
    assert config.grid(config.stages[-1]) == config.size


def test_the_papers_sizes_are_the_papers():
    low, high = preset("dimr-951m").stages
    assert (low.d_model, low.n_blocks, low.patch, low.n_heads) == (1024, 65, 2, 16)
    assert (high.d_model, high.n_blocks, high.patch, high.n_heads) == (512, 33, 1, None)
    assert preset("dimr-951m").size == (32, 32)
    assert [stage.patch for stage in preset("dimr-951m-512").stages] == [4, 2, 1]
