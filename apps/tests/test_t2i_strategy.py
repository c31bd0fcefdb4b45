"""Encoder first, then the flow: what is trained when, and that what is frozen does not move by a bit."""

import shutil
import sys
from pathlib import Path

import pytest
import torch
from cf_apps.engine.commands.app import train
from cf_apps.engine.commands.recipe import TrainRequest
from cf_apps.engine.errors import ConfigError
from cf_apps.engine.saving.checkpoint import checkpoint_folder, load_checkpoint
from cf_apps.engine.watching.log import read_log
from cf_apps.t2i.app import APP
from cf_apps.t2i.losses import t2i_losses
from cf_apps.t2i.strategy import STRATEGIES, stage_at

sys.path.insert(0, str(Path(__file__).parent))
from t2i_tiny import CAPTIONS, CPU, SETTINGS, dice, model, named, recipe, write_folder

ENCODER = {"language", "text_ve", "image_tower", "log_scale"}
FIRST, LATER = 0.1, 0.9  # before and after an encoder share of 0.5


def losses_at(it, progress: float, seed: int = 3):
    x_1 = torch.randn(5, 3, 16, 16, generator=dice(1))
    return t2i_losses(it, list(CAPTIONS), x_1, x_1, dice(seed), progress)


def taught(it, loss) -> set[str]:
    """The parts with a parameter that gets any gradient at all, a zero one included."""
    it.modules.zero_grad()
    loss.total.backward()
    return {name.split(".")[0] for name, p in it.modules.named_parameters() if p.grad is not None}


# ------------------------------------------------------------------------------------------------- the stages


@pytest.mark.parametrize(
    ("strategy", "stages"),
    [
        ("joint", ["joint", "joint", "joint", "joint"]),
        ("two-stage", ["encoder", "encoder", "flow", "flow"]),
        ("two-stage-joint", ["encoder", "encoder", "joint", "joint"]),
    ],
)
def test_the_first_stage_ends_where_its_share_of_the_run_is_done(strategy, stages):
    assert [stage_at(strategy, 0.3, progress) for progress in (0.0, 0.2999, 0.3, 1.0)] == stages
    assert [
        recipe(strategy=strategy, encoder_share=0.3).model.stage_at(p) for p in (0.0, 0.2999, 0.3, 1.0)
    ] == stages


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_each_stage_teaches_its_own_parts_and_leaves_the_others_without_a_gradient(strategy):
    it = model(strategy=strategy, encoder_share=0.5)
    parts = {"encoder": ENCODER, "flow": {"backbone"}, "joint": ENCODER | {"backbone"}}
    for progress, stage in zip((FIRST, LATER), STRATEGIES[strategy], strict=True):
        assert taught(it, losses_at(it, progress)) == parts[stage]


def test_the_encoder_stage_has_the_joint_losses_but_the_flow():
    first, joint = losses_at(model(strategy="two-stage", encoder_share=0.5), FIRST), losses_at(model(), FIRST)
    assert set(first.terms) == {"encoder", "kl", "mean"}
    for name in first.terms:
        assert first.terms[name][0] == joint.terms[name][0]
        assert torch.equal(first.terms[name][1], joint.terms[name][1])


def test_the_flow_stage_is_the_joint_flow_loss_on_a_source_that_does_not_learn():
    frozen, joint = model(strategy="two-stage", encoder_share=0.5), model()
    later, whole = losses_at(frozen, LATER), losses_at(joint, LATER)
    assert set(later.terms) == {"flow"}
    assert torch.equal(later.terms["flow"][1], whole.terms["flow"][1])
    later.total.backward()
    whole.terms["flow"][1].backward()
    for (name, p), q in zip(frozen.backbone.named_parameters(), joint.backbone.parameters(), strict=True):
        assert torch.equal(p.grad, q.grad), name
    assert {"sigma", "mean_std", "readable"} <= set(later.stats)  # a frozen source is watched, too


def test_a_frozen_encoder_draws_no_dropout_and_the_others_do():
    it = model(strategy="two-stage", encoder_share=0.5, text_ve__dropout=0.5)
    for progress, same in ((FIRST, False), (LATER, True)):
        found = []
        for seed in (1, 2):
            with torch.random.fork_rng():
                torch.manual_seed(seed)
                found.append(losses_at(it, progress).stats["mean_abs"])
        assert torch.equal(*found) == same
    assert all(part.training for part in it.modules.values())  # as it was


