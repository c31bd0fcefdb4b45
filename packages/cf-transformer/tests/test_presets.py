from dataclasses import replace

import pytest
import torch
from cf_transformer import PRESETS, DiMR, StageConfig, preset
from cf_transformer.presets import CROSS_ATTENTION_PRESETS, DIT_PRESETS, cross_attention_preset, dit_preset

PUBLISHED = [name for name in PRESETS if name != "dimr-tiny"]


def test_an_unknown_preset_lists_the_known():
    with pytest.raises(
        ValueError, match=r"unknown preset 'dimr-1b'; known: dimr-tiny, dimr-70m, .*dimr-xl-3r"
    ):
        preset("dimr-1b")
    with pytest.raises(ValueError, match=r"unknown preset 'dit-g'; known: dit-s-2, .*dit-h-2-512-released"):
        dit_preset("dit-g")
    with pytest.raises(ValueError, match=r"unknown preset 'dimr-70m'; known: cross-attention-65m, "):
        cross_attention_preset("dimr-70m")


def test_a_name_belongs_to_one_kind_of_model():
    names = [*PRESETS, *CROSS_ATTENTION_PRESETS, *DIT_PRESETS]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("name", PUBLISHED)
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


@pytest.mark.parametrize("channels", [3, 5])
def test_the_tiny_one_takes_32_by_32_pixels_or_latents(channels, generator):
    model = DiMR(replace(preset("dimr-tiny"), channels=channels), generator)
    scales = model.scales(
        torch.randn(2, channels, 32, 32, generator=generator), torch.rand(2, generator=generator)
    )
    assert [tuple(v.shape) for v in scales] == [(2, channels, 8, 8), (2, channels, 32, 32)]


def test_dimrs_own_sizes_are_those_of_its_table():
    """XL/2R and G/2R at 256 px; XL/3R is XL/2R with a stage of 240 channels on top, at 512 px."""
    xl = StageConfig("transformer", 960, 39, 2, 16), StageConfig("convnext", 480, 21, 1)
    assert preset("dimr-xl-2r").stages == xl
    g = StageConfig("transformer", 1152, 57, 2, 16), StageConfig("convnext", 576, 29, 1)
    assert preset("dimr-g-2r").stages == g
    assert preset("dimr-xl-3r").size == (64, 64)
    widths = [(stage.d_model, stage.n_blocks, stage.patch) for stage in preset("dimr-xl-3r").stages]
    assert widths == [(960, 39, 4), (480, 21, 2), (240, 21, 1)]


@pytest.mark.parametrize("rung", ["dimr-70m", "dimr-155m", "dimr-305m", "dimr-505m", "dimr-951m"])
def test_a_rung_at_512_has_the_same_stages_on_the_same_grids_and_one_more(rung):
    small, large = preset(rung), preset(f"{rung}-512")
    assert large.size == (64, 64)
    for low, high in zip(small.stages, large.stages, strict=False):
        assert (low.d_model, low.n_blocks, low.n_heads) == (high.d_model, high.n_blocks, high.n_heads)
        assert small.grid(low) == large.grid(high)
    top = large.stages[-1]
    assert (top.d_model, top.n_blocks) == (small.stages[0].d_model // 4, small.stages[1].n_blocks)


def test_a_baseline_is_a_rung_of_the_ladder_with_fewer_blocks():
    for name, config in CROSS_ATTENTION_PRESETS.items():
        assert config == cross_attention_preset(name)
        assert config.context_width == 768  # CLIP ViT-L/14
        low, high = config.dimr.stages
        assert (low.kind, low.n_heads, high.kind) == ("transformer", low.d_model // 64, "convnext")
        assert config.dimr.size == (32, 32)


def test_dits_keep_cells_of_2_by_2_and_heads_of_64_to_72():
    for name, config in DIT_PRESETS.items():
        assert config == dit_preset(name)
        side = 32 if "512" in name else 16
        assert config.grid == (side, side)
        assert config.d_model / config.n_heads in (64, 72)


def test_the_released_dit_differs_by_its_time_scale_alone():
    ours, released = dit_preset("dit-h-2-512").to_dict(), dit_preset("dit-h-2-512-released").to_dict()
    assert {name: (ours[name], released[name]) for name in ours if ours[name] != released[name]} == {
        "time_scale": (1000.0, 1.0)
    }
