"""Named recipes: a model, how to train it, and on what."""

from collections.abc import Callable
from dataclasses import replace

from cf_transformer import DiMRConfig, StageConfig
from cf_transformer import preset as dimr_preset

from cf_apps.engine.codecs import CodecConfig
from cf_apps.engine.commands.recipe import Recipe
from cf_apps.engine.config import MINUTES_ON_A_CPU, FitConfig
from cf_apps.engine.flow import SampleConfig
from cf_apps.superres.config import LossConfig, SuperResConfig


def tiny() -> Recipe[SuperResConfig]:
    """8 -> 32 on captioned_shapes, for two CPU cores.

    The latent is the pixels, turned by a DCT and scaled: all 48 components of a 4 x 4 cell are kept. One such cell is
    one small pixel. Times near 0 are trained most: without source noise the first step decides, as in regression, and
    the later ones sharpen what it left.
    """
    stages = (
        StageConfig("transformer", d_model=192, n_blocks=5, patch=2, n_heads=6),
        StageConfig("convnext", d_model=128, n_blocks=3, patch=1),
    )
    backbone = DiMRConfig(
        48, (8, 8), stages, activation="silu", attention="matmul", kernel_size=5, init="scaled"
    )
    model = SuperResConfig(
        image_size=32,
        factor=4,
        backbone=backbone,
        codec=CodecConfig("patch-dct", patch=4, keep=48, whitening=0.5),
        loss=LossConfig(times="early"),
        sample=SampleConfig(scale=1.0, steps=10, solver="euler"),
    )
    fit = replace(MINUTES_ON_A_CPU, steps=2_500)
    return Recipe("captioned shapes, 8 px to 32, small enough for a CPU", model, fit, data="shapes")


def tiny_64() -> Recipe[SuperResConfig]:
    """16 -> 64 on captioned_shapes, for two CPU cores; `--data emoji` for real pictures."""
    recipe = tiny()
    backbone = replace(recipe.model.backbone, size=(16, 16))
    model = replace(recipe.model, image_size=64, backbone=backbone)
    about = "captioned shapes, 16 px to 64, small enough for a CPU"
    return replace(recipe, about=about, model=model, fit=replace(recipe.fit, steps=1_500, batch_size=32))


def small() -> Recipe[SuperResConfig]:
    """32 -> 128 on the user's own pictures, for one GPU and an hour."""
    stages = (
        StageConfig("transformer", d_model=512, n_blocks=13, patch=2, n_heads=8),
        StageConfig("convnext", d_model=256, n_blocks=7, patch=1),
    )
    model = SuperResConfig(
        image_size=128,
        factor=4,
        backbone=DiMRConfig(48, (32, 32), stages, init="scaled"),
        codec=CodecConfig("patch-dct", patch=4, keep=48, whitening=0.5),
        loss=LossConfig(times="early"),
        sample=SampleConfig(scale=1.0, steps=25, solver="euler"),
    )
    fit = replace(
        tiny().fit, steps=30_000, batch_size=128, lr=5e-4, warmup_steps=1_000, ema_decay=0.9999, log_every=50,
        save_every=2_000,
    )  # fmt: skip
    return Recipe("your pictures, 32 px to 128; needs a GPU", model, fit)


def paper() -> Recipe[SuperResConfig]:
    """CrossFlow section 5.3, appendix A: 64 -> 256 on ImageNet, 505 M, 1 M steps.

    The paper does not say in which space. 505 M is DiMR-XL/2R, whose 32 x 32 grid is that of the latents of LDM's VAE
    at 256 px, so this flows there. Nor does it say that noise is added to the source, so none is.
    """
    model = SuperResConfig(
        image_size=256,
        factor=4,
        backbone=dimr_preset("dimr-xl-2r"),
        source_noise=0.0,
        codec=CodecConfig("sd-vae"),
        sample=SampleConfig(scale=1.0, steps=50, solver="euler"),
    )
    fit = FitConfig(
        steps=1_000_000,
        batch_size=512,
        lr=1e-4,
        betas=(0.9, 0.9),
        weight_decay=0.03,
        warmup_steps=5_000,
        ema_decay=0.9999,
        precision="auto",
        log_every=50,
        save_every=10_000,
    )
    return Recipe("the paper's recipe on ImageNet, 64 px to 256; needs GPUs", model, fit)


PRESETS: dict[str, Callable[[], Recipe[SuperResConfig]]] = {
    "tiny": tiny,
    "tiny-64": tiny_64,
    "small": small,
    "paper": paper,
}
