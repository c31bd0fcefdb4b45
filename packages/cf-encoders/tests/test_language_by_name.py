import pytest
import torch
from cf_encoders import VocabLanguageModel, Vocabulary, language_model
from cf_encoders.language_models.by_name import LANGUAGE_MODELS


@pytest.fixture
def words(tmp_path):
    Vocabulary(["a", "dog"]).save(tmp_path / "words.json")
    return tmp_path / "words.json"


def test_a_vocabulary_has_the_width_length_and_dtype_asked_for(words):
    model = language_model("vocab", words, width=7, max_tokens=5, dtype=torch.float64)
    assert isinstance(model, VocabLanguageModel)
    assert (model.width, model.max_tokens) == (7, 5)
    assert model(["a dog"]).tokens.dtype == torch.float64
    assert (language_model("vocab", words).width, language_model("vocab", words).max_tokens) == (192, 64)


def test_an_unknown_name_is_an_error_that_lists_the_names():
    names = "clip, open-clip, t5, t5-released, llama, minilm, vocab"
    with pytest.raises(ValueError, match=f"unknown language model 'bert'; known: {names}"):
        language_model("bert")


@pytest.mark.parametrize("name", [name for name in LANGUAGE_MODELS if name != "minilm"])
def test_a_missing_path_is_named_with_what_it_should_be(name):
    with pytest.raises(ValueError, match=f"{name} needs the path of a "):
        language_model(name)


def test_a_model_that_is_not_there_is_named(tmp_path):
    pytest.importorskip("open_clip", reason="a test dependency: cf-encoders[open-clip]")
    with pytest.raises(FileNotFoundError, match="no CLIPTextModel in"):
        language_model("clip", tmp_path)
    with pytest.raises(FileNotFoundError, match=r"ViT-B-32 needs a local weight file, got .*no\.pt"):
        language_model("open-clip", "ViT-B-32@no.pt")
