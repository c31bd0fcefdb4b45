"""How good are the pictures? Composition accuracy where the truth is known, distances where it is not."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from cf_eval import FrechetDistance, Result
from cf_eval.composition import CompositionScore
from cf_eval.scene_reader import SceneReading
from cf_flowcore import CondOT
from jaxtyping import Float
from torch import Tensor

from cf_apps.data.captioned import CaptionedImages, DataError
from cf_apps.data.captioned_shapes import Split, held_out_captions, shapes_reader
from cf_apps.data.shapes_captions import OPEN, Caption
from cf_apps.engine.flow import SampleConfig
from cf_apps.engine.precision import autocast
from cf_apps.engine.ranks.spread import in_order, merged, own_parts
from cf_apps.engine.watching.progress import Progress
from cf_apps.t2i.sample import Sampler

PER_TASK = 84  # held-out captions of each of the six tasks, every object's place said: 504 in all
PER_TASK_OPEN = 21  # further ones that say of no object where it stands: 126 in all
PAIRS = 512  # held-out pairs of data without a judge, at most
BATCH = 84
POOLED = 4  # the named feature space of pictures without a judge: 4 x 4 mean colours


@dataclass(frozen=True)
class Scored:
    """Accuracies by task and by attribute, and the pictures they were read from, for people to look at.

    places_open: the overall accuracy on other captions, which leave open where objects stand.
    """

    scores: Mapping[str, float]
    attributes: Mapping[str, float]
    places_open: float
    captions: list[str]
    images: Float[Tensor, "n 3 H W"]
    right: list[bool]

    def table(self) -> dict[str, float]:
        """One column: the tasks, the attributes as `colour alone`, open places, the number of captions."""
        scores = dict(self.scores)
        count = scores.pop("count")
        alone = {f"{name}_alone": share for name, share in self.attributes.items()}
        return scores | alone | {"overall_places_open": self.places_open, "count": count}


def score_composition(
    sampler: Sampler,
    how: SampleConfig,
    line: Progress,
    *,
    per_task: int = PER_TASK,
    per_task_open: int = PER_TASK_OPEN,
    seed: int = 0,
    split: Split = "test",
) -> Scored:
    """Draw the held-out captions of captioned_shapes and read the pictures back.

    Within `spread_over` the ranks draw and read their own pictures, and all count what all have read.
    """
    said = held_out_captions(per_task, split=split)
    unsaid = held_out_captions(per_task_open, split=split, rates=OPEN)
    texts = [caption.text for caption in (*said, *unsaid)]
    generator, reader, seen = torch.Generator().manual_seed(seed), shapes_reader(), []
    with own_parts(len(texts), BATCH) as parts:
        for part in parts:
            images = sampler.draw([texts[i] for i in part.places], how, part.of(generator))
            seen += [(i, both) for i, *both in zip(part.places, images, reader(images), strict=True)]
            line.show(part.places.stop / len(texts), f"{part.places.stop} of {len(texts)} captions")
    images, readings = zip(*in_order(seen), strict=True)
    score, right = counted(readings[: len(said)], said)
    open_score, _ = counted(readings[len(said) :], unsaid)
    return Scored(
        score.compute(),
        score.by_attribute(),
        open_score.compute()["overall"],
        [caption.text for caption in said],
        torch.stack(images[: len(said)]),
        right,
    )


def read_back(
    images: Float[Tensor, "n 3 H W"], captions: Sequence[Caption]
) -> tuple[CompositionScore, list[bool]]:
    """The score of pictures of captioned shapes, and which of them show what their caption says."""
    reader = shapes_reader()
    return counted([reading for part in images.split(BATCH) for reading in reader(part)], captions)


def counted(
    readings: Sequence[SceneReading], captions: Sequence[Caption]
) -> tuple[CompositionScore, list[bool]]:
    """The same of pictures that are read already."""
    score = CompositionScore()
    return score, score.add_batch(readings, [caption.expectation for caption in captions])


def score_pairs(
    sampler: Sampler,
    data: CaptionedImages,
    how: SampleConfig,
    line: Progress,
    *,
    limit: int = PAIRS,
    seed: int = 0,
) -> dict[str, Any]:
    """For data without a judge: the flow loss in five bins of t, and a Fréchet distance in a simple named space.

    The distance is between 4 x 4 mean colours of drawn and true held-out pictures: it sees layout and palette, no
    more. It is not an FID. Raises DataError for a set of less than two, which has no spread.
    """
    result = colour_distance(sampler, data, how, line, limit=limit, seed=seed)
    return {
        "frechet_distance_of_mean_colours": result.value,
        "measured_as": json.loads(result.to_json()),
        "flow_loss_by_t": flow_loss_by_time(sampler, data, seed=seed),
        "count": min(limit, len(data)),
    }


def colour_distance(
    sampler: Sampler, data: CaptionedImages, how: SampleConfig, line: Progress, *, limit: int, seed: int
) -> Result:
    """The Fréchet distance between the 4 x 4 mean colours of pictures of the first captions and the true ones.

    Within `spread_over` each rank draws and sums up its own pictures; merged, the moments are those of all to rounding.
    """
    if len(data) < 2:
        raise DataError(
            f"{data.name} holds {len(data)} images; a distance needs at least 2, so give more pairs"
        )
    count, generator = min(limit, len(data)), torch.Generator().manual_seed(seed)
    distance = FrechetDistance(_mean_colours, feature_space=f"mean colours of {POOLED} x {POOLED} cells")
    with own_parts(count, BATCH) as parts:
        for part in parts:
            truth = data.batch(torch.tensor(part.places))
            drawn = sampler.draw(truth.captions, how, part.of(generator))
            distance.add_batch(generated=drawn, real=truth.images.float() / 255)
            line.show(part.places.stop / count, f"{part.places.stop} of {count} captions")
    return merged(distance).compute()


@torch.no_grad()
def flow_loss_by_time(
    sampler: Sampler, data: CaptionedImages, *, bins: int = 5, seed: int = 0
) -> list[float]:
    """Mean squared error of the velocity on held-out pairs at the middle of each bin of t."""
    model, path = sampler.model, CondOT(sampler.model.config.loss.sigma_min)
    generator = torch.Generator().manual_seed(seed)
    pairs = data.batch(torch.arange(min(BATCH, len(data))))
    x_0, x_1 = sampler.encode(pairs.captions, generator), model.encode_images(pairs.images)
    v, losses = sampler.velocity(pairs.captions), []
    for place in range(bins):
        t = torch.full((len(x_1),), (place + 0.5) / bins, device=x_1.device)
        with autocast(model.device, sampler.precision):
            v_t = v(path.x_t(x_0, x_1, t), t)
        losses.append(F.mse_loss(v_t.float(), path.v(x_0, x_1, t)).item())
    return losses


def unguided(how: SampleConfig) -> SampleConfig:
    """The conditional field alone."""
    return replace(how, scale=1.0)


def _mean_colours(images: Float[Tensor, "b 3 H W"]) -> Float[Tensor, "b d"]:
    return F.adaptive_avg_pool2d(images, POOLED).flatten(1)
