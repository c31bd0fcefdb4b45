"""The loss curves of a run as a picture: raw and smoothed, and the loss by bins of t."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from cf_apps.engine.errors import RunError
from cf_apps.engine.files import replaced

if TYPE_CHECKING:
    import matplotlib.axes

BINNED = re.compile(r"(.+)_t(\d+)")  # a statistic such as fm_t0: the loss fm in the first of equal bins of t


def curves(log: Sequence[Mapping[str, Any]], path: Path) -> Path:
    """Draw the losses of a log (as `read_log` gives it) over the steps, into a PNG, whole or not at all.

    One panel a loss, the weighted total last; a further panel for each loss that has statistics by bins of t
    (`fm_t0`, `fm_t1`, ...): a low average can hide that the first bin, which decides the image, is unsolved.
    Raises RunError when the log is empty or the disk refuses.
    """
    from matplotlib import colormaps
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    if not log:
        raise RunError("the log has no line yet: train at least log_every steps")
    colours = colormaps["viridis"]
    losses, bins = list(log[-1]["losses"]), _bins(log)
    panels = len(losses) + len(bins)
    columns = min(panels, 3)
    figure = Figure(figsize=(4.2 * columns, 3.0 * -(-panels // columns)), layout="constrained")
    FigureCanvasAgg(figure)  # draws without a window, and leaves pyplot's global state alone
    axes = figure.subplots(-(-panels // columns), columns, squeeze=False).ravel()
    for axis, name in zip(axes, losses, strict=False):
        steps, values = _series(log, "losses", name)
        axis.plot(steps, values, color="tab:blue", alpha=0.25, linewidth=0.8)
        axis.plot(steps, smoothed(values), color="tab:blue")
        _finish(axis, "total (weighted)" if name == "total" else name, values)
    for axis, (loss, names) in zip(axes[len(losses) :], bins.items(), strict=False):
        for place, name in enumerate(names):
            steps, values = _series(log, "stats", name)
            label = f"{place / len(names):.2g} ≤ t < {(place + 1) / len(names):.2g}"
            axis.plot(steps, smoothed(values), label=label, color=colours(place / len(names)))
        _finish(axis, f"{loss} by t", np.concatenate([_series(log, "stats", name)[1] for name in names]))
        axis.legend(fontsize=7)
    for axis in axes[panels:]:
        axis.set_axis_off()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replaced(path) as temporary:
            figure.savefig(temporary, format="png", dpi=110)
    except OSError as error:
        raise RunError(f"cannot write {path}: {error.strerror or error}; choose another --out") from error
    return path


def smoothed(values: Float[np.ndarray, "n"], span: float = 0.04) -> Float[np.ndarray, "n"]:
    """Exponential running mean over about `span` of the curve, unbiased at its start (Adam's correction)."""
    keep = 1 - 1 / max(1.0, span * len(values))
    mean, weight, means = 0.0, 0.0, np.empty_like(values)
    for place, value in enumerate(values):
        mean, weight = keep * mean + (1 - keep) * value, keep * weight + (1 - keep)
        means[place] = mean / weight
    return means


def _series(
    log: Sequence[Mapping[str, Any]], kind: str, name: str
) -> tuple[Float[np.ndarray, "n"], Float[np.ndarray, "n"]]:
    """(steps, values) of one loss or statistic, where the log has it."""
    points = [(record["step"], record[kind][name]) for record in log if name in record[kind]]
    steps, values = np.array(points, dtype=np.float64).T
    return steps, values


def _bins(log: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
    """Statistics by bins of t, for each loss that has them: {'fm': ['fm_t0', 'fm_t1', ...]}."""
    found: dict[str, set[int]] = {}
    for name in {name for record in log for name in record["stats"]}:
        if match := BINNED.fullmatch(name):
            found.setdefault(match[1], set()).add(int(match[2]))
    return {loss: [f"{loss}_t{place}" for place in sorted(places)] for loss, places in sorted(found.items())}


def _finish(axis: "matplotlib.axes.Axes", title: str, values: Float[np.ndarray, "n"]) -> None:
    axis.set_title(title, fontsize=10)
    axis.set_xlabel("step")
    axis.grid(alpha=0.3)
    if values.min() > 0 and values.max() > 10 * values.min():
        axis.set_yscale("log")
