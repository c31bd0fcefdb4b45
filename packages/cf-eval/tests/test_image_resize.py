"""Each resize against the tool whose numbers it is to give."""

import numpy as np
import pytest
import torch
from cf_eval.images.protocols import INCEPTION_PROTOCOLS, Preparation, inception_protocol
from cf_eval.images.resize import (
    RESIZERS,
    antialias_bilinear,
    half_pixel_bilinear,
    pil_bicubic,
    pil_bicubic_bytes,
    tf1_bilinear,
)
from PIL import Image

SIZES = [((37, 50), (299, 299)), ((320, 411), (299, 299)), ((64, 300), (31, 45)), ((1, 3), (5, 4))]


def bytes_image(height: int, width: int) -> torch.Tensor:
    draw = torch.Generator().manual_seed(height)
    return torch.randint(0, 256, (2, 3, height, width), generator=draw).float()


@pytest.mark.parametrize(("size_in", "size_out"), SIZES)
def test_tensorflow_1_s_bilinear_is_torch_fidelity_s_to_the_last_bit(size_in, size_out):
    peer = pytest.importorskip("torch_fidelity.interpolate_compat_tensorflow")
    x = bytes_image(*size_in)
    expected = peer.interpolate_bilinear_2d_like_tensorflow1x(x, size=size_out, align_corners=False)
    assert torch.equal(tf1_bilinear(x, size_out), expected)


def test_tensorflow_1_reads_at_whole_multiples_of_the_step():
    """in / out = 1.5: positions 0, 1.5, 3, ... without half a pixel."""
    ramp = torch.arange(6.0).expand(1, 1, 2, 6)
    assert tf1_bilinear(ramp, (2, 4))[0, 0, 0].tolist() == [0, 1.5, 3, 4.5]
    assert half_pixel_bilinear(ramp, (2, 4))[0, 0, 0].tolist() == [0.25, 1.75, 3.25, 4.75]


def triangle(length: int, out: int) -> np.ndarray:
    """(out, length): the weights of antialiased linear interpolation, one row for each output pixel."""
    scale = length / out
    support = max(scale, 1.0)
    centres = (np.arange(out) + 0.5) * scale - 0.5
    weights = np.maximum(0, 1 - np.abs(centres[:, None] - np.arange(length)) / support)
    return weights / weights.sum(1, keepdims=True)


@pytest.mark.parametrize(("size_in", "size_out"), SIZES)
def test_antialiased_bilinear_weighs_with_a_triangle_as_wide_as_the_reduction(size_in, size_out):
    x = bytes_image(*size_in)
    rows, columns = (triangle(a, b) for a, b in zip(size_in, size_out, strict=True))
    expected = rows @ x.numpy() @ columns.T
    np.testing.assert_allclose(antialias_bilinear(x, size_out), expected, atol=0.01)  # torch: float32 weights


@pytest.mark.parametrize(("size_in", "size_out"), SIZES)
def test_pil_bicubic_is_pillow_s_of_float_channels_clipped(size_in, size_out):
    x = bytes_image(*size_in)
    expected = [
        np.asarray(Image.fromarray(c.numpy(), "F").resize(size_out[::-1], Image.Resampling.BICUBIC))
        for c in x.flatten(0, 1)
    ]
    assert max(e.max() for e in expected) > 255 or size_out[0] < size_in[0]  # overshoot is what is clipped
    found = pil_bicubic(x, size_out).flatten(0, 1)
    np.testing.assert_allclose(found, np.stack(expected).clip(0, 255), atol=2e-4)


@pytest.mark.parametrize(("size_in", "size_out"), SIZES)
def test_pil_bicubic_of_bytes_is_pillow_s_up_to_ties(size_in, size_out):
    x = bytes_image(*size_in)
    pictures = [Image.fromarray(p.byte().movedim(0, 2).numpy()) for p in x]
    expected = np.stack([np.asarray(p.resize(size_out[::-1], Image.Resampling.BICUBIC)) for p in pictures])
    difference = np.abs(pil_bicubic_bytes(x, size_out).movedim(1, 3).numpy() - expected)
    assert difference.max() <= 1
    assert (difference > 0).mean() < 1e-3  # Pillow weighs in 22-bit fixed point: ties may fall the other way


@pytest.mark.parametrize("name", RESIZERS)
def test_a_picture_of_the_right_size_comes_back_as_it_was(name):
    x = bytes_image(13, 17)
    torch.testing.assert_close(RESIZERS[name](x, (13, 17)), x, rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("protocol", "low", "high"),
    [("pytorch-fid", -1, 1), ("torch-fidelity", -1, 127 / 128), ("clean", -1, 127 / 128)],
)
def test_each_protocol_scales_black_and_white_its_way(protocol, low, high):
    flat = torch.tensor([0, 255], dtype=torch.uint8)[:, None, None, None].expand(2, 3, 11, 7)
    x = inception_protocol(protocol)(flat)
    assert x.shape == (2, 3, 299, 299)
    torch.testing.assert_close(x[0], torch.full((3, 299, 299), float(low)))
    torch.testing.assert_close(x[1], torch.full((3, 299, 299), float(high)))


def test_the_protocols_do_not_agree_on_one_picture():
    images = bytes_image(340, 311).byte()
    prepared = [protocol(images) for protocol in INCEPTION_PROTOCOLS.values()]
    apart = [float((a - b).abs().mean()) for i, a in enumerate(prepared) for b in prepared[:i]]
    assert min(apart) > 3e-3


def test_the_channels_may_be_scaled_one_by_one():
    prepare = Preparation("pil-bicubic", 4, (10.0, 20.0, 30.0), (1.0, 2.0, 4.0))
    x = prepare(torch.full((1, 3, 4, 4), 40, dtype=torch.uint8))
    assert x[0, :, 0, 0].tolist() == [30, 10, 2.5]


def test_unknown_names_are_refused_with_the_known_ones():
    with pytest.raises(
        ValueError, match="unknown protocol 'tf'; known: pytorch-fid, torch-fidelity, clean, torchm"
    ):
        inception_protocol("tf")
    with pytest.raises(ValueError, match="unknown resize 'lanczos'; known: tf1-bilinear"):
        Preparation("lanczos", 299, (0.0,), (1.0,))
    with pytest.raises(ValueError, match="unknown rounding 'up'; known: round, truncate"):
        Preparation("pil-bicubic", 299, (0.0,), (1.0,), "up")
    with pytest.raises(ValueError, match="size must be at least 1, got 0"):
        Preparation("pil-bicubic", 0, (0.0,), (1.0,))
