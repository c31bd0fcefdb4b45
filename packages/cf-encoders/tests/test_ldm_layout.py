"""The CompVis names of AutoencoderKL; the list of names is written out here from the public file's description."""

import pytest
import torch
from cf_encoders.codecs.autoencoder_kl import RELEASED_SCALE, AutoencoderKLCodec
from cf_encoders.codecs.ldm_layout import KL_F8, LDMSize, from_ldm, load_ldm, to_ldm

pytest.importorskip("diffusers", reason="needs diffusers: pip install 'cf-encoders[diffusers]'")

SIZE = LDMSize(widths=(4, 8, 8), layers_per_block=2, latent_channels=3, norm_groups=2)


@pytest.fixture(scope="module")
def vae():
    torch.manual_seed(0)
    return SIZE.build().eval()


@pytest.fixture
def state(vae):
    return to_ldm(vae.state_dict())


@pytest.fixture
def file(state, tmp_path):
    torch.save(state, tmp_path / "autoencoder_kl.pth")
    return tmp_path / "autoencoder_kl.pth"


def published_names() -> set[str]:
    """All names of the public `autoencoder_kl.pth`."""
    resnet = ("norm1", "conv1", "norm2", "conv2")
    parts = [
        f"{half}.{part}" for half in ("encoder", "decoder") for part in ("conv_in", "norm_out", "conv_out")
    ]
    parts += [
        f"encoder.down.{level}.block.{b}.{part}" for level in range(4) for b in range(2) for part in resnet
    ]
    parts += [
        f"decoder.up.{level}.block.{b}.{part}" for level in range(4) for b in range(3) for part in resnet
    ]
    parts += [f"encoder.down.{level}.block.0.nin_shortcut" for level in (1, 2)]
    parts += [f"decoder.up.{level}.block.0.nin_shortcut" for level in (0, 1)]
    parts += [f"encoder.down.{level}.downsample.conv" for level in (0, 1, 2)]
    parts += [f"decoder.up.{level}.upsample.conv" for level in (1, 2, 3)]
    for half in ("encoder", "decoder"):
        parts += [f"{half}.mid.block_{b}.{part}" for b in (1, 2) for part in resnet]
        parts += [f"{half}.mid.attn_1.{part}" for part in ("norm", "q", "k", "v", "proj_out")]
    parts += ["quant_conv", "post_quant_conv"]
    return {f"{part}.{kind}" for part in parts for kind in ("weight", "bias")}


def test_the_full_size_has_the_published_names_shapes_and_counts():
    with torch.device("meta"):
        state = to_ldm(KL_F8.build().state_dict())
    assert len(state) == 248
    assert set(state) == published_names()
    assert sum(tensor.numel() for tensor in state.values()) == 83_653_863
    assert {name: tuple(state[f"{name}.weight"].shape) for name in SHAPES} == SHAPES


SHAPES = {
    "encoder.conv_in": (128, 3, 3, 3),
    "decoder.conv_in": (512, 4, 3, 3),
    "encoder.down.2.block.0.nin_shortcut": (512, 256, 1, 1),
    "encoder.mid.attn_1.q": (512, 512, 1, 1),
    "decoder.mid.attn_1.proj_out": (512, 512, 1, 1),
    "decoder.up.0.block.0.nin_shortcut": (128, 256, 1, 1),
    "decoder.up.1.block.0.nin_shortcut": (256, 512, 1, 1),
    "decoder.up.3.block.0.conv1": (512, 512, 3, 3),
    "encoder.norm_out": (512,),
    "decoder.norm_out": (128,),
    "encoder.conv_out": (8, 512, 3, 3),
    "quant_conv": (8, 8, 1, 1),
    "post_quant_conv": (4, 4, 1, 1),
}


def test_there_and_back_nothing_changes(vae, state):
    ours = vae.state_dict()
    back = from_ldm(state, ours)
    assert back.keys() == ours.keys()
    assert all(back[name].equal(ours[name]) for name in ours)


def test_diffusers_own_converter_finds_every_tensor_where_we_put_it(vae, state):
    peer = pytest.importorskip("diffusers.loaders.single_file_utils")
    converted = peer.convert_ldm_vae_checkpoint(dict(state), vae.config)
    ours = vae.state_dict()
    assert converted.keys() == ours.keys()
    assert all(converted[name].equal(ours[name]) for name in ours)


def test_the_codec_from_the_file_computes_what_diffusers_does(file, vae, generator):
    codec = AutoencoderKLCodec.from_ldm(file, size=SIZE)
    images = torch.rand(2, 3, 12, 20, generator=generator)
    latent = codec.encode(images)
    assert codec.scale == RELEASED_SCALE == 0.23010
    assert tuple(latent.shape[1:]) == codec.latent_shape(12, 20) == (3, 3, 5)
    torch.testing.assert_close(latent, 0.23010 * vae.encode(2 * images - 1).latent_dist.mean)
    torch.testing.assert_close(
        codec.decode(latent), ((vae.decode(latent / 0.23010).sample + 1) / 2).clamp(0, 1)
    )


def test_a_file_in_16_bits_is_widened(state, tmp_path):
    torch.save({name: tensor.half() for name, tensor in state.items()}, tmp_path / "half.pth")
    assert {p.dtype for p in load_ldm(tmp_path / "half.pth", SIZE).parameters()} == {torch.float32}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda state: state.pop("decoder.up.2.block.1.conv1.bias"),
            r"1 missing: decoder\.up\.2\.block\.1\.conv1\.bias",
        ),
        (lambda state: state.update({"loss.logvar": torch.zeros(1)}), r"1 unexpected: loss\.logvar"),
        (
            lambda state: state.update({"encoder.mid.attn_1.q.weight": torch.zeros(8, 8)}),
            r"encoder\.mid\.attn_1\.q\.weight is \(8, 8\), expected \(8, 8, 1, 1\)",
        ),
    ],
)
def test_a_tensor_too_few_too_many_or_misshapen_is_named(state, tmp_path, change, message):
    change(state)
    torch.save(state, tmp_path / "wrong.pth")
    with pytest.raises(ValueError, match=message):
        load_ldm(tmp_path / "wrong.pth", SIZE)


def test_another_size_and_no_file_are_refused(file, tmp_path):
    with pytest.raises(
        ValueError, match=r"encoder\.conv_in\.weight is \(4, 3, 3, 3\), expected \(8, 3, 3, 3\)"
    ):
        load_ldm(file, LDMSize(widths=(8, 8, 8), latent_channels=3, norm_groups=2))
    with pytest.raises(FileNotFoundError, match=r"no file .*nothing\.pth"):
        load_ldm(tmp_path / "nothing.pth")


class Opened:
    """Would run code when it is unpickled."""

    def __reduce__(self):
        return exec, ("raise RuntimeError('the pickle ran')",)


def test_nothing_but_tensors_is_unpickled(state, tmp_path):
    torch.save({**state, "code": Opened()}, tmp_path / "evil.pth")
    with pytest.raises(ValueError, match="not a file of plain tensors"):
        load_ldm(tmp_path / "evil.pth", SIZE)


@pytest.mark.parametrize("widths", [(), (4, 9), (0,)])
def test_widths_that_the_groups_do_not_divide_are_refused(widths):
    with pytest.raises(ValueError, match=r"widths must be multiples of norm_groups=2"):
        LDMSize(widths, norm_groups=2)
