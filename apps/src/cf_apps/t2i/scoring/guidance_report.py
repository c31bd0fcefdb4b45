"""What a search for the scale of guidance leaves behind: numbers, their plot, and pictures at equal seed (Fig. 8)."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from cf_apps.engine.errors import RunError
from cf_apps.engine.files import write_text
from cf_apps.engine.flow import SampleConfig
from cf_apps.engine.watching.render import image_grid, save_figure, save_png
from cf_apps.t2i.drawing.pictures import wanted
from cf_apps.t2i.sample import Sampler
from cf_apps.t2i.scoring.guidance import UNGUIDED, Guidances, Search

if TYPE_CHECKING:
    import matplotlib.figure
    import PIL.Image

STRIP_CAPTIONS = 4


def write_search(
    search: Search,
    sampler: Sampler,
    guidances: Guidances,
    how: SampleConfig,
    seed: int,
    folder: Path,
    record: Mapping[str, Any],
) -> list[Path]:
    """FOLDER/guidance.json, guidance.png (value over scale) and strip.png; record: what else the JSON says."""
    captions = list(search.measure.captions)
    places = torch.linspace(0, len(captions) - 1, min(STRIP_CAPTIONS, len(captions))).long().tolist()
    shown = [captions[place] for place in places]
    return [
        _write_numbers(search, folder / "guidance.json", record),
        save_figure(plot(search), folder / "guidance.png"),
        save_png(strip(sampler, guidances, search.scales, shown, how, seed), folder / "strip.png"),
    ]


def numbers(search: Search) -> dict[str, Any]:
    """The search as JSON."""

    def row(point: Any) -> dict[str, Any]:
        return {"guidance": point.guidance, "scale": point.scale, **point.measured.__dict__}

    measure = search.measure
    return {
        "measure": measure.name,
        "higher_is_better": measure.higher_is_better,
        "split": "val",
        "captions": len(measure.captions),
        "best": row(search.best()),
        "points": [row(point) for point in search.points],
    }


def plot(search: Search) -> "matplotlib.figure.Figure":
    """The measure over the scale, a line for each guidance, bars of one standard error, a ring around the best."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.6, 3.6), layout="constrained")
    FigureCanvasAgg(figure)  # draws without a window, and leaves pyplot's global state alone
    axis = figure.subplots()
    for name in search.table():
        points = search.of(name)
        scales, values = [p.scale for p in points], [p.measured.value for p in points]
        errors = [p.measured.error or 0.0 for p in points]
        axis.errorbar(scales, values, yerr=errors, marker="o", markersize=4, capsize=2, label=name)
    best = search.best()
    axis.plot([best.scale], [best.measured.value], "o", markersize=12, fillstyle="none", color="black")
    axis.axvline(UNGUIDED, color="gray", linewidth=0.8, linestyle=":")
    axis.set_xlabel("scale of guidance (1: none)")
    axis.set_ylabel(search.measure.name)
    axis.set_title(f"{len(search.measure.captions)} val captions", fontsize=10)
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8)
    return figure


def strip(
    sampler: Sampler,
    guidances: Guidances,
    scales: Sequence[float],
    captions: Sequence[str],
    how: SampleConfig,
    seed: int,
) -> "PIL.Image.Image":
    """Each caption at every scale, a row for each guidance, all from the caption's one x_0."""
    rows = []
    for picture in wanted(captions, 1, seed):
        for weak in guidances.values():
            guided = replace(sampler, weak=weak)
            rows += [
                guided.draw([picture.caption], replace(how, scale=scale), [picture.generator()])
                for scale in scales
            ]
    beside, under = list(captions), None
    if len(guidances) > 1:  # a row says whose guidance it is, and the first of a caption has that below
        beside = [name for _ in captions for name in guidances]
        blank = [""] * (len(guidances) * len(scales) - 1)
        under = [text for caption in captions for text in (caption, *blank)]
    above = [f"scale {scale:g}" + (", unguided" if scale == UNGUIDED else "") for scale in scales]
    return image_grid(torch.cat(rows), len(scales), captions=under, column_titles=above, row_titles=beside)


def _write_numbers(search: Search, path: Path, record: Mapping[str, Any]) -> Path:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, json.dumps(numbers(search) | dict(record), indent=1))
    except OSError as error:
        raise RunError(f"cannot write {path}: {error.strerror or error}; choose another --out") from error
    return path
