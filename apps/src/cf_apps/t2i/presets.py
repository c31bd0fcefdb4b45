"""Named recipes: a model, how to train it, and on what."""

from collections.abc import Callable
from dataclasses import replace

from cf_encoders import ImageTowerConfig, TextVEConfig, text_ve_preset
from cf_transformer import DiMRConfig, StageConfig
from cf_transformer import preset as dimr_preset

from cf_apps.engine.codecs import CodecConfig
from cf_apps.engine.config import FitConfig
from cf_apps.engine.flow import SampleConfig
from cf_apps.engine.recipe import Recipe, named
from cf_apps.t2i.config import LanguageConfig, LossConfig, T2IConfig


def t2i_preset(name: str) -> Recipe[T2IConfig]:
    """The recipe of that name; ConfigError lists the names."""
    return named(PRESETS, name)


def tiny() -> Recipe[T2IConfig]:
    """Small enough for two CPU cores. How far it gets, and what was tried: docs/tiny.md."""
    latent = (24, 8, 8)
    stages = (
        StageConfig("transformer", d_model=192, n_blocks=5, patch=2, n_heads=6),
        StageConfig("convnext", d_model=128, n_blocks=3, patch=1),
    )
    backbone = DiMRConfig(
        24, (8, 8), stages, activation="silu", attention="matmul", kernel_size=5, init="scaled"
    )
    model = T2IConfig(
        image_size=32,
        language=LanguageConfig("vocab", width=128, max_tokens=40),
        codec=CodecConfig("patch-dct", patch=4, keep=24, whitening=0.75),
        text_ve=TextVEConfig(
            128, 40, latent, width=128, heads=4, depth=1, mlp_hidden=256, conv_depth=2, patch=2
        ),
        backbone=backbone,
        image_tower=None,
        loss=LossConfig(encoder_weight=0.1, kl_weight=1e-4, mean_weight=3.0, mean_until=0.7, times="early"),
        sample=SampleConfig(scale=1.0, steps=20, solver="euler"),
    )
    fit = FitConfig(
        steps=8_000,
        batch_size=64,
        lr=2.5e-3,
        betas=(0.9, 0.99),
        warmup_steps=100,
        schedule="cosine",
        final_lr_fraction=0.02,
        ema_decay=0.999,
        precision="bf16",
        log_every=20,
        save_every=500,
    )
    return Recipe("captioned shapes at 32 px, small enough for a CPU", model, fit, data="shapes")


def emoji() -> Recipe[T2IConfig]:
    latent = (32, 8, 8)
    stages = (
        StageConfig("transformer", d_model=256, n_blocks=7, patch=2, n_heads=8),
        StageConfig("convnext", d_model=128, n_blocks=5, patch=1),
    )
    model = T2IConfig(
        image_size=64,
        language=LanguageConfig("minilm", width=384, max_tokens=32),
        codec=CodecConfig("taef2"),
        text_ve=TextVEConfig(384, 32, latent, width=192, heads=4, mlp_hidden=384, patch=2),
        backbone=DiMRConfig(
            32, (8, 8), stages, activation="silu", attention="matmul", kernel_size=5, init="scaled"
        ),
        image_tower=ImageTowerConfig(latent, latent, stages=(64, 128)),
        loss=LossConfig(encoder_weight=0.3, kl_weight=2e-4, mean_weight=1.0, mean_until=0.7, times="early"),
        sample=SampleConfig(scale=2.0, steps=25, solver="euler"),
    )
    fit = replace(tiny().fit, steps=6_000, lr=1.5e-3, save_every=500)
    return Recipe("bundled emoji at 64 px through MiniLM and TAEF2", model, fit, data="emoji")


def paper_256() -> Recipe[T2IConfig]:
    """CrossFlow section 5.1: 0.95 B, CLIP text, the latents of LDM's VAE, 600k steps at 256 px."""
    return _paper(256, "dimr-951m", steps=600_000)


def paper_512() -> Recipe[T2IConfig]:
    """CrossFlow section 5.1: 240k further steps at 512 px."""
    return _paper(512, "dimr-951m-512", steps=240_000)


def _paper(image_size: int, backbone: str, steps: int) -> Recipe[T2IConfig]:
    side = image_size // 8
    latent = (4, side, side)
    model = T2IConfig(
        image_size=image_size,
        language=LanguageConfig("clip", width=768, max_tokens=77),
        codec=CodecConfig("sd-vae"),
        text_ve=text_ve_preset(f"paper-{image_size}"),
        backbone=dimr_preset(backbone),
        image_tower=ImageTowerConfig(
            (3, image_size, image_size), latent, stages=(64, 128, 256, 512, 512), hidden=4096
        ),
        tower_sees="image",
        loss=LossConfig(encoder_weight=1.0, kl_weight=1e-4, kl_form="paper", null_rate=0.1, times="uniform"),
        sample=SampleConfig(scale=7.0, steps=50, solver="euler"),
    )
    fit = FitConfig(
        steps=steps,
        batch_size=1024,
        lr=1e-4,
        betas=(0.9, 0.9),
        weight_decay=0.03,
        warmup_steps=5_000,
        ema_decay=0.9999,
        precision="bf16",
        log_every=50,
        save_every=10_000,
    )
    return Recipe(f"the paper's recipe at {image_size} px; needs GPUs and your own pairs", model, fit)


def released_256() -> Recipe[T2IConfig]:
    """The public code's choices: sextic KL, logit-normal t, scalar indicator, its text encoder, lr 1e-5."""
    paper = paper_256()
    model = replace(
        paper.model,
        codec=CodecConfig("released-vae"),
        text_ve=text_ve_preset("released-256-clip"),
        backbone=replace(paper.model.backbone, indicator="released"),
        loss=LossConfig(
            encoder_weight=1.0, kl_weight=1e-2, kl_form="released", null_rate=0.1, times="logit_normal"
        ),
    )
    about = "the public code's recipe at 256 px, its bugs left out; needs GPUs and your own pairs"
    return Recipe(about, model, replace(paper.fit, lr=1e-5, clip_norm=None, ema_ramp=1.0))


PRESETS: dict[str, Callable[[], Recipe[T2IConfig]]] = {
    "tiny": tiny,
    "emoji": emoji,
    "paper-256": paper_256,
    "paper-512": paper_512,
    "released-256": released_256,
}
