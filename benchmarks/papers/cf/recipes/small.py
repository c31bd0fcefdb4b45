"""The trainings of scale `small`: a minute or a few each on one GPU.

Text to image, captioning and super-resolution learn the bundled emoji at 64 px, or pairs of your own by --data; depth
learns captioned shapes at 64 px. Text to image is trained as the paper says: through an image tower, without L_mean, at
a learning rate that stays, so that an earlier checkpoint is a smaller budget.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from cf_apps.caption.app import APP as CAPTION
from cf_apps.caption.app import TEXT_APP as CAPTION_TEXT
from cf_apps.caption.presets import emoji as caption
from cf_apps.caption.presets import emoji_text as caption_text
from cf_apps.data.sources import EMOJI
from cf_apps.depth.app import APP as DEPTH
from cf_apps.depth.presets import tiny as depth
from cf_apps.engine.commands.recipe import Recipe
from cf_apps.superres.app import APP as SUPERRES
from cf_apps.superres.presets import tiny_64 as superres
from cf_apps.t2i.app import APP as T2I
from cf_apps.t2i.config import LanguageConfig, T2IConfig
from cf_apps.t2i.presets import emoji as t2i
from cf_encoders import ImageVEConfig
from cf_transformer import CrossAttentionConfig, DiMRConfig, StageConfig

from cf.recipes.tiny import UP_TO_SCALE
from cf.scale import Ladder, quartered
from cf.spec import Ready

STEPS, BATCH = 2_000, 128
LATENT = (32, 8, 8)  # of TAEF2 at 64 px
TOKENS = 384  # the width of MiniLM's
WORDS = 192  # of word vectors that are learned
SIDE = 64  # pixels, of depth
SIZES = {
    # rung  (width, blocks, heads, convolutions) of CrossFlow's backbone; of the baseline's, which has no text encoder
    "XS": ((96, 5, 3, 3), (144, 5, 9, 3)),
    "S": ((160, 5, 5, 3), (184, 5, 23, 3)),
    "M": ((256, 7, 8, 5), (288, 5, 9, 5)),
    "L": ((384, 11, 12, 7), (352, 11, 11, 5)),
}  # fmt: skip
LADDER = Ladder(tuple(SIZES), base="M")
LANGUAGES = {"word vectors, trained along": "t2i-words", "MiniLM (22M), frozen": "t2i"}


def flow(size: str = LADDER.base) -> Ready:
    """CrossFlow at a rung of the ladder; the text encoder stays."""
    own = t2i().model
    loss = replace(own.loss, mean_weight=0.0, mean_until=None)
    model = replace(own, loss=loss, backbone=_backbone(*SIZES[size][0]))
    return Ready(T2I, _recipe(f"CrossFlow {size}", model))


def noise(size: str = LADDER.base) -> Ready:
    """The baseline of the same rung: from noise, MiniLM's tokens by cross-attention, as many parameters."""
    own = flow(size).recipe.model
    model = replace(
        own,
        text_ve=None,
        image_tower=None,
        loss=replace(own.loss, encoder="none", kl_weight=0.0),
        backbone=CrossAttentionConfig(_backbone(*SIZES[size][1]), context_width=TOKENS),
    )
    return Ready(T2I, _recipe(f"the baseline {size}", model))


def words() -> Ready:
    """CrossFlow that learns a vector for every word in place of MiniLM; two convolutions tell it their order."""
    own = flow().recipe.model
    assert own.text_ve is not None
    model = replace(
        own,
        language=LanguageConfig("vocab", width=WORDS, max_tokens=own.language.max_tokens),
        text_ve=replace(own.text_ve, token_width=WORDS, conv_depth=2),
    )
    return Ready(T2I, _recipe("CrossFlow with word vectors", model))


def captions() -> Ready:
    """Picture to caption."""
    text = caption_text()
    return Ready(CAPTION, caption(), Ready(CAPTION_TEXT, text))


def metric_depth() -> Ready:
    """The preset `tiny` at 64 px and twice as wide; its KL weight goes with 1 / pixels."""
    own = depth().model
    stages = (
        StageConfig("transformer", d_model=192, n_blocks=5, patch=4, n_heads=6),
        StageConfig("convnext", d_model=64, n_blocks=3, patch=1),
    )
    model = replace(
        own,
        image_ve=ImageVEConfig((own.channels, SIDE, SIDE), (1, SIDE, SIDE), widths=(32, 48, 64), sigma=0.2),
        backbone=replace(own.backbone, size=(SIDE, SIDE), stages=stages, attention="sdpa"),
        loss=replace(own.loss, kl_weight=own.loss.kl_weight * (own.size[0] / SIDE) ** 2),
    )
    fit = replace(
        depth().fit, steps=3_000, batch_size=32, lr=2e-3, prefetch=2
    )  # scenes are rendered on the CPU
    return Ready(DEPTH, Recipe("captioned shapes at 64 px", model, fit, data="shapes"))


def affine_depth() -> Ready:
    """Depth up to scale and shift, as Marigold's protocol wants it."""
    return metric_depth().changed(UP_TO_SCALE)


def larger(method: str) -> Ready:
    """16 px to 64 by one of the methods."""
    recipe = superres()
    backbone = replace(recipe.model.backbone, attention="sdpa")
    model = replace(recipe.model, method=method, backbone=backbone)
    fit = replace(recipe.fit, steps=3_000, batch_size=64)
    return Ready(SUPERRES, replace(recipe, model=model, fit=fit, data=EMOJI))


def _backbone(width: int, blocks: int, heads: int, convolutions: int) -> DiMRConfig:
    stages = (
        StageConfig("transformer", d_model=width, n_blocks=blocks, patch=2, n_heads=heads),
        StageConfig("convnext", d_model=width // 2, n_blocks=convolutions, patch=1),
    )
    return DiMRConfig(LATENT[0], LATENT[1:], stages, activation="silu", kernel_size=5, init="scaled")


def _recipe(about: str, model: T2IConfig) -> Recipe[T2IConfig]:
    settings: dict[str, Any] = {"lr": 1e-3, "schedule": "constant", "warmup_steps": 200, "ema_decay": 0.995}
    fit = replace(t2i().fit, steps=STEPS, batch_size=BATCH, keep_last=1, log_every=50, **settings)
    return Recipe(about, model, quartered(fit), data=EMOJI)


RECIPES: Mapping[str, Callable[[], Ready]] = {
    **{LADDER.recipe("t2i", size): partial(flow, size) for size in SIZES},
    **{LADDER.recipe("t2i-noise", size): partial(noise, size) for size in SIZES},
    "t2i-words": words,
    "caption": captions,
    "depth": metric_depth,
    "depth-affine": affine_depth,
    **{f"superres-{method}": partial(larger, method) for method in ("crossflow", "concat", "regression")},
}
