import os
from dataclasses import replace

import pytest
import torch
from cf_encoders.image_ve import ImageVE, receptive_field
from cf_encoders.image_ve_config import IMAGE_VES, ImageVEConfig, image_ve_preset
from cf_encoders.reconstruction import reconstruction_mse
from torch import nn

SMALL = {
    "depth": ImageVEConfig((3, 12, 20), (1, 12, 20), widths=(8, 16, 8), groups=4),
    "same": ImageVEConfig((3, 12, 20), (3, 12, 20), widths=(8, 16), groups=4, mean_from="image", sigma=0.2),
    "latent": ImageVEConfig((3, 12, 20), (5, 3, 5), widths=(8, 16, 8), groups=4),
    "half": ImageVEConfig((2, 8, 24), (7, 4, 12), widths=(8, 12, 16), groups=4, blocks=2),
    "flat": ImageVEConfig((1, 5, 7), (2, 5, 7), widths=(8,), groups=2),
}


def encoder(name: str) -> ImageVE:
    torch.manual_seed(0)
    return ImageVE(SMALL[name]).double()


def images(b: int, config: ImageVEConfig, generator: torch.Generator, grow: int = 1) -> torch.Tensor:
    c, h, w = config.image
    return torch.randn(b, c, grow * h, grow * w, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("grow", [1, 3])
def test_the_posterior_has_the_latents_shape_and_decodes_to_the_images(name, grow, generator):
    ve, config = encoder(name), SMALL[name]
    x = images(2, config, generator, grow)
    c, h, w = config.latent
    q = ve(x)
    assert q.mean.shape == q.logvar.shape == (2, c, grow * h, grow * w)
    assert ve.decode(q.mean).shape == x.shape


@pytest.mark.parametrize("name", SMALL)
def test_images_of_a_batch_do_not_see_each_other(name, generator):
    ve = encoder(name)
    x = images(3, SMALL[name], generator)
    torch.testing.assert_close(ve(x).mean[1:2], ve(x[1:2]).mean)
    torch.testing.assert_close(ve(x).logvar[1:2], ve(x[1:2]).logvar)


@pytest.mark.parametrize("name", ["depth", "latent", "half", "flat"])
def test_it_starts_with_sigma_and_a_mean_that_carries_the_image(name, generator):
    torch.manual_seed(0)
    ve = ImageVE(
        replace(SMALL[name], widths=(64,) * len(SMALL[name].widths), mean_std=0.35, sigma=0.5)
    ).double()
    q = ve(images(6, SMALL[name], generator))
    torch.testing.assert_close(q.std, torch.full_like(q.std, 0.5))
    assert q.mean.std().item() == pytest.approx(0.35, rel=0.4)
    assert q.statistics()["snr"] > 0.1
    assert q.statistics()["active"] > 0.5


def test_a_mean_from_the_image_starts_as_the_image_and_learns_to_correct_it(generator):
    ve = encoder("same")
    x = images(2, SMALL["same"], generator)
    torch.testing.assert_close(ve(x).mean, x, rtol=0, atol=0)
    reconstruction_mse(ve(x).mean, 0 * x).sum().backward()
    assert ve.mean.weight.grad.abs().sum() > 0


def test_the_released_kl_leaves_an_image_alone_where_the_papers_would_grey_it(generator):
    q = encoder("same")(images(2, SMALL["same"], generator).clamp(-1, 1))
    free = replace(q, mean=0 * q.mean)
    assert ((q.kl_sextic("mean") - free.kl_sextic("mean")) < 4e-4).all()
    assert ((q.kl("mean") - free.kl("mean")) > 0.1).all()


@pytest.mark.parametrize("name", SMALL)
def test_gradients_reach_every_parameter(name, generator):
    ve = encoder(name)
    for head in (ve.mean, ve.logvar):  # a head that starts at zero holds its body back for the first step
        nn.init.normal_(head.weight, std=0.1)
    q = ve(images(2, SMALL[name], generator))
    (ve.decode(q.sample(generator)).square().sum() + q.kl().sum()).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in ve.parameters())


