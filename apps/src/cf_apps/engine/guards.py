"""Guard rails of a run: steps that are not finite are left out, loss spikes and a collapsing source are told."""

import json
import math
import statistics
import sys
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from cf_encoders import collapse_warning
from jaxtyping import Float
from torch import Tensor

from cf_apps.engine.config import FitConfig
from cf_apps.engine.errors import RunError
from cf_apps.engine.files import write_text
from cf_apps.engine.ranks.world import World
from cf_apps.engine.task import Losses, Task
from cf_apps.engine.watching.lines import read_lines
from cf_apps.engine.watching.log import Log

BAD_BATCHES = "bad_batches.jsonl"
SPAN = 1_000  # steps among which `skip_steps` may be left out
WINDOW, FEWEST = 200, 50  # losses that a spike is measured against; with fewer there is no telling
SPIKE = 8.0  # robust standard deviations above the median
LEAST_SPREAD = 0.01  # of the median: a loss that hardly moves has no spikes below 8 % of itself
SETTLING = 500  # steps after the warm-up in which a source may still find its form
PERSISTENT = 3  # records in a row; one alone is chance
STATISTICS = ("sigma", "mean_abs", "readable")


@runtime_checkable
class NamesSamples(Protocol):
    """A task that can say which samples a batch is made of; other tasks' are known by their places only."""

    def samples(self, first: int, size: int) -> Sequence[Any]:
        """What each sample of `batch(first, size)` is called, as JSON: an index, a file, a caption."""
        ...


class Guard:
    """Looks at every step before the optimizer does, and at every record of the log.

    `admit` is the only place of a step where the host waits for the device, once. On several ranks all decide alike;
    rank 0 alone writes and speaks.
    """

    def __init__(
        self, config: FitConfig, task: Task, run: Path, log: Log, world: World | None = None
    ) -> None:
        self._config, self._task, self._run, self._log = config, task, run, log
        self._world = world if world is not None else World.alone(torch.device("cpu"))
        self._skipped: list[int] = []  # the last ones' steps
        self._spikes, self._source = Spikes(), Source(config.warmup_steps + SETTLING)

    def admit(
        self,
        losses: Sequence[Losses],
        norm: Float[Tensor, ""],
        step: int,
        places: Sequence[tuple[int, int]],
        weight: float = 1.0,
    ) -> bool:
        """Whether the gradients of this step may reach the weights.

        losses: of the passes of this rank. norm: of the whole gradient, before clipping. places: (first, size) of
        each pass in the training stream. weight: of this rank's losses in the mean over the ranks, 1 where all have as
        many rows.

        False: a loss or the gradient is not finite; leave the step out (zero the gradients, count the step). What it
        was and which samples it saw is appended to RUN/bad_batches.jsonl and told in the log. Raises RunError, on every
        rank, when more than `skip_steps` of the last 1,000 steps were such ones.
        """
        totals = torch.stack([part.total.detach().float() for part in losses])
        is_bad = ~(totals.isfinite().all() & norm.isfinite().to(totals.device))
        seen = self._world.total(torch.stack([is_bad.float(), weight * totals.mean()]))
        bad, total = seen.tolist()  # waits for the device
        if bad:
            self._leave_out(losses, step, places)
            return False
        score = self._spikes.score(total / self._world.size)
        if score is not None and self._world.main:
            told = {"total": total / self._world.size, "robust_z": score, "losses": _means(losses)}
            self._log.write({"step": step, "event": "loss spike", **told})
        return True

    def watch(self, record: Mapping[str, Any]) -> None:
        """Look at a record that went into the log: a collapsing source becomes an event and a line on stderr, once."""
        warning = self._source.warning(record["step"], record.get("stats", {}))
        if warning is not None and self._world.main:
            self._log.write({"step": record["step"], "event": "collapse", "warning": warning})
            _warn(f"step {record['step']}: {warning}")

    def numbers(self) -> dict[str, Any]:
        """What a resumed run counts on from, as JSON."""
        return {
            "skipped": self._skipped,
            "spikes": self._spikes.numbers(),
            "source": self._source.numbers(),
        }

    def load(self, numbers: Mapping[str, Any]) -> None:
        """Count on from `numbers()` of before; nothing changes for an empty mapping, which old checkpoints have."""
        if numbers:
            self._skipped = list(numbers["skipped"])
            self._spikes.load(numbers["spikes"])
            self._source.load(numbers["source"])

    def _leave_out(self, losses: Sequence[Losses], step: int, places: Sequence[tuple[int, int]]) -> None:
        """Keep what the step saw; raise RunError when it was one too many."""
        own = [{"rank": self._world.rank, **part} for part in _parts(losses, places)]
        parts = [part for of_rank in self._world.everyone(own) for part in of_rank]
        names = dict.fromkeys(name for part in parts for name in part["not_finite"])
        what = f"loss {', '.join(names)}" if names else "the gradient (every loss is finite)"
        suspects = [part for part in parts if part["not_finite"] or not names]
        for part in suspects:
            if self._world.main and isinstance(self._task, NamesSamples):
                part["samples"] = list(self._task.samples(part["first"], part["size"]))
        record = {"step": step, "not_finite": list(names) or ["gradient"], "batches": suspects}
        self._skipped = [before for before in self._skipped if before > step - SPAN] + [step]
        if self._world.main:
            _keep(self._run / BAD_BATCHES, record)
            self._log.write({"event": "step left out", **record})
        if len(self._skipped) > self._config.skip_steps:
            raise RunError(self._farewell(step, what))
        if self._world.main:
            _warn(
                f"step {step} left out, {what} is not finite; {len(self._skipped)} of {self._config.skip_steps} "
                f"that may be in {SPAN:,} steps; its samples are in {self._run / BAD_BATCHES}"
            )

    def _farewell(self, step: int, what: str) -> str:
        others = f", as at {_listed(self._skipped[:-1])}" if len(self._skipped) > 1 else ""
        return (
            f"not finite at step {step}{others}: {what}; nothing of this step was kept, its samples are in "
            f"{self._run / BAD_BATCHES}. Resume with a lower lr or clip_norm, with precision fp32, without those "
            f"samples, or with skip_steps above {self._config.skip_steps}"
        )


