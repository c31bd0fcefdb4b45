"""How good are the depth maps? cf-eval's metrics by the protocol of each data set, beside two baselines."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from cf_eval.depth.score import DepthMetrics
from jaxtyping import Float, UInt8
from torch import Tensor

from cf_apps.data.depth_pairs import DepthBatch, DepthPairs, Foreground, ShapesDepth
from cf_apps.data.depth_sets.by_name import DepthSource, Scored, open_depth
from cf_apps.data.pictures import resized
from cf_apps.depth.baselines import fitted
from cf_apps.depth.outputs import coloured, span
from cf_apps.depth.sample import BATCH, Sampler, stretched
from cf_apps.engine.commands.app import Columns, Pictures, Scoring
from cf_apps.engine.ranks.spread import Part, merged, own_parts
from cf_apps.engine.watching.progress import Progress
from cf_apps.engine.watching.render import image_grid

if TYPE_CHECKING:
    import PIL.Image

FLOW, ENCODER, MEAN = "CrossFlow", "ImageVE alone", "pixel mean"
SHOWN = 12  # pictures of a sheet
Predict = Callable[[UInt8[Tensor, "b 3 h w"], Part], Float[Tensor, "b h w"]]


def score(sampler: Sampler, scoring: Scoring) -> Columns:
    """A column for the flow and each baseline, for every data set that is scored.

    Rows: the errors of `cf_eval.depth.errors` over the pixels of the set's protocol, mean over pictures.
    """
    source = open_depth(scoring.data, sampler.size, scoring.seed)
    return score_sets(sampler, source, source.test if scoring.split == "test" else source.val, scoring)


def score_sets(
    sampler: Sampler, source: DepthSource, sets: Mapping[str, Scored], scoring: Scoring
) -> Columns:
    """The same of sets by name, each by its own protocol; the baselines are fitted to the source's training pairs."""
    baselines = fitted(sampler, _same_pixels(source))
    columns = {}
    for name, scored in sets.items():
        methods: dict[str, Predict] = {
            FLOW: _drawn(sampler, scoring),
            ENCODER: lambda images, part: baselines.encoder_alone(sampler, images),
            MEAN: lambda images, part: baselines.pixel_mean(images),
        }
        for method, values in scores(scored, sampler.size, methods, scoring.line).items():
            columns[method if len(sets) == 1 else f"{name}: {method}"] = values
    return columns


def _drawn(sampler: Sampler, scoring: Scoring) -> Predict:
    """The flow, with random numbers of its own: a set's score does not depend on the sets before it."""
    generator = torch.Generator().manual_seed(scoring.seed)
    return lambda images, part: sampler.draw(images, scoring.how, part.of(generator))


def scores(
    scored: Scored, size: tuple[int, int], methods: Mapping[str, Predict], line: Progress
) -> dict[str, dict[str, Any]]:
    """Each method's errors on a set. The methods see pictures of `size`; depth is scored at the truth's own size.

    Within `spread_over` each rank scores its own pictures; the means are exact sums, so their order moves no digit.
    """
    metrics = {name: DepthMetrics(scored.protocol) for name in methods}
    count = len(scored.pairs)
    with own_parts(count, BATCH) as parts:
        for part in parts:
            pairs = [scored.pairs.pair(i) for i in part.places]
            images = torch.stack([resized(pair.image, *size) for pair in pairs])
            for name, predict in methods.items():
                depths = predict(images, part)
                found = [stretched(d, *pair.depth.shape) for d, pair in zip(depths, pairs, strict=True)]
                metrics[name].add_batch(found, [p.depth for p in pairs], [p.valid for p in pairs])
            line.show(part.places.stop / count, f"{part.places.stop} of {count} pictures")
    results = {name: merged(metric).compute() for name, metric in metrics.items()}
    return {
        name: dict(result.values) | {"count": result.count, "measured_as": {"protocol": result.protocol}}
        for name, result in results.items()
    }


def show(sampler: Sampler, scoring: Scoring, shown: int = SHOWN) -> Pictures:
    """Held-out pictures: x_0's mean, the depth drawn from it, the truth, and how far they are apart."""
    source = open_depth(scoring.data, sampler.size, scoring.seed)
    sheets = {}
    for name, scored in source.test.items():
        places = torch.linspace(0, len(scored.pairs) - 1, min(shown, len(scored.pairs))).long()
        sheets[f"samples_{name}" if len(source.test) > 1 else "samples"] = sheet(
            sampler, _everything(scored.pairs).batch(places), scoring
        )
    return sheets


def sheet(sampler: Sampler, batch: DepthBatch, scoring: Scoring) -> "PIL.Image.Image":
    """A row a picture. Colours of depth span each row's own truth."""
    generator = torch.Generator().manual_seed(scoring.seed)
    drawn = sampler.draw(batch.images, scoring.how, generator)
    means = sampler.means(batch.images)
    scaling = sampler.model.config.scaling
    truth = scaling.to_depth(scaling.to_x_1(batch.depth, batch.valid)).where(batch.valid, torch.nan)
    rows = []
    for image, mean, found, true in zip(batch.images, means, drawn, truth, strict=True):
        near, far = span(true)
        grey = ((mean - mean.min()) / (mean.max() - mean.min()).clamp(min=1e-6)).expand(3, -1, -1)
        error = (
            ((found - true).abs() / max(far - near, 1e-12) * 10).nan_to_num().clamp(0, 1).expand(3, -1, -1)
        )
        rows += [image.float() / 255, grey, coloured(found, near, far), coloured(true, near, far), error]
    titles = ["picture", "mean of x_0", FLOW, "truth", "error, black 0, white a tenth of the range"]
    return image_grid(torch.stack(rows), len(titles), column_titles=titles)


def _everything(pairs: DepthPairs) -> DepthPairs:
    """Of shapes the wall too: it is not scored, but shown."""
    return pairs.pairs if isinstance(pairs, Foreground) else pairs


def _same_pixels(source: DepthSource) -> DepthPairs:
    """The training pairs, of shapes the objects' pixels only: baselines are fitted to what they are scored on."""
    return Foreground(source.train) if isinstance(source.train, ShapesDepth) else source.train
