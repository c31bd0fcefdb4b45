import pytest
import torch
from cf_encoders import Vocabulary
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("tokenizers", reason="subwords need cf-encoders[tokenizers]")
from cf_encoders.captions import subwords
from cf_encoders.captions.subwords import KINDS, Subwords
from cf_encoders.tokenizer import SPECIALS, Tokenizer

CAPTIONS = [
    "A red circle, left of a Blue square.",
    "two red circles (small) & a dog's bowl",
    "the quick brown fox jumps over the lazy dog! why? #1 <b>",
    'Größe 3x3; it\'s "here" - 10% off: $5 + 2 = 7 @ 3/4 of ten_',
]
LETTERS = "".join(sorted({letter for caption in CAPTIONS for letter in caption.lower()}))


@pytest.fixture(scope="module", params=KINDS)
def tokenizer(request):
    return Subwords.build(3 * CAPTIONS, 400, request.param)


def test_they_wear_the_same_face_as_a_vocabulary(tokenizer):
    assert isinstance(tokenizer, Tokenizer)
    assert isinstance(Vocabulary.build(CAPTIONS), Tokenizer)
    assert tuple(tokenizer.tokenizer.id_to_token(i) for i in range(4)) == SPECIALS


def test_decode_gives_back_the_normal_form(tokenizer):
    ids, mask = tokenizer.encode(CAPTIONS, 99)
    assert tokenizer.decode(ids) == [caption.lower() for caption in CAPTIONS]
    assert mask.sum(1).tolist() == [tokenizer.length(caption) for caption in CAPTIONS]
    assert ids.max() < len(tokenizer)


def test_the_normal_form_is_lower_case_composed_and_has_single_blanks(tokenizer):
    assert tokenizer.normal_form("  A\tRED \n u\u0308ber ") == "a red \u00fcber"


@settings(deadline=None)
@given(caption=st.text(st.sampled_from(LETTERS + LETTERS.upper() + "\t\n"), max_size=30))
def test_no_caption_of_known_letters_loses_anything(tokenizer, caption):
    ids, mask = tokenizer.encode([caption], 99)
    assert tokenizer.decode(ids) == [tokenizer.normal_form(caption)]
    assert not (ids == 1).any()
    assert int(mask.sum()) == tokenizer.length(caption)


@pytest.fixture(scope="module")
def bpe():
    return Subwords.build(CAPTIONS, 300)


@settings(deadline=None)
@given(caption=st.text(max_size=20))
def test_bpe_loses_nothing_of_any_text(bpe, caption):
    ids, _ = bpe.encode([caption], 200)
    assert bpe.decode(ids) == [bpe.normal_form(caption).strip()]
    assert not (ids == 1).any()


def test_a_word_with_a_letter_it_never_saw_is_unknown_to_wordpiece_alone(bpe):
    wordpiece = Subwords.build(CAPTIONS, 200, "wordpiece")
    ids, _ = wordpiece.encode(["a red 犬"], 9)
    assert (ids == 1).sum() == 1
    # the blank was part of the word
    assert wordpiece.decode(ids) == ["a red<unk>"]
    assert bpe.decode(bpe.encode(["a red 犬"], 19)[0]) == ["a red 犬"]


def test_a_caption_that_spells_a_special_token_means_its_letters(tokenizer, tmp_path):
    tokenizer.save(tmp_path / "subwords.json")
    for some in (tokenizer, Subwords.load(tmp_path / "subwords.json")):
        ids, mask = some.encode(["a <b> <bos> b"], 40)
        assert ids[0].tolist().count(2) == 1
        assert some.decode(ids) == ["a <b> <bos> b"]
        assert int(mask.sum()) > 8


def test_a_long_caption_loses_its_end_but_not_its_eos(tokenizer):
    whole, _ = tokenizer.encode(CAPTIONS[:1], 99)
    cut, mask = tokenizer.encode(CAPTIONS[:1], 5)
    assert cut[0].tolist() == [*whole[0, :4].tolist(), 3]
    assert mask.all()
    assert CAPTIONS[0].lower().startswith(tokenizer.decode(cut)[0])
    with pytest.raises(ValueError, match="max_tokens must be >= 2"):
        tokenizer.encode(["a"], 1)


def test_decode_stops_at_the_first_eos_and_leaves_frames_out(tokenizer):
    ids, _ = tokenizer.encode(["a red", "circle"], 30)
    end = ids[0].tolist().index(3)
    joined = torch.cat([ids[0, : end + 1], ids[1]])[None]
    assert tokenizer.decode(joined) == ["a red"]
    assert tokenizer.decode(torch.zeros(1, 3, dtype=torch.long)) == [""]


def test_the_more_subwords_the_fewer_tokens(tokenizer):
    kind = next(kind for kind in KINDS if kind in type(tokenizer.tokenizer.model).__name__.lower())
    small = Subwords.build(3 * CAPTIONS, {"bpe": 270, "wordpiece": 130}[kind], kind)
    assert len(small) < len(tokenizer) <= 400
    assert all(tokenizer.length(caption) < small.length(caption) for caption in CAPTIONS)


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_captions_in_any_order_make_the_same_tokenizer(kind):
    made = [Subwords.build(some, 350, kind) for some in (CAPTIONS, CAPTIONS, CAPTIONS[::-1])]
    assert made[0].tokenizer.to_str() == made[1].tokenizer.to_str() == made[2].tokenizer.to_str()


def test_it_survives_its_file(tokenizer, tmp_path):
    tokenizer.save(tmp_path / "subwords.json")
    loaded = Subwords.load(tmp_path / "subwords.json")
    assert torch.equal(loaded.encode(CAPTIONS, 40)[0], tokenizer.encode(CAPTIONS, 40)[0])
    assert len(loaded) == len(tokenizer)


def test_what_cannot_be_made_is_refused(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="unknown subword kind 'unigram'; known: bpe, wordpiece"):
        Subwords.build(CAPTIONS, 400, "unigram")
    with pytest.raises(ValueError, match="bpe needs a size of at least 260, got 100"):
        Subwords.build(CAPTIONS, 100)
    with pytest.raises(ValueError, match=r"wordpiece needs a size of at least \d+, got 10"):
        Subwords.build(CAPTIONS, 10, "wordpiece")
    (tmp_path / "no.json").write_text("{}")
    with pytest.raises(ValueError, match=r"no\.json is not a subword tokenizer"):
        Subwords.load(tmp_path / "no.json")
    monkeypatch.setitem(__import__("sys").modules, "tokenizers", None)
    with pytest.raises(ImportError, match=r"pip install 'cf-encoders\[tokenizers\]'"):
        subwords.Subwords.build(CAPTIONS, 400)
