"""Trainings on several ranks that are stopped, killed and resumed; a process of its own.

    python engine_rank_faults.py FOLDER resumes WAY           on 2, then 3, then 1 process, each but the last stopped
    python engine_rank_faults.py FOLDER kills WAY KILLS       on 2, one of them killed with SIGKILL, again and again

WAY: ddp or fsdp. FOLDER/WAY-whole: the run nobody disturbed (on 1 process, and on 2). FOLDER/WAY-broken: the one that
was. Prints how many kills found the run at work, and the most seconds that the other rank went on after one.
"""

import os
import random
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path

import torch
from cf_apps.engine import FitConfig, fit, read_log
from cf_apps.engine.ranks import parallel
from cf_apps.engine.ranks.world import World
from cf_apps.engine.saving import storage  # noqa: F401  the first save imports it; once here
from cf_apps.engine.saving.checkpoint import checkpoints, load_checkpoint
from cf_apps.t2i.task import T2IBatch
from engine_ranks import on_ranks, start_ranks
from engine_worlds import CASES, DoubleTask, build
from t2i_tiny import CPU

CASE = CASES["joint"]
STEPS, LONG = 7, 60
FIT = replace(CASE.fit, steps=STEPS, save_every=2, keep_last=3)


class Stopped(DoubleTask):
    """Asks its own process to stop, as a scheduler would, when a step's batch is drawn."""

    stop_at: int | None = None

    def batch(self, first: int, size: int, rows: range | None = None) -> T2IBatch:
        if self.stop_at is not None and first >= self.stop_at * FIT.batch_size:
            os.kill(os.getpid(), signal.SIGTERM)
        return super().batch(first, size, rows)


def train(run: Path, world: World, config: FitConfig, stop_at: int | None = None) -> None:
    """Train, going on from what is there. stop_at: the step in which the last rank is asked to stop."""
    parallel.SMALLEST_SHARD = 0  # blocks of a tiny model are gathered one by one too
    torch.set_num_threads(1)
    task = build(CASE)
    task.__class__ = Stopped
    task.stop_at = stop_at if world.rank == world.size - 1 else None
    result = fit(task, config, run, resume=run.exists(), world=world)
    assert result.finished is (stop_at is None)
    assert stop_at is None or result.step == stop_at + 1


def resumes(folder: Path, config: FitConfig) -> None:
    whole, broken = folder / f"{config.parallel}-whole", folder / f"{config.parallel}-broken"
    on_ranks(1, lambda _: train(whole, World.alone(CPU), config), folder / "alone")
    on_ranks(2, lambda world: train(broken, world, config, stop_at=1), folder / "two")
    on_ranks(3, lambda world: train(broken, world, config, stop_at=4), folder / "three")
    on_ranks(1, lambda _: train(broken, World.alone(CPU), config), folder / "one")


def kills(folder: Path, config: FitConfig, number: int) -> None:
    whole, broken = folder / f"{config.parallel}-whole", folder / f"{config.parallel}-broken"
    on_ranks(2, lambda world: train(whole, world, config), folder / "undisturbed")
    seconds, moments = read_log(whole)[-1]["elapsed"], random.Random(number)
    done, longest = 0, 0.0
    for kill in range(number):
        before = written(broken)
        processes = start_ranks(2, lambda world: train(broken, world, config), folder / f"kill-{kill}")
        while written(broken) == before:
            time.sleep(0.02)
        time.sleep(moments.uniform(0.05, 0.3) * seconds)
        os.kill(processes[kill % 2], signal.SIGKILL)
        killed = time.monotonic()
        states = [os.waitpid(process, 0)[1] for process in processes]
        longest = max(longest, time.monotonic() - killed)
        done += os.WIFSIGNALED(states[kill % 2])
        on_ranks(1, lambda _: load_all(broken), folder / f"look-{kill}")
    on_ranks(2, lambda world: train(broken, world, config), folder / "rest")
    print(done, longest)


def load_all(run: Path) -> None:
    """Whatever counts as a checkpoint must load."""
    for folder in checkpoints(run).values():
        load_checkpoint(folder)


def written(run: Path) -> int:
    """When a line was last written to the run's log."""
    log = run / "log.jsonl"
    return log.stat().st_mtime_ns if log.exists() else 0


if __name__ == "__main__":
    settings = replace(FIT, parallel=sys.argv[3])
    if sys.argv[2] == "resumes":
        resumes(Path(sys.argv[1]), settings)
    else:
        kills(Path(sys.argv[1]), replace(settings, steps=LONG, save_every=3), int(sys.argv[4]))
