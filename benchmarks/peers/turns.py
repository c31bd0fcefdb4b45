"""Ways to do one thing, measured in turns: what a busy machine takes from one it takes from all."""

import statistics
import time
from collections.abc import Callable

Task = Callable[[], object]


def cpu_seconds(work: Task) -> float:
    """Thread CPU time of one call."""
    begin = time.thread_time()
    work()
    return time.thread_time() - begin


def in_turns(tasks: dict[str, Task], repeats: int) -> list[dict[str, float]]:
    """Seconds of every task in every repeat, after one round that is not counted."""
    for task in tasks.values():
        task()
    return [{name: cpu_seconds(task) for name, task in tasks.items()} for _ in range(repeats)]


def median_ms(turns: list[dict[str, float]], name: str) -> float:
    """Of one task."""
    return 1e3 * statistics.median(turn[name] for turn in turns)


def median_ratio(turns: list[dict[str, float]], over: str, under: str) -> float:
    """Of two tasks of the same repeat."""
    return statistics.median(turn[over] / turn[under] for turn in turns)
