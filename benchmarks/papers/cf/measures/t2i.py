"""The judge of a text-to-image training on captioned shapes: what its pictures show is read back by rule.

    composition   mean over six tasks of the share of held-out captions whose picture shows what they say
    frechet       of the same pictures to true ones of the same captions, in the mean colours of 4 x 4 cells; not an FID

val is liked by composition, on captions that test never sees.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from cf_apps.engine.flow import SampleConfig
from cf_apps.t2i.evaluate import read_back
from cf_apps.t2i.sample import Sampler
from cf_eval import FrechetDistance
from jaxtyping import Float
from torch import Tensor

from cf.measures.guidance import Judge, Numbers, parameters
from cf.measures.held_out import HeldOut, held_out
from cf.scale import Trained

CELLS = 4
FEATURES = f"mean colours of {CELLS} x {CELLS} cells"
BATCH = 128


def _val(sampler: Sampler, scale: float, trained: Trained) -> float:
    held = held_out("val", trained.scale.val, sampler.model.config.image_size)
    return _composition(_drawn(sampler, held.texts, scale, trained.seed), held)["composition"]


def _tested(sampler: Sampler, scale: float, trained: Trained) -> Numbers:
    held = held_out("test", trained.scale.test, sampler.model.config.image_size)
    images = _drawn(sampler, held.texts, scale, trained.seed)
    return _composition(images, held) | {"frechet": frechet(images, held), "parameters": parameters(sampler)}


BY_RULE = Judge(_val, _tested)


def _drawn(sampler: Sampler, texts: Sequence[str], scale: float, seed: int) -> Float[Tensor, "n 3 s s"]:
    how: SampleConfig = replace(sampler.model.config.sample, scale=scale)
    return sampler.draw(texts, how, torch.Generator().manual_seed(1_000 + seed), BATCH)


def _composition(images: Float[Tensor, "n 3 s s"], held: HeldOut) -> Numbers:
    scores: Mapping[str, float] = read_back(images, held.captions)[0].compute()
    kept = {
        name: value for name, value in scores.items() if name not in ("count", "overall", "everything_right")
    }
    return {"composition": scores["overall"], **kept}


def frechet(images: Float[Tensor, "n 3 s s"], held: HeldOut) -> float:
    """Of pictures to the true ones of the held-out captions."""
    distance = FrechetDistance(mean_colours, feature_space=FEATURES)
    distance.add_batch(generated=images, real=held.images.float() / 255)
    return distance.compute().value


def mean_colours(images: Float[Tensor, "b 3 s s"]) -> Float[Tensor, "b d"]:
    return F.adaptive_avg_pool2d(images, CELLS).flatten(1)
