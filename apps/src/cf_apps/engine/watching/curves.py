"""The log of a run as pictures: losses raw and smoothed, the loss by bins of t, the health of the run."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard

import numpy as np
from jaxtyping import Float

from cf_apps.engine.errors import RunError
from cf_apps.engine.watching.render import save_figure

if TYPE_CHECKING:
    import matplotlib.axes

BINNED = re.compile(r"(.+)_t(\d+)")  # a statistic such as fm_t0: the loss fm in the first of equal bins of t
ABOUT_THE_RUN = {
    # key of a record       title of its panel
    "lr": "learning rate",
    "grad_norm": "gradient norm before clipping",
    "samples_per_second": "samples per second",
    "data_wait": "share of the time spent waiting for data",
}
SPAN = 0.04
Log = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Line:
    """Values over steps; both finite, at least one."""

    steps: Float[np.ndarray, "n"]
    values: Float[np.ndarray, "n"]


@dataclass(frozen=True)
class Panel:
    """One plot of lines by label: one is drawn raw and smoothed, of several only what is smoothed.

    span: share of the curve that is averaged over; 0 leaves the values as they are.
    """

    title: str
    lines: Mapping[str, Line]
    span: float = SPAN


def curves(log: Log, path: Path) -> Path:
    """Draw the losses of a log (as `read_log` gives it) over the steps, into a PNG, whole or not at all.

    One panel a loss, the weighted total last; a further panel for each loss that has statistics by bins of t
    (`fm_t0`, `fm_t1`, ...): a low average can hide that the first bin, which decides the image, is unsolved.
    Raises RunError when the log is empty or the disk refuses.
    """
    return draw(loss_panels(log), path)


def draw(panels: Sequence[Panel], path: Path) -> Path:
    """Draw panels three a row into a PNG, whole or not at all. Raises RunError for none, or when the disk refuses."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    if not panels:
        raise RunError("the log has no line yet: train at least log_every steps")
    columns = min(len(panels), 3)
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(4.2 * columns, 3.0 * rows), layout="constrained")
    FigureCanvasAgg(figure)  # draws without a window, and leaves pyplot's global state alone
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis, panel in zip(axes, panels, strict=False):
        _draw(axis, panel)
    for axis in axes[len(panels) :]:
        axis.set_axis_off()
    return save_figure(figure, path)


def loss_panels(log: Log) -> list[Panel]:
    """One panel a loss, the total last, then one for each loss that is logged by bins of t."""
    names = sorted(_names(log, "losses"), key=lambda name: name == "total")  # the others keep their order
    losses = [_panel(_titled(name), log, name, "losses") for name in names]
    binned = [_binned(log, loss, parts) for loss, parts in _bins(log).items()]
    return [panel for panel in (*losses, *binned) if panel is not None]


def health_panels(log: Log) -> list[Panel]:
    """The learning rate, the gradient norm, the rate, and each statistic that is not a bin of t."""
    exact = {"lr"}  # set, not measured
    run = [
        _panel(title, log, name, span=0.0 if name in exact else SPAN) for name, title in ABOUT_THE_RUN.items()
    ]
    plain = [name for name in _names(log, "stats") if not BINNED.fullmatch(name)]
    stats = [_panel(name.replace("_", " "), log, name, "stats") for name in plain]
    return [panel for panel in (*run, *stats) if panel is not None]


def evaluation_panels(log: Log) -> list[Panel]:
    """One panel a score. log: the records of kind 'evaluation'."""
    found = [
        _panel(name.replace("_", " "), log, name, "evaluation", span=0.0)
        for name in _names(log, "evaluation")
    ]
    return [panel for panel in found if panel is not None]


def smoothed(values: Float[np.ndarray, "n"], span: float = SPAN) -> Float[np.ndarray, "n"]:
    """Exponential running mean over about `span` of the curve, unbiased at its start (Adam's correction)."""
    keep = 1 - 1 / max(1.0, span * len(values))
    mean, weight, means = 0.0, 0.0, np.empty_like(values)
    for place, value in enumerate(values):
        mean, weight = keep * mean + (1 - keep) * value, keep * weight + (1 - keep)
        means[place] = mean / weight
    return means


def _draw(axis: "matplotlib.axes.Axes", panel: Panel) -> None:
    from matplotlib import colormaps

    colours = colormaps["viridis"]
    if len(panel.lines) == 1:
        (line,) = panel.lines.values()
        point = "." if len(line.steps) == 1 else None  # a line through one point cannot be seen
        axis.plot(line.steps, line.values, color="tab:blue", alpha=0.25, linewidth=0.8)
        axis.plot(line.steps, smoothed(line.values, panel.span), color="tab:blue", marker=point)
    else:
        for place, (label, line) in enumerate(panel.lines.items()):
            colour = colours(place / len(panel.lines))
            axis.plot(line.steps, smoothed(line.values, panel.span), label=label, color=colour)
        axis.legend(fontsize=7)
    values = np.concatenate([line.values for line in panel.lines.values()])
    axis.set_title(panel.title, fontsize=10)
    axis.set_xlabel("step")
    axis.grid(alpha=0.3)
    if values.min() > 0 and values.max() > 10 * values.min():
        axis.set_yscale("log")


def _panel(title: str, log: Log, name: str, kind: str | None = None, span: float = SPAN) -> Panel | None:
    line = _line(log, name, kind)
    return None if line is None else Panel(title, {title: line}, span)


def _binned(log: Log, loss: str, parts: Sequence[str]) -> Panel | None:
    """A line for each bin of t that has values."""
    lines = {_bin(place, len(parts)): _line(log, name, "stats") for place, name in enumerate(parts)}
    found = {label: line for label, line in lines.items() if line is not None}
    return Panel(f"{loss} by t", found) if found else None


def _line(log: Log, name: str, kind: str | None) -> Line | None:
    """One loss, statistic or score where the log has it as a finite number; `kind` None: the record's own."""
    records = ((record["step"], record if kind is None else record.get(kind, {})) for record in log)
    points = [(step, values[name]) for step, values in records if is_finite(values.get(name))]
    return Line(*np.array(points, dtype=np.float64).T) if points else None


def is_finite(value: object) -> TypeGuard[float]:
    """Whether it is a number, and a finite one."""
    return isinstance(value, int | float) and not isinstance(value, bool) and bool(np.isfinite(value))


def _names(log: Log, kind: str) -> Iterable[str]:
    """All names of losses or statistics, in the order in which they first appear."""
    return dict.fromkeys(name for record in log for name in record.get(kind, {}))


def _titled(loss: str) -> str:
    return "total (weighted)" if loss == "total" else loss


def _bin(place: int, count: int) -> str:
    return f"{place / count:.2g} ≤ t < {(place + 1) / count:.2g}"


def _bins(log: Log) -> dict[str, list[str]]:
    """Statistics by bins of t, for each loss that has them: {'fm': ['fm_t0', 'fm_t1', ...]}."""
    found: dict[str, set[int]] = {}
    for name in _names(log, "stats"):
        if match := BINNED.fullmatch(name):
            found.setdefault(match[1], set()).add(int(match[2]))
    return {loss: [f"{loss}_t{place}" for place in sorted(places)] for loss, places in sorted(found.items())}
