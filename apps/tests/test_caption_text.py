"""The text autoencoder: tokenizers that come back, a loss that is the sum it says, a run that reads itself back."""

import json
import sys
from itertools import permutations
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from cf_apps.caption import prepare_text as prepare_module
from cf_apps.caption.text import TextBatch, TextModel, TextTask, replaced
from cf_apps.caption.tokens import described, learned, normal_form, restored, sentences
from cf_apps.data.captioned import ImageTextArrays
from cf_apps.engine.errors import ConfigError, RunError
from cf_apps.engine.watching.log import read_log
from cf_encoders.tokenizer import SPECIALS

sys.path.insert(0, str(Path(__file__).parent))
from caption_tiny import CAPTIONS, CPU, dice, text_model, text_recipe, train_text, write_folder

ODD = [
    "",
    "  ",
    "A red\u00a0circle.",
    "\U0001f534 \U0001f468\u200d\U0001f469",
    "שלום עולם",
    "word " * 10_000,
    "a , b ;c",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return write_folder(tmp_path_factory.mktemp("data") / "pairs")


@pytest.fixture(scope="module")
def run(folder, tmp_path_factory) -> Path:
    return train_text(tmp_path_factory.mktemp("runs") / "text", folder, 3)


def task(**changes) -> TextTask:
    model = text_model(**changes)
    model.modules.requires_grad_(True).train()
    images = torch.zeros(len(CAPTIONS), 3, 4, 4, dtype=torch.uint8)
    data = ImageTextArrays(images, tuple((caption, f"the {caption}") for caption in CAPTIONS), "five")
    return TextTask(model, data, "five", 0)


# ---------------------------------------------------------------------------------- tokenizers


@pytest.mark.parametrize(("kind", "size"), [("words", 64), ("bpe", 300)])
def test_a_tokenizer_comes_back_from_json_and_spells_the_same(kind, size):
    tokenizer = learned(kind, CAPTIONS, size)
    again = restored(json.loads(json.dumps(described(tokenizer))))
    assert len(again) == len(tokenizer) <= size
    for caption in (*CAPTIONS, *ODD):
        ids, _ = tokenizer.encode([caption], 16)
        assert torch.equal(again.encode([caption], 16)[0], ids)
    ids, _ = tokenizer.encode(CAPTIONS, 64)
    assert sentences(again, ids) == [normal_form(again, caption) for caption in CAPTIONS] == list(CAPTIONS)


def test_marks_follow_their_word_without_a_blank():
    tokenizer = learned("words", ["a, b. c! d? e: f; (g)"], 40)
    ids, _ = tokenizer.encode(["A , b.  C! d ? e:f; (g)"], 40)
    assert sentences(tokenizer, ids) == ["a, b. c! d? e: f; ( g )"]


def test_a_vocabulary_keeps_the_most_frequent_words_only():
    tokenizer = learned("words", ["a a a b b c"], 6)
    assert described(tokenizer) == {"words": ["a", "b"]}
    assert len(tokenizer) == len(SPECIALS) + 2


def test_too_few_subwords_are_refused_with_the_least():
    with pytest.raises(ConfigError, match="tokens bpe: bpe needs a size of at least 260, got 100"):
        learned("bpe", CAPTIONS, 100)


# ---------------------------------------------------------------------------------- training


def test_the_loss_is_cross_entropy_plus_weighted_kl_and_length():
    it = task(autoencoder__kl_weight=0.25, autoencoder__length_weight=0.5)
    batch = it.batch(0, 5)
    losses = it.losses(batch, dice(3), 0.0)
    model, generator = it.model.autoencoder, dice(3)
    ids, mask = it.model.tokens(batch.captions)
    q = model.encode(ids, mask)
    z = q.mean + (q.logvar / 2).exp() * torch.randn(q.mean.shape, generator=generator)
    logits, hidden = model.decoder.training_logits(z, ids[:, 1:], mask[:, 1:], generator)
    told = [(b, i) for b in range(5) for i in range(hidden.shape[1]) if hidden[b, i]]
    cross_entropy = -sum(logits[b, i].log_softmax(0)[ids[b, i + 1]] for b, i in told) / len(told)
    kl = 0.5 * (q.mean**2 + q.logvar.exp() - 1 - q.logvar).flatten(1).sum(1).mean()
    length = F.cross_entropy(model.decoder.length_logits(z), mask.sum(1) - 2)
    assert torch.allclose(losses.terms["cross_entropy"][1], cross_entropy, rtol=1e-5)
    assert torch.allclose(losses.total, cross_entropy + 0.25 * kl + 0.5 * length, rtol=1e-5)


def test_a_mixed_z_lies_on_the_way_to_another_caption_and_is_read_as_the_first():
    it = task(mixed=0.5)
    batch = TextBatch(list(CAPTIONS), list(CAPTIONS[1:] + CAPTIONS[:1]))
    found = it.losses(batch, dice(3), 0.0).terms["cross_entropy"][1]
    model, generator = it.model.autoencoder, dice(3)
    ids, mask = it.model.tokens(batch.captions)
    z, other = (
        model.encode(*it.model.tokens(texts)).sample(generator) for texts in (batch.captions, batch.others)
    )
    share = 0.5 * torch.rand(5, 1, 1, 1, generator=generator)
    mixed = (1 - share) * z + share * other
    logits, hidden = model.decoder.training_logits(mixed, ids[:, 1:], mask[:, 1:], generator)
    assert torch.allclose(found, F.cross_entropy(logits[hidden], ids[:, 1:][hidden]), rtol=1e-5)


def test_a_batch_is_the_same_for_the_same_numbers_and_draws_phrasings():
    it = task()
    assert it.batch(7, 4) == it.batch(7, 4)
    drawn = {caption for first in range(0, 200, 5) for caption in it.batch(first, 5).captions}
    assert drawn == {text for caption in CAPTIONS for text in (caption, f"the {caption}")}


def test_words_are_replaced_at_the_mean_share_and_marks_of_the_sentence_never():
    it = task()
    ids, _ = it.model.tokens(list(CAPTIONS) * 400)
    new = replaced(ids, 0.2, len(it.model.tokenizer), dice())
    special = ids < len(SPECIALS)
    assert torch.equal(new[special], ids[special])
    assert (new[~special] >= len(SPECIALS)).all()
    words = len(it.model.tokenizer) - len(SPECIALS)
    seen = (new != ids)[~special].float().mean().item()
    assert seen == pytest.approx(0.2 * (1 - 1 / words), abs=0.015)  # a word may be replaced by itself
    assert torch.equal(replaced(ids, 0.0, len(it.model.tokenizer), dice()), ids)


def test_captions_longer_than_the_model_reads_are_said_before_training():
    model = text_model()
    assert model.max_tokens == 12
    long = "a circle and " * 6
    assert model.too_long([*CAPTIONS, long]) == [len(CAPTIONS)]
    (sentence,) = prepare_module.cut_captions(model, [*CAPTIONS, long])
    assert sentence.startswith("1 of 6 captions are longer than 12 tokens and are cut")
    assert prepare_module.cut_captions(model, list(CAPTIONS)) == []


@pytest.mark.parametrize("caption", ODD)
def test_any_caption_is_encoded(caption):
    posterior = text_model().posterior([caption, "a circle"])
    assert posterior.mean.shape == (2, 3, 8, 8)
    assert posterior.mean.isfinite().all()


# ---------------------------------------------------------------------------------- the run


def test_a_run_reads_itself_back_with_averaged_weights(run):
    model = TextModel.from_run(run, CPU)
    assert not any(p.requires_grad for p in model.modules.parameters())
    assert model.config.autoencoder.decoder.vocabulary == len(model.tokenizer) < 64
    config = json.loads((run / "config.json").read_text())["task"]
    assert config["name"] == "caption train-text"
    assert {"red", "circle", ","} <= set(config["tokenizer"]["words"])
    assert set(read_log(run)[0]["losses"]) == {
        "cross_entropy",
        "kl",
        "length",
        "total",
    }
    again = TextModel.from_run(run, CPU)
    assert torch.equal(model.posterior(CAPTIONS).mean, again.posterior(CAPTIONS).mean)


def test_exactness_is_the_share_that_reads_as_the_normal_form(monkeypatch):
    model = text_model()
    back = {"a red circle": "a red circle", "A  Circle": "a circle", "a blue square": "a red square"}
    monkeypatch.setattr(TextModel, "read", lambda self, z: list(back.values()))
    assert model.exact(list(back)) == pytest.approx(2 / 3)


@pytest.mark.parametrize("kind", ["parallel", "autoregressive"])
def test_a_few_captions_are_learned_by_heart(kind):
    """The whole road: some steps on five captions, and each comes back from a z that is sampled."""
    it = task(autoencoder__kl_weight=1e-6, autoencoder__decoder_kind=kind)
    optimizer = torch.optim.AdamW(it.modules.parameters(), lr=1e-2)
    for step in range(100):
        optimizer.zero_grad()
        it.losses(TextBatch(list(CAPTIONS), list(CAPTIONS)), dice(step), 0.0).total.backward()
        optimizer.step()
    it.modules.eval()
    assert it.model.exact(list(CAPTIONS), dice(), temperature=1.0) == 1.0
    assert it.model.exact([f"the {caption}" for caption in CAPTIONS]) < 1.0  # never seen


def test_word_after_word_a_z_between_two_captions_is_read_as_one_of_them():
    it = task(autoencoder__kl_weight=1e-6, autoencoder__decoder_kind="autoregressive", mixed=0.5)
    optimizer = torch.optim.AdamW(it.modules.parameters(), lr=5e-3)  # at 1e-2 rounding decides
    pairs = list(permutations(CAPTIONS, 2))
    for step in range(150):
        optimizer.zero_grad()
        captions, others = (list(some) for some in zip(*pairs, strict=True))
        it.losses(TextBatch(captions, others), dice(step), 0.0).total.backward()
        optimizer.step()
    it.modules.eval()
    a, b = (it.model.posterior([pair[k] for pair in pairs]).mean for k in (0, 1))
    read = it.model.read((a + b) / 2)
    assert sum(text in pair for text, pair in zip(read, pairs, strict=True)) >= 18  # of 20


def test_another_kind_of_run_is_refused_by_its_name(run, tmp_path):
    config = json.loads((run / "config.json").read_text())
    config["task"]["name"] = "depth"
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(RunError, match="a run of `crossflow depth`, this is `crossflow caption train-text`"):
        TextModel.from_run(tmp_path, CPU)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tokens": "letters"}, "unknown tokens 'letters'; known: words, bpe"),
        ({"replaced": 0.7}, r"replaced must lie in \[0, 0.5\], got 0.7"),
        ({"mixed": 0.7}, r"mixed must lie in \[0, 0.5\], got 0.7"),
        (
            {"autoencoder__decoder_kind": "both"},
            "unknown decoder_kind 'both'; known: parallel, autoregressive",
        ),
        (
            {"autoencoder__decoder__max_tokens": 12},
            "the decoder writes up to 12 tokens, the encoder reads 11",
        ),
        ({"autoencoder__kl_wait": 1}, "unknown key 'autoencoder.kl_wait'"),
    ],
)
def test_settings_that_cannot_work_are_refused_in_one_line(changes, message):
    with pytest.raises(ConfigError, match=message):
        text_recipe(**changes)
