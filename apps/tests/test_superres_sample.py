"""Enlarging: any size in, `factor` times it out; a model that does nothing gives bicubic; seams nowhere."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from cf_apps.data import pictures
from cf_apps.engine.errors import ConfigError
from cf_apps.engine.flow import SampleConfig
from cf_apps.superres.degrade import enlarged, to_bytes
from cf_apps.superres.sample import BATCH

sys.path.insert(0, str(Path(__file__).parent))
from superres_tiny import ONCE, dice, noise, sampler, still

DCT = {"codec.name": "patch-dct", "codec.patch": 4, "codec.keep": 48, "backbone.channels": 48, "backbone.size": [4, 4],
       "backbone.stages": [{"kind": "transformer", "d_model": 16, "n_blocks": 1, "patch": 2, "n_heads": 2},
                           {"kind": "convnext", "d_model": 16, "n_blocks": 1, "patch": 1}]}  # fmt: skip
TAEF2 = DCT | {"image_size": 64, "codec.name": "taef2", "backbone.channels": 32, "backbone.size": [8, 8]}
ROUNDING = 1  # of a level: floats through a codec and back
SIZES = [(4, 4), (1, 1), (1, 9), (3, 2), (5, 4), (17, 6), (11, 30)]


def smooth(height: int, width: int) -> torch.Tensor:
    """Bytes that change slowly, so that bicubic neither overshoots nor clips."""
    y, x = torch.arange(height).float()[:, None], torch.arange(width).float()
    return torch.stack([100 + 3 * y + x, 150 - 2 * y + 0 * x, 60 + y + 2 * x]).round().to(torch.uint8)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    "changes", [{}, DCT, {"factor": 2}, {"method": "regression"}], ids=["pixels", "dct", "2x", "regression"]
)
def test_a_model_that_does_nothing_gives_the_bicubic_picture_at_any_size(size, changes):
    it = still(**changes)
    small = noise(3, *size)
    large = it.enlarge(small, replace(ONCE, steps=2), dice())
    factor = it.factor
    assert large.shape == (3, factor * size[0], factor * size[1])
    expected = to_bytes(enlarged(small[None], factor))[0]
    # a picture below the model's squares is continued by its border, which the filter sees there
    inner = slice(0, None) if min(size) >= it.small_size else slice(0, -2 * factor)
    difference = (large.int() - expected.int())[:, inner, inner].abs()
    assert difference.numel() == 0 or difference.max() <= ROUNDING


@pytest.mark.parametrize("changes", [{}, DCT], ids=["pixels", "dct"])
def test_a_picture_of_the_trained_size_is_enlarged_alike_alone_and_among_others(changes):
    it = sampler(**changes)
    how = SampleConfig(scale=1.0, steps=2, temperature=0.0)
    small = noise(3, 3, 4, 4)
    together = it.enlarge_all(small, how, dice())
    for k in range(3):
        assert (it.enlarge(small[k], how, dice()).int() - together[k].int()).abs().max() <= ROUNDING


def test_a_learned_latent_larger_than_trained_goes_through_the_codec_whole():
    """TAEF2 has a cell of 8 x 8 pixels, so small pictures are continued to an even number of theirs."""
    it = still(**TAEF2)
    small = smooth(19, 22)
    large = it.enlarge(small, ONCE, dice())
    assert large.shape == (3, 76, 88)
    continued = torch.nn.functional.pad(small[None].float(), (0, 0, 0, 1), mode="replicate").to(torch.uint8)
    with torch.no_grad():
        codec = it.model.codec
        expected = to_bytes(codec.decode(codec.encode(enlarged(continued, 4))))[0, :, :76]
    assert (large.int() - expected.int()).abs().max() <= ROUNDING


def test_large_pictures_have_no_seams_where_tiles_meet():
    """With an untrained model, whose answer depends on the place in the tile, on a picture without detail."""
    it = sampler(source_noise=0.0)
    large = it.enlarge(torch.full((3, 16, 16), 128, dtype=torch.uint8), ONCE, dice()).float()
    one_tile = it.enlarge(torch.full((3, 4, 4), 128, dtype=torch.uint8), ONCE, dice()).float()
    own = max(one_tile.diff(dim=1).abs().max().item(), one_tile.diff(dim=2).abs().max().item())
    assert own > 3  # the model does draw something into a tile
    assert large.diff(dim=1).abs().max() <= own + 1
    assert large.diff(dim=2).abs().max() <= own + 1


def test_the_same_seed_draws_the_same_picture_and_another_one_another():
    it = sampler(source_noise=0.5)
    how = SampleConfig(scale=1.0, steps=2)
    small = noise(3, 7, 9)
    one, two, other = (it.enlarge(small, how, dice(seed)) for seed in (0, 0, 1))
    assert torch.equal(one, two)
    assert not torch.equal(one, other)


@pytest.mark.parametrize("method", ["crossflow", "concat", "regression"])
def test_every_method_enlarges_pictures_larger_than_trained(method):
    it = sampler(method=method, source_noise=0.1)
    large = it.enlarge(smooth(9, 13), SampleConfig(scale=1.0, steps=2), dice())
    assert large.shape == (3, 36, 52)
    assert large.float().std() > 1


def test_more_pictures_than_fit_a_batch_are_all_enlarged_in_order():
    it = still()
    small = noise(BATCH + 3, 3, 4, 4)
    assert torch.equal(it.enlarge_all(small, ONCE, dice()), to_bytes(enlarged(small, 4)))


def test_a_result_of_too_many_pixels_is_refused_with_its_size():
    with pytest.raises(
        ConfigError, match=r"the picture has 5,000 x 1,001 pixels, 4 times enlarged more than 80,000,000"
    ):
        still().enlarge(torch.zeros(3, 1_001, 5_000, dtype=torch.uint8), ONCE, dice())
    assert pictures.MAX_PIXELS == 80_000_000


def test_progress_tells_the_time_of_the_flow_and_the_tiles_done_there():
    told = []
    how = SampleConfig(scale=1.0, steps=4)
    sampler().enlarge(smooth(40, 40), how, dice(), lambda t, share: told.append((t, share)))
    assert [t for t, share in told if share == 1.0] == [0.0, 0.25, 0.5, 0.75]
    assert told == sorted(told)
