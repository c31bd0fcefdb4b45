"""What is measured of captioning, depth and super-resolution: what `crossflow TASK evaluate` prints."""

from dataclasses import replace

import torch
from cf_apps.caption.app import APP as CAPTION
from cf_apps.data.depth_pairs import Foreground, ShapesDepth
from cf_apps.data.depth_sets.by_name import open_depth
from cf_apps.data.sources import SHAPES
from cf_apps.depth.app import APP as DEPTH
from cf_apps.depth.baselines import fitted
from cf_apps.depth.evaluate import ENCODER, FLOW, MEAN, scores
from cf_apps.engine.commands.app import App, Columns, Scoring, run_data
from cf_apps.engine.commands.common import sample_config
from cf_apps.engine.watching.progress import Silence
from cf_apps.superres.app import APP as SUPERRES
from cf_eval.depth.alignment import Alignment

from cf.scale import Numbers, Trained


def captions(trained: Trained) -> dict[str, Numbers]:
    """The model's captions, another picture's, and further true ones."""
    return _plain(_scored(CAPTION, trained))


def depth(trained: Trained) -> dict[str, Numbers]:
    """The flow, its encoder read directly, and each pixel's mean; of a set after the other, if there are several."""
    return _plain(_scored(DEPTH, trained))


def aligned_depth(trained: Trained) -> dict[str, Numbers]:
    """The same after Marigold's alignment: each picture's own scale and shift by least squares."""
    sampler = DEPTH.open(trained.run, trained.device)
    source = open_depth(trained.scale.data or SHAPES, sampler.size, trained.seed)
    baselines = fitted(
        sampler, Foreground(source.train) if isinstance(source.train, ShapesDepth) else source.train
    )
    generator, how = torch.Generator().manual_seed(trained.seed), sample_config(trained.run)
    methods = {
        FLOW: lambda images, part: sampler.draw(images, how, part.of(generator)),
        ENCODER: lambda images, part: baselines.encoder_alone(sampler, images),
        MEAN: lambda images, part: baselines.pixel_mean(images),
    }
    found = {}
    for name, scored in source.test.items():
        rule = replace(scored.protocol, alignment=Alignment("least_squares_depth"))
        columns = _plain(scores(replace(scored, protocol=rule), sampler.size, methods, Silence()))
        found |= (
            columns
            if len(source.test) == 1
            else {f"{name}: {key}": column for key, column in columns.items()}
        )
    return found


def superres(trained: Trained) -> dict[str, Numbers]:
    """The run and bicubic."""
    return _plain(_scored(SUPERRES, trained))


def _scored(app: App, trained: Trained) -> Columns:
    data = trained.scale.data or run_data(trained.run)
    assert data is not None
    sampler = app.open(trained.run, trained.device)
    return app.score(sampler, Scoring(data, "test", sample_config(trained.run), trained.seed, Silence()))


def _plain(columns: Columns) -> dict[str, Numbers]:
    """The numbers alone; how they were measured is said by the table."""
    return {
        name: {key: float(value) for key, value in column.items() if isinstance(value, int | float)}
        for name, column in columns.items()
    }