class Spikes:
    """Losses far above what the last ones were: z = (loss - median) / (1.4826 · median of |loss - median|).

    The factor makes the spread that of a normal distribution; medians stay put while the loss spikes. A spike is told
    when it begins: a loss that jumps to a new level (another stage of training) is one spike, and soon the usual.
    """

    def __init__(self) -> None:
        self._last: list[float] = []
        self._within = False

    def score(self, loss: float) -> float | None:
        """z of a loss with which a spike begins; None for every other one. Takes the loss in."""
        z = robust_z(loss, self._last) if len(self._last) >= FEWEST else 0.0
        begins = z > SPIKE and not self._within
        self._within = z > SPIKE
        self._last = [*self._last[1 - WINDOW :], loss]
        return z if begins else None

    def numbers(self) -> dict[str, Any]:
        return {"last": self._last, "within": self._within}

    def load(self, numbers: Mapping[str, Any]) -> None:
        self._last, self._within = list(numbers["last"]), bool(numbers["within"])


def robust_z(value: float, others: Sequence[float]) -> float:
    """How far `value` lies above the median of the others, in robust standard deviations (1.4826 MAD).

    The spread counts as 1 % of the median at the least.
    """
    median = statistics.median(others)
    deviation = 1.4826 * statistics.median([abs(other - median) for other in others])
    spread = max(deviation, LEAST_SPREAD * abs(median), sys.float_info.min)
    return (value - median) / spread


class Source:
    """Whether the source of the flow collapses (cf_encoders.collapse_warning), from step `settled` on.

    Before that every encoder looks collapsed. A warning must hold in three records in a row, and is told once; after a
    recovery it may come again.
    """

    def __init__(self, settled: int) -> None:
        self._settled, self._ill = settled, 0

    def warning(self, step: int, stats: Mapping[str, float]) -> str | None:
        """What to tell of a record's statistics; None for a task whose source is not learned."""
        if step < self._settled or any(name not in stats for name in STATISTICS):
            return None
        warning = collapse_warning(stats)
        self._ill = 0 if warning is None else self._ill + 1
        return warning if self._ill == PERSISTENT else None

    def numbers(self) -> dict[str, Any]:
        return {"ill": self._ill}

    def load(self, numbers: Mapping[str, Any]) -> None:
        self._ill = int(numbers["ill"])


def _parts(losses: Sequence[Losses], places: Sequence[tuple[int, int]]) -> list[dict[str, Any]]:
    """Each pass as JSON: its place in the stream, its losses, which of them are not finite."""
    parts = []
    for part, (first, size) in zip(losses, places, strict=True):
        values = {name: value.item() for name, value in part.scalars().items()}
        bad = [name for name, value in values.items() if not math.isfinite(value)]
        bad = [
            name for name in bad if name != "total"
        ] or bad  # the sum says nothing where a term is to blame
        shown = {name: value if math.isfinite(value) else str(value) for name, value in values.items()}
        parts.append({"first": first, "size": size, "not_finite": bad, "losses": shown})  # JSON knows no NaN
    return parts


def _means(losses: Sequence[Losses]) -> dict[str, float]:
    """The mean of each loss over the passes of this rank."""
    scalars = [part.scalars() for part in losses]
    return {name: torch.stack([part[name] for part in scalars]).mean().item() for name in scalars[0]}


def _keep(path: Path, record: Mapping[str, Any]) -> None:
    """Append a line, whole or not at all; a step that was there already, before a resume, is replaced."""
    try:
        others = [line for line in read_lines(path) if line.get("step") != record["step"]]
        write_text(path, "".join(json.dumps(line) + "\n" for line in [*others, record]))
    except OSError as error:
        raise RunError(f"cannot write {path}: {error.strerror or error}; make room and resume") from error


def _listed(steps: Sequence[int]) -> str:
    """[3, 4, 5, 9] as 3 to 5, 9"""
    runs: list[list[int]] = [[steps[0]]]
    for before, step in pairwise(steps):
        if step == before + 1:
            runs[-1].append(step)
        else:
            runs.append([step])
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]} to {run[-1]}" for run in runs)


def _warn(sentence: str) -> None:
    print(f"warning: {sentence}", file=sys.stderr, flush=True)
