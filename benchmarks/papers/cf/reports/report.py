"""A table as it came out: the paper's rows beside ours, each claim with its verdict, as JSON, Markdown and a plot."""

import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cf_apps.engine.files import write_text

from cf.measures.numbers import SCALE
from cf.reports.plots import plot
from cf.reports.printed import everything, printed, title
from cf.scale import Scale
from cf.spec import UNDECIDED, Claim, Row, Table
from cf.store import Store
from cf.work import collected

NOT_RUN = "not run"
BETTER = {True: "↑", False: "↓", None: ""}
Summary = dict[str, Any]


def write_reports(tables: Mapping[str, Table], scale: Scale, store: Store, folder: Path) -> list[Path]:
    """FOLDER/NAME.json, .md and .png of each table, of what has been measured so far; those files."""
    files = []
    for name, table in tables.items():
        summary = summarised(name, table, scale, store)
        files += [folder / f"{name}.json", folder / f"{name}.md"]
        folder.mkdir(parents=True, exist_ok=True)
        write_text(folder / f"{name}.json", json.dumps(summary, indent=1, ensure_ascii=False) + "\n")
        drawn = plot(table, summary, folder / f"{name}.png")
        files += [] if drawn is None else [drawn]
        write_text(folder / f"{name}.md", markdown(summary, drawn))
    return files


def summarised(name: str, table: Table, scale: Scale, store: Store) -> Summary:
    """Everything that a report says, ready for JSON."""
    records = collected(table, scale, store)
    rows = [_row(row, records.get(row.name, [])) for row in table.rows]
    everything = [record for row in table.rows for record in records.get(row.name, [])]
    numbers = [number for number in table.numbers if any(number.name in row["ours"] for row in rows)]
    return {
        "name": name,
        "title": table.title or title(table.key),
        "scale": scale.name,
        "about": scale.about,
        "says": table.says,
        "paper_needs": table.paper_needs,
        "command": f"benchmarks/papers/cf_{name}.py --scale {scale.name}",
        "seeds": min((row["seeds"] for row in rows), default=0),
        "complete": all(row["seeds"] == scale.seeds for row in rows),
        "devices": _distinct(
            everything, lambda it: f"{it['model']}, {it['threads']} thread" + "s" * (it["threads"] > 1)
        ),
        "torch": _distinct(everything, lambda it: it["torch"]),
        "commits": _distinct(everything, lambda it: str(it["commit"])[:12]),
        "minutes": round(_seconds(everything) / 60, 1),
        "search": searched(table, rows, scale.guidance),
        "numbers": [
            {
                "name": it.name,
                "title": it.title,
                "printed": it.printed,
                "form": it.form,
                "higher": it.higher_is_better,
            }
            for it in numbers
        ],
        "paper": printed_rows(table),
        "rows": rows,
        "claims": [_judged(claim, rows) for claim in table.claims],
    }


