"""What the results say: targets met or not, and what a kernel got wrong."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

Rows = dict[str, dict[str, Any]]
NOT_WAYS = ("bytes", "matmul", "fp32", "floor_us", "bound_by")
LIBRARY_ATTENTION = ("cudnn", "flash", "efficient", "math")
OURS_WAYS, PUBLIC = ("DiMR", "DiMR, compiled blocks"), "public way"
OURS_FAILED = ("kernel", "all samples")
NORM, ATTENTION = "add + RMS norm", "n = 257"
# without products, so bound by memory, and used by the paper's configuration
MEMORY_BOUND = (
    "add + RMS norm",
    "add + RMS norm, convnext",
    "GEGLU",
    "GEGLU, convnext",
    "concatenation + layer norm",
)
MOST_OVER_TORCH = {"forward": 2.0, "backward": 3.0}  # the kernel's error over torch's at the same precision
NO_ERROR = 1e-6


def finished(rows: Rows) -> Rows:
    """Without error rows."""
    return {name: row for name, row in rows.items() if "error" not in row}


def ways_of(measured: dict[str, Any]) -> dict[str, dict[str, float]]:
    """The figures of one pass by way."""
    return {name: figures for name, figures in measured.items() if name not in NOT_WAYS}


@dataclass(frozen=True)
class Target:
    """What was aimed at and what was found, None where it was not measured."""

    text: str
    wanted: float
    found: float | None

    @property
    def verdict(self) -> str:
        """met, not met, or not measured."""
        if self.found is None:
            return "not measured"
        return "met" if self.found >= self.wanted else "not met"


def targets(parts: dict[str, Rows]) -> list[Target]:
    """All of them, from what is there."""
    kernels, attention = parts.get("kernels", {}), parts.get("attention", {})
    model = finished(parts.get("model", {}))
    found = []
    for b in sorted({row["batch"] for row in model.values()}):
        of_batch = {
            name.removesuffix(f", batch {b}"): row for name, row in model.items() if row["batch"] == b
        }
        step, images = (
            ratio(of_batch, "training", "images_per_s"),
            ratio(of_batch, "sampling", "images_per_s"),
        )
        found += [
            Target(f"training step over the public way, batch {b}", 2.5, step),
            Target(f"MFU of a training step, batch {b}", 0.5, best(of_batch, OURS_WAYS, "training", "mfu")),
            Target(f"guided sampling over the public way, batch {b}", 4.0, images),
        ]
    for op in MEMORY_BOUND:
        for which in ("forward", "backward"):
            text = f"{op}, {which}: share of the copy bandwidth"
            found.append(Target(text, 0.85, share_of_floor(kernels, op, which)))
    over_compile = time_ratio(kernels, NORM, "backward", ("compiled",))
    found.append(Target("norm backward over torch.compile", 1.4, over_compile))
    for which in ("forward", "backward"):
        text = f"attention, {ATTENTION}, {which}, over the best of SDPA"
        found.append(Target(text, 1.2, time_ratio(attention, ATTENTION, which, LIBRARY_ATTENTION)))
    return found


def best(rows: Rows, ways: Iterable[str], part: str, figure: str) -> float | None:
    """The largest figure among the ways that have it."""
    values = [rows.get(way, {}).get(part, {}).get(figure) for way in ways]
    return max((value for value in values if value is not None), default=None)


def ratio(rows: Rows, part: str, figure: str) -> float | None:
    """The best of ours over the public way."""
    ours, public = best(rows, OURS_WAYS, part, figure), best(rows, (PUBLIC,), part, figure)
    return None if ours is None or public is None else ours / public


def times(rows: Rows, op: str, which: str) -> dict[str, float]:
    """Microseconds by way."""
    measured = rows.get(op, {}).get("passes", {}).get(which, {})
    return {way: figures["us"] for way, figures in ways_of(measured).items() if figures}


def time_ratio(rows: Rows, op: str, which: str, others: Iterable[str]) -> float | None:
    """The quickest of the others over the kernel."""
    found = times(rows, op, which)
    quickest = min((found[way] for way in others if way in found), default=None)
    return None if quickest is None or "kernel" not in found else quickest / found["kernel"]


def share_of_floor(rows: Rows, op: str, which: str) -> float | None:
    """The floor over the kernel's time."""
    found, floor = times(rows, op, which), rows.get(op, {}).get("passes", {}).get(which, {}).get("floor_us")
    return None if floor is None or "kernel" not in found else floor / found["kernel"]


def wrongs(parts: dict[str, Rows]) -> Iterable[str]:
    """What a kernel got wrong: errors far above torch's, other bits on repetition, another loss curve."""
    for part in ("kernels", "attention"):
        for op, row in finished(parts.get(part, {})).items():
            yield from (
                f"{part}/{op}: {row['failed'][name]}" for name in OURS_FAILED if name in row["failed"]
            )
            yield from (f"{part}/{op}: {text}" for text in errors_above_torch(row))
    for op, row in finished(parts.get("repeat", {})).items():
        if differed := sum(row["differed"].values()):
            yield f"repeat/{op}: {differed} results of {row['times']} calls had other bits"
    for name, row in finished(parts.get("parity", {})).items():
        if row["gap_of_kernels"] > 2 * row["gap_of_bf16"] + NO_ERROR:
            yield f"parity/{name}: the kernels' gap is {row['gap_of_kernels']:.1e}, of bf16 {row['gap_of_bf16']:.1e}"


def errors_above_torch(row: dict[str, Any]) -> Iterable[str]:
    """The kernel's errors that no way of torch comes near, on a few samples or on all."""
    errors = dict(row["errors"])
    mine = {"kernel": errors.pop("kernel", None), "kernel, all samples": row.get("all_samples")}
    for name, found in mine.items():
        for which, most in MOST_OVER_TORCH.items():
            of_torch = max((other[which] for other in errors.values()), default=None)
            if found and of_torch is not None and not found[which] <= most * of_torch + NO_ERROR:
                yield f"{name}, {which}: relative error {found[which]:.1e}, of torch {of_torch:.1e}"
