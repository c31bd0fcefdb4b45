import json
import math
from dataclasses import replace

import pytest
import torch
from cf_encoders import TextVEConfig, Vocabulary
from cf_encoders.captions.accuracy import caption_accuracy
from cf_encoders.captions.autoencoder import CaptionAutoencoder, length_loss
from cf_encoders.captions.autoencoder_config import DECODER_KINDS, CaptionAutoencoderConfig
from cf_encoders.captions.decoder_config import CaptionDecoderConfig
from cf_encoders.pretrained import from_pretrained, save_pretrained

WORDS = ["a", "the", "red", "blue", "circle", "square", "left", "of", "above", "small"]
CAPTIONS = [
    "a red circle",
    "the blue square above a small circle",
    "a circle left of the red square",
    "a small blue circle",
    "the red circle above the blue square",
    "a square",
    "small circle left of a small square",
    "the circle",
]
LATENT = (3, 6, 9)
SIZE = {"latent": LATENT, "patch": 3, "width": 24, "heads": 3, "mlp_hidden": 32}
CONFIG = CaptionAutoencoderConfig(
    TextVEConfig(token_width=10, max_tokens=9, depth=1, **SIZE),
    CaptionDecoderConfig(vocabulary=14, max_tokens=8, **SIZE),
    kl_weight=1e-3,
    length_weight=0.3,
)


def autoencoder(kind: str = "parallel", **changes) -> CaptionAutoencoder:
    torch.manual_seed(0)
    return CaptionAutoencoder(replace(CONFIG, decoder_kind=kind, **changes))


@pytest.fixture
def batch() -> tuple[torch.Tensor, torch.Tensor]:
    return Vocabulary(WORDS).encode(CAPTIONS, 9)


@pytest.mark.parametrize("kind", DECODER_KINDS)
def test_the_losses_are_the_formulas(kind, batch):
    model = autoencoder(kind).double()
    ids, mask = batch
    losses = model.losses(ids, mask, torch.Generator().manual_seed(1))
    generator = torch.Generator().manual_seed(1)
    q = model.encode(ids, mask)
    z = q.mean + q.std * torch.randn(q.mean.shape, generator=generator, dtype=torch.float64)
    logits, told = model.decoder.training_logits(z, ids[:, 1:], mask[:, 1:], generator)
    terms = [-logits[i, j].log_softmax(0)[ids[i, j + 1]] for i in range(8) for j in range(8) if told[i, j]]
    cross_entropy = sum(terms) / len(terms)
    torch.testing.assert_close(losses.cross_entropy, cross_entropy)
    kl = 0.5 * (q.mean**2 + q.std**2 - 1 - 2 * q.std.log()).sum() / 8
    torch.testing.assert_close(losses.kl, kl)
    expected = cross_entropy + 1e-3 * kl + 0.3 * losses.length
    torch.testing.assert_close(losses.total, expected)
    lengths = model.decoder.length_logits(z)
    assert (lengths is None) == (kind == "autoregressive")
    torch.testing.assert_close(losses.length, length_loss(lengths, mask[:, 1:]).to(losses.length.dtype))


def test_eos_counts_and_bos_and_padding_do_not(batch):
    model = autoencoder("autoregressive")
    ids, mask = batch
    targets, real = model.targets(ids, mask)
    assert (targets[real] == 3).sum() == len(CAPTIONS)
    assert not (targets[real] == 2).any()
    assert not (targets[real] == 0).any()
    assert int(real.sum()) == int(mask.sum()) - len(CAPTIONS)
    with torch.no_grad():
        before = model.losses(ids, mask, torch.Generator().manual_seed(1)).cross_entropy
        other = model.losses(ids.masked_fill(~mask, 7), mask, torch.Generator().manual_seed(1)).cross_entropy
    torch.testing.assert_close(before, other)


def test_the_length_loss_is_that_of_the_class_one_below_the_length():
    logits = torch.tensor([[2.0, 0.0, 1.0], [0.0, 5.0, 0.0]])
    mask = torch.tensor([[True, False, False], [True, True, True]])
    first = -math.log(math.exp(2) / (math.exp(2) + 1 + math.e))
    second = -math.log(1 / (2 + math.exp(5)))
    assert length_loss(logits, mask).item() == pytest.approx((first + second) / 2, rel=1e-5)
    assert length_loss(None, mask).item() == 0