def _row(row: Row, records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    names = list(records[0]["numbers"]) if records else []
    return {
        "name": row.name,
        "ours": {name: [record["numbers"][name] for record in records] for name in names},
        "seeds": len(records),
        "seed": [record["seed"] for record in records],
        "training": records[0]["training"] if records else "",
        "steps": records[0]["steps"] if records else None,
        "batch": records[0]["batch"] if records else None,
        "train_seconds": [record["train_seconds"] for record in records],
    }


def searched(table: Table, rows: Sequence[Mapping[str, Any]], grid: Sequence[float]) -> str:
    """Which searches for a scale of guidance ended at the grid's last one; empty where nothing was searched.

    Rows with the same training and measure share a search, and the last of them names it.
    """
    found = {
        (row.training, row.measure): told
        for row, told in zip(table.rows, rows, strict=True)
        if told["ours"].get(SCALE.name)
    }
    if not found:
        return ""
    at_end = {told["name"]: told["ours"][SCALE.name].count(grid[-1]) for told in found.values()}
    named = [f"{name} ({seeds_of(count)})" for name, count in at_end.items() if count]
    over = ", ".join(f"{scale:g}" for scale in grid)
    ended = f"ended at the last for {', '.join(named)}" if named else "never ended at the last"
    return f"The search for a scale of guidance, over {over}, {ended}."


def printed_rows(table: Table) -> dict[str, dict[str, Any]]:
    """The paper's own rows; none for a figure, which prints no numbers."""
    return printed(table.key) if table.key in everything() else {}


def _judged(claim: Claim, rows: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """The claim by the seeds that every row has."""
    common = set.intersection(*(set(row["seed"]) for row in rows)) if rows else set()
    if not common:
        return {"claim": claim.words, "verdict": NOT_RUN, "evidence": "no seed has all rows"}
    results = {
        row["name"]: [
            {name: values[row["seed"].index(seed)] for name, values in row["ours"].items()}
            for seed in sorted(common)
        ]
        for row in rows
    }
    verdict, evidence = claim.judge(results)
    return {"claim": claim.words, "verdict": verdict if len(common) > 1 else UNDECIDED, "evidence": evidence}


def _distinct(records: Sequence[Mapping[str, Any]], say: Any) -> list[str]:
    return sorted({say(record) for record in records})


def _seconds(records: Sequence[Mapping[str, Any]]) -> float:
    """Of all trainings, each counted once, and of all measuring."""
    training = {(it["training"], it["seed"]): it["train_seconds"] for it in records}
    measuring = {(it["training"], it["seed"], it["measure"]): it["measure_seconds"] for it in records}
    return sum(training.values()) + sum(measuring.values())


# --------------------------------------------------------------------------------------------------- in words


def markdown(summary: Summary, drawn: Path | None) -> str:
    """The report of one table."""
    minutes = f"{summary['minutes']:g} minutes of training and measuring in all"
    lines = [
        f"# CrossFlow, {summary['title']}",
        "",
        f"`{summary['command']}`: {summary['about']}. {summary['says']}".rstrip(),
        "",
        f"{seeds_of(summary['seeds'])}; {'; '.join(summary['devices']) or NOT_RUN}; "
        f"torch {', '.join(summary['torch']) or '-'}; commit {', '.join(summary['commits']) or '-'}; {minutes}.",
        "",
        *_ours(summary),
        "",
        f"Mean ± standard deviation over the seeds. {summary['search']}".rstrip(),
        "",
        *(_paper(summary) if summary["paper"] else []),
        *(f"- **{it['verdict']}**: {it['claim']}. {it['evidence']}." for it in summary["claims"]),
        "",
        "A difference counts where every seed has its sign and its mean is at least twice its standard error.",
        *(["", f"![{summary['title']}]({drawn.name})"] if drawn is not None else []),
    ]
    return "\n".join(lines) + "\n"


def _ours(summary: Summary) -> list[str]:
    numbers = summary["numbers"]
    heads = ["ours", *(f"{it['title']} {BETTER[it['higher']]}".rstrip() for it in numbers), "steps x batch"]
    lines = [_line(heads), "|" + " --- |" * len(heads)]
    for row in summary["rows"]:
        cells = [_cell(row, it) for it in numbers]
        lines.append(
            _line([row["name"], *cells, f"{row['steps']} x {row['batch']}" if row["seeds"] else NOT_RUN])
        )
    return lines


def _paper(summary: Summary) -> list[str]:
    rows = summary["paper"]
    columns = list(next(iter(rows.values())))
    lines = [_line(["paper", *columns]), "|" + " --- |" * (len(columns) + 1)]
    for name, values in rows.items():
        lines.append(_line([name, *("-" if value is None else f"{value}" for value in values.values())]))
    return [*lines, ""]


def spread(values: Sequence[float], form: str) -> str:
    """Mean ± standard deviation; of one value itself, of none that it was not run."""
    if not values:
        return NOT_RUN
    mean = form.format(statistics.mean(values))
    return f"{mean} ± {form.format(statistics.stdev(values))}" if len(set(values)) > 1 else mean


def _cell(row: Mapping[str, Any], number: Mapping[str, Any]) -> str:
    """A dash where a row has been run and knows no such number."""
    values = row["ours"].get(number["name"], [])
    return "-" if row["seeds"] and not values else spread(values, number["form"])


def seeds_of(count: int) -> str:
    return "1 seed" if count == 1 else f"{count} seeds"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
