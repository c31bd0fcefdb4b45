from collections.abc import Sequence

import pytest
import torch
from cf_encoders import CachedLanguageModel, TextFeatures, VocabLanguageModel, Vocabulary

HALF_PRECISION = 1e-3  # float16 keeps eleven bits


class Counting:
    """A frozen model that remembers what it was asked."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.model = VocabLanguageModel(Vocabulary(["a", "b", "c"]), width=4, max_tokens=5).requires_grad_(
            False
        )
        self.width, self.max_tokens, self.asked = 4, 5, []

    def __call__(self, captions: Sequence[str]) -> TextFeatures:
        self.asked += captions
        return self.model(captions)

    def too_long(self, captions: Sequence[str]) -> list[int]:
        return self.model.too_long(captions)


def test_remembered_features_are_the_models():
    model = Counting()
    cached = CachedLanguageModel(model)
    captions = ["a", "b c", "a b c c", "a"]
    for _ in range(2):
        found, expected = cached(captions), model.model(captions)
        torch.testing.assert_close(found.tokens, expected.tokens, atol=HALF_PRECISION, rtol=HALF_PRECISION)
        assert torch.equal(found.mask, expected.mask)
    assert (cached.width, cached.max_tokens, cached.too_long(captions)) == (4, 5, [2])


def test_every_caption_is_asked_for_once():
    model = Counting()
    cached = CachedLanguageModel(model)
    cached.remember(["a", "b", "a", "c"], batch=2)
    cached(["c", "b", "a b"])
    assert model.asked == ["a", "b", "c", "a b"]
    assert len(cached) == 4


def test_a_model_in_training_is_refused():
    with pytest.raises(ValueError, match=r"VocabLanguageModel.*requires_grad_\(False\)"):
        CachedLanguageModel(VocabLanguageModel(Vocabulary(["a"])))
