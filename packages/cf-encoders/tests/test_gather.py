import itertools
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from cf_encoders.gather import WholeBatch, whole_batch

SCRIPT = Path(__file__).with_name("gloo_rank.py")
RANK = runpy.run_path(str(SCRIPT))  # its tables, and `measure` for one process
CASES = list(itertools.product(RANK["SPLITS"], RANK["LOSSES"], RANK["DTYPES"]))
RANKS = 3

# sums in another order: the 1e-6 for float32 (of values of order one), thirteen digits for float64
TOLERANCE = {"float32": {"atol": 1e-6, "rtol": 1e-6}, "float64": {"atol": 1e-13, "rtol": 1e-13}}


@pytest.fixture(scope="module")
def processes(tmp_path_factory):
    """What each of three gloo processes found, in all the groups it is in."""
    folder = tmp_path_factory.mktemp("ranks")
    outs = [folder / f"{rank}.pt" for rank in range(RANKS)]
    commands = [
        [sys.executable, str(SCRIPT), str(rank), str(RANKS), str(folder / "store"), str(out)]
        for rank, out in enumerate(outs)
    ]
    running = [subprocess.Popen(command) for command in commands]
    try:
        assert [process.wait(timeout=300) for process in running] == [0] * RANKS
    finally:
        for process in running:
            process.kill()  # the others wait for ever when one has failed
    return [torch.load(out, weights_only=False) for out in outs]  # our own file, made a moment ago


@pytest.fixture(params=CASES, ids=["-".join(case) for case in CASES])
def case(request, processes):
    """(what the ranks found, what one process finds with the same pairs, the tolerance)"""
    split, loss, dtype = request.param
    members, sizes = RANK["SPLITS"][split]
    whole = RANK["measure"](loss, dtype, (sum(sizes),), 0, None)
    return [processes[member][request.param] for member in members], whole, TOLERANCE[dtype]


def test_the_mean_of_the_ranks_losses_is_the_loss_of_the_whole_batch(case):
    ranks, whole, tolerance = case
    torch.testing.assert_close(
        torch.stack([rank["loss"] for rank in ranks]).mean(), whole["loss"], **tolerance
    )


def test_gradients_reach_the_other_rank_and_their_mean_is_the_whole_batch_s(case):
    # a pair's gradient is the sum over all ranks' losses; DDP takes the mean over the ranks
    ranks, whole, tolerance = case
    for name in ("x", "y"):
        found = torch.cat([rank[name] for rank in ranks]) / len(ranks)
        torch.testing.assert_close(found, whole[name], **tolerance)


def test_what_ddp_makes_of_every_parameter_s_gradient_is_the_whole_batch_s_on_every_rank(case):
    ranks, whole, tolerance = case
    for rank in ranks:
        torch.testing.assert_close(rank["parameters"], whole["parameters"], **tolerance)
    scales = [grad for name, grad in whole["parameters"].items() if name.startswith("scale.")]
    assert scales
    assert all(grad.abs() > 1e-4 for grad in scales)  # the temperature is learned, not merely carried along


def test_every_rank_knows_the_retrieval_accuracy_of_the_whole_batch(case):
    ranks, whole, _ = case
    assert all(rank["accuracy"] == whole["accuracy"] for rank in ranks)


def test_a_rank_holds_its_own_rows_of_the_logits_and_never_all_of_them(processes):
    members, sizes = RANK["SPLITS"]["3 ranks, uneven"]
    for loss in RANK["LOSSES"]:
        for member, size in zip(members, sizes, strict=True):
            held = processes[member]["3 ranks, uneven", loss, "float32"]["held"]
            assert (size, 9) in held
            assert (9, 9) not in held


def test_ranks_that_do_not_fit_together_say_so_on_every_rank_and_do_not_hang(processes):
    for found in processes:
        widths, empty, *sizes = found["refusals"]
        assert widths == "the ranks' latents hold [4, 5, 6] numbers; all must have one shape"
        assert "empty on every rank" in empty
        assert len(sizes) == 3
        assert all("are not those of the 3 ranks" in refusal for refusal in sizes)


@pytest.mark.parametrize("loss", RANK["LOSSES"])
@pytest.mark.parametrize("split", RANK["SPLITS"])
def test_ranks_that_are_told_the_sizes_find_the_same_bits_and_ask_nobody(processes, split, loss):
    members, _ = RANK["SPLITS"][split]
    for member in members:
        asked, told = (
            processes[member][key] for key in ((split, loss, "float32"), ("told", split, loss, "float32"))
        )
        for name in ("loss", "accuracy", "x", "y"):
            assert torch.equal(told[name], asked[name]), name
        questions = [found["gathers"].count(torch.int64) for found in (asked, told)]
        assert questions == [2, 0]  # of the loss and of the accuracy


def test_without_a_group_there_is_one_rank_and_nothing_to_gather():
    x = torch.zeros(3, 2)
    batch = whole_batch(x, None)
    assert batch == WholeBatch((3,), 0, None)
    assert batch.gather(x) is x
    assert batch.mean_weight == 1 / 3


def test_places_are_counted_over_the_ranks_before():
    assert WholeBatch((4, 0, 3), 2, None).places(torch.device("cpu")).tolist() == [4, 5, 6]
    assert WholeBatch((4, 0, 3), 1, None).places(torch.device("cpu")).tolist() == []


def test_an_empty_batch_is_refused():
    with pytest.raises(ValueError, match="no pair to contrast"):
        whole_batch(torch.zeros(0, 2), None)
