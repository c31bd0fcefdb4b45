"""Three ranks of which one goes wrong, each in its own way; a process of its own that prints what became of them.

    python engine_deaths.py FOLDER

Prints JSON: way -> {"seconds": until all had ended, "codes": exit codes, "last": last lines on stderr}.
"""

import json
import os
import signal
import socket
import sys
import time
from pathlib import Path

import torch._dynamo  # noqa: F401 - imported once here, not in each rank
from cf_apps.cli import _done
from cf_apps.engine.ranks import watch
from cf_apps.engine.ranks.world import World, joined

SIZE, UNLUCKY = 3, 1
HASTE = watch.Patience(beat=0.3, silence=4.0, grace=2.0)


def raises(world: World) -> None:
    if world.rank == UNLUCKY:
        raise ZeroDivisionError("a batch of no samples")
    world.wait()


def killed(world: World) -> None:
    if world.rank == UNLUCKY:
        os.kill(os.getpid(), signal.SIGKILL)
    world.wait()


def silent(world: World) -> None:
    """Stopped, not dead: its connections stay open, so no collective fails."""
    if world.rank == UNLUCKY:
        os.kill(os.getpid(), signal.SIGSTOP)
    world.wait()


def well(world: World) -> None:
    assert world.everyone(world.rank) == list(range(SIZE))
    assert world.from_main(world.rank) == 0
    assert world.on_main(lambda: "rank 0 alone") == "rank 0 alone"
    assert world.any(world.rank == 2)
    assert not world.any(False)
    assert world.largest([-1.0, float(world.rank)]) == [-1.0, SIZE - 1.0]


WAYS = {"raises": raises, "killed": killed, "silent": silent, "well": well}


def rank(number: int, way: str, port: int, errors: Path) -> None:
    """What a forked process does; it never returns."""
    os.environ |= {"RANK": str(number), "LOCAL_RANK": str(number), "WORLD_SIZE": str(SIZE)}
    os.environ |= {"MASTER_ADDR": "localhost", "MASTER_PORT": str(port)}
    file = errors.open("w")
    os.dup2(file.fileno(), 2)
    sys.stderr = file

    class Command:
        def run(self) -> None:
            with joined("cpu") as world:
                WAYS[way](world)

    try:
        code = _done(Command())
    except BaseException as error:
        print(f"{type(error).__name__}: {error}", file=file)
        code = 1
    file.flush()
    os._exit(code)


def outcome(way: str, folder: Path) -> dict[str, object]:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    start, files = time.monotonic(), [folder / f"{way}-{number}" for number in range(SIZE)]
    pids = [os.fork() or rank(number, way, port, files[number]) for number in range(SIZE)]
    codes: list[int | None] = [None] * SIZE
    while None in codes and time.monotonic() - start < 120:
        for number, pid in enumerate(pids):
            if codes[number] is None and way == "silent" and number == UNLUCKY:
                others = [code for other, code in enumerate(codes) if other != UNLUCKY]
                if None not in others:
                    os.kill(pid, signal.SIGKILL)  # what torchrun does to the ranks that are left
            if codes[number] is None and (done := os.waitpid(pid, os.WNOHANG))[0]:
                codes[number] = os.waitstatus_to_exitcode(done[1])
        time.sleep(0.05)
    for number, pid in enumerate(pids):
        if codes[number] is None:
            os.kill(pid, signal.SIGKILL)
    lines = [path.read_text().strip().splitlines() or [""] for path in files]
    return {"seconds": time.monotonic() - start, "codes": codes, "last": [of[-1] for of in lines]}


if __name__ == "__main__":
    watch.Patience.__init__.__defaults__ = (HASTE.beat, HASTE.silence, HASTE.grace)
    print(json.dumps({way: outcome(way, Path(sys.argv[1])) for way in WAYS}))
