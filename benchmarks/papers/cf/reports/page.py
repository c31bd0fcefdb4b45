"""benchmarks/README.md: a line for every table and figure of both papers, made of the committed JSON files."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from cf.reports.line import Line
from cf.reports.older import older_lines, table_9
from cf.reports.report import seeds_of, spread

BEGIN, END = "<!-- made by benchmarks/papers/page.py -->", "<!-- end -->"
SCALES = ("tiny", "small", "paper")
SHORT = {
    "reproduced": "reproduced",
    "not reproduced": "not reproduced",
    "not decidable at this scale": "not decidable",
}
FILES = (
    "table1", "fig3", "table2", "table3a", "table3b", "table3c", "table3d", "table3e", "table4", "table5", "table6",
    "table8", "fig4", "fig5", "fig8",
)  # fmt: skip


def page(results: Path) -> str:
    """What stands between BEGIN and END. results: benchmarks/results."""
    lines = [*older_lines(results), *crossflow_lines(results / "crossflow"), table_9(results)]
    heads = ["table", "paper", "ours", "scale", "verdict", "command", "device"]
    out = [_row(heads), _row(["---"] * len(heads)), *(_row(line.cells()) for line in lines)]
    judged = [(line.name, *claim) for line in lines for claim in line.claims]
    count = Counter(verdict for _, _, verdict, _ in judged)
    told = ", ".join(
        f"{count[verdict]} {SHORT.get(verdict, verdict)}" for verdict in sorted(count, reverse=True)
    )
    out += ["", f"### Claims: {told}", "", _row(["table", "claim", "verdict", "evidence"]), _row(["---"] * 4)]
    out += [
        _row([_unlinked(name), claim, f"**{SHORT.get(verdict, verdict)}**", evidence])
        for name, claim, verdict, evidence in judged
    ]
    return "\n".join(out)


def crossflow_lines(folder: Path) -> list[Line]:
    """A line for each table at each scale that has been run, at the first one where none has."""
    found = []
    for name in FILES:
        files = [folder / scale / f"{name}.json" for scale in SCALES]
        there = [file for file in files if file.exists()]
        found += [_line(json.loads(file.read_text()), file) for file in there]
    return found


def _line(summary: Mapping[str, Any], file: Path) -> Line:
    name, scale = summary["name"], summary["scale"]
    label = summary["title"].split(":")[0]
    linked = f"[CrossFlow {label}](results/crossflow/{scale}/{file.stem}.md)"
    counted = Counter(it["verdict"] for it in summary["claims"])
    verdict = ", ".join(f"{count} {SHORT.get(key, key)}" for key, count in counted.items())
    command = f"`papers/cf_{name}.py --scale {scale}`"
    needs = (
        f"; the paper's own needs {summary['paper_needs']}: `papers/cf_{name}.py --scale paper --data ...`"
    )
    return Line(
        linked,
        _paper(summary),
        _ours(summary),
        f"{scale}, {seeds_of(summary['seeds'])}" + ("" if summary["complete"] else ", not complete"),
        verdict,
        command + needs,
        "; ".join(summary["devices"]) or "not run",
        [(it["claim"], it["verdict"], it["evidence"]) for it in summary["claims"]],
    )


def _ours(summary: Mapping[str, Any]) -> str:
    """The first two numbers that the paper has, too, of every row; of many rows the first and the last."""
    numbers = _headlines(summary)
    rows = [row for row in summary["rows"] if row["seeds"]]
    if not rows:
        return "not run"
    shown = rows if len(rows) <= 6 else [rows[0], rows[-1]]
    values = [
        " / ".join(spread(row["ours"].get(it["name"], []), it["form"]) for it in numbers) for row in shown
    ]
    heads = " / ".join(it["title"] for it in numbers)
    return f"{heads}: " + "; ".join(
        f"{row['name']} {value}" for row, value in zip(shown, values, strict=True)
    )


def _paper(summary: Mapping[str, Any]) -> str:
    """The same numbers, as printed, of the rows that we have, or of all."""
    rows: Mapping[str, Mapping[str, Any]] = summary["paper"]
    columns = [it["printed"] for it in _headlines(summary) if it["printed"]]
    if not rows or not columns:
        return "pictures and words, see the claims"
    ours = {row["name"] for row in summary["rows"]}
    shown = {name: values for name, values in rows.items() if name in ours} or rows
    values = {
        name: " / ".join("-" if it[c] is None else f"{it[c]}" for c in columns) for name, it in shown.items()
    }
    return f"{' / '.join(columns)}: " + "; ".join(f"{name} {value}" for name, value in values.items())


def _headlines(summary: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    columns = set().union(*(values for values in summary["paper"].values()))
    both = [it for it in summary["numbers"] if it["printed"] in columns]
    return (both or summary["numbers"])[:2]


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"


def _unlinked(name: str) -> str:
    return name.partition("](")[0].lstrip("[")


def inserted(readme: str, made: str) -> str:
    """The README with `made` between its marks. ValueError where it has none."""
    head, begin, rest = readme.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"benchmarks/README.md has no {BEGIN} ... {END}; put both marks back")
    return f"{head}{BEGIN}\n\n{made}\n\n{END}{tail}"
