"""How the Flow Matching reports write their tables: a method a row, mean ± standard deviation over the seeds."""

import statistics
from collections.abc import Mapping, Sequence

Curve = Mapping[float, float]
Held = dict[str, bool | None]


def spread(values: Sequence[float], form: str = "{:.2f}") -> str:
    """Mean ± standard deviation; of one value itself, of none a dash."""
    if not values:
        return "-"
    mean = form.format(statistics.mean(values))
    return f"{mean} ± {form.format(statistics.stdev(values))}" if len(values) > 1 else mean


def curve_table(curves: Mapping[str, Sequence[Curve]], form: str) -> str:
    """Markdown: one column for each key of the curves, one curve for each seed of a method."""
    heads = sorted({key for some in curves.values() for curve in some for key in curve})
    lines = [
        "| method | " + " | ".join(f"{head:g}" for head in heads) + " |",
        "| --- |" + " --- |" * len(heads),
    ]
    for name, some in curves.items():
        cells = [spread([curve[head] for curve in some if head in curve], form) for head in heads]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def verdicts(held: Held) -> str:
    """A line for each of the paper's claims."""
    words = {True: "reproduced", False: "NOT reproduced", None: "not complete"}
    return "\n".join(f"- {words[value]}: {claim}" for claim, value in held.items())
