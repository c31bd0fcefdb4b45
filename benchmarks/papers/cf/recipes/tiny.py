"""The trainings of scale `tiny`: two minutes each on one CPU core, captioned shapes at 32 px.

Text to image flows sixteen cells of 8 x 8 pixels, 48 DCT components each, and is trained as the paper says: no L_mean,
which our own preset `tiny` has, and a learning rate that stays, so that an earlier checkpoint is a smaller budget.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, replace

from cf_apps.caption.app import APP as CAPTION
from cf_apps.caption.app import TEXT_APP as CAPTION_TEXT
from cf_apps.caption.config import LossConfig as CaptionLoss
from cf_apps.caption.presets import tiny as caption
from cf_apps.caption.presets import tiny_text as caption_text
from cf_apps.depth.app import APP as DEPTH
from cf_apps.depth.presets import tiny as depth
from cf_apps.depth.scaling import AFFINE, ScalingConfig
from cf_apps.engine.codecs import CodecConfig
from cf_apps.engine.commands.recipe import Recipe
from cf_apps.engine.flow import SampleConfig
from cf_apps.superres.app import APP as SUPERRES
from cf_apps.superres.presets import tiny as superres
from cf_apps.t2i.app import APP as T2I
from cf_apps.t2i.config import LanguageConfig, LossConfig, T2IConfig
from cf_apps.t2i.presets import tiny as t2i
from cf_apps.t2i.reader import ReaderConfig
from cf_encoders import ImageTowerConfig, TextVEConfig
from cf_transformer import CrossAttentionConfig, DiMRConfig, StageConfig

from cf.spec import Ready

STEPS, BUDGETS, BATCH = 300, 4, 48
LATENT = (48, 4, 4)
WIDTH, TOKENS = 96, 40  # of the words
READING = {"width": WIDTH, "heads": 3, "depth": 1, "mlp_hidden": 2 * WIDTH, "conv_depth": 2}
SIZES = {
    # rung  (width, blocks, heads) of CrossFlow's backbone and of the baseline's, whose blocks are larger
    "XS": ((48, 3, 4), (76, 3, 2)),
    "S": ((80, 3, 4), (96, 3, 4)),
    "M": ((128, 5, 4), (124, 5, 2)),
    "L": ((192, 7, 4), (176, 7, 4)),
}  # fmt: skip
BASE = "M"
UP_TO_SCALE = {"scaling": asdict(ScalingConfig(AFFINE))}


def flow(size: str = BASE) -> Ready:
    """CrossFlow at a rung of the ladder; the text encoder stays."""
    text_ve = TextVEConfig(WIDTH, TOKENS, LATENT, patch=1, **READING)
    model = T2IConfig(
        image_size=32,
        language=LanguageConfig("vocab", width=WIDTH, max_tokens=TOKENS),
        codec=CodecConfig("patch-dct", patch=8, keep=LATENT[0], whitening=0.75),
        text_ve=text_ve,
        backbone=_backbone(*SIZES[size][0]),
        image_tower=None,  # x_0 is contrasted with x_1 itself
        loss=LossConfig(encoder_weight=0.3, kl_weight=1e-4, times="early"),
        sample=SampleConfig(scale=1.0, steps=12, solver="euler"),
    )
    return Ready(T2I, _recipe(f"CrossFlow {size}", model))


def noise(size: str = BASE) -> Ready:
    """The baseline of the same rung: from noise, the words by cross-attention, as many parameters."""
    own = flow(size).recipe.model
    loss = replace(own.loss, encoder="none", kl_weight=0.0)
    model = replace(
        own,
        text_ve=None,
        loss=loss,
        backbone=CrossAttentionConfig(_backbone(*SIZES[size][1]), context_width=WIDTH),
        reader=ReaderConfig(WIDTH, TOKENS, **READING),
    )
    return Ready(T2I, _recipe(f"the baseline {size}", model))


def tower() -> Ready:
    """CrossFlow whose x_0 is contrasted with what a small image encoder, trained with it, makes of x_1."""
    model = replace(flow().recipe.model, image_tower=ImageTowerConfig(LATENT, LATENT, stages=(64,)))
    return Ready(T2I, _recipe("CrossFlow with an image tower", model))


def minilm() -> Ready:
    """CrossFlow that reads a frozen MiniLM in place of word vectors of its own."""
    own = flow().recipe.model
    assert own.text_ve is not None
    model = replace(
        own,
        language=LanguageConfig("minilm", width=384, max_tokens=TOKENS),
        text_ve=replace(own.text_ve, token_width=384),
    )
    return Ready(T2I, _recipe("CrossFlow through MiniLM", model))


def captions() -> Ready:
    """Picture to caption, in a share of the preset's steps, and with the losses of the paper alone."""
    text = caption_text()
    first = Ready(CAPTION_TEXT, replace(text, fit=replace(text.fit, steps=300, batch_size=32)))
    recipe, own = caption(), caption().model
    loss = CaptionLoss(
        kl_weight=own.loss.kl_weight, encoder_weight=own.loss.encoder_weight, times=own.loss.times
    )
    model = replace(own, loss=loss, sample=replace(own.sample, temperature=0.5))
    fit = replace(recipe.fit, steps=500, batch_size=32)
    return Ready(CAPTION, replace(recipe, model=model, fit=fit), first)


def metric_depth() -> Ready:
    recipe = depth()
    return Ready(DEPTH, replace(recipe, fit=replace(recipe.fit, steps=800)))


def affine_depth() -> Ready:
    """Depth up to scale and shift, as Marigold's protocol wants it."""
    return metric_depth().changed(UP_TO_SCALE)


def larger(method: str) -> Ready:
    """8 px to 32 by one of the methods."""
    recipe = superres()
    model = replace(recipe.model, method=method)
    return Ready(SUPERRES, replace(recipe, model=model, fit=replace(recipe.fit, steps=400, batch_size=32)))


def _backbone(width: int, blocks: int, heads: int) -> DiMRConfig:
    stage = StageConfig("transformer", d_model=width, n_blocks=blocks, patch=1, n_heads=heads)
    return DiMRConfig(LATENT[0], LATENT[1:], (stage,), activation="silu", attention="matmul", init="scaled")


def _recipe(about: str, model: T2IConfig) -> Recipe[T2IConfig]:
    every = STEPS // BUDGETS
    fit = replace(
        t2i().fit, steps=STEPS, batch_size=BATCH, lr=2.5e-3, schedule="constant", warmup_steps=50, ema_decay=0.98,
        save_every=every, keep_every=every, keep_last=1,
    )  # fmt: skip
    return Recipe(about, model, fit, data="shapes")


RECIPES: Mapping[str, Callable[[], Ready]] = {
    "t2i": flow,
    "t2i-noise": noise,
    **{f"t2i-{size}": (lambda size=size: flow(size)) for size in SIZES if size != BASE},
    **{f"t2i-noise-{size}": (lambda size=size: noise(size)) for size in SIZES if size != BASE},
    "t2i-tower": tower,
    "t2i-minilm": minilm,
    "caption": captions,
    "depth": metric_depth,
    "depth-affine": affine_depth,
    **{
        f"superres-{method}": (lambda method=method: larger(method))
        for method in ("crossflow", "concat", "regression")
    },
}
