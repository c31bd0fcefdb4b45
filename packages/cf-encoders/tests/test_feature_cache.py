from collections.abc import Sequence

import pytest
import torch
from cf_encoders import CachedLanguageModel, TextFeatures, VocabLanguageModel, Vocabulary

HALF_PRECISION = 1e-3  # float16 keeps eleven bits
CAPTIONS = ["a", "b c", "a b c c", "", "a"]


class Counting:
    """A frozen model that remembers what it was asked, and whose features of padding are not zero."""

    def __init__(self, fingerprint: str = "0123456789abcdef-counting", scale: float = 1.0) -> None:
        torch.manual_seed(0)
        vocabulary = Vocabulary(["a", "b", "c"])
        self.model = VocabLanguageModel(vocabulary, width=4, max_tokens=5).requires_grad_(False)
        self.width, self.max_tokens, self.asked = 4, 5, []
        self.fingerprint, self.scale = fingerprint, scale

    def __call__(self, captions: Sequence[str]) -> TextFeatures:
        self.asked += captions
        features = self.model(captions)
        return TextFeatures(self.scale * (features.tokens + 0.5), features.mask)

    def too_long(self, captions: Sequence[str]) -> list[int]:
        return self.model.too_long(captions)


@pytest.fixture(params=["in memory", "on disk"])
def folder(request, tmp_path):
    return tmp_path if request.param == "on disk" else None


def near(found, expected, tolerance=HALF_PRECISION):
    torch.testing.assert_close(found, expected, atol=tolerance, rtol=tolerance)


def test_remembered_features_are_the_models_and_padding_is_zero(folder):
    model = Counting()
    cached = CachedLanguageModel(model, folder=folder)
    for _ in range(2):
        found, expected = cached(CAPTIONS), model(CAPTIONS)
        near(found.tokens, expected.tokens * expected.mask[..., None])
        assert torch.equal(found.mask, expected.mask)
    assert (cached.width, cached.max_tokens, cached.too_long(CAPTIONS)) == (4, 5, [2])
    assert cached([]).tokens.shape == (0, 5, 4)


def test_padding_is_kept_as_the_model_gave_it(folder):
    model = Counting()
    cached = CachedLanguageModel(model, folder=folder, padding="kept")
    for _ in range(2):
        found, expected = cached(CAPTIONS), model(CAPTIONS)
        near(found.tokens, expected.tokens)
        assert torch.equal(found.mask, expected.mask)


@pytest.mark.parametrize(("dtype", "bits"), [(torch.float16, 11), (torch.bfloat16, 8), (torch.float32, 24)])
def test_features_have_the_precision_asked_for_and_come_as_float32(folder, dtype, bits):
    model = Counting(scale=1 / 3)
    cached, expected = CachedLanguageModel(model, folder=folder, dtype=dtype), model(["a b c"]).tokens
    cached.remember(["a b c"])
    found = cached(["a b c"]).tokens
    assert found.dtype == torch.float32
    error = (found - expected).abs().max() / expected.abs().max()
    assert error <= 2.0**-bits
    assert error > 2.0 ** (-bits - 5) or dtype == torch.float32  # no more than asked for, either


def test_features_beyond_the_range_are_refused(folder):
    with pytest.raises(ValueError, match=r"do not fit torch\.float16; use dtype=torch\.bfloat16"):
        CachedLanguageModel(Counting(scale=1e6), folder=folder)(["a"])
    near(
        CachedLanguageModel(Counting(scale=1e6), folder=folder, dtype=torch.float32)(["a"]).mask.sum(),
        torch.tensor(3),
    )


def test_every_caption_is_asked_for_once_and_counted(folder):
    model = Counting()
    cached, told = CachedLanguageModel(model, folder=folder), []
    cached.remember(["a", "b", "a", "c"], batch=2, progress=lambda done, to_do: told.append((done, to_do)))
    assert told == [(2, 3), (3, 3)]
    assert (cached.hits, cached.misses) == (0, 3)
    cached(["c", "b", "a b", "c"])
    assert model.asked == ["a", "b", "c", "a b"]
    assert (cached.hits, cached.misses, len(cached)) == (2, 4, 4)
    cached.remember(["a", "a b"], progress=lambda done, to_do: told.append((done, to_do)))
    assert (cached.hits, cached.misses, len(told)) == (4, 4, 2)


def test_a_later_run_finds_what_an_earlier_one_kept(tmp_path):
    first = CachedLanguageModel(Counting(), folder=tmp_path)
    expected = first(CAPTIONS).tokens
    model = Counting()
    later = CachedLanguageModel(model, folder=tmp_path)
    assert torch.equal(later(CAPTIONS).tokens, expected)
    assert (model.asked, later.hits, later.misses) == ([], 4, 0)


def test_without_the_model_what_was_kept_is_there_and_nothing_else(tmp_path):
    expected = CachedLanguageModel(Counting(), folder=tmp_path, padding="kept")(CAPTIONS)
    stored = CachedLanguageModel.from_folder(tmp_path)
    found = stored(CAPTIONS)
    assert torch.equal(found.tokens, expected.tokens)
    assert torch.equal(found.mask, expected.mask)
    assert (stored.width, stored.max_tokens, len(stored)) == (4, 5, 4)
    with pytest.raises(KeyError, match=r"2 captions are not in .*, the first 'b', and Counting is not"):
        stored(["a", "b", "c"])
    with pytest.raises(TypeError, match="tokenizer of Counting, not loaded here"):
        stored.too_long(["a"])


def test_models_in_one_folder_stay_apart(tmp_path):
    one, other = Counting(), Counting("fedcba9876543210-other", scale=2.0)
    for model in (one, other):
        cached = CachedLanguageModel(model, folder=tmp_path)
        near(cached(["a b"]).tokens[0, :4], model(["a b"]).tokens[0, :4])
    assert len(CachedLanguageModel(one, folder=tmp_path, dtype=torch.bfloat16)) == 0
    assert len(CachedLanguageModel(one, folder=tmp_path, padding="kept")) == 0
    with pytest.raises(ValueError, match=r"several models.*Counting-0123456789abcdef-bfloat16, Counting-01"):
        CachedLanguageModel.from_folder(tmp_path)
    assert len(CachedLanguageModel.from_folder(tmp_path / "Counting-fedcba9876543210-float16")) == 1
    with pytest.raises(ValueError, match=r"holds features of Manifest.*-counting.*; use another folder"):
        CachedLanguageModel(Counting("0123456789abcdef-a twin"), folder=tmp_path)


def test_what_cannot_be_kept_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"VocabLanguageModel.*requires_grad_\(False\)"):
        CachedLanguageModel(VocabLanguageModel(Vocabulary(["a"])))
    with pytest.raises(ValueError, match="VocabLanguageModel has no fingerprint"):
        CachedLanguageModel(Counting().model, folder=tmp_path)
    with pytest.raises(
        ValueError, match="unknown dtype of features 'float64'; known: float16, bfloat16, float32"
    ):
        CachedLanguageModel(Counting(), dtype=torch.float64)
    with pytest.raises(ValueError, match="unknown padding 'lost'; known: left out, kept"):
        CachedLanguageModel(Counting(), padding="lost")
    with pytest.raises(TypeError, match="got the string 'a dog'"):
        CachedLanguageModel(Counting())("a dog")
    with pytest.raises(FileNotFoundError, match="no remembered features in"):
        CachedLanguageModel.from_folder(tmp_path / "nothing")
