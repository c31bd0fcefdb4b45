"""The processes of a training: how they find together, and how they end when one of them fails."""

import json
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from cf_apps.engine import FitConfig, fit
from cf_apps.engine.errors import ConfigError, RunError, UserError
from cf_apps.engine.fit import _places
from cf_apps.engine.ranks.watch import Patience, Watch, reason
from cf_apps.engine.ranks.world import ENVIRONMENT, World, joined

sys.path.insert(0, str(Path(__file__).parent))
from engine_toy import Toy, config

CPU = torch.device("cpu")
SCRIPT = Path(__file__).with_name("engine_deaths.py")


@pytest.fixture(scope="module")
def ends(tmp_path_factory):
    """How three ranks ended, of which one went wrong: way -> seconds, exit codes, last lines."""
    command = [sys.executable, str(SCRIPT), str(tmp_path_factory.mktemp("deaths"))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_ranks_that_are_well_hear_one_another_and_leave_cleanly(ends):
    assert ends["well"]["codes"] == [0, 0, 0]
    assert ends["well"]["last"] == ["", "", ""]


@pytest.mark.parametrize(
    ("way", "cause", "own"),
    [
        (
            "raises",
            "error: rank 1: ZeroDivisionError: a batch of no samples",
            "ZeroDivisionError: a batch of no samples",
        ),
        ("killed", "lost another rank: it was killed, or its machine is gone", ""),
        ("silent", "error: rank 1 has given no sign of life for ", ""),
    ],
)
def test_a_rank_that_goes_wrong_ends_all_and_the_last_line_says_why(ends, way, cause, own):
    assert ends[way]["seconds"] < 60
    assert all(code != 0 for code in ends[way]["codes"])
    others, unlucky = [ends[way]["last"][rank] for rank in (0, 2)], ends[way]["last"][1]
    assert all(cause in line and line.startswith("error: ") for line in others), others
    assert own in unlucky


def test_without_torchrun_there_is_one_process(monkeypatch):
    for name in ENVIRONMENT:
        monkeypatch.delenv(name, raising=False)
    with joined("cpu") as world:
        assert world == World.alone(CPU)
        assert world.main
        assert (world.everyone("x"), world.from_main("x"), world.on_main(lambda: "x")) == (["x"], "x", "x")
        assert world.any(True)
        assert not world.any(False)
        assert torch.equal(world.total(torch.ones(2)), torch.ones(2))
        world.wait()


def test_half_an_environment_is_refused(monkeypatch):
    for name in ENVIRONMENT:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("RANK", "0")
    with (
        pytest.raises(ConfigError, match="RANK set and WORLD_SIZE, LOCAL_RANK not; start with torchrun"),
        joined("cpu"),
    ):
        pass


def test_a_rank_outside_its_world_is_an_error():
    with pytest.raises(ValueError, match=r"rank must lie in \[0, 2\), got 2"):
        World(2, 2, 0, None, CPU)


def test_fewer_rows_than_ranks_are_refused_before_anything_is_written(tmp_path):
    world = World(1, 3, 1, None, CPU)
    with pytest.raises(ConfigError, match="3 processes have no row each of the 2 of a pass"):
        fit(Toy(), config(2, accumulate=4), tmp_path / "run", world=world)
    assert not (tmp_path / "run").exists()


def test_the_places_of_the_ranks_are_the_places_of_the_step():
    settings = FitConfig(steps=9, batch_size=14, accumulate=2)
    places = [_places(settings, World(rank, 3, rank, None, CPU), 5) for rank in range(3)]
    assert places == [[(70, 3), (77, 3)], [(73, 2), (80, 2)], [(75, 2), (82, 2)]]
    assert _places(settings, World.alone(CPU), 5) == [(70, 7), (77, 7)]


def test_a_rank_at_its_end_waits_for_the_others_without_a_collective_that_gives_up():
    store, hasty = dist.HashStore(), Patience(beat=0.02)
    ranks = [Watch(store, rank, 2, hasty) for rank in range(2)]
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(ranks[0].meet)
        time.sleep(0.1)
        assert not waiting.done()
        ranks[1].meet()
        waiting.result(timeout=60)


def test_a_rank_at_its_end_hears_of_another_s_failure():
    store = dist.HashStore()
    ranks = [Watch(store, rank, 2, Patience(beat=0.02)) for rank in range(2)]
    error = ConfigError("no such picture")
    assert ranks[1].failed(error) is error
    with pytest.raises(RunError, match="rank 1: no such picture"):
        ranks[0].meet()


def test_a_reason_is_one_line():
    assert reason(ValueError("two\nlines")) == "ValueError: two lines"
    assert reason(UserError("what to do")) == "what to do"
    assert reason(KeyError()) == "KeyError"
    lost = RuntimeError("[pair.cc:561] Connection closed by peer [127.0.0.1]:31641")
    assert reason(lost).startswith("lost another rank: it was killed")
    assert isinstance(RunError("x"), UserError)
