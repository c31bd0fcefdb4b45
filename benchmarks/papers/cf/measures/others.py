"""What is measured of captioning, depth and super-resolution: what `crossflow TASK evaluate` prints."""

from dataclasses import replace

from cf_apps.caption.app import APP as CAPTION
from cf_apps.data.depth_sets.by_name import open_depth
from cf_apps.depth.app import APP as DEPTH
from cf_apps.depth.evaluate import score_sets
from cf_apps.engine.commands.app import App, Columns, Scoring
from cf_apps.engine.commands.common import sample_config
from cf_apps.engine.watching.progress import Silence
from cf_apps.superres.app import APP as SUPERRES
from cf_apps.superres.evaluate import compare
from cf_eval import DepthProtocol
from cf_eval.depth.alignment import Alignment

from cf.scale import Numbers, Trained


def captions(trained: Trained) -> dict[str, Numbers]:
    """The model's captions, another picture's, and further true ones."""
    return _plain(_scored(CAPTION, trained))


def depth(trained: Trained) -> dict[str, Numbers]:
    """The flow, its encoder read directly, and each pixel's mean; of a set after the other, if there are several."""
    return _plain(_scored(DEPTH, trained))


def aligned_depth(trained: Trained) -> dict[str, Numbers]:
    """The same after Marigold's alignment, each picture's own scale and shift by least squares.

    Sets whose protocol aligns by itself, such as those of Table 8, keep it.
    """
    sampler = DEPTH.open(trained.run, trained.device)
    scoring = _scoring(trained)
    source = open_depth(scoring.data, sampler.size, scoring.seed)
    sets = {name: replace(scored, protocol=aligned(scored.protocol)) for name, scored in source.test.items()}
    return _plain(score_sets(sampler, source, sets, scoring))


def aligned(protocol: DepthProtocol) -> DepthProtocol:
    """Depth up to scale and shift, where the protocol does not say how predictions are aligned."""
    if protocol.alignment != Alignment():
        return protocol
    return replace(protocol, alignment=Alignment("least_squares_depth"))


def superres(trained: Trained) -> dict[str, Numbers]:
    """The run and bicubic; with Inception's weights the FID as well."""
    sampler = SUPERRES.open(trained.run, trained.device)
    return _plain(compare(sampler, _scoring(trained), {}, trained.scale.inception))


def _scored(app: App, trained: Trained) -> Columns:
    return app.score(app.open(trained.run, trained.device), _scoring(trained))


def _scoring(trained: Trained) -> Scoring:
    """The test part of what it was trained on, drawn as its recipe says."""
    return Scoring(trained.data, "test", sample_config(trained.run), trained.seed, Silence())


def _plain(columns: Columns) -> dict[str, Numbers]:
    """The numbers alone; how they were measured is said by the table."""
    return {
        name: {key: float(value) for key, value in column.items() if isinstance(value, int | float)}
        for name, column in columns.items()
    }
