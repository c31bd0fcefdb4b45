"""The plot of a table: rows as means with every seed as a dot, or a figure's lines."""

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cf_apps.engine.watching.render import save_figure

from cf.spec import Curves, Table

if TYPE_CHECKING:
    from matplotlib.axes import Axes

OURS, SEEDS = "#2a6f97", "#1a1a1a"
NUMBERS = 3  # of a table's columns, the first
WIDE, HIGH = 4.2, 0.42


def plot(table: Table, summary: Mapping[str, Any], file: Path) -> Path | None:
    """The file, or None where nothing has been measured."""
    if not summary["numbers"] or not any(row["seeds"] for row in summary["rows"]):
        return None
    figure = _lines(table.curves, summary) if table.curves else _dots(summary)
    return save_figure(figure, file)


def _dots(summary: Mapping[str, Any]) -> Any:
    from matplotlib.figure import Figure

    numbers = [it for it in summary["numbers"] if it["higher"] is not None][:NUMBERS]
    rows = summary["rows"]
    figure = Figure(figsize=(2.0 + WIDE * len(numbers), 1.1 + HIGH * len(rows)), layout="constrained")
    axes = figure.subplots(1, len(numbers), squeeze=False)[0]
    for place, (ax, number) in enumerate(zip(axes, numbers, strict=True)):
        for y, row in enumerate(rows):
            values = row["ours"].get(number["name"], [])
            if values:
                ax.barh(y, statistics.mean(values), color=OURS, alpha=0.45, height=0.6)
                ax.plot(values, [y] * len(values), "o", color=SEEDS, markersize=4)
        ax.set_yticks(range(len(rows)), [row["name"] if place == 0 else "" for row in rows])
        ax.invert_yaxis()
        ax.set_xlabel(f"{number['title']} ({'higher' if number['higher'] else 'lower'} is better)")
        _clean(ax)
    figure.suptitle(summary["title"], fontsize=10)
    return figure


def _lines(curves: Sequence[Curves], summary: Mapping[str, Any]) -> Any:
    from matplotlib.figure import Figure

    rows = {row["name"]: row for row in summary["rows"]}
    titles = {it["name"]: it["title"] for it in summary["numbers"]}
    figure = Figure(figsize=(5.2 * len(curves), 3.8), layout="constrained")
    for ax, curve in zip(figure.subplots(1, len(curves), squeeze=False)[0], curves, strict=True):
        for place, (name, names) in enumerate(curve.lines.items()):
            where = _places(curve, [rows[row] for row in names])
            points = [(x, rows[row]["ours"].get(curve.y, [])) for x, row in zip(where, names, strict=True)]
            points = [(x, values) for x, values in points if values]
            colour = f"C{place}"
            ax.plot(
                [x for x, _ in points], [statistics.mean(v) for _, v in points], "-", color=colour, label=name
            )
            for x, values in points:
                ax.plot([x] * len(values), values, ".", color=colour, alpha=0.6)
        ax.set_xlabel(curve.x_title)
        if curve.logarithmic:
            ax.set_xscale("log")
        ax.set_ylabel(titles.get(curve.y, curve.y))
        ax.legend(fontsize=8, frameon=False)
        _clean(ax)
    figure.suptitle(f"{summary['title']}: means, and the seeds as dots", fontsize=10)
    return figure


def _places(curve: Curves, rows: Sequence[Mapping[str, Any]]) -> Sequence[float]:
    """Along x. A line with fewer rows than places takes the last ones."""
    if isinstance(curve.x, str):
        return [statistics.mean(row["ours"].get(curve.x) or [0.0]) for row in rows]
    return curve.x[-len(rows) :]


def _clean(ax: "Axes") -> None:
    ax.spines[["top", "right"]].set_visible(False)
