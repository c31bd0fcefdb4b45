"""A summary as tables of words, the same for the terminal and for the page."""

import json
import shlex
import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cf_apps.engine.commands.app import run_kind
from cf_apps.engine.guards import BAD_BATCHES
from cf_apps.engine.watching.curves import is_finite
from cf_apps.engine.watching.show.summary import Record, Summary

DETAIL = 300  # letters of an event's details; the log has all of them


@dataclass(frozen=True)
class Table:
    """head: the columns' titles, none for a table of names and values. rows: as many words each."""

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]


def tables(summary: Summary) -> list[Table]:
    """Everything to be told, table by table; those that would be empty are left out."""
    found = [
        Table("run", (), overview(summary)),
        Table("losses", ("", "last", "best", "at step"), _losses(summary.log["losses"])),
        _evaluations(summary.log["evaluation"]),
        _columns(summary.scores),
        Table("events", ("step", "event", "what"), [_event(record) for record in summary.log["event"]]),
        Table("commands", ("started", "command"), [list(start) for start in summary.starts]),
        Table("versions", (), [(name, str(of)) for name, of in summary.part("versions").items()]),
    ]
    return [table for table in found if table.rows]


def overview(summary: Summary) -> list[tuple[str, str]]:
    """The run in a few lines: what it is, how far it got, how fast, on what, from which code."""
    device, data = summary.part("device"), summary.part("task").get("data")
    rates = [rate for r in summary.log["losses"] if is_finite(rate := r.get("samples_per_second"))]
    told = Counter(record["event"] for record in summary.log["event"])
    lines = {
        "folder": str(summary.run),
        "task": run_kind({"task": summary.part("task")}),
        "preset": preset(summary),
        "data": None if data is None else str(data),
        "step": _progress(summary),
        "trained for": _trained(summary.log["losses"]),
        "samples a second": f"{rates[-1]:.4g} last, {statistics.median(rates):.4g} in the median"
        if rates
        else None,
        "log": _log_state(summary),
        "checkpoints": ", ".join(f"{step:,}" for step in summary.saved) or "none yet",
        "events": ", ".join(f"{count} × {event}" for event, count in told.items()) or None,
        "bad batches": str(summary.run / BAD_BATCHES) if (summary.run / BAD_BATCHES).exists() else None,
        "device": ", ".join(str(device[key]) for key in ("device", "model") if key in device) or None,
        "commit": summary.config.get("commit"),
    }
    return [(name, str(value)) for name, value in lines.items() if value is not None]


def preset(summary: Summary) -> str | None:
    """The preset that the first start named on its command line; None where it named none."""
    for _, command in summary.starts[:1]:
        try:
            words = shlex.split(command)
        except ValueError:  # a quote without its partner: not a line that we wrote
            return None
        for word, following in zip(words, [*words[1:], None], strict=True):
            if word == "--preset":
                return following
            if word.startswith("--preset="):
                return word.removeprefix("--preset=")
    return None


def shown(value: object) -> str:
    """A number with four digits, or 'yes', or words as they are."""
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "–"}[value]
    if isinstance(value, float):
        return f"{value:.4g}"
    return str(value) if isinstance(value, str | int) else json.dumps(value, ensure_ascii=False)


def _progress(summary: Summary) -> str:
    step, wanted, budget = (
        summary.step,
        summary.part("fit").get("steps"),
        summary.part("fit").get("max_seconds"),
    )
    if is_finite(wanted) and wanted:
        return f"{step:,} of {wanted:,} ({step / wanted:.0%})"
    return f"{step:,}" + (f" in a budget of {_duration(budget)}" if is_finite(budget) else "")


def _trained(steps: Sequence[Record]) -> str | None:
    """The training time that the last line of the log knows of."""
    seconds = steps[-1].get("elapsed") if steps else None
    return _duration(seconds) if is_finite(seconds) else None


def _duration(seconds: float) -> str:
    """Its two largest units: '3 d 04 h', '2 h 05 min', '12 min 40 s', '7 s'."""
    left, parts = round(seconds), []
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1)):
        count, left = divmod(left, size)
        if parts:
            return f"{parts[0]} {count:02} {unit}"
        if count:
            parts.append(f"{count} {unit}")
    return parts[0] if parts else "0 s"


def _log_state(summary: Summary) -> str:
    if summary.quiet is None:
        return "none: there is no log.jsonl"
    lines = sum(len(records) for records in summary.log.values())
    damaged = f", {summary.damaged} damaged lines left out" if summary.damaged else ""
    return f"{lines} records{damaged}, last written to {_duration(summary.quiet)} ago"


def _losses(steps: Sequence[Record]) -> list[list[str]]:
    """The last value of each loss, and its least over the run: means over `log_every` steps each."""
    rows = []
    for name in dict.fromkeys(name for record in steps for name in record["losses"]):
        found = [(value, r["step"]) for r in steps if is_finite(value := r["losses"].get(name))]
        best, at = min(found, default=(None, None))
        last = steps[-1]["losses"].get(name)
        rows.append([name, shown(last), shown(best), "–" if at is None else f"{at:,}"])
    return rows


def _evaluations(records: Sequence[Record]) -> Table:
    names = list(dict.fromkeys(name for record in records for name in record["evaluation"]))
    rows = [[f"{r['step']:,}", *(shown(r["evaluation"].get(name)) for name in names)] for r in records]
    return Table("evaluations", ["step", *(name.replace("_", " ") for name in names)], rows)


def _columns(columns: Mapping[str, Record]) -> Table:
    """A demo's scores; what is nested stays in report.json."""
    names = dict.fromkeys(
        key for column in columns.values() for key, value in column.items() if not isinstance(value, Mapping)
    )
    rows = [
        [name.replace("_", " "), *(shown(column.get(name)) for column in columns.values())] for name in names
    ]
    return Table("scores, from report.json", ["", *columns], rows)


def _event(record: Record) -> list[str]:
    details = {name: shown(value) for name, value in record.items() if name not in ("step", "event")}
    text = "; ".join(f"{name} {words}" for name, words in _short_first(details.items()))
    return [f"{record['step']:,}", record["event"], text if len(text) <= DETAIL else f"{text[: DETAIL - 1]}…"]


def _short_first(items: Iterable[tuple[str, Any]]) -> list[tuple[str, Any]]:
    return sorted(items, key=lambda item: len(item[1]))
