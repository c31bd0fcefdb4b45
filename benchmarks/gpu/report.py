"""The results as Markdown: tables beside floors, and the targets, met or not. From a file that is there:

cd benchmarks && python -m gpu.report results/gpu_suite.json
"""

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from gpu.verdicts import Rows, Target, finished, targets, ways_of, wrongs


def markdown(content: dict[str, Any]) -> str:
    """The whole report. A dry run has no figures, and its report says so."""
    parts = content["parts"]
    if content["dry"]:
        return dry_report(content)
    lines = ["# The GPU suite", "", setting(content), ""]
    if card := finished(parts.get("card", {})).get("card"):
        lines += [*card_table(card), ""]
    lines += ["## Targets", "", *target_table(targets(parts)), ""]
    for part, name in (("kernels", "Kernels"), ("attention", "Attention")):
        if rows := finished(parts.get(part, {})):
            lines += [f"## {name}", "", *op_table(rows), ""]
    if rows := finished(parts.get("model", {})):
        lines += ["## The 951M model at 256 px", "", *model_table(rows), "", *choices(rows), ""]
    if rows := finished(parts.get("repeat", {})):
        lines += ["## The same bits every time", "", *repeat_table(rows), ""]
    if rows := finished(parts.get("parity", {})):
        lines += ["## Loss curves, kernels on and off", "", *parity_table(rows), ""]
    wrong = [f"- WRONG: {text}" for text in wrongs(parts)]
    lines += ["## Correctness", "", *(wrong or ["Nothing is wrong in what was measured."]), ""]
    if trouble := list(troubles(parts)):
        lines += ["## Not done", "", *trouble, ""]
    return "\n".join(lines)


def dry_report(content: dict[str, Any]) -> str:
    """What ran, and what did not."""
    counted = [
        [part, str(len(finished(rows))), str(len(rows) - len(finished(rows)))]
        for part, rows in content["parts"].items()
    ]
    lines = ["# The GPU suite, a dry run on a CPU: nothing was measured", ""]
    lines += table(["part", "rows that ran to their end", "rows that failed"], counted)
    return "\n".join([*lines, "", *troubles(content["parts"]), ""])


def setting(content: dict[str, Any]) -> str:
    """Command, commit, device."""
    return (
        f"`{content['command']}`, commit {content['commit']} (sources {content['sources']}), {content['device']}, "
        f"torch {content['torch']}. Times of ops: median on the device, without launching; of the model: on the wall."
    )


def troubles(parts: dict[str, Rows]) -> Iterable[str]:
    """Every row or way that has no figures, with its reason."""
    for part, rows in parts.items():
        for name, row in rows.items():
            if "error" in row:
                yield f"- {part}, {name}: {row['error']}"
            for way, why in row.get("failed", {}).items():
                yield f"- {part}, {name}, {way}: {why}"


# ------------------------------------------------------------------------------------------------ the tables


def table(head: list[str], body: Iterable[list[str]]) -> list[str]:
    """Markdown rows."""
    return ["| " + " | ".join(cells) + " |" for cells in [head, ["---"] * len(head), *body]]


def number(value: float | None, form: str = ".3g") -> str:
    """A figure, or a dash where there is none."""
    return "-" if value is None else f"{value:{form}}"


def card_table(card: dict[str, Any]) -> list[str]:
    """Facts and rates."""
    names = ("device", "torch", "triton", "cuda", "cudnn", "multiprocessors", "attention_at_257")
    body = [[name.replace("_", " "), str(card[name])] for name in names if name in card]
    for name, unit, scale in (
        ("copy", "TB/s", 1e12),
        ("matmul", "TFLOP/s, bf16", 1e12),
        ("fp32", "TFLOP/s, fp32", 1e12),
    ):
        if rate := card[name].get("per_second"):
            body.append([name, f"{rate / scale:.3g} {unit}"])
    return table(["card", ""], body)


