"""The five measures of a text-to-image training, whoever judges the pictures: by rule (`t2i`) or on pairs (`pairs`).

    unguided       without guidance
    guided         the same, and by the indicator at the scale that val likes best
    autoguidance   away from an earlier budget of the same run; which one and how far, as val likes best
    budgets        at each quarter of the training, at the scale that `guided` finds at its end
    sweep          what test says at every scale; not for choosing one

Every search goes over the same scales, `Scale.guidance`. Where two are liked as much, the smaller is taken; the best
may lie at the grid's end, which the reports say.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import product

from cf_apps.engine.run import read_config
from cf_apps.engine.saving.checkpoint import checkpoints, load_checkpoint
from cf_apps.engine.saving.export import load_into
from cf_apps.t2i.model import SAMPLING_PARTS
from cf_apps.t2i.sample import Sampler
from cf_apps.t2i.weak import weak_velocity
from torch import nn

from cf.scale import NONE, Trained, budgets_of

Numbers = dict[str, float]
SWEPT = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 5.0)


@dataclass(frozen=True)
class Judge:
    """Two ways to look at what a sampler draws at a scale of guidance.

    likes: of val, one number, more is better. It alone chooses. reports: of test, the numbers of the tables.
    """

    likes: Callable[[Sampler, float, Trained], float]
    reports: Callable[[Sampler, float, Trained], Numbers]


def unguided(judge: Judge, trained: Trained) -> dict[str, Numbers]:
    return {"none": judge.reports(sampler_of(trained), NONE, trained)}


def guided(judge: Judge, trained: Trained) -> dict[str, Numbers]:
    """Without guidance, and by the indicator at the best scale."""
    sampler = sampler_of(trained)
    best = best_scale(judge, sampler, trained)
    none = judge.reports(sampler, NONE, trained)
    at_best = none if best == NONE else judge.reports(sampler, best, trained)
    return {"none": none, "indicator": at_best | {"scale": best}}


def autoguidance(judge: Judge, trained: Trained) -> dict[str, Numbers]:
    """The indicator is on throughout; the weak model is one of the earlier budgets. weak_step 0: none helped."""
    sampler, there = sampler_of(trained), checkpoints(trained.run)
    weak = {step: weak_velocity(there[step], sampler) for step in quarters(trained)[:-1]}
    found = {(0, NONE): judge.likes(sampler, NONE, trained)}
    for step, scale in product(weak, trained.scale.guidance):
        if scale != NONE:  # there a weak model changes nothing
            found[step, scale] = judge.likes(replace(sampler, weak=weak[step]), scale, trained)
    step, scale = max(found, key=lambda choice: found[choice])
    chosen = replace(sampler, weak=weak.get(step))
    return {"autoguidance": judge.reports(chosen, scale, trained) | {"scale": scale, "weak_step": step}}


def budgets(judge: Judge, trained: Trained) -> dict[str, Numbers]:
    """By the indicator, at one scale for all quarters."""
    best = best_scale(judge, sampler_of(trained), trained)
    return {
        str(step): judge.reports(sampler_at(trained, step), best, trained) | {"scale": best, "step": step}
        for step in quarters(trained)
    }


def sweep(judge: Judge, trained: Trained) -> dict[str, Numbers]:
    """By the indicator, and from 1 on by autoguidance away from the first quarter."""
    sampler = sampler_of(trained)
    weak = weak_velocity(checkpoints(trained.run)[quarters(trained)[0]], sampler)
    found = {f"indicator {scale:g}": judge.reports(sampler, scale, trained) for scale in SWEPT}
    for scale in (scale for scale in SWEPT if scale >= NONE):
        away = replace(sampler, weak=weak)
        way = found["indicator 1"] if scale == NONE else judge.reports(away, scale, trained)
        found[f"autoguidance {scale:g}"] = way
    return found


def best_scale(judge: Judge, sampler: Sampler, trained: Trained) -> float:
    """Of the indicator, the one that val likes best; NONE is searched with the others."""
    scales: Sequence[float] = (NONE, *(scale for scale in trained.scale.guidance if scale != NONE))
    liked = {scale: judge.likes(sampler, scale, trained) for scale in scales}
    return max(liked, key=lambda scale: liked[scale])


def quarters(trained: Trained) -> tuple[int, ...]:
    """The steps of its budgets that have a checkpoint."""
    fit, there = read_config(trained.run)["fit"], checkpoints(trained.run)
    return tuple(step for step in budgets_of(fit["steps"], fit["keep_every"]) if step in there)


def sampler_of(trained: Trained) -> Sampler:
    """With the averaged weights of its end."""
    return Sampler.from_run(trained.run, trained.device)


def sampler_at(trained: Trained, step: int) -> Sampler:
    """With the averaged weights of one of its checkpoints."""
    sampler = sampler_of(trained)
    parts, _ = load_checkpoint(checkpoints(trained.run)[step])
    modules = sampler.model.modules
    kept = nn.ModuleDict({name: modules[name] for name in SAMPLING_PARTS if name in modules})
    load_into(kept, parts["weights"] | parts["ema"], str(trained.run))
    return sampler


def parameters(sampler: Sampler) -> float:
    """Of what draws: text encoder or reader, backbone, word vectors."""
    modules = sampler.model.modules
    return sum(p.numel() for name in SAMPLING_PARTS if name in modules for p in modules[name].parameters())
