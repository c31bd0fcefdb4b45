"""The decoder that learns to read what the flow writes: where those latents are, what is learned, and by whom."""

import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from cf_apps.caption.reading import flowed_on, reading_loss
from cf_apps.caption.sample import Captioner
from cf_apps.caption.task import CaptionTask
from cf_apps.caption.text import TextModel
from cf_apps.data.captioned import ImageTextArrays
from cf_apps.engine.errors import ConfigError
from cf_flowcore import solve

sys.path.insert(0, str(Path(__file__).parent))
from caption_tiny import (
    CAPTIONS,
    CPU,
    IMAGE_VE,
    Straight,
    dice,
    model,
    recipe,
    text_model,
    train_flow,
    train_text,
    write_folder,
)

PICTURES = torch.randint(0, 256, (len(CAPTIONS), 3, 16, 16), generator=dice(8), dtype=torch.uint8)
DATA = ImageTextArrays(PICTURES, tuple((caption,) for caption in CAPTIONS), "five")
NOBODY = torch.zeros(5, dtype=torch.bool)


def task(kind: str = "parallel", **changes) -> CaptionTask:
    text = text_model(autoencoder__decoder_kind=kind)
    return CaptionTask(model(text=text, **changes), text, DATA, "five", 0)


@pytest.mark.parametrize("steps", [1, 3])
def test_from_t_0_it_is_the_eulers_solution_and_from_later_what_is_left_of_the_way(steps):
    backbone = model().backbone
    x = torch.randn(5, 3, 8, 8, generator=dice())
    whole = solve(lambda x_t, t: backbone(x_t, t, NOBODY), x, method="euler", steps=steps).x
    assert torch.allclose(flowed_on(backbone, x, torch.zeros(5), steps), whole, atol=1e-5)
    t = torch.tensor([0.0, 0.2, 0.5, 0.9, 0.99])
    x_1 = torch.randn(5, 3, 8, 8, generator=dice(1))
    assert torch.allclose(flowed_on(Straight(x_1), x, t, steps), x_1, atol=1e-4)


def test_where_the_flow_is_perfect_the_loss_is_that_of_the_captions_own_latents():
    it = task("autoregressive", loss__decoder_weight=1.0)  # the other kind draws which tokens it is told
    captions = list(CAPTIONS)
    x_1 = it.caption_latents(captions, dice())
    it.model.modules["backbone"] = Straight(x_1)
    found = reading_loss(it.model, it.text, captions, torch.randn(x_1.shape), x_1, dice(2))
    targets, real = it.text.autoencoder.targets(*it.text.tokens(captions))
    logits, told = it.text.decoder.training_logits(it.text.posterior(captions).mean, targets, real, dice(3))
    assert found.item() == pytest.approx(F.cross_entropy(logits[told], targets[told]).item(), rel=1e-4)


def test_it_trains_the_runs_copy_of_the_decoder_and_nothing_else():
    it = task(codec={"name": "pixels"}, image_ve=IMAGE_VE, loss__decoder_weight=1.0, loss__decoder_from=0.5)
    batch = it.batch(0, 4)
    assert "decoder" not in it.losses(batch, dice(), 0.49).terms
    weight, loss = it.losses(batch, dice(), 0.5).terms["decoder"]
    assert weight == 1.0
    loss.backward()
    moved = {name for name, part in it.modules.items() if any(p.grad is not None for p in part.parameters())}
    assert moved == {"decoder"}
    assert not any(p.requires_grad for p in it.text.modules.parameters())
    before = it.losses(batch, dice(), 0.0).terms["flow"][1]  # later draws leave the flow's own as they were
    assert torch.equal(before, it.losses(batch, dice(), 0.9).terms["flow"][1])


def test_times_of_reading_are_those_of_the_flow():
    """All x_t are noise near t = 0 and captions near 1, so a model that goes nowhere shows where t was."""
    it = task("autoregressive", loss__decoder_weight=1.0, loss__times="early")
    captions = list(CAPTIONS) * 40
    x_1 = it.caption_latents(captions, dice())
    seen: list[torch.Tensor] = []
    still = it.model.modules["backbone"]
    still.forward = lambda x_t, t, is_null: seen.append(t) or torch.zeros_like(x_t)  # type: ignore[method-assign]
    reading_loss(it.model, it.text, captions, torch.randn(x_1.shape), x_1, dice(2))
    low = (seen[0] < 0.1).float().mean().item()
    assert low == pytest.approx(0.7 * 0.1 ** (1 / 3) + 0.3 * 0.1, abs=0.02)  # 0.7 Power(3) + 0.3 uniform


def test_the_encoder_learns_by_what_the_decoder_reads_out_of_its_mean():
    changes = {"codec": {"name": "pixels"}, "image_ve": IMAGE_VE, "loss__decoder_from": 0.5}
    it = task("autoregressive", **changes, loss__see_weight=2.0)
    batch = it.batch(0, 4)
    assert "see" not in it.losses(batch, dice(), 0.49).terms
    weight, loss = it.losses(batch, dice(), 0.5).terms["see"]
    assert weight == 2.0
    targets, real = it.text.autoencoder.targets(*it.text.tokens(batch.captions))
    z = it.model.latent_of(it.model.modules["image_ve"](batch.latent.mean).mean)
    logits, told = it.model.decoder.training_logits(z, targets, real, dice(3))
    by_hand = F.cross_entropy(logits[told], targets[told])
    assert loss.item() == pytest.approx(by_hand.item(), rel=1e-5)
    loss.backward()
    moved = {name for name, part in it.modules.items() if any(p.grad is not None for p in part.parameters())}
    assert moved == {"image_ve"}
    both = task("autoregressive", **changes, loss__see_weight=2.0, loss__decoder_weight=1.0)
    both.losses(batch, dice(), 0.5).terms["see"][1].backward()
    assert any(p.grad is not None for p in both.model.decoder.parameters())
    without = task("autoregressive", loss__see_weight=2.0, loss__decoder_from=0.0)
    assert "see" not in without.losses(without.batch(0, 4), dice(), 0.5).terms  # no source that could learn


def test_a_run_keeps_the_decoder_it_learned_and_the_text_run_its_own(tmp_path):
    folder = write_folder(tmp_path / "data")
    text = train_text(tmp_path / "text", folder)
    learned = {"loss__decoder_weight": 1.0, "loss__decoder_from": 0.0, "fit__lr": 1e-2}
    runs = [
        train_flow(tmp_path / "same", folder, text),
        train_flow(tmp_path / "learned", folder, text, **learned),
    ]
    own = TextModel.from_run(text, CPU).decoder.state_dict()
    same, moved = (Captioner.from_run(run, CPU).model.decoder.state_dict() for run in runs)
    assert all(
        torch.allclose(same[name], tensor, atol=2e-3) for name, tensor in own.items()
    )  # kept in half precision
    assert any((moved[name] - tensor).abs().max() > 5e-3 for name, tensor in own.items())


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("loss__decoder_from", 1.0, r"decoder_from must lie in \[0, 1\), got 1.0"),
        ("loss__decoder_steps", 0, "decoder_steps must be a whole number, 1 or more"),
        ("loss__decoder_weight", -1.0, "decoder_weight must be zero or more"),
        ("loss__see_weight", -1.0, "see_weight must be zero or more"),
    ],
)
def test_what_cannot_be_is_refused(key, value, message):
    with pytest.raises(ConfigError, match=message):
        recipe(**{key: value})
