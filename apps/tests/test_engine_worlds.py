"""One, two and three processes train alike: the same losses, weights and averages, by DDP and FSDP2."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
from engine_worlds import CASES

SCRIPT = Path(__file__).with_name("engine_worlds.py")
WORLDS = [(name, way, size) for name, case in CASES.items() for way, size in case.worlds]
EXACT = [world for world in WORLDS if CASES[world[0]].fit.precision == "fp32"]
SUMS = {"rtol": 1e-11, "atol": 1e-11}  # float64, three steps, sums in another order: 1e-13 were seen
LOGGED = {"rtol": 3e-7, "atol": 3e-7}  # the log's means are float32
BF16 = {"rtol": 1e-2, "atol": 1e-2}  # eight bits of a number, other rows beside it in a product


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """(case, way, ranks) -> what rank 0 found."""
    folder = tmp_path_factory.mktemp("worlds")
    done = subprocess.run(
        [sys.executable, str(SCRIPT), str(folder)], capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stdout + done.stderr
    keys = [*WORLDS, *((name, "one", 1) for name in CASES)]
    keys += [("sampled", size) for size in (1, 2, 3)]
    # our own files, made a moment ago
    return {key: torch.load(folder / f"{'-'.join(map(str, key))}.pt", weights_only=False) for key in keys}


def ids(worlds):
    return ["-".join(map(str, world)) for world in worlds]


@pytest.mark.parametrize("world", EXACT, ids=ids(EXACT))
def test_several_processes_end_with_the_weights_and_the_average_of_one(found, world):
    one = found[world[0], "one", 1]["tensors"]
    assert found[world]["tensors"].keys() == one.keys()
    for name, tensor in found[world]["tensors"].items():
        torch.testing.assert_close(tensor, one[name], **SUMS, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.parametrize("world", WORLDS, ids=ids(WORLDS))
def test_several_processes_log_the_losses_and_the_gradient_norms_of_one(found, world):
    tolerance = LOGGED if world in EXACT else BF16
    many, one = found[world]["log"], found[world[0], "one", 1]["log"]
    assert len(many) == len(one) == CASES[world[0]].fit.steps
    for a, b in zip(many, one, strict=True):
        assert a["losses"].keys() == b["losses"].keys()
        for name, value in b["losses"].items():
            assert a["losses"][name] == pytest.approx(value, rel=tolerance["rtol"], abs=tolerance["atol"]), (
                name
            )
        assert a["grad_norm"] == pytest.approx(b["grad_norm"], rel=10 * tolerance["rtol"])
        assert a["stats"].keys() == b["stats"].keys()


@pytest.mark.parametrize("world", EXACT, ids=ids(EXACT))
def test_an_evaluation_sees_the_averaged_weights_wherever_they_lie(found, world):
    many, one = found[world]["evaluation"], found[world[0], "one", 1]["evaluation"]
    assert [record["step"] for record in many] == [2]
    assert many[0]["evaluation"]["v"] == pytest.approx(one[0]["evaluation"]["v"], rel=1e-12)


@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.parametrize("solver", ["euler", "dopri5"])
def test_samples_shared_out_among_ranks_are_those_of_one_process_in_the_same_order(found, solver, size):
    (x, rows, accepted), (one, one_rows, one_accepted) = (found["sampled", n][solver] for n in (size, 1))
    torch.testing.assert_close(x, one, rtol=1e-9, atol=1e-9)  # 7 rows in one product, or 3 + 2 + 2
    assert rows == one_rows
    torch.testing.assert_close(accepted, one_accepted)


def test_the_cases_are_not_trivial(found):
    for name in CASES:
        tensors, log = found[name, "one", 1]["tensors"], found[name, "one", 1]["log"]
        assert all(record["grad_norm"] > 1e-2 for record in log)
        assert any(
            not torch.equal(tensors[key], tensors[f"ema.{key}"]) for key in tensors if f"ema.{key}" in tensors
        )
    stages = [set(record["losses"]) for record in found["stages", "one", 1]["log"]]
    assert stages[0] == {"encoder", "kl", "mean", "total"}
    assert stages[-1] == {"flow", "total"}
