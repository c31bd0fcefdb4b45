import pytest
import torch
from cf_encoders import Vocabulary
from cf_encoders.tokenizer import split_words
from hypothesis import given
from hypothesis import strategies as st

CAPTIONS = ["A red circle, left of a Blue square.", "a red circle"]


@pytest.mark.parametrize(
    ("caption", "words"),
    [
        ("A dog, left.", ["a", "dog", ",", "left", "."]),
        ("  two\tred\n circles ", ["two", "red", "circles"]),
        ("Größe 3x3!?", ["größe", "3x3", "!", "?"]),
        ("", []),
    ],
)
def test_words_are_lower_case_and_punctuation_stands_alone(caption, words):
    assert split_words(caption) == words


def test_words_are_ranked_by_count_then_alphabet():
    vocabulary = Vocabulary.build(CAPTIONS)
    assert vocabulary.words[:8] == ("<pad>", "<unk>", "<bos>", "<eos>", "a", "circle", "red", ",")
    assert Vocabulary.build(reversed(CAPTIONS)).words == vocabulary.words
    assert Vocabulary.build(CAPTIONS, min_count=2).words[4:] == ("a", "circle", "red")
    assert Vocabulary.build(CAPTIONS, max_words=1).words[4:] == ("a",)


@given(st.lists(st.text(st.characters(categories=["Ll", "Nd", "Po", "Zs"])), min_size=1, max_size=4))
def test_decode_undoes_encode_up_to_case_and_blanks(captions):
    ids, mask = Vocabulary.build(captions).encode(captions, max_tokens=200)
    expected = [" ".join(split_words(caption)) for caption in captions]
    assert Vocabulary.build(captions).decode(ids) == expected
    assert mask.sum(dim=1).tolist() == [len(split_words(caption)) + 2 for caption in captions]


def test_encode_frames_with_bos_and_eos_and_pads():
    vocabulary = Vocabulary(["a", "red", "circle"])
    ids, mask = vocabulary.encode(["a RED circle", "red"], max_tokens=6)
    assert ids.tolist() == [[2, 4, 5, 6, 3, 0], [2, 5, 3, 0, 0, 0]]
    assert torch.equal(mask, ids != 0)


def test_a_long_caption_keeps_its_eos():
    vocabulary = Vocabulary(["a", "b", "c"])
    ids, mask = vocabulary.encode(["a b c"], max_tokens=4)
    assert ids.tolist() == [[2, 4, 5, 3]]
    assert mask.all()
    assert vocabulary.length("a b c") == 5


def test_unknown_words_become_unk_and_are_counted():
    vocabulary = Vocabulary(["a"])
    assert vocabulary.encode(["a zebra"], 4)[0].tolist() == [[2, 4, 1, 3]]
    assert vocabulary.unknown(["a zebra", "Zebra, a"]) == {"zebra": 2, ",": 1}


def test_it_survives_its_file(tmp_path):
    vocabulary = Vocabulary.build([*CAPTIONS, "größe"])
    vocabulary.save(tmp_path / "vocabulary.json")
    assert Vocabulary.load(tmp_path / "vocabulary.json").words == vocabulary.words


@pytest.mark.parametrize("text", ["not json", "[]", '{"word": []}'])
def test_a_file_that_is_no_vocabulary_is_named(tmp_path, text):
    path = tmp_path / "vocabulary.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"vocabulary\.json is not a vocabulary"):
        Vocabulary.load(path)


def test_words_given_twice_are_refused():
    with pytest.raises(ValueError, match=r"twice: \['<eos>', 'a'\]"):
        Vocabulary(["a", "a", "<eos>"])
    with pytest.raises(ValueError, match="max_tokens must be >= 2"):
        Vocabulary(["a"]).encode(["a"], 1)
