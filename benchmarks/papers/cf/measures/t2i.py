"""What is measured of a text-to-image training on captioned shapes: composition and a Fréchet distance.

    composition   mean over six tasks of the share of held-out captions whose picture shows what they say
    frechet       of the same pictures to true ones of the same captions, in the mean colours of 4 x 4 cells; not an FID

The scale of guidance is searched on captions of `val`, and never sees those of `test`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import product

import torch
import torch.nn.functional as F
from cf_apps.engine.flow import SampleConfig
from cf_apps.engine.saving.checkpoint import checkpoints, load_checkpoint
from cf_apps.engine.saving.export import load_into
from cf_apps.t2i.evaluate import read_back
from cf_apps.t2i.model import SAMPLING_PARTS
from cf_apps.t2i.sample import Sampler
from cf_apps.t2i.weak import weak_velocity
from cf_eval import FrechetDistance
from jaxtyping import Float
from torch import Tensor, nn

from cf.measures.held_out import HeldOut, held_out
from cf.scale import Trained

Numbers = dict[str, float]
SCALES = (1.5, 2.0, 3.0)  # of guidance, searched on val; 1 is none
SWEPT = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 5.0)
CELLS = 4
FEATURES = f"mean colours of {CELLS} x {CELLS} cells"
BATCH = 128


def unguided(trained: Trained) -> dict[str, Numbers]:
    return {"none": _tested(sampler_of(trained), 1.0, trained)}


def guided(trained: Trained) -> dict[str, Numbers]:
    """Without guidance, and by the indicator at the scale that val captions like best."""
    sampler = sampler_of(trained)
    by_scale = {scale: _val(sampler, scale, trained) for scale in (1.0, *SCALES)}
    best = max(by_scale, key=lambda scale: by_scale[scale])
    none = _tested(sampler, 1.0, trained)
    at_best = none if best == 1.0 else _tested(sampler, best, trained)
    return {"none": none, "indicator": at_best | {"scale": best}}


def autoguidance(trained: Trained) -> dict[str, Numbers]:
    """Away from an earlier checkpoint of the same run; which one and how far, searched on val as above."""
    sampler = sampler_of(trained)
    steps = list(checkpoints(trained.run))[:-1]
    weak = {step: weak_velocity(checkpoints(trained.run)[step], sampler) for step in steps}
    found = {(0, 1.0): _val(sampler, 1.0, trained)}
    for step, scale in product(steps, SCALES):
        found[step, scale] = _val(replace(sampler, weak=weak[step]), scale, trained)
    step, scale = max(found, key=lambda choice: found[choice])
    chosen = replace(sampler, weak=weak.get(step))
    return {"autoguidance": _tested(chosen, scale, trained) | {"scale": scale, "weak_step": step}}


def budgets(trained: Trained) -> dict[str, Numbers]:
    """At each checkpoint, guided by the scale that val captions like best at the end."""
    last = sampler_of(trained)
    by_scale = {scale: _val(last, scale, trained) for scale in (1.0, SCALES[0])}
    best = max(by_scale, key=lambda scale: by_scale[scale])
    return {
        str(step): _tested(sampler_at(trained, step), best, trained) | {"scale": best, "step": step}
        for step in checkpoints(trained.run)
    }


def sweep(trained: Trained) -> dict[str, Numbers]:
    """Test captions at every scale, by the indicator and by autoguidance; not for choosing one."""
    sampler = sampler_of(trained)
    weak = weak_velocity(next(iter(checkpoints(trained.run).values())), sampler)
    found = {f"indicator {scale:g}": _tested(sampler, scale, trained) for scale in SWEPT}
    for scale in (scale for scale in SWEPT if scale >= 1):
        way = found["indicator 1"] if scale == 1 else _tested(replace(sampler, weak=weak), scale, trained)
        found[f"autoguidance {scale:g}"] = way
    return found


def sampler_of(trained: Trained) -> Sampler:
    return Sampler.from_run(trained.run, trained.device)


def sampler_at(trained: Trained, step: int) -> Sampler:
    """With the averaged weights of one of its checkpoints."""
    sampler = sampler_of(trained)
    parts, _ = load_checkpoint(checkpoints(trained.run)[step])
    modules = sampler.model.modules
    kept = nn.ModuleDict({name: modules[name] for name in SAMPLING_PARTS if name in modules})
    load_into(kept, parts["weights"] | parts["ema"], str(trained.run))
    return sampler


def _tested(sampler: Sampler, scale: float, trained: Trained) -> Numbers:
    held = held_out("test", trained.scale.test, sampler.model.config.image_size)
    images = _drawn(sampler, held.texts, scale, trained.seed)
    return _composition(images, held) | {"frechet": frechet(images, held), "parameters": parameters(sampler)}


def _val(sampler: Sampler, scale: float, trained: Trained) -> float:
    held = held_out("val", trained.scale.val, sampler.model.config.image_size)
    return _composition(_drawn(sampler, held.texts, scale, trained.seed), held)["composition"]


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


def parameters(sampler: Sampler) -> float:
    """Of what draws: text encoder or reader, backbone, word vectors."""
    modules = sampler.model.modules
    return sum(p.numel() for name in SAMPLING_PARTS if name in modules for p in modules[name].parameters())