@pytest.mark.parametrize("name", SMALL)
def test_one_number_sees_the_stated_square_and_no_more(name):
    config = SMALL[name]
    ve = encoder(name)
    without_statistics(ve)
    side, c = receptive_field(config), config.image[0]
    size = 8 * (side // 4 + 1)
    x = torch.randn(1, c, size, size, dtype=torch.float64, requires_grad=True)
    logvar = nn.functional.conv2d(ve.body(x), torch.ones_like(ve.logvar.weight))
    seen = []
    first, step = logvar.shape[-1] // 2, 2 ** (len(config.widths) - 1)
    for place in range(first, first + step):  # every place within a coarsest cell
        (grad,) = torch.autograd.grad(logvar[0, 0, place, place], x, retain_graph=True)
        rows = (grad.abs().sum(dim=(0, 1, 3)) > 0).nonzero().flatten()
        seen.append(int(rows.max() - rows.min()) + 1)
    assert max(seen) == side


def without_statistics(module: nn.Module) -> None:
    """GroupNorm looks at the whole image; without it only convolutions are left."""
    for name, child in module.named_children():
        if isinstance(child, nn.GroupNorm):
            setattr(module, name, nn.Identity())
        without_statistics(child)


def test_a_shifted_image_has_a_shifted_posterior_away_from_the_border(generator):
    ve = encoder("depth")
    without_statistics(ve)
    x = images(1, SMALL["depth"], generator, grow=7)
    shifted = ve(x.roll(4, dims=-1)).mean.roll(-4, dims=-1)  # 4: one cell of the coarsest level
    edge = receptive_field(SMALL["depth"]) // 2 + 4
    inner = (..., slice(edge, -edge), slice(edge, -edge))
    assert ve(x).mean[inner].numel() > 100
    torch.testing.assert_close(shifted[inner], ve(x).mean[inner])


def test_a_reconstruction_loss_teaches_it_to_keep_the_image(generator):
    torch.manual_seed(0)
    ve = ImageVE(ImageVEConfig((3, 4, 4), (1, 4, 4), widths=(16,), groups=4))
    colours = torch.rand(16, 3, 1, 1, generator=generator) * 2 - 1
    x = colours.expand(-1, -1, 4, 4)  # one number in each of 16 places: three colours fit
    optimiser = torch.optim.AdamW(ve.parameters(), lr=2e-2)
    for _ in range(60):
        q = ve(x)
        loss = reconstruction_mse(x, ve.decode(q.sample(generator))).mean() + 1e-3 * q.kl("mean").mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert reconstruction_mse(x, ve.decode(ve(x).mean)).mean() < 0.2 * x.var()


def test_under_bfloat16_autocast_posterior_and_images_are_float32(generator):
    ve = encoder("depth").float()
    with torch.autocast("cpu", torch.bfloat16):
        q = ve(images(2, SMALL["depth"], generator).float())
        decoded = ve.decode(q.mean)
    assert q.mean.dtype == q.logvar.dtype == decoded.dtype == torch.float32


@pytest.mark.parametrize("name", IMAGE_VES)
def test_presets_build_and_a_config_comes_back_from_its_dict(name):
    config = image_ve_preset(name)
    assert ImageVEConfig.from_dict(config.to_dict()) == config
    with torch.device("meta"):
        assert ImageVE(config)(torch.zeros(1, *config.image)).mean.shape == (1, *config.latent)


def test_the_depth_encoder_fits_beside_the_papers_backbone():
    with torch.device("meta"):
        ve = ImageVE(image_ve_preset("depth-paper"))
    count = sum(p.numel() for p in ve.parameters())
    assert 2_000_000 < count < 3_500_000  # 527M in all, 524.1M of it a DiMR-XL/3R
    assert receptive_field(ve.config) > 100


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"latent": (1, 4, 20)}, r"4 x 20.*12 x 20.*power of two"),
        ({"latent": (1, 4, 8), "image": (3, 12, 24)}, r"power of two"),
        ({"latent": (1, 2, 4), "image": (3, 16, 32)}, r"8 times the latent needs 4 widths"),
        ({"image": (3, 10, 20), "latent": (1, 10, 20)}, r"divisible by 4, got 10 x 20"),
        ({"widths": (8, 6, 8)}, r"multiples of groups=4.*\(8, 6, 8\)"),
        ({"mean_from": "image"}, r"latent = image.*take 'features'"),
        ({"sigma": 0.0}, r"sigma and mean_std must be > 0"),
        ({"blocks": 0}, r"blocks must be a positive integer"),
    ],
)
def test_a_config_that_cannot_work_names_the_value(change, message):
    with pytest.raises(ValueError, match=message):
        replace(SMALL["depth"], **change)


def test_an_unknown_origin_of_the_mean_lists_the_known():
    with pytest.raises(Exception, match="features"):  # ValueError; the type checks in tests see it first
        replace(SMALL["depth"], mean_from="input")


def test_images_it_cannot_read_are_refused_before_work_starts():
    ve = encoder("depth")
    with pytest.raises(ValueError, match=r"2 channels, the encoder reads 3"):
        ve(torch.zeros(1, 2, 12, 20).double())
    with pytest.raises(ValueError, match=r"divisible by 4, got 12 x 18"):
        ve(torch.zeros(1, 3, 12, 18).double())
    with pytest.raises(ValueError, match=r"decoder=True"):
        ImageVE(replace(SMALL["depth"], decoder=False)).decode(torch.zeros(1, 1, 12, 20))
    with pytest.raises(ValueError, match=r"'huge'; known: tiny"):
        image_ve_preset("huge")


@pytest.mark.compile
@pytest.mark.skipif(os.environ.get("CF_NO_TYPECHECK") != "1", reason="type checks break torch.compile")
@pytest.mark.parametrize("name", SMALL)
def test_it_compiles_in_one_graph_and_agrees_with_itself(name, generator):
    ve = encoder(name)
    x = images(2, SMALL[name], generator)
    compiled = torch.compile(lambda x: ve.decode(ve(x).mean), fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x), ve.decode(ve(x).mean))
