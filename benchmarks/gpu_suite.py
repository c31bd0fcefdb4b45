"""What the model and its kernels reach on one GPU, beside what they could and what others do: under nine minutes.

    PYTHONPATH=packages/cf-transformer/src:packages/cf-flowcore/src python benchmarks/gpu_suite.py \\
        --out benchmarks/results/gpu_suite.json

Needs torch, triton, einops and jaxtyping. The file is rewritten after every row; a second call goes on where the first
stopped, as long as the sources, the device and torch are the same. Rows that failed are kept; `--again TEXT` forgets
those whose part/name contains TEXT. `--dry` runs every part on a CPU in tiny shapes and measures nothing. The exit code
is 1 where a row failed or a kernel is wrong.

    card       copy bandwidth, rate of products, which attention is chosen
    kernels    every kernel forward and backward: against plain torch, compiled torch and its own floor
    attention  the kernel against cuDNN, flash, efficient and plain attention at n = 256, 257, 1024, 1025
    repeat     whether a kernel gives the same bits every time
    parity     the loss curve of a small training, kernels on and off
    model      the 951M model at 256 px: training step, guided sampling; ours and the public way (peers/public_dimr.py)
"""

import argparse
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE / "peers"))

import torch  # noqa: E402
from gpu.attention import attention_ops  # noqa: E402
from gpu.card import facts, measure_card, rates  # noqa: E402
from gpu.kernels import depthwise, kernel_ops  # noqa: E402
from gpu.measure import Bench, LostDevice, Row, check_device, measure_op, reason  # noqa: E402
from gpu.model import model_cases  # noqa: E402
from gpu.parity import curves, repeated  # noqa: E402
from gpu.record import Record, fingerprint  # noqa: E402
from gpu.report import markdown  # noqa: E402
from gpu.timing import Clock  # noqa: E402
from gpu.verdicts import wrongs  # noqa: E402
from record import commit  # noqa: E402

Cases = dict[str, Callable[[], Row]]
SOURCES = ("packages/cf-transformer/src", "packages/cf-flowcore/src", "benchmarks/gpu")
BEGAN = "CF_GPU_SUITE_BEGAN"  # when the first process of this call did, if another had to take over
# seconds after which a part begins no further row
BUDGETS = {"card": 30, "attention": 60, "kernels": 150, "repeat": 40, "parity": 60, "model": 400}


def ops_of(bench: Bench) -> dict[str, Callable[[], Any]]:
    """Everything that has a kernel."""
    dry = bench.clock.dry
    return {**kernel_ops(bench.device, dry), **attention_ops(bench.device, dry)}


def attention_cases(bench: Bench) -> Cases:
    ops = attention_ops(bench.device, bench.clock.dry)
    return {name: lambda make=make: measure_op(make(), bench) for name, make in ops.items()}


def kernel_cases(bench: Bench) -> Cases:
    ops = kernel_ops(bench.device, bench.clock.dry)
    cases: Cases = {name: lambda make=make: measure_op(make(), bench) for name, make in ops.items()}
    return cases | {"depthwise convolution": lambda: depthwise(bench)}


PARTS: dict[str, Callable[[Bench], Cases]] = {
    "card": lambda bench: {"card": lambda: measure_card(bench.clock, bench.device)},
    "attention": attention_cases,
    "kernels": kernel_cases,
    "repeat": lambda bench: {
        name: lambda make=make: repeated(make()) for name, make in ops_of(bench).items()
    },
    "parity": lambda bench: {"tiny model": lambda: curves(bench)},
    "model": model_cases,
}


class Deadline:
    """Whether there is time for another row: of the whole call, and of its part."""

    def __init__(self, began: float, seconds: float) -> None:
        self.began, self.seconds = began, seconds

    def of_part(self, part: str) -> "PartDeadline":
        """Begins now."""
        return PartDeadline(self, time.time() + BUDGETS[part])


class PartDeadline:
    """A row is begun while the part has time left, and the call as much as the part's longest row took so far."""

    def __init__(self, whole: Deadline, end: float) -> None:
        self.whole, self.end, self.longest = whole, end, 0.0

    def allows(self) -> bool:
        """Whether to begin another."""
        now = time.time()
        return now < self.end and now + self.longest < self.whole.began + self.whole.seconds

    def took(self, seconds: float) -> None:
        """How long one was."""
        self.longest = max(self.longest, seconds)


