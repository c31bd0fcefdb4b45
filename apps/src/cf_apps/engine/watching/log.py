"""The log of a run: RUN/log.jsonl, one line of JSON per `log_every` steps."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import torch
from torch import Tensor

from cf_apps.engine.errors import RunError
from cf_apps.engine.files import write_text
from cf_apps.engine.ranks.world import ALONE, World
from cf_apps.engine.task import Losses
from cf_apps.engine.watching.lines import read_lines


class Means:
    """Means of scalars by name over the steps since the last reading, and over the ranks; kept on their device.

    A NaN counts as no value; a name without values is left out. Every rank adds the same names.
    """

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, Tensor] = {}

    def add(self, scalars: Mapping[str, Tensor], weight: float = 1.0) -> None:
        """weight: of this rank's values in the mean over the ranks, see `Draws.weight`."""
        for name, value in scalars.items():
            value = value.detach().float()
            self._sums[name] = self._sums.get(name, 0) + weight * torch.nan_to_num(value, nan=0.0)
            self._counts[name] = self._counts.get(name, 0) + weight * (~value.isnan()).float()

    def read(self, world: World = ALONE) -> dict[str, float]:
        """The means so far; starts anew. Collective. Waits for the device, so only when logging."""
        if not self._sums:
            return {}
        device = next(iter(self._sums.values())).device
        kept = [torch.stack([x.to(device) for x in of.values()]) for of in (self._sums, self._counts)]
        sums, counts = world.total(torch.stack(kept))
        means = dict(zip(self._sums, (sums / counts).tolist(), strict=True))
        self._sums, self._counts = {}, {}
        return {name: mean for name, mean in means.items() if not math.isnan(mean)}


class Window:
    """What happened since the last line of the log: means of losses and statistics, and the rate."""

    def __init__(self, step: int, elapsed: float, batch_size: int, world: World = ALONE) -> None:
        self._step, self._elapsed, self._batch_size, self._world = step, elapsed, batch_size, world
        self._waited = 0.0
        self._losses, self._stats, self._norm = Means(), Means(), Means()
        self.text = ""
        """The last record in a few words, for a progress line."""

    def add(self, losses: Sequence[Losses], grad_norm: Tensor, weight: float = 1.0) -> None:
        """Take in one step: this rank's losses of its parts, their weight, and the gradient norm before clipping."""
        for part in losses:
            self._losses.add(part.scalars(), weight)
            self._stats.add(part.stats, weight)
        self._norm.add({"grad_norm": grad_norm})

    def record(self, step: int, elapsed: float, lr: float, waited: float = 0.0) -> dict[str, Any]:
        """The line for the log, and a new window from here on. Collective.

        waited: seconds that steps have waited for data since training started.
        """
        seconds = max(elapsed - self._elapsed, 1e-9)
        rate, stall = (step - self._step) / seconds, (waited - self._waited) / seconds
        losses, stats = self._losses.read(self._world), self._stats.read(self._world)
        self._step, self._elapsed, self._waited = step, elapsed, waited
        self.text = " · ".join(
            [
                f"step {step}",
                f"{rate:.3g} steps/s",
                *(f"{name} {value:.4g}" for name, value in losses.items()),
            ]
        )
        return {
            "step": step,
            "losses": losses,
            "stats": stats,
            "lr": lr,
            **self._norm.read(self._world),
            "samples_per_second": rate * self._batch_size,
            "data_wait": self._world.largest([stall])[0],
            "elapsed": elapsed,
        }


class Log:
    """Appends records to RUN/log.jsonl; a context. Lines beyond `step`, where a run resumes, are dropped."""

    def __init__(self, run: Path, step: int = 0) -> None:
        path = run / "log.jsonl"
        kept = [record for record in read_lines(path) if record.get("step", 0) <= step]
        try:
            write_text(path, "".join(json.dumps(record) + "\n" for record in kept))
            self._file = path.open("a", encoding="utf-8")
        except OSError as error:
            raise RunError(f"cannot write {path}: {error.strerror}; make room and resume") from error

    def write(self, record: Mapping[str, Any]) -> None:
        """One line, visible to readers at once; `record` has a 'step'."""
        try:
            self._file.write(json.dumps(record) + "\n")
            self._file.flush()
        except OSError as error:
            raise RunError(
                f"cannot write {self._file.name}: {error.strerror}; make room and resume"
            ) from error

    def __enter__(self) -> "Log":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()


class NoLog(Log):
    """Of a rank that does not write: nothing is opened and nothing kept."""

    def __init__(self) -> None:
        return

    def write(self, record: Mapping[str, Any]) -> None:
        del record

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return


def read_log(run: Path, kind: Literal["losses", "evaluation", "event"] = "losses") -> list[dict[str, Any]]:
    """The records of a run in order; the default kind are the training steps'.

    losses: step, losses, stats, lr, grad_norm, samples_per_second, data_wait, elapsed: means since the line before,
        over all ranks. data_wait is the share of the time that steps waited for data, of the rank that waited most.
    evaluation: step, evaluation. event: step, event, changed.
    Raises RunError when the folder has no log.
    """
    path = run / "log.jsonl"
    if not path.exists():
        raise RunError(f"{run} has no log.jsonl; give the folder that train wrote")
    return [record for record in read_lines(path) if kind in record]