@pytest.mark.parametrize("kind", DECODER_KINDS)
def test_captions_come_back_as_words_from_sampled_latents(kind, batch):
    model, vocabulary = autoencoder(kind, kl_weight=2e-4), Vocabulary(WORDS)
    generator = torch.Generator().manual_seed(0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    for step in range(100):
        # noise in z and in the drafts keeps a constant rate from settling
        optimizer.param_groups[0]["lr"] = 5e-3 * (1 - step / 100)
        optimizer.zero_grad()
        model.losses(*batch, generator).total.backward()
        optimizer.step()
    model.eval()
    ids, mask = batch
    with torch.no_grad():
        q = model.encode(ids, mask)
        accuracy = caption_accuracy(model.decoder.write(q.sample(generator)), *model.targets(ids, mask))
    assert accuracy.token > 0.97
    assert q.statistics()["sigma"] > 0.1
    way = {"redo": 0.3} if kind == "parallel" else {"beams": 3}
    back = model.reconstruct(CAPTIONS, vocabulary, generator, **way)
    assert sum(a == b for a, b in zip(CAPTIONS, back, strict=True)) >= 7
    # the latent is what decides: another caption's latent gives another caption
    assert model.decoder.generate(q.mean[:2].flip(0), vocabulary) == [CAPTIONS[1], CAPTIONS[0]]


def test_the_caption_reaches_the_loss_only_through_the_latent(batch):
    model = autoencoder()
    ids, mask = batch
    model.losses(ids, mask, torch.Generator().manual_seed(1)).total.backward()
    assert model.embedding.weight.grad is not None
    used = model.embedding.weight.grad.abs().sum(1) > 0
    assert set(used.nonzero().flatten().tolist()) == set(ids[mask].tolist())


def test_a_caption_longer_than_the_decoder_is_cut(batch):
    short = replace(CONFIG.decoder, max_tokens=4)
    model = autoencoder(decoder=short)
    losses = model.losses(*batch, torch.Generator().manual_seed(1))
    targets, real = model.targets(*batch)
    assert targets.shape == real.shape == (8, 4)
    assert losses.total.isfinite()


@pytest.mark.parametrize("kind", DECODER_KINDS)
def test_it_survives_its_folder(kind, batch, tmp_path, generator):
    model = autoencoder(kind)
    save_pretrained(model, tmp_path)
    loaded = from_pretrained(tmp_path)
    assert isinstance(loaded, CaptionAutoencoder)
    assert loaded.config == model.config
    z = model.encode(*batch).sample(generator)
    assert torch.equal(loaded.decoder.write(z), model.eval().decoder.write(z))


def test_the_config_survives_json_and_refuses_what_does_not_fit():
    text = json.dumps(CONFIG.to_dict())
    assert CaptionAutoencoderConfig.from_dict(json.loads(text)) == CONFIG
    with pytest.raises(ValueError, match="unknown CaptionAutoencoderConfig keys"):
        CaptionAutoencoderConfig.from_dict({**json.loads(text), "beta": 1})
    with pytest.raises(ValueError, match="unknown decoder_kind 'causal'; known: parallel, autoregressive"):
        replace(CONFIG, decoder_kind="causal")
    with pytest.raises(ValueError, match=r"writes a latent \(3, 6, 9\), the decoder reads \(3, 6, 6\)"):
        replace(CONFIG, decoder=replace(CONFIG.decoder, latent=(3, 6, 6)))
    with pytest.raises(ValueError, match=r"writes up to 9 tokens, the encoder reads 8 besides <bos>"):
        replace(CONFIG, decoder=replace(CONFIG.decoder, max_tokens=9))
    with pytest.raises(ValueError, match="weights must be >= 0"):
        replace(CONFIG, kl_weight=-1.0)


def test_under_bfloat16_autocast_the_losses_are_float32(batch, generator):
    with torch.autocast("cpu", torch.bfloat16):
        losses = autoencoder().losses(*batch, generator)
    assert losses.total.dtype == losses.kl.dtype == torch.float32
    assert losses.total.isfinite()