def run_part(part: str, bench: Bench, record: Record, deadline: PartDeadline) -> int:
    """Measure the rows that are missing; how many were left for lack of time."""
    left = 0
    for name, case in PARTS[part](bench).items():
        if record.has(part, name):
            continue
        if not deadline.allows():
            left += 1
            continue
        begin = time.time()
        record.begin(part, name)
        try:
            row = case()
        except LostDevice as error:
            record.add(part, name, {"error": f"the device was lost: {error}"})
            raise
        except Exception as error:
            row = {"error": reason(error)}
        record.add(part, name, row)
        if "error" in row:
            check_device(row["error"])
        seconds = time.time() - begin
        deadline.took(seconds)
        print(f"{part}, {name}: {summary(row)} ({seconds:.0f} s)", flush=True)
    return left


def summary(row: Row) -> str:
    """Done, or what is wrong."""
    if "error" in row:
        return f"ERROR {row['error']}"
    failed = row.get("failed", {})
    return "done" + "".join(f"; {way} FAILED: {why}" for way, why in failed.items())


def run(
    parts: list[str], clock: Clock, device: torch.device, record: Record, deadline: Deadline
) -> dict[str, int]:
    """The card, whose rates every floor needs, then the parts asked for; how many rows each left undone."""
    run_part("card", Bench(clock, device), record, deadline.of_part("card"))
    card = record.rows("card").get("card", {"error": "there was no time for it"})
    if "error" in card:
        sys.exit(f"the card was not measured: {card['error']}")
    bench = Bench(clock, device, rates(card))
    return {
        part: run_part(part, bench, record, deadline.of_part(part))
        for part in PARTS
        if part in parts and part != "card"
    }


def take_over(began: float) -> None:
    """A new process goes on where this one, whose device is lost, stopped; its time goes on too."""
    sys.stdout.flush()
    os.environ[BEGAN] = str(began)
    os.execv(sys.executable, [sys.executable, *sys.argv])


def setting(options: argparse.Namespace, device: torch.device) -> dict[str, Any]:
    """What the results belong to."""
    root = HERE.parent
    files = [
        file for folder in SOURCES for end in ("py", "json") for file in (root / folder).rglob(f"*.{end}")
    ]
    found = facts(device)
    return {
        "command": "benchmarks/gpu_suite.py" + (" --dry" if options.dry else ""),
        "commit": options.commit or known_commit(),
        "sources": fingerprint([*files, HERE / "peers" / "public_dimr.py"]),
        "device": found["device"],
        "torch": found["torch"],
        "dry": options.dry,
    }


def known_commit() -> str:
    """The commit of the checkout; unknown outside of one, or without git."""
    try:
        return commit()
    except FileNotFoundError:
        return "unknown"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write and to go on from")
    parser.add_argument(
        "--parts", nargs="+", choices=PARTS, default=list(PARTS), metavar="PART", help="which parts"
    )
    parser.add_argument(
        "--seconds", type=float, default=520, help="begin no row that may end after this long"
    )
    parser.add_argument(
        "--again", metavar="TEXT", help="forget rows whose part/name contains this, then measure them"
    )
    parser.add_argument("--commit", help="what to call the sources, where there is no git")
    parser.add_argument("--dry", action="store_true", help="tiny shapes on the CPU; nothing is measured")
    options = parser.parse_args()
    if not options.dry and not torch.cuda.is_available():
        parser.error("torch sees no CUDA device; --dry runs everything without one and measures nothing")

    goes_on = BEGAN in os.environ
    began = float(os.environ.get(BEGAN, time.time()))
    device = torch.device("cpu" if options.dry else "cuda")
    record = Record(options.out, setting(options, device))
    if options.again and not goes_on:
        print("forgotten:", ", ".join(record.forget(options.again)) or "nothing")
    try:
        left = run(options.parts, Clock(options.dry), device, record, Deadline(began, options.seconds))
    except LostDevice as error:
        print(f"the device was lost ({error}); a new process goes on", flush=True)
        take_over(began)
        return
    report = markdown(record.content)
    options.out.with_suffix(".md").write_text(report)
    print(report)
    if any(left.values()):
        print(
            "no time left for", ", ".join(f"{n} of {part}" for part, n in left.items() if n), "- call again"
        )
    if wrong := [*record.errors(), *wrongs(record.content["parts"])]:
        sys.exit("\n".join(["failed or wrong:", *wrong]))


if __name__ == "__main__":
    main()
