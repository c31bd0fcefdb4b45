"""The public trainer's way of a whole step beside ours: the same loss and gradients, by whatever means."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from cf_apps.t2i.losses import t2i_losses
from cf_encoders import TextVEConfig
from cf_encoders.towers import ReleasedTowerConfig
from cf_transformer import DiMRConfig, StageConfig

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks" / "peers"))

import training
from public_trainer import PublicTrainer
from training_fit import model_of
from training_sizes import Size, batch_of, tiny


def small() -> Size:
    """A size that takes milliseconds."""
    latent = (4, 4, 4)
    stages = (
        StageConfig("transformer", 16, 3, patch=2, n_heads=2),
        StageConfig("convnext", 8, 1, patch=1),
    )
    text_ve = TextVEConfig(16, 40, latent, kind="released", width=16, heads=2, depth=1, bottleneck=4)
    tower = ReleasedTowerConfig(latent, side=16, patch=8, width=8, depth=1, heads=2, hidden=16)
    backbone = DiMRConfig(4, (4, 4), stages)
    return Size(replace(tiny().config, backbone=backbone, text_ve=text_ve), tower, b=3)


def ways() -> training.Ways:
    size = small()
    model = model_of(size.config, size.tower)
    public = PublicTrainer(model, size.fit)
    return training.Ways(model, training.OUR_WAYS, public, training.PUBLIC_WAYS, batch_of(size))


def test_the_public_way_gives_our_gradients():
    it = ways()
    training.check(it.model, it.public, it.batch)  # without dropout from here on
    assert it.batch.text is not None
    t2i_losses(it.model, it.batch.text, it.batch.x_1, it.batch.seen, training.dice()).total.backward()
    it.public.loss(it.batch, training.dice()).backward()
    for part in (
        "image_tower",
        "log_scale",
    ):  # the same modules on both sides; the others' are named differently
        ours = it.model.modules[part].named_parameters()
        theirs = dict(it.public.modules[part].named_parameters())
        for name, parameter in ours:
            torch.testing.assert_close(theirs[name].grad, parameter.grad, rtol=1e-3, atol=1e-6)
    ours, theirs = (
        torch.cat([p.grad.flatten() for p in modules["text_ve"].parameters() if p.grad is not None]).norm()
        for modules in (it.model.modules, it.public.modules)
    )
    torch.testing.assert_close(theirs, ours, rtol=1e-3, atol=0)


@pytest.mark.parametrize("way", list(training.PUBLIC_WAYS)[1:])
def test_by_whatever_means_a_public_step_makes_the_same_weights_and_average(way):
    trained = {}
    for name in (training.PUBLIC, way):
        it = ways()
        for number in range(2):
            torch.manual_seed(number)  # of dropout
            it.their_step(name)
        trained[name] = [*it.public.modules.parameters(), *it.public.average.parameters()]
    for public, other in zip(trained[training.PUBLIC], trained[way], strict=True):
        torch.testing.assert_close(other, public, rtol=1e-5, atol=1e-6)


def test_the_average_follows_the_weights():
    it = ways()
    before = [p.clone() for p in it.public.modules.parameters()]
    it.public.decay = 0.75
    it.their_step(training.PUBLIC)
    parts = zip(before, it.public.modules.parameters(), it.public.average.parameters(), strict=True)
    for first, now, average in parts:
        torch.testing.assert_close(average, 0.75 * first + 0.25 * now)


def test_every_way_is_timed_in_every_repeat_and_fit_really_trains():
    it = ways()
    before = [p.detach().clone() for p in it.model.modules.parameters()]
    turns = it.in_turns(small().fit, repeats=2)
    names = {*training.OUR_WAYS, *training.PUBLIC_WAYS}
    assert [set(turn) for turn in turns] == [names] * 2
    assert all(seconds > 0 for turn in turns for seconds in turn.values())
    moved = [not torch.equal(a, b) for a, b in zip(before, it.model.modules.parameters(), strict=True)]
    assert sum(moved) > len(moved) / 2


def test_another_loss_is_told():
    it = ways()
    with torch.no_grad():
        it.public.modules["log_scale"].log_scale.add_(0.1)
    with pytest.raises(ArithmeticError, match="the public way's loss is"):
        training.check(it.model, it.public, it.batch)


def test_the_gain_is_taken_within_a_repeat():
    turns = [{training.PUBLIC: 2.0, training.OURS: 1.0}, {training.PUBLIC: 40.0, training.OURS: 10.0}]
    turns.append({training.PUBLIC: 9.0, training.OURS: 3.0})
    rows = {row.way: row.gain for row in training.rows_of("small", turns)}
    assert rows == {training.PUBLIC: 1.0, training.OURS: 3.0}
