"""Evaluation shared out among ranks finds what one process finds, in every task."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

SCRIPT = Path(__file__).with_name("engine_evaluations.py")
RANKS = [(size, rank) for size in (2, 3) for rank in range(size)]
FLOAT32 = 1e-6  # other rows beside a row in a product: 4e-8 were seen
BYTES = 1e-3  # a picture's byte may be rounded the other way
EXACT = ("composition", "captions")  # counts, and sums over words


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """(ranks, rank) -> what that rank found."""
    folder = tmp_path_factory.mktemp("evaluations")
    done = subprocess.run(
        [sys.executable, str(SCRIPT), str(folder)], capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stdout + done.stderr
    # our own files, made a moment ago
    return {
        (size, rank): torch.load(folder / f"{size}-{rank}.pt", weights_only=False)
        for size, rank in [(1, 0), *RANKS]
    }


def numbers(table, name=""):
    """Every number of a nested table, by its path; how it was measured is text."""
    if isinstance(table, dict):
        parts = [numbers(value, f"{name}/{key}") for key, value in table.items()]
        return {path: value for part in parts for path, value in part.items()}
    if isinstance(table, list | tuple):
        return numbers(dict(enumerate(table)), name)
    return {name: table} if isinstance(table, int | float) else {}


@pytest.mark.parametrize("ranks", RANKS)
@pytest.mark.parametrize(
    "task", ["composition", "pairs", "baseline", "prompts", "depth", "superres", "captions", "guidance"]
)
def test_every_rank_knows_the_scores_of_one_process(found, task, ranks):
    many, one = numbers(found[ranks][task]), numbers(found[1, 0][task])
    assert len(one) > 1
    tolerance = 0.0 if task in EXACT else BYTES if task == "superres" else FLOAT32
    assert many == pytest.approx(one, rel=tolerance, abs=tolerance)


@pytest.mark.parametrize("ranks", RANKS)
def test_each_picture_is_drawn_by_one_rank_from_the_random_numbers_of_one_process(found, ranks):
    torch.testing.assert_close(found[ranks]["images"], found[1, 0]["images"], rtol=FLOAT32, atol=FLOAT32)
    assert found[1, 0]["rows"] == 18
    drawn = [found[ranks[0], rank]["rows"] for rank in range(ranks[0])]
    assert drawn == {2: [9, 9], 3: [7, 7, 4]}[ranks[0]]  # of batches of 8, 8 and 2


@pytest.mark.parametrize("ranks", RANKS)
def test_a_rank_that_cannot_go_on_is_heard_by_all(found, ranks):
    assert found[ranks]["refused"] == "the last row is unusable"


def test_the_scores_are_not_trivial(found):
    one = found[1, 0]
    assert one["images"].std() > 0.01
    assert one["superres"]["ours"]["psnr"] != one["superres"]["bicubic"]["psnr"]
    assert one["captions"]["written"]["different"] > 1
    assert json.dumps(one["pairs"]) != json.dumps(one["baseline"])