def op_table(rows: Rows) -> list[str]:
    """One line for every op, pass and way."""
    body = []
    for op, row in rows.items():
        for which, measured in row["passes"].items():
            for way, figures in ways_of(measured).items():
                error = row["errors"].get(way, {}).get("forward" if which == "forward" else "backward")
                body.append(
                    [op, which, way, *_figures(figures, measured.get("floor_us")), number(error, ".1e")]
                )
    head = ["op", "pass", "way", "us", "20 to 80 %", "host us", "floor us", "% of floor", "relative error"]
    return table(head, body)


def _figures(figures: dict[str, float], floor: float | None) -> list[str]:
    if not figures:
        return ["-"] * 5
    share = None if floor is None else 100 * floor / figures["us"]
    between = f"{figures['us_20']:.4g} to {figures['us_80']:.4g}"
    return [
        number(figures["us"], ".4g"), between, number(figures["host_us"]), number(floor, ".4g"), number(share, ".0f")
    ]  # fmt: skip


def model_table(rows: Rows) -> list[str]:
    """One line for every way and batch."""
    head = [
        "way and batch",
        "training step s",
        "floor s",
        "images/s",
        "MFU %",
        "peak GiB",
        "computed twice",
        "parts",
    ]
    head += [
        "guided velocity s",
        "floor s",
        f"images/s at {steps_of(rows)} steps",
        "MFU %",
        "peak GiB",
        "error",
    ]
    body = []
    for name, row in rows.items():
        trained, sampled, guided = (row.get(part, {}) for part in ("training", "sampling", "guided"))
        memory = "out of memory" if trained.get("out_of_memory") and "s" not in trained else None
        body.append(
            [
                name, memory or number(trained.get("s")), number(row["floors"].get("training_s")),
                number(trained.get("images_per_s")),
                percent(trained.get("mfu")), gib(trained.get("peak_bytes")), trained.get("recompute", "-"),
                number(trained.get("parts"), "d"), number(guided.get("s")), number(row["floors"].get("guided_s")),
                number(sampled.get("images_per_s")),
                percent(sampled.get("mfu")), gib(sampled.get("peak_bytes")), number(sampled.get("error"), ".1e"),
            ]
        )  # fmt: skip
    return table(head, body)


def choices(rows: Rows) -> Iterable[str]:
    """What the kernels' dispatch chose in training, the rows that chose alike together."""
    alike: dict[str, list[str]] = {}
    for name, row in rows.items():
        kernels = row.get("training", {}).get("kernels", {})
        text = "; ".join(f"{op}: {choice}" for op, choice in kernels.items())
        if text:
            alike.setdefault(text, []).append(name)
    for text, names in alike.items():
        yield f"- {'; '.join(names)}: {text}."


def steps_of(rows: Rows) -> int | str:
    """Of guided sampling."""
    return next((row["sampling"]["steps"] for row in rows.values() if "sampling" in row), "-")


def percent(share: float | None) -> str:
    """Of one."""
    return number(None if share is None else 100 * share, ".0f")


def gib(size: float | None) -> str:
    """Bytes as GiB."""
    return number(None if size is None else size / 2**30, ".1f")


def repeat_table(rows: Rows) -> list[str]:
    """How often a repetition had other bits."""
    body = [
        [op, str(row["times"]), str(row["differed"]["forward"]), str(row["differed"]["backward"])]
        for op, row in rows.items()
    ]
    return table(["op", "times", "other results", "other gradients"], body)


def parity_table(rows: Rows) -> list[str]:
    """First and last loss of every run, and the gaps."""
    lines = []
    for row in rows.values():
        body = [
            [name, number(row["first"][name], ".5g"), number(row["last"][name], ".5g")]
            for name in row["first"]
        ]
        lines += table(["run", "first loss", f"last loss, of {row['steps']} steps"], body)
        gaps = f"bf16 to fp32 {row['gap_of_bf16']:.2e}, kernels to torch {row['gap_of_kernels']:.2e}"
        lines += ["", f"Largest gap of the curves, of the first loss: {gaps}."]
    return lines


def target_table(aims: list[Target]) -> list[str]:
    """One line a target."""
    return table(
        ["target", "wanted", "found", ""],
        ([aim.text, f"{aim.wanted:g}", number(aim.found), aim.verdict] for aim in aims),
    )


if __name__ == "__main__":
    print(markdown(json.loads(Path(sys.argv[1]).read_text())))
