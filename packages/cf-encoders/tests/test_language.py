import pytest
import torch
from cf_encoders import TextFeatures, VocabLanguageModel, Vocabulary

VOCABULARY = Vocabulary(["a", "red", "circle"])


def test_each_token_is_the_vector_of_its_word_and_padding_is_zero():
    model = VocabLanguageModel(VOCABULARY, width=5, max_tokens=6)
    features = model(["a red circle", "red"])
    torch.testing.assert_close(features.tokens[0, 2], model.embedding.weight[5])
    torch.testing.assert_close(features.tokens[0, 2], features.tokens[1, 1])
    assert features.tokens[~features.mask].abs().sum() == 0


def test_training_moves_the_words_read_and_never_the_padding():
    model = VocabLanguageModel(VOCABULARY, width=5, max_tokens=6)
    model(["red"]).tokens.sum().backward()
    moved = model.embedding.weight.grad.abs().sum(dim=1) > 0
    assert moved.tolist() == [False, False, True, True, False, True, False]  # <bos> <eos> red


def test_captions_that_lose_words_are_named():
    model = VocabLanguageModel(VOCABULARY, max_tokens=4)
    assert model.too_long(["a red", "a red circle", "circle"]) == [1]


def test_features_move_as_one():
    features = TextFeatures(torch.zeros(1, 2, 3), torch.ones(1, 2, dtype=torch.bool)).to("meta")
    assert features.tokens.device.type == features.mask.device.type == "meta"


def test_a_model_without_room_is_refused():
    with pytest.raises(ValueError, match="got 0 and 32"):
        VocabLanguageModel(VOCABULARY, width=0)
