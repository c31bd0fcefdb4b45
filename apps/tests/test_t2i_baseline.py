"""The cross-attention baseline: ordinary flow matching from noise, its text dropped at the indicator's rate."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from cf_apps.engine.commands.app import train
from cf_apps.engine.commands.recipe import TrainRequest
from cf_apps.engine.errors import ConfigError
from cf_apps.engine.flow import TIMES, Backbone
from cf_apps.engine.saving.checkpoint import checkpoints, load_checkpoint
from cf_apps.engine.watching.log import read_log
from cf_apps.engine.watching.progress import Silence
from cf_apps.t2i.app import APP
from cf_apps.t2i.baseline import TextDropped
from cf_apps.t2i.evaluate import score_composition
from cf_apps.t2i.losses import t2i_losses
from cf_apps.t2i.model import build
from cf_apps.t2i.reader import Reader, ReaderConfig
from cf_apps.t2i.sample import Sampler
from cf_encoders import TextFeatures, Vocabulary
from cf_flowcore import draw_null
from cf_transformer import CrossAttentionDiMR
from safetensors import safe_open

sys.path.insert(0, str(Path(__file__).parent))
from t2i_tiny import BASELINE, CAPTIONS, CPU, baseline, dice, model, write_folder

FLOAT32 = 1e-4
SIGMA_MIN = 1e-5


def images() -> torch.Tensor:
    return torch.randn(5, 3, 16, 16, generator=dice(1))


def losses_of(it, seed: int = 3, copies: int = 1):
    x_1 = images().repeat(copies, 1, 1, 1)
    return t2i_losses(it, list(CAPTIONS) * copies, x_1, x_1, dice(seed))


def seen_by(monkeypatch, it, **kwargs) -> dict[str, torch.Tensor]:
    """What the network is asked in one loss."""
    found = {}
    scales = CrossAttentionDiMR.scales

    def spy(self, x_t, t, is_null=None, *, context, context_mask=None):
        found.update(x_t=x_t.detach(), t=t, is_null=is_null, context=context, context_mask=context_mask)
        return scales(self, x_t, t, is_null, context=context, context_mask=context_mask)

    monkeypatch.setattr(CrossAttentionDiMR, "scales", spy)
    losses_of(it, **kwargs)
    return found


# ------------------------------------------------------------------------------------------------- the loss


@pytest.mark.parametrize("times", TIMES)
def test_the_loss_is_flow_matching_from_noise_written_by_hand(times, monkeypatch):
    it = baseline(loss__times=times, loss__null_rate=0.4)
    seen = seen_by(monkeypatch, it)
    monkeypatch.undo()
    t, x_1 = seen["t"].view(-1, 1, 1, 1), images()
    x_0 = torch.randn(5, 3, 16, 16, generator=dice(3))  # the first thing that is drawn
    assert torch.allclose(seen["x_t"], t * x_1 + (1 - (1 - SIGMA_MIN) * t) * x_0, atol=1e-5)
    v = x_1 - (1 - SIGMA_MIN) * x_0
    low, high = it.backbone.scales(
        seen["x_t"], seen["t"], seen["is_null"], context=seen["context"], context_mask=seen["context_mask"]
    )
    pooled = v.unfold(2, 8, 8).unfold(3, 8, 8).sum((-1, -2)) / 8  # k avgpool_k: the k x k sum over k
    expected = (low - pooled).square().mean() / 4 + (high - v).square().mean()
    found = losses_of(it)
    assert set(found.terms) == {"flow"}
    assert found.total.item() == pytest.approx(expected.item(), rel=FLOAT32)


def test_a_sample_without_its_text_keeps_its_own_image(monkeypatch):
    it = baseline(loss__null_rate=0.5, loss__times="uniform")
    seen = seen_by(monkeypatch, it)
    generator = dice(3)
    x_0 = torch.randn(5, 3, 16, 16, generator=generator)
    dropped = draw_null(5, 0.5, generator=generator)
    assert 0 < dropped.sum() < 5
    assert torch.equal(seen["is_null"], dropped)
    t = seen["t"].view(-1, 1, 1, 1)
    led_to = (seen["x_t"] - (1 - (1 - SIGMA_MIN) * t) * x_0) / t
    assert torch.allclose(led_to, images(), atol=1e-3)


def test_the_text_is_dropped_at_the_rate_of_the_indicator(monkeypatch):
    it = baseline(loss__null_rate=0.1)
    dropped = torch.cat([seen_by(monkeypatch, it, seed=seed, copies=50)["is_null"] for seed in range(4)])
    deviation = (0.1 * 0.9 / len(dropped)) ** 0.5
    assert abs(dropped.float().mean().item() - 0.1) < 4 * deviation


def test_a_dropped_text_is_not_read_at_all():
    it = baseline()
    x, t = images(), torch.linspace(0, 1, 5)
    one, other = (it.read([text] * 5) for text in ("a red circle", "two blue squares"))
    gone, there = torch.ones(5, dtype=torch.bool), torch.zeros(5, dtype=torch.bool)
    for dropped, same in ((gone, True), (there, False)):
        fields = [TextDropped(it.backbone, text, dropped) for text in (one, other)]
        assert all(isinstance(field, Backbone) for field in fields)
        assert torch.equal(fields[0](x, t), fields[1](x, t)) == same
        assert torch.equal(fields[0].scales(x, t)[-1], fields[0](x, t))
    assert torch.equal(
        TextDropped(it.backbone, one, there)(x, t, gone), TextDropped(it.backbone, one, gone)(x, t)
    )


def test_the_flow_teaches_network_reader_and_words():
    it = baseline()
    losses_of(it).total.backward()
    assert {name.split(".")[0] for name, p in it.modules.named_parameters() if p.grad is not None} == {
        "language",
        "reader",
        "backbone",
    }


# ------------------------------------------------------------------------------------------------- the reader


def test_the_reader_knows_the_order_of_words_and_word_vectors_do_not():
    it = baseline()
    one, other = (it.language([text]) for text in ("red circle blue square", "blue circle red square"))
    assert torch.equal(one.tokens.sort(1).values, other.tokens.sort(1).values)  # the same bag of vectors
    read, read_other = (it.modules["reader"](text).tokens[0] for text in (one, other))
    circle, circle_other = read[2], read_other[2]  # <bos> red circle
    assert (circle - circle_other).abs().max() > 0.05


def test_the_reader_knows_the_place_of_a_word_without_its_neighbours():
    reader = Reader(ReaderConfig(6, 9, width=8, heads=2, conv_depth=0, depth=0))
    word = torch.randn(1, 1, 6, generator=dice()).expand(1, 9, 6)
    read = reader(TextFeatures(word, torch.ones(1, 9, dtype=torch.bool))).tokens[0]
    assert torch.pdist(read).min() > 0.01


def test_padding_changes_nothing_that_is_read():
    reader = Reader(ReaderConfig(6, 9, width=8, heads=2, mlp_hidden=8))
    tokens, mask = torch.randn(3, 9, 6, generator=dice()), torch.arange(9) < torch.tensor([[9], [4], [1]])
    clean = reader(TextFeatures(tokens, mask))
    dirty = reader(TextFeatures(torch.where(mask[..., None], tokens, 1e3), mask))
    assert torch.allclose(clean.tokens[mask], dirty.tokens[mask], atol=1e-5)
    assert torch.equal(clean.mask, mask)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"heads": 3}, "reader.width 128 must be a multiple of reader.heads 3"),
        ({"conv_kernel": 4}, "reader.conv_kernel must be odd, got 4"),
        ({"depth": -1}, "reader.depth must be a whole number, 0 or more, got -1"),
        ({"width": 0}, "reader.width must be a whole number, 1 or more, got 0"),
    ],
)
def test_a_reader_that_cannot_be_built_is_refused(change, words):
    with pytest.raises(ConfigError, match=words):
        replace(ReaderConfig(8, 8), **change)


# ------------------------------------------------------------------------------------------------- the whole road


def test_the_baseline_trains_draws_and_is_scored(tmp_path):
    data, out = write_folder(tmp_path / "data"), tmp_path / "run"
    train(APP, TrainRequest("tiny-cross-attention", out, str(data), 2, overrides=BASELINE), CPU)
    assert set(read_log(out)[0]["losses"]) == {"flow", "total"}
    with safe_open(out / "model.safetensors", framework="pt") as file:
        assert {name.split(".")[0] for name in file.keys()} == {"language", "reader", "backbone"}  # noqa: SIM118
    it = Sampler.from_run(out, CPU)
    parts, _ = load_checkpoint(checkpoints(out)[2])
    for name, tensor in it.model.modules["reader"].state_dict().items():
        assert torch.equal(tensor, parts["ema"][f"reader.{name}"].half().float())
    assert it.draw(["a red circle"], it.model.config.sample, dice()).shape == (1, 3, 16, 16)


def test_the_baseline_learns(tmp_path):
    quick = BASELINE | {"fit.lr": 3e-3, "fit.save_every": 1000, "fit.batch_size": 16}
    data, out = write_folder(tmp_path / "data"), tmp_path / "run"
    train(APP, TrainRequest("tiny-cross-attention", out, str(data), 40, overrides=quick), CPU)
    totals = [record["losses"]["total"] for record in read_log(out)]
    assert sum(totals[-10:]) < 0.8 * sum(totals[:10])


def test_the_baseline_is_scored_as_any_other():
    words = Vocabulary.build(CAPTIONS)
    config = baseline(language__max_tokens=40, reader__max_tokens=40).config
    it = Sampler(build(config, words, CPU))
    scored = score_composition(it, replace(config.sample, steps=1), Silence(), per_task=1, per_task_open=1)
    assert scored.scores["count"] == 6


# ------------------------------------------------------------------------------------------------- refused


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"loss__encoder": "image-text"}, "no encoder to train: set loss.encoder=none, loss.kl_weight=0"),
        ({"loss__kl_weight": 1e-4}, "no encoder to train"),
        ({"loss__mean_weight": 1.0}, "no encoder to train"),
        ({"strategy": "two-stage"}, "no encoder to train"),
        ({"backbone__context_width": 17}, "the backbone reads tokens 17 wide, it gets 16"),
        ({"reader": None, "backbone__context_width": 17}, "reads tokens 17 wide, it gets 16"),
        ({"reader__max_tokens": 11}, "reader reads 11 tokens, the language model gives 12"),
        ({"reader__token_width": 17}, "vocab gives tokens 16 wide, reader.token_width is 17"),
        ({"reader": None, "language__width": 17, "backbone__context_width": 17}, None),
    ],
)
def test_a_baseline_whose_parts_do_not_fit_is_refused(change, words):
    if words is None:
        assert "reader" not in baseline(**change).modules
        return
    with pytest.raises(ConfigError, match=words):
        baseline(**change)


def test_text_enters_by_an_encoder_or_by_cross_attention_and_not_by_both():
    ours, rival = model().config, baseline().config
    with pytest.raises(ConfigError, match="text_ve is null, so the text must enter by cross-attention"):
        replace(ours, text_ve=None)
    with pytest.raises(ConfigError, match="are the baseline's, which has no encoder: set text_ve=null"):
        replace(rival, text_ve=ours.text_ve)
    with pytest.raises(ConfigError, match="are the baseline's, which has no encoder: set text_ve=null"):
        replace(ours, reader=rival.reader)
    assert (ours.from_noise, rival.from_noise) == (False, True)
    assert ours.latent == rival.latent
