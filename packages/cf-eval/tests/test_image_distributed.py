"""One, two and three gloo processes give the same numbers, whoever saw which picture."""

import runpy
import subprocess
import sys
from pathlib import Path

import pytest
from cf_eval.distributed import all_ranks

SCRIPT = Path(__file__).with_name("image_rank.py")
RANK = runpy.run_path(str(SCRIPT))  # its tables, and `measure` for one process
RANKS = 3
TOLERANCE = 1e-12


@pytest.fixture(scope="module")
def processes(tmp_path_factory):
    """What each of three gloo processes found, in all the groups it is in."""
    import torch

    folder = tmp_path_factory.mktemp("ranks")
    outs = [folder / f"{rank}.pt" for rank in range(RANKS)]
    commands = [
        [sys.executable, str(SCRIPT), str(rank), str(RANKS), str(folder / "store"), str(out)]
        for rank, out in enumerate(outs)
    ]
    running = [subprocess.Popen(command) for command in commands]
    assert [process.wait(timeout=300) for process in running] == [0] * RANKS
    return [torch.load(out, weights_only=False) for out in outs]  # our own file, made a moment ago


@pytest.fixture(scope="module")
def alone():
    everything = range(RANK["N"])
    return RANK["measure"](everything, None) | {"frechet": {"frechet": RANK["frechet"](everything, None)}}


@pytest.mark.parametrize("split", RANK["SPLITS"])
def test_every_rank_has_the_numbers_of_one_process(split, processes, alone):
    for rank in range(len(RANK["SPLITS"][split])):
        for name, values in processes[rank][split].items():
            assert values == pytest.approx(alone[name], rel=TOLERANCE, abs=TOLERANCE), name


def test_seven_metrics_were_compared_and_none_is_trivial(processes, alone):
    assert len(alone) == 7
    assert set(processes[0]["3 ranks, in turn"]) == set(alone)
    assert all(alone[name]["count"] == RANK["N"] for name in alone if name != "frechet")
    assert alone["fid"]["frechet_distance"] > 0.1


def test_one_process_is_a_list_of_its_own_state_and_a_group_must_be_started():
    assert all_ranks("state") == ["state"]
    with pytest.raises(ValueError, match="call init_process_group first"):
        all_ranks("state", group=object())
