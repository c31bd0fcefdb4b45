import numpy as np
import pytest
from cf_encoders.language_models.caption_index import PLACE, CaptionIndex, caption_keys


def places(numbers):
    found = np.zeros(len(numbers), dtype=PLACE)
    found["offset"] = numbers
    return found


@pytest.mark.parametrize("seed", range(4))
def test_it_finds_what_a_dict_finds(seed):
    draw, index, known = np.random.default_rng(seed), CaptionIndex(), {}
    for step in range(60):
        captions = [f"caption {i}" for i in draw.integers(0, 300, size=draw.integers(1, 30))]
        numbers = np.arange(len(captions)) + 1_000 * step
        index.add(caption_keys(captions), places(numbers))
        known.update(zip(captions, numbers, strict=True))
        assert len(index) == len(known)
    captions = [f"caption {i}" for i in draw.permutation(400)]
    found, where = index.find(caption_keys(captions))
    assert found.tolist() == [caption in known for caption in captions]
    assert where["offset"][found].tolist() == [known[c] for c in captions if c in known]


def test_n_keys_added_one_by_one_are_in_about_log_n_blocks():
    index = CaptionIndex()
    for i in range(500):
        index.add(caption_keys([str(i)]), places([i]))
    assert len(index._blocks) <= 9


def test_keys_that_differ_in_the_last_byte_or_end_in_zero_are_different():
    keys = np.frombuffer(b"x" * 15 + b"\0" + b"x" * 15 + b"\1" + b"x" * 14 + b"\0\1", dtype="S16")
    index = CaptionIndex()
    index.add(keys[:1], places([7]))
    assert index.find(keys)[0].tolist() == [True, False, False]
    index.add(keys[1:], places([8, 9]))
    assert index.find(keys)[1]["offset"].tolist() == [7, 8, 9]


def test_nothing_is_found_in_an_empty_index_and_no_key_in_any():
    assert CaptionIndex().find(caption_keys(["a"]))[0].tolist() == [False]
    index = CaptionIndex()
    index.add(caption_keys([]), places([]))
    assert len(index) == 0
    assert index.find(caption_keys([]))[0].tolist() == []


def test_any_text_has_a_key():
    keys = caption_keys(["", "größe 犬", "\ud800", "a", "A"])
    assert len(set(keys.tolist())) == 5
