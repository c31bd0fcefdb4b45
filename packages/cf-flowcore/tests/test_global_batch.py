"""Null targets over the batch of all ranks: two real processes that talk to each other."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

RANK = Path(__file__).with_name("global_batch_rank.py")
B = 3


def together(folder: Path, b: list[int]) -> list[dict]:
    """What each rank found, ranks holding b[rank] samples of values 10 rank, 10 rank + 1, ..."""
    sizes = [str(n) for n in b]
    ranks = [
        subprocess.Popen([sys.executable, str(RANK), str(folder), str(rank), *sizes])
        for rank in range(len(b))
    ]
    assert [rank.wait(timeout=60) for rank in ranks] == [0] * len(b)
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(len(b))]


def test_a_null_sample_gets_the_data_of_another_rank_as_often_as_chance_says(tmp_path):
    found = together(tmp_path, [B, B])
    everyone = {0.0, 1.0, 2.0, 10.0, 11.0, 12.0}
    for first, second in zip(found[0]["all"], found[1]["all"], strict=True):
        given = torch.cat([first, second])[:, 0]
        assert set(given.tolist()) == everyone  # a permutation of the global batch: no two share one
        assert (given != torch.tensor(sorted(everyone))).all()  # and none is led to itself
    crossed = (found[0]["all"][..., 0] >= 10).float().mean()  # 3 of the 5 others are on the other rank
    assert crossed == pytest.approx(0.6, abs=4 * (0.24 / 120) ** 0.5)
    for rank in (0, 1):
        own = 10.0 * rank + torch.arange(B)[:, None].expand(B, 2)
        assert torch.equal(found[rank]["none"], own)
        assert torch.equal((found[rank]["half"] == own).all(1), torch.tensor([False, True, False]))
        assert set(found[rank]["here"][:, 0].tolist()) <= set(own[:, 0].tolist())


def test_one_sample_a_rank_is_enough(tmp_path):
    first, second = together(tmp_path, [1, 1])
    assert (first["all"] == 10).all()
    assert (second["all"] == 0).all()


def test_batches_of_different_sizes_are_refused_on_every_rank(tmp_path):
    for found in together(tmp_path, [2, 3]):
        assert "got (2, 2), (3, 2)" in found["error"]
