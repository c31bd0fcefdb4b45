"""Trains the toy task in child processes, kills them with SIGKILL, resumes; a process of its own.

    python engine_kills.py FOLDER random STEPS KILLS       at random moments, every other one within a save
    python engine_kills.py FOLDER ordered STEPS KILLS      just before the 1st, 2nd, ... file operation

FOLDER/whole: the run nobody disturbed. FOLDER/killed: the run that was. Prints the kills, and how many of
them left an unfinished save behind. Children are forked, so torch is imported once; nothing is computed here.
"""

import os
import random
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch._dynamo  # noqa: F401  torch's optimizers import it at their first step; once here, not in each child
from cf_apps.engine import fit
from cf_apps.engine.saving import storage  # noqa: F401  the first save imports it; once here, too
from cf_apps.engine.saving.checkpoint import checkpoints, load_checkpoint
from engine_toy import Toy, config


def child(work: Callable[[], object]) -> int:
    """Run `work` in a forked process; returns its process number."""
    if process := os.fork():
        return process
    try:
        work()
    except BaseException as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
        os._exit(1)
    os._exit(0)


def wait(process: int) -> bool:
    """Whether the process was killed; exits when it failed in another way."""
    status = os.waitpid(process, 0)[1]
    if os.WIFEXITED(status) and os.WEXITSTATUS(status):
        sys.exit("the child failed")
    return os.WIFSIGNALED(status)


def train(run: Path, steps: int, save_every: int) -> None:
    for folder in checkpoints(run).values():
        load_checkpoint(folder)  # whatever counts as a checkpoint must load
    fit(Toy(), config(steps, save_every=save_every), run, resume=run.exists())


def train_until_operation(run: Path, steps: int, last: int) -> None:
    die_before_operation(last)
    train(run, steps, save_every=1)


def die_before_operation(last: int) -> None:
    """From here on, this process dies just before its file operation number `last`."""
    count = 0

    def counted(operation: Callable[..., object]) -> Callable[..., object]:
        def wrapper(*args: object, **settings: object) -> object:
            nonlocal count
            count += 1
            if count == last:
                os.kill(os.getpid(), signal.SIGKILL)
            return operation(*args, **settings)

        return wrapper

    for module, name in ((os, "fsync"), (os, "replace"), (os, "unlink"), (os, "rmdir"), (os, "mkdir")):
        setattr(module, name, counted(getattr(module, name)))


def main(folder: Path, how: str, steps: int, kills: int) -> None:
    whole, killed = folder / "whole", folder / "killed"
    wait(child(lambda: train(whole, steps, save_every=steps)))
    moments, done, unfinished = random.Random(kills), 0, 0
    for number in range(1, kills + 1):
        if how == "random" and number % 2:
            process = child(lambda: train(killed, steps, save_every=1))
            time.sleep(moments.uniform(0.05, 0.6))
            os.kill(process, signal.SIGKILL)
        elif how == "random":
            operation = moments.randint(8, 120)  # the first few open the run, then come some 16 for each save
            process = child(lambda: train_until_operation(killed, steps, operation))  # noqa: B023
        else:
            process = child(lambda: train_until_operation(killed, steps, number))  # noqa: B023
        done += wait(process)
        unfinished += any(killed.glob("checkpoints/.*"))
    reached = max(checkpoints(killed), default=0)
    wait(child(lambda: train(killed, steps, save_every=max(1, steps // 10))))
    print(f"{done} kills, {unfinished} in a save, then at step {reached} of {steps}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
