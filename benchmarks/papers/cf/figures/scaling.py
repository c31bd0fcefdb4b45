"""Fig. 3: what a larger model and a longer training draw of two captions, and both as curves."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from cf.figures.stage import Drawn, Stage, budgets, grid, shown
from cf.figures.strips import SHORT, drawn
from cf.measures.guidance import parameters, sampler_at, sampler_of
from cf.scale import Scale, Trained
from cf.spec import Number, Training

if TYPE_CHECKING:
    import PIL.Image
    from matplotlib.axes import Axes

OURS, BASELINE = "CrossFlow", "cross-attention"
KINDS = {OURS: "t2i", BASELINE: "t2i-noise"}
STYLES = {OURS: ("-", "o"), BASELINE: ("--", "x")}  # of the line and of the seeds
COLOURS = {OURS: "#2a6f97", BASELINE: "#c1542d"}
PAIR = 2  # captions
SIDE = 96  # pixels of a picture: there are many
INCHES, DPI = (12.4, 4.4), 100


@dataclass(frozen=True)
class Rung:
    """One size of one method. measured: seed by seed, the numbers at each budget, fewest steps first."""

    method: str
    measured: Sequence[Sequence[Mapping[str, float]]]

    @property
    def size(self) -> float:
        """Parameters."""
        return self.measured[0][0]["parameters"]


def ladder(scale: Scale) -> list[tuple[str, Training]]:
    """(method, its training at each size), CrossFlow's first, from small to large."""
    return [
        (method, Training(scale.ladder.recipe(kind, rung)))
        for method, kind in KINDS.items()
        for rung in scale.ladder.rungs
    ]


def pictures(stage: Stage) -> Drawn:
    """Rows of sizes, small to large, CrossFlow's and then the baseline's; columns of budgets, for each caption."""
    steps, there, missing = list(stage.scale.budgets()), [], []
    for method, training in ladder(stage.scale):
        trained = stage.trained(training)
        if trained is None:
            missing.append(stage.without(method, training))
        elif budgets(trained) != steps:
            missing.append(
                f"{method}: {stage.scale.name_of(training)} has no checkpoint at some of {steps} steps"
            )
        else:
            there.append((method, trained))
    if not there:
        return Drawn(None, missing=missing)
    _, first = there[0]
    texts = shown(first, sampler_of(first), PAIR, SHORT).texts
    rows = [_row(trained, steps, texts) for _, trained in there]
    titles = [f"{method}, {millions(parameters(sampler_of(trained)))}" for method, trained in there]
    column_titles = [f"{step:,} steps" for step in steps]
    # a caption stands under the first of its columns
    last = [text if k == 0 else "" for text in texts for k in range(len(steps))]
    picture = grid(
        torch.cat(rows),
        len(last),
        side=SIDE,
        captions=[*[""] * (len(last) * (len(rows) - 1)), *last],
        column_titles=column_titles * len(texts),
        row_titles=titles,
    )
    alt = f"Pictures of {' and '.join(texts)}; rows: {'; '.join(titles)}; columns: {', '.join(column_titles)}"
    return Drawn(picture, alt, [f"The captions: {'; '.join(texts)}."], missing)


def curves(stage: Stage) -> Drawn:
    """The scale's number over parameters at the last budget, and over steps at every size."""
    rungs, missing = [], []
    for method, training in ladder(stage.scale):
        seeds = [
            sorted(columns.values(), key=lambda it: it["step"])
            for columns in stage.measured(training, "budgets").values()
        ]
        if seeds:
            rungs.append(Rung(method, seeds))
        else:
            missing.append(f"{method}: nothing measured of {stage.scale.name_of(training)}")
    if not rungs:
        return Drawn(None, missing=missing)
    fewest, most = (choose(len(rung.measured) for rung in rungs) for choose in (min, max))
    how_many = f"{most} seeds" if fewest == most else f"{fewest} to {most} seeds"
    notes = [f"Lines are means, marks are seeds; {how_many} of each training were measured."]
    picture = _plotted(sorted(rungs, key=lambda it: it.size), stage.number)
    return Drawn(
        picture, f"Two plots of {stage.number.title}, over parameters and over steps", notes, missing
    )


def millions(count: float) -> str:
    return f"{count / 1e6:.2f}M"


def _row(trained: Trained, steps: Sequence[int], texts: Sequence[str]) -> Float[Tensor, "n 3 s s"]:
    """Every caption at every budget, without guidance; the first caption's pictures come first."""
    at = [drawn(sampler_at(trained, step), texts, 1.0) for step in steps]
    return torch.stack(at, 1).flatten(0, 1)


def _plotted(rungs: Sequence[Rung], number: Number) -> "PIL.Image.Image":
    """Of rungs, small to large: over parameters on the left, over steps on the right."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from PIL import Image

    figure = Figure(figsize=INCHES, layout="constrained", dpi=DPI)
    canvas = FigureCanvasAgg(figure)
    by_size, by_steps = figure.subplots(1, 2, sharey=True)
    _over_parameters(by_size, rungs, number)
    _over_steps(by_steps, rungs, number)
    by_size.set_ylabel(number.title)
    for axis in (by_size, by_steps):
        axis.grid(alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)
        axis.set_ylim(bottom=0)
    canvas.draw()
    return Image.frombytes("RGBA", canvas.get_width_height(), bytes(canvas.buffer_rgba())).convert("RGB")


def _over_parameters(axis: "Axes", rungs: Sequence[Rung], number: Number) -> None:
    for method, colour in COLOURS.items():
        own = [rung for rung in rungs if rung.method == method]
        last = [[seed[-1][number.name] for seed in rung.measured] for rung in own]
        _line(axis, [rung.size for rung in own], last, method, colour, STYLES[method])
    axis.set_xscale("log")
    ticks = [rung.size for rung in rungs if rung.method == rungs[0].method]
    axis.set_xticks(ticks, [millions(size) for size in ticks])
    axis.minorticks_off()
    axis.set(xlabel="parameters", title="after all steps")
    axis.legend(frameon=False)


def _over_steps(axis: "Axes", rungs: Sequence[Rung], number: Number) -> None:
    """A shade for each size, the same for both methods; they differ by a few percent."""
    from matplotlib import colormaps

    low, high = math.log(rungs[0].size), math.log(rungs[-1].size)
    for rung in sorted(rungs, key=lambda it: it.method == BASELINE):
        shade = colormaps["viridis"](0.85 * (math.log(rung.size) - low) / max(high - low, 1e-9))
        steps = [at["step"] for at in rung.measured[0]]
        values = [[seed[k][number.name] for seed in rung.measured] for k in range(len(steps))]
        _line(axis, steps, values, f"{rung.method}, {millions(rung.size)}", shade, STYLES[rung.method])
    axis.set(xlabel="training steps", title="at every size")
    axis.legend(frameon=False, fontsize=9, loc="center left", bbox_to_anchor=(1.0, 0.5))


def _line(
    axis: "Axes",
    x: Sequence[float],
    values: Sequence[Sequence[float]],
    name: str,
    colour: Any,
    style: tuple[str, str],
) -> None:
    """Means as a line, seeds as marks. values: at each place of x, seed by seed."""
    line, mark = style
    axis.plot(x, [statistics.mean(each) for each in values], line, color=colour, label=name)
    for place, each in zip(x, values, strict=True):
        axis.plot([place] * len(each), each, mark, color=colour, markersize=4, alpha=0.6)
