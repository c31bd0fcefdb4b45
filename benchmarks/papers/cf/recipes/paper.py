"""The trainings of scale `paper`: the presets of the apps, which are the paper's own configurations.

They need your data (--data, --data-of), the weights of frozen parts by path (--set codec.path=..., --set
language.path=...) and GPUs: start them under torchrun. Depth learns from three sets: --data-of depth=kitti:FOLDER,
--data-of depth-nyu=nyu:FOLDER, --data-of depth-affine=zero-shot:FOLDER.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from cf_apps.caption.app import APP as CAPTION
from cf_apps.caption.app import TEXT_APP as CAPTION_TEXT
from cf_apps.caption.presets import PRESETS as CAPTION_PRESETS
from cf_apps.caption.presets import TEXT_PRESETS
from cf_apps.depth.app import APP as DEPTH
from cf_apps.depth.presets import PRESETS as DEPTH_PRESETS
from cf_apps.superres.app import APP as SUPERRES
from cf_apps.superres.presets import PRESETS as SUPERRES_PRESETS
from cf_apps.t2i.app import APP as T2I
from cf_apps.t2i.presets import t2i_preset

from cf.scale import Ladder, quartered
from cf.spec import Ready

RUNGS = {
    # rung   CrossFlow's preset, the baseline's (Fig. 3)
    "70M": ("ablation-70m", "cross-attention-65m"),
    "155M": ("crossflow-155m", "cross-attention-159m"),
    "305M": ("crossflow-305m", "cross-attention-308m"),
    "505M": ("crossflow-505m", "cross-attention-496m"),
    "951M": ("crossflow-951m", "cross-attention-932m"),
}
TABLE_1 = "t2i-noise-1.04B"
LADDER = Ladder(tuple(RUNGS), base="70M", compared=("t2i-951M", TABLE_1))
LANGUAGES = {"CLIP (0.4B)": "t2i", "T5-XXL (11B)": "t2i-t5", "Llama3 (7B)": "t2i-llama"}
DEPTHS = {"depth": "paper-kitti", "depth-nyu": "paper-nyu", "depth-affine": "paper-zero-shot"}


def pictures(preset: str) -> Ready:
    """Text to image, with a checkpoint kept at each quarter: Fig. 3's budgets, and the weak models of autoguidance."""
    recipe = t2i_preset(preset)
    return Ready(T2I, replace(recipe, fit=quartered(recipe.fit)))


def captions() -> Ready:
    """Picture to caption, after the text autoencoder."""
    return Ready(CAPTION, CAPTION_PRESETS["paper"](), Ready(CAPTION_TEXT, TEXT_PRESETS["paper"]()))


def depth(preset: str) -> Ready:
    return Ready(DEPTH, DEPTH_PRESETS[preset]())


def larger(method: str) -> Ready:
    """64 px to 256 by one of the methods."""
    recipe: Any = SUPERRES_PRESETS["paper"]()
    return Ready(SUPERRES, replace(recipe, model=replace(recipe.model, method=method)))


RECIPES: Mapping[str, Callable[[], Ready]] = {
    **{LADDER.recipe("t2i", rung): partial(pictures, ours) for rung, (ours, _) in RUNGS.items()},
    **{LADDER.recipe("t2i-noise", rung): partial(pictures, theirs) for rung, (_, theirs) in RUNGS.items()},
    TABLE_1: partial(pictures, "cross-attention-1.04b"),
    "t2i-t5": partial(pictures, "ablation-70m-t5"),
    "t2i-llama": partial(pictures, "ablation-70m-llama"),
    "t2i-best": partial(pictures, "paper-256"),
    "caption": captions,
    **{name: partial(depth, preset) for name, preset in DEPTHS.items()},
    **{f"superres-{method}": partial(larger, method) for method in ("crossflow", "concat", "regression")},
}
