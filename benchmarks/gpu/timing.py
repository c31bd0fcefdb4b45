"""Time on a CUDA device: of one op, without the host; and of a whole step, with it."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

Call = Callable[[], object]
CYCLES_PER_US = 2_000  # of the device's clock, at least
LEAD_US = 50.0  # by how much the host is ahead of the device when a timed call begins
LONGEST_LEAD_US = 20_000.0
FEWEST_ROUNDS, MOST_ROUNDS = 3, 200
CACHE_FACTOR = 4  # the sets of inputs together, in sizes of the L2 cache
Figures = dict[str, float]


def sets_needed(bytes_of_a_set: int, cache_bytes: int) -> int:
    """How many sets of inputs to go round, so that none is in the L2 cache when its turn comes."""
    return max(1, -(-CACHE_FACTOR * cache_bytes // max(bytes_of_a_set, 1)))


def spread(values: list[float]) -> tuple[float, float, float]:
    """Median, 20 % and 80 % of what was measured (the nearest that was)."""
    ordered = sorted(values)
    low, high = (ordered[round(share * (len(ordered) - 1))] for share in (0.2, 0.8))
    return statistics.median(ordered), low, high


def _lead_us(host_us: float) -> float:
    return min(2 * host_us + LEAD_US, LONGEST_LEAD_US)


@dataclass(frozen=True)
class Clock:
    """Measures on a CUDA device; with `dry`, calls once and measures nothing.

    `op_seconds` and `whole_seconds` are about how long one figure takes, warm-up left out.
    """

    dry: bool
    op_seconds: float = 0.15
    whole_seconds: float = 3.0

    def op(self, prepare: Callable[[int], Call], n_sets: int) -> Figures:
        """Microseconds on the device of what `prepare(i)` returns, for inputs of set i: us, us_20, us_80, host_us.

        Preparing is not timed. The device is kept busy until the host has queued the call, so that launching costs
        nothing; host_us is what the host needs for it. All sets are prepared before the first is timed.
        """
        if self.dry:
            prepare(0)()
            return {}
        for _ in range(2):  # compiles, chooses algorithms, fills the allocator's pool
            for call in [prepare(i) for i in range(n_sets)]:
                call()
        host_us = self._host_us(prepare)
        round_us = sum(self._round(prepare, n_sets, host_us)) + n_sets * _lead_us(host_us)
        rounds = min(MOST_ROUNDS, max(FEWEST_ROUNDS, round(self.op_seconds * 1e6 / round_us)))
        values = [us for _ in range(rounds) for us in self._round(prepare, n_sets, host_us)]
        median, low, high = spread(values)
        return {"us": median, "us_20": low, "us_80": high, "host_us": host_us, "repeats": len(values)}

    def _round(self, prepare: Callable[[int], Call], n_sets: int, host_us: float) -> list[float]:
        """One timed call of every set."""
        calls = [prepare(i) for i in range(n_sets)]
        lead = int(_lead_us(host_us) * CYCLES_PER_US)
        events = []
        torch.cuda.synchronize()
        for call in calls:
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            torch.cuda._sleep(lead)
            begin.record()
            call()
            end.record()
            events.append((begin, end))
        torch.cuda.synchronize()
        return [1e3 * begin.elapsed_time(end) for begin, end in events]

    def _host_us(self, prepare: Callable[[int], Call]) -> float:
        """What the host spends on queueing one call."""
        values = []
        for _ in range(5):
            call = prepare(0)
            torch.cuda.synchronize()
            begin = time.perf_counter()
            call()
            values.append(1e6 * (time.perf_counter() - begin))
        torch.cuda.synchronize()
        return statistics.median(values)

    def whole(self, call: Call, warmup: int = 2) -> Figures:
        """Seconds on the wall of a whole step, the host's work and its waits included: s, s_20, s_80, repeats."""
        if self.dry:
            call()
            return {}
        for _ in range(warmup):
            call()
        first = self._wall(call)
        values = [first]
        while len(values) < 3 or (sum(values) < self.whole_seconds and len(values) < 50):
            values.append(self._wall(call))
            if len(values) >= 2 and sum(values) > 3 * self.whole_seconds:
                break
        median, low, high = spread(values)
        return {"s": median, "s_20": low, "s_80": high, "repeats": len(values)}

    @staticmethod
    def _wall(call: Call) -> float:
        torch.cuda.synchronize()
        begin = time.perf_counter()
        call()
        torch.cuda.synchronize()
        return time.perf_counter() - begin
