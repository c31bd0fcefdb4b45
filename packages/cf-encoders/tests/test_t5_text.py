"""A tiny random T5 v1.1 on disk, encoder and decoder, with a unigram tokenizer trained here."""

import pytest
import torch
from cf_encoders import language_model
from cf_encoders.language_models.clean_caption import clean_caption
from cf_encoders.language_models.t5 import T5Text

transformers = pytest.importorskip("transformers", reason="a test dependency: cf-encoders[transformers]")

FLOAT64 = 1e-6  # transformers keeps some of its constants in float32
N = 13
CAPTIONS = ["A dog, left of two cats!", "a cat", "cats and dogs " * 20, "", "A dog at www.dogs.com : 640x480"]


@pytest.fixture(scope="module")
def t5():
    torch.manual_seed(0)
    config = transformers.T5Config(
        vocab_size=150,
        d_model=24,
        d_kv=5,
        d_ff=40,
        num_layers=3,
        num_heads=4,
        feed_forward_proj="gated-gelu",
        tie_word_embeddings=False,
        decoder_start_token_id=0,
    )
    model = transformers.T5ForConditionalGeneration(config)
    for p in model.parameters():
        torch.nn.init.normal_(p, std=0.2)
    return model.eval()


@pytest.fixture(scope="module")
def folder(t5, tmp_path_factory):
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    path = tmp_path_factory.mktemp("t5")
    t5.save_pretrained(path)
    learned = Tokenizer(models.Unigram())
    learned.pre_tokenizer = pre_tokenizers.Metaspace()
    specials = ["<pad>", "</s>", "<unk>"]
    trainer = trainers.UnigramTrainer(
        vocab_size=40, special_tokens=specials, unk_token="<unk>", show_progress=False
    )
    learned.train_from_iterator(["a dog left of two cats and dogs, at the www. com : 640x480!"] * 3, trainer)
    pieces = [(token, -1.0 - i / 10) for token, i in sorted(learned.get_vocab().items(), key=lambda x: x[1])]
    transformers.T5Tokenizer(vocab=pieces).save_pretrained(path)
    return path


def test_features_are_the_encoders_with_padding_masked(folder, t5):
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    read = tokenizer(CAPTIONS, padding="max_length", truncation=True, max_length=N, return_tensors="pt")
    encoder = t5.double().encoder
    with torch.no_grad():
        expected = encoder(read.input_ids, attention_mask=read.attention_mask).last_hidden_state
        unmasked = encoder(read.input_ids).last_hidden_state
    t5.float()
    features = T5Text(folder, N, dtype=torch.float64)(CAPTIONS)
    torch.testing.assert_close(features.tokens, expected, atol=FLOAT64, rtol=FLOAT64)
    assert torch.equal(features.mask, read.attention_mask.bool())
    assert (unmasked - expected).abs().max() > 0.01  # so the mask matters here
    assert (read.input_ids[2, -1], read.input_ids[3, 0]) == (1, 1)  # </s> ends a cut and an empty caption


def test_the_released_way_cleans_twice_and_multiplies_by_ten(folder):
    plain, released = T5Text(folder, N), T5Text(folder, N, variant="released")
    cleaned = [clean_caption(clean_caption(caption)) for caption in CAPTIONS]
    assert cleaned != CAPTIONS
    features, expected = released(CAPTIONS), plain(cleaned)
    torch.testing.assert_close(features.tokens, 10 * expected.tokens, atol=1e-5, rtol=1e-5)
    assert torch.equal(features.mask, expected.mask)
    assert not torch.equal(plain(CAPTIONS).mask, expected.mask)
    assert plain.fingerprint != released.fingerprint


def test_both_ways_have_a_name_and_77_tokens(folder):
    for name, variant in (("t5", "plain"), ("t5-released", "released")):
        named = language_model(name, folder, dtype=torch.bfloat16)
        asked = T5Text(folder, 77, variant=variant, dtype=torch.bfloat16)
        assert named.fingerprint == asked.fingerprint


def test_only_the_cleaned_caption_counts_as_too_long(folder):
    link = "a cat cats.com/" + "a" * 50
    assert T5Text(folder, N).too_long([link, "a cat"]) == [0]
    assert T5Text(folder, N, variant="released").too_long([link, "a cat"]) == []


def test_the_decoder_is_never_built(folder, t5):
    model = T5Text(folder, N)
    encoder = {name.removeprefix("network.") for name in model.state_dict()}
    assert not any(name.startswith(("decoder", "lm_head")) for name in encoder)
    size = sum(p.numel() for p in model.parameters())
    assert size == sum(p.numel() for p in t5.encoder.parameters())


def test_dropout_stays_off_when_its_owner_trains(folder):
    model = T5Text(folder, N)
    assert any(isinstance(m, torch.nn.Dropout) and m.p > 0 for m in model.modules())
    before = model(CAPTIONS).tokens
    torch.nn.ModuleList([model]).train()
    assert torch.equal(model(CAPTIONS).tokens, before)


def test_bfloat16_is_near_and_float16_is_refused(folder):
    expected, low = (
        T5Text(folder, N)(CAPTIONS).tokens,
        T5Text(folder, N, dtype=torch.bfloat16)(CAPTIONS).tokens,
    )
    assert low.dtype == torch.float32
    assert 1e-5 < (low - expected).norm() / expected.norm() < 0.05
    with pytest.raises(ValueError, match=r"T5 overflows in torch\.float16; use dtype=torch\.bfloat16"):
        T5Text(folder, dtype=torch.float16)


def test_any_length_above_the_framing_is_allowed_and_unknown_variants_are_named(folder):
    assert T5Text(folder, 600)(["a cat"]).tokens.shape == (1, 600, 24)
    with pytest.raises(ValueError, match="max_tokens must be >= 2, got 1"):
        T5Text(folder, 1)
    with pytest.raises(ValueError, match="unknown T5 variant 'relased'; known: plain, released"):
        T5Text(folder, variant="relased")


def test_a_tokenizer_that_does_not_end_captions_is_refused(folder, tmp_path):
    import json

    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "</s>", "pad_token": "<pad>"})
    )
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    (tmp_path / "tokenizer.json").write_text(json.dumps({**tokenizer, "post_processor": None}))
    with pytest.raises(ValueError, match=r"ends captions with ids \[\], not with its end-of-text id 1"):
        T5Text(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}')
    with pytest.raises(ValueError, match="has no pad token None"):
        T5Text(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(ValueError, match="no tokenizer that transformers can read"):
        T5Text(tmp_path)
