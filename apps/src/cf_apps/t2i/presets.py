"""Named recipes: a model, how to train it, and on what."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

from cf_encoders import ImageTowerConfig, TextVEConfig, text_ve_preset
from cf_transformer import (
    CROSS_ATTENTION_PRESETS,
    CrossAttentionConfig,
    DiMRConfig,
    StageConfig,
    cross_attention_preset,
)
from cf_transformer import preset as dimr_preset

from cf_apps.engine.codecs import CodecConfig
from cf_apps.engine.commands.recipe import Recipe, named
from cf_apps.engine.config import MINUTES_ON_A_CPU, FitConfig
from cf_apps.engine.flow import SampleConfig
from cf_apps.t2i.config import LanguageConfig, LossConfig, T2IConfig
from cf_apps.t2i.grow import grown_config
from cf_apps.t2i.reader import ReaderConfig


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
    model = T2IConfig(
        image_size=32,
        language=LanguageConfig("vocab", width=128, max_tokens=40),
        codec=CodecConfig("patch-dct", patch=4, keep=24, whitening=0.75),
        text_ve=TextVEConfig(
            128, 40, latent, width=128, heads=4, depth=1, mlp_hidden=256, conv_depth=2, patch=2
        ),
        backbone=_for_cpu(24, stages),
        image_tower=None,
        loss=LossConfig(encoder_weight=0.1, kl_weight=1e-4, mean_weight=3.0, mean_until=0.7, times="early"),
        sample=SampleConfig(scale=1.0, steps=20, solver="euler"),
    )
    fit = replace(MINUTES_ON_A_CPU, steps=8_000, lr=2.5e-3)
    return Recipe("captioned shapes at 32 px, small enough for a CPU", model, fit, data="shapes")


def _for_cpu(channels: int, stages: tuple[StageConfig, ...]) -> DiMRConfig:
    """A DiMR of 8 x 8 cells that is quick to train in bf16 on a CPU."""
    return DiMRConfig(
        channels, (8, 8), stages, activation="silu", attention="matmul", kernel_size=5, init="scaled"
    )


def tiny_cross_attention() -> Recipe[T2IConfig]:
    """`tiny`'s rival: from noise, the words by cross-attention, as many parameters, everything else the same.

    Word vectors know no order, so the layers that teach `tiny`'s text encoder order read them here, too.
    """
    recipe = tiny()
    own = recipe.model
    stages = (  # as deep; a little narrower, for its blocks are larger
        StageConfig("transformer", d_model=184, n_blocks=5, patch=2, n_heads=4),
        StageConfig("convnext", d_model=128, n_blocks=3, patch=1),
    )
    model = _baseline(
        own,
        CrossAttentionConfig(_for_cpu(24, stages), context_width=128),
        ReaderConfig(128, own.language.max_tokens, width=128, conv_depth=2, depth=1, heads=4, mlp_hidden=256),
    )
    return replace(recipe, about="the size of tiny, from noise with cross-attention", model=model)


def tiny_64() -> Recipe[T2IConfig]:
    """`tiny` at 64 px, to be started from a run of `tiny`: in a small way what 512 px is to the paper's 256."""
    recipe = tiny()
    fit = replace(recipe.fit, steps=4_000, lr=1e-3)
    model = grown_config(recipe.model)
    loss = replace(model.loss, mean_weight=0.0, mean_until=None)  # the encoder has learned what that teaches
    about = "captioned shapes at 64 px; give a trained run of tiny with --init"
    return Recipe(about, replace(model, loss=loss), fit, recipe.data)


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
        backbone=_for_cpu(32, stages),
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
    """CrossFlow section 5.1: 240k further steps at 512 px. Grows from a run of `paper-256` given with --init.

    The text encoder's flat layer starts fresh there: it narrows tokens to 24 numbers, to stay at 60 M weights. With
    --set text_ve.bottleneck=96, as at 256 px, it grows with the rest, to 121 M for mean and logvar each.
    """
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
        precision="auto",
        prefetch=2,  # a step must not wait for 1,024 samples to be read
        log_every=50,
        save_every=10_000,
    )
    return Recipe(f"the paper's recipe at {image_size} px; needs GPUs and your own pairs", model, fit)


LADDER_STEPS = 300_000  # of every size in Fig. 3 and Table 1


def ladder(size: str) -> Recipe[T2IConfig]:
    """A rung of CrossFlow's ladder (Fig. 3): the paper's recipe with a DiMR of that size; the text encoder stays."""
    recipe = _paper(256, f"dimr-{size}", LADDER_STEPS)
    return replace(recipe, about=f"CrossFlow of {size} (Fig. 3); needs GPUs and your own pairs")


def cross_attention(size: str) -> Recipe[T2IConfig]:
    """A rung of the baseline's ladder (Fig. 3; Table 1: 1.04b): the paper's recipe from noise."""
    recipe = _paper(256, "dimr-70m", LADDER_STEPS)
    model = _baseline(recipe.model, cross_attention_preset(f"cross-attention-{size}"))
    about = f"the cross-attention baseline of {size} (Fig. 3); needs GPUs and your own pairs"
    return replace(recipe, about=about, model=model)


def _baseline(
    model: T2IConfig, backbone: CrossAttentionConfig, reader: ReaderConfig | None = None
) -> T2IConfig:
    """The same recipe from noise, nothing of an encoder left."""
    loss = replace(model.loss, encoder="none", kl_weight=0.0, mean_weight=0.0, mean_until=None)
    return replace(
        model,
        text_ve=None,
        backbone=backbone,
        reader=reader,
        image_tower=None,
        tower_sees="latent",
        loss=loss,
    )


LANGUAGE_MODELS = {
    # name              width  tokens  text encoder
    "clip":            (  768,     77, text_ve_preset("paper-256")),
    "t5":              ( 4096,     77, text_ve_preset("paper-256-t5")),
    "llama":           ( 4096,     77, text_ve_preset("paper-256-llama")),
    "minilm":          (  384,     64, replace(text_ve_preset("paper-256"), token_width=384, max_tokens=64)),
}  # fmt: skip


def ablation_70m(language: str) -> Recipe[T2IConfig]:
    """The model of the paper's ablations (section 5.2, Table 3), reading captions with that language model (3d).

    The other tables by --set: 3a text_ve.variation, 3b loss.encoder, 3e strategy; 3c is a matter of sampling.
    """
    width, tokens, text_ve = LANGUAGE_MODELS[language]
    recipe = ladder("70m")
    model = replace(recipe.model, language=LanguageConfig(language, width, tokens), text_ve=text_ve)
    about = f"70M, for Table 3's ablations, through {language}; needs GPUs and your own pairs"
    return replace(recipe, about=about, model=model)


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
    "tiny-cross-attention": tiny_cross_attention,
    "tiny-64": tiny_64,
    "emoji": emoji,
    "paper-256": paper_256,
    "paper-512": paper_512,
    "released-256": released_256,
    "ablation-70m": partial(ablation_70m, "clip"),
    **{f"ablation-70m-{name}": partial(ablation_70m, name) for name in LANGUAGE_MODELS if name != "clip"},
    **{f"crossflow-{size}": partial(ladder, size) for size in ("155m", "305m", "505m", "951m")},
    **{
        name: partial(cross_attention, name.removeprefix("cross-attention-"))
        for name in CROSS_ATTENTION_PRESETS
    },
}
