import subprocess
import sys
from pathlib import Path

import pytest
import torch
from cf_encoders import info_nce, retrieval_accuracy
from cf_encoders.gather import gather_batch, rank_in


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    """What each of two processes, with three samples each, found."""
    folder = tmp_path_factory.mktemp("ranks")
    script = Path(__file__).with_name("two_ranks.py")
    outs = [folder / f"{rank}.pt" for rank in range(2)]
    commands = [
        [sys.executable, str(script), str(rank), str(folder / "store"), str(out)]
        for rank, out in enumerate(outs)
    ]
    processes = [subprocess.Popen(command) for command in commands]
    assert [process.wait(timeout=120) for process in processes] == [0, 0]
    return [torch.load(out, weights_only=True) for out in outs]


@pytest.fixture(scope="module")
def whole():
    """The same six samples in one process."""
    z, target = torch.randn(2, 6, 2, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    z, target = z.requires_grad_(), target.requires_grad_()
    log_scale = torch.tensor(1.3, dtype=torch.float64, requires_grad=True)
    loss = info_nce(z, target, log_scale)
    loss.backward()
    return {
        "loss": loss.detach(),
        "z": z.grad,
        "target": target.grad,
        "log_scale": log_scale.grad,
        "accuracy": retrieval_accuracy(z, target),
    }


@pytest.mark.parametrize("name", ["loss", "log_scale", "accuracy"])
def test_the_mean_over_two_ranks_is_the_value_of_the_whole_batch(name, ranks, whole):
    torch.testing.assert_close((ranks[0][name] + ranks[1][name]) / 2, whole[name])


@pytest.mark.parametrize("name", ["z", "target"])
def test_gradients_reach_the_other_rank_and_their_mean_is_the_whole_batch_s(name, ranks, whole):
    # a sample's gradient is the sum over both ranks' losses; DDP then takes the mean over the ranks
    torch.testing.assert_close(torch.cat([ranks[0][name], ranks[1][name]]) / 2, whole[name])


def test_without_a_group_there_is_one_rank_and_nothing_to_gather():
    x = torch.zeros(3, 2)
    assert rank_in(None) == 0
    assert gather_batch(x, None) is x
