"""What each stage of a program took: seconds, and the most memory it held."""

import time
from dataclasses import dataclass
from pathlib import Path

import torch

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


@dataclass(frozen=True)
class Stage:
    """peak: bytes on the GPU, or of the process where there is none; None where the system does not tell."""

    name: str
    seconds: float
    peak: int | None


class Stages:
    """One stage after the other; `begin` ends the one before."""

    def __init__(self, device: torch.device) -> None:
        self.done: list[Stage] = []
        self._device = device
        self._name: str | None = None
        self._start = 0.0

    def begin(self, name: str) -> None:
        """From here on it is this stage."""
        self.end()
        self._name = name
        self._forget()
        self._start = time.perf_counter()

    def end(self) -> None:
        """No stage runs from here on."""
        if self._name is None:
            return
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)  # what was asked for has to be done
        self.done.append(Stage(self._name, time.perf_counter() - self._start, self._peak()))
        self._name = None

    def seconds(self, name: str) -> float:
        """Of a stage that has ended; KeyError for another."""
        return {stage.name: stage.seconds for stage in self.done}[name]

    def _forget(self) -> None:
        """The high-water mark begins anew."""
        if self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self._device)
            return
        try:
            CLEAR.write_text("5")
        except OSError:  # not Linux, or a container that forbids it
            return

    def _peak(self) -> int | None:
        if self._device.type == "cuda":
            return torch.cuda.max_memory_allocated(self._device)
        try:
            lines = STATUS.read_text().splitlines()
        except OSError:
            return None
        marks = [line for line in lines if line.startswith("VmHWM:")]
        return 1024 * int(marks[0].split()[1]) if marks else None