# ------------------------------------------------------------------------------------------------- a run


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return write_folder(tmp_path_factory.mktemp("data") / "pairs")


def trained(out: Path, data: Path, *, resume: bool = False, **changes) -> Path:
    """Four steps, every one saved, with much weight decay; the switch is after the second."""
    slow = {"encoder_share": 0.5, "fit.save_every": 1, "fit.keep_last": 9, "fit.weight_decay": 0.5}
    request = TrainRequest(
        "tiny", out, str(data), 4, resume=resume, overrides=SETTINGS | slow | named(changes)
    )
    train(APP, request, CPU)
    return out


def saved(run: Path, step: int) -> dict[str, torch.Tensor]:
    parts, _ = load_checkpoint(checkpoint_folder(run, step))
    return {f"{part}/{name}": t for part, tensors in parts.items() for name, t in tensors.items()}


def moved(run: Path, start: int, end: int) -> set[str]:
    """The parts with a weight that changed between two steps."""
    before, after = saved(run, start), saved(run, end)
    names = [name for name in after if name.startswith("weights/")]
    return {name.split("/")[1].split(".")[0] for name in names if not torch.equal(before[name], after[name])}


@pytest.fixture(scope="module", params=["two-stage", "two-stage-joint"])
def run(request, folder, tmp_path_factory) -> Path:
    return trained(tmp_path_factory.mktemp("runs") / request.param, folder, strategy=request.param)


def test_what_is_frozen_stays_bit_for_bit_and_what_waits_is_not_decayed(run):
    assert moved(run, 1, 2) == ENCODER
    assert moved(run, 2, 4) == ({"backbone"} if run.name == "two-stage" else ENCODER | {"backbone"})


def test_the_backbone_waits_as_it_was_drawn(run):
    after = saved(run, 2)
    for name, tensor in model().backbone.state_dict().items():
        assert torch.equal(after[f"weights/backbone.{name}"], tensor)


def test_every_line_of_the_log_says_its_stage(run):
    first, second = STRATEGIES[run.name]
    lines = [record["stats"] for record in read_log(run)]
    assert [line[f"stage_{first}"] for line in lines] == [1, 1, 0, 0]
    assert [line[f"stage_{second}"] for line in lines] == [0, 0, 1, 1]
    assert ["flow" in record["losses"] for record in read_log(run)] == [False, False, True, True]


def test_joint_training_has_one_stage_and_does_not_mention_it():
    assert not any(name.startswith("stage") for name in losses_at(model(), FIRST).stats)


@pytest.mark.parametrize("kept", [1, 2, 3])
def test_a_run_resumed_before_at_or_after_the_switch_is_the_uninterrupted_one(kept, run, folder, tmp_path):
    again = shutil.copytree(run, tmp_path / "again")
    for step in range(kept + 1, 5):
        shutil.rmtree(checkpoint_folder(again, step))
    trained(again, folder, resume=True, strategy=run.name)
    whole, resumed = saved(run, 4), saved(again, 4)
    assert whole.keys() == resumed.keys()
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


# ------------------------------------------------------------------------------------------------- refused


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"strategy": "2-stage"}, "unknown strategy '2-stage'; known: joint, two-stage, two-stage-joint"),
        ({"encoder_share": 0.0}, "encoder_share must lie between 0 and 1, got 0.0"),
        ({"encoder_share": 1.0}, "encoder_share must lie between 0 and 1, got 1.0"),
        (
            {"strategy": "two-stage", "loss.encoder": "none", "loss.mean_weight": 0.0},
            "strategy two-stage trains the encoder by its own losses first, but there is none",
        ),
        (
            {"strategy": "two-stage-joint", "loss.encoder_weight": 0.0, "loss.mean_weight": 0.0},
            "two-stage-joint trains the encoder by its own losses first, but there is none",
        ),
    ],
)
def test_a_strategy_that_cannot_work_is_refused(changes, words):
    with pytest.raises(ConfigError, match=words):
        recipe(**changes)
