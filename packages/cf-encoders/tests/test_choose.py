import pytest
from cf_encoders import PatchDCTCodec, PixelCodec, VocabLanguageModel, Vocabulary, image_codec, language_model


def test_codecs_by_name():
    assert isinstance(image_codec("pixels"), PixelCodec)
    assert isinstance(image_codec("patch-dct"), PatchDCTCodec)
    with pytest.raises(ValueError, match=r"pixel.*known: patch-dct, pixels, taef2"):
        image_codec("pixel")
    with pytest.raises(ValueError, match="taef2 needs the path"):
        image_codec("taef2")


def test_language_models_by_name(tmp_path):
    Vocabulary(["a", "dog"]).save(tmp_path / "words.json")
    model = language_model("vocab", tmp_path / "words.json", width=7, max_tokens=5)
    assert isinstance(model, VocabLanguageModel)
    assert (model.width, model.max_tokens) == (7, 5)
    with pytest.raises(ValueError, match=r"bert.*known: minilm, vocab"):
        language_model("bert")
    with pytest.raises(ValueError, match="vocab needs the path"):
        language_model("vocab")
