"""Captions from files, names of files for them, and pictures that are the same in whatever company they are drawn."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from cf_apps.data.captioned import DataError
from cf_apps.engine.errors import RunError
from cf_apps.engine.flow import SampleConfig
from cf_apps.engine.watching.progress import Silence
from cf_apps.t2i.drawing.pictures import LONGEST, Picture, drawn, wanted, write_pictures
from cf_apps.t2i.drawing.prompts import (
    Prompt,
    named_prompts,
    read_prompts,
    require_short,
    shown,
    unknown_words,
)
from cf_apps.t2i.sample import Sampler
from cf_eval import geneval_prompts
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent))
from t2i_tiny import CAPTIONS, sampler

HOW = SampleConfig(scale=1.5, steps=3, solver="midpoint")
BATCHING = 1e-4  # sums in another order
TWO = ["a red circle", "זוג 🎈 ä"]


@pytest.fixture(scope="module")
def it() -> Sampler:
    return sampler()


def written(folder: Path, content: str | bytes, name: str = "prompts.txt") -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def captions(path: Path) -> list[str]:
    return [prompt.text for prompt in read_prompts(path)]


# ------------------------------------------------------------------------------------------------- files


LINES = "\n".join(TWO)


@pytest.mark.parametrize(
    "content",
    [
        LINES.encode(),
        f"{LINES}\n".encode(),
        f"\n\n  {TWO[0]}\t\n\n{TWO[1]}   ".encode(),
        f"# a comment\n{TWO[0]}\n  # another\n{TWO[1]}".encode(),
        LINES.replace("\n", "\r\n").encode(),
        LINES.replace("\n", "\r").encode(),
        f"\ufeff{LINES}".encode(),
        LINES.encode("utf-16"),
        f"\ufeff{LINES}".encode("utf-16-be"),
    ],
    ids=["plain", "end", "blanks", "comments", "crlf", "cr", "bom", "utf-16", "utf-16-be"],
)
def test_a_text_file_holds_a_caption_a_line(tmp_path, content):
    assert captions(written(tmp_path, content)) == TWO


def test_only_line_ends_end_a_line(tmp_path):
    """str.splitlines would cut at these as well."""
    odd = "a\u2028b\x0cc\x85d"
    assert captions(written(tmp_path, odd)) == [odd]


@pytest.mark.parametrize("key", ["prompt", "caption", "text"])
def test_json_lines_hold_captions_under_three_names_or_bare(tmp_path, key):
    lines = [json.dumps({"id": 7, key: TWO[0]}), "", json.dumps(TWO[1])]
    assert captions(written(tmp_path, "\r\n".join(lines), "prompts.JSONL")) == TWO


def test_a_json_file_is_a_list(tmp_path):
    content = json.dumps([TWO[0], {"prompt": TWO[1], "text": "not this"}], indent=2)
    assert captions(written(tmp_path, content, "prompts.json")) == TWO


def test_geneval_is_its_own_553_prompts():
    assert [prompt.text for prompt in named_prompts("geneval")] == [p.text for p in geneval_prompts()]


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.txt", b"", "holds no caption"),
        ("a.txt", b"# only\n\n", "holds no caption"),
        ("a.txt", b"one\r\ntwo\r\n\xff\xfe", "line 3 is not utf-8"),
        ("a.txt", "one\ntwo\n".encode("utf-16") + b"\x00", "is not utf-16"),
        ("a.txt", b"one\n\na\x00b", r"line 3: the caption 'a\x00b' has the control character '\x00'"),
        ("a.txt", b"one\n\x1b[31mred", r"line 2: the caption '\x1b[31mred' has the control character"),
        ("a.txt", "one\n\u200b\u200f".encode(), r"line 2: the caption '\u200b\u200f' is empty"),
        ("a.jsonl", b'{"prompt": "a"}\n{"prompt": "b"', "line 2 is not JSON"),
        (
            "a.jsonl",
            b'{"prompt": "a"}\n{"image": "b"}',
            "line 2 has none of prompt, caption, text; it has 'image'",
        ),
        ("a.jsonl", b'{"prompt": ["a"]}', "line 1 holds \"['a']\" for a caption"),
        ("a.jsonl", b'\n{"prompt": "  "}', "line 2: the caption '  ' is empty"),
        ("a.jsonl", b'{"prompt": "\\ud83c"}', r"line 1: the caption '\ud83c' has half a character"),
        ("a.jsonl", b"[" * 9_999, "line 1 is not JSON"),
        ("a.json", b'{"prompt": "a"}', "holds a dict; a list like"),
        ("a.json", b'["a", 3]', "item 2 holds '3' for a caption"),
        ("a.json", b"[]", "holds no caption"),
    ],
)
def test_what_cannot_be_read_is_named_with_its_line(tmp_path, name, content, expected):
    path = written(tmp_path, content, name)
    with pytest.raises(DataError) as error:
        read_prompts(path)
    assert str(path) in str(error.value)
    assert expected in str(error.value)
    assert len(str(error.value)) < 400 + len(str(path))


@pytest.mark.parametrize("name", ["missing.txt", ".", "a\0b"])
def test_what_is_no_file_is_named(tmp_path, name):
    with pytest.raises(DataError, match=r"cannot read the prompts .*give a \.txt"):
        read_prompts(tmp_path / name)


# ------------------------------------------------------------------------------------------------- captions


@pytest.mark.parametrize(
    "text", ["🎈", "👩‍👩‍👧", "שלום", "a\ta\nb", "é", "e\u0301", "\u202eabc", "\U0001faea", "x" * 100_000]
)
def test_any_script_can_be_a_caption(text):
    assert Prompt(text, "caption 1").text == text


def test_the_place_of_a_long_caption_is_named_and_its_text_cut(it):
    prompts = [Prompt("a circle", "p.txt: line 1"), Prompt("a " * 10_000, "p.txt: line 9")]
    require_short(it.model, prompts[:1])
    with pytest.raises(
        DataError, match=r"p\.txt: line 9: caption of more than 12 tokens: 'a a a .*…'; shorten"
    ) as error:
        require_short(it.model, prompts)
    assert len(str(error.value)) < 200


def test_words_that_were_never_learned_are_named_once(it):
    known = [Prompt(text, "caption") for text in CAPTIONS]
    assert unknown_words(it.model, known) == []
    odd = [Prompt(text, "caption") for text in ("a rde circle 🎈", "rde \u202ecircel", *"bcdef")]
    (line,) = unknown_words(it.model, odd)
    assert line.endswith("unknown word: 'rde', '🎈', '\\u202e', 'circel', 'b' and 4 more")


def test_long_texts_are_shown_short():
    assert shown("a" * 60) == repr("a" * 60)
    assert shown("a" * 61) == repr("a" * 59 + "…")


# ------------------------------------------------------------------------------------------------- names


@pytest.mark.parametrize(
    ("caption", "name"),
    [
        ("a red circle", "00012-a-red-circle-seed3-1.png"),
        ("  Ein GRÜNER Kreis, bitte! ", "00012-ein-gruner-kreis-bitte-seed3-1.png"),
        ("../../etc/passwd", "00012-etc-passwd-seed3-1.png"),
        ('a\\b:c*d?e"f<g>h|i.', "00012-a-b-c-d-e-f-g-h-i-seed3-1.png"),
        ("עיגול אדום 🎈", "00012-seed3-1.png"),
        ("\u202ea red\x00circle", "00012-a-red-circle-seed3-1.png"),
        ("a circle \ud83c", "00012-a-circle-seed3-1.png"),
        ("a very " * 20 + "long one", f"00012-{'-'.join(['a-very'] * 8)}-a-seed3-1.png"),
        ("x" * 999, f"00012-{'x' * LONGEST}-seed3-1.png"),
    ],
)
def test_the_name_of_a_picture_says_caption_seed_and_number(caption, name):
    assert Picture(12, caption, 3, 1).file == name


@given(st.text(), st.integers(0, 10**9), st.integers(-(2**63), 2**63), st.integers(0, 10**6))
def test_every_file_system_takes_every_name(caption, index, seed, number):
    name = Picture(index, caption, seed, number).file
    assert name.isascii()
    assert len(name) < 150
    assert set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789-.")
    assert name.endswith(f"seed{seed}-{number}.png")


# ------------------------------------------------------------------------------------------------- pictures


def images(it: Sampler, pictures, batch_size: int) -> dict[tuple[str, int], torch.Tensor]:
    made = drawn(it, pictures, HOW, batch_size, Silence())
    return {(picture.caption, picture.number): image for picture, image in made}


@pytest.mark.parametrize("batch_size", [1, 2, 5, 100])
def test_a_picture_is_the_same_in_any_batch_and_order(it, batch_size):
    pictures = wanted(CAPTIONS, 2, seed=3)
    expected = images(it, pictures, 10)
    assert len({image.numpy().tobytes() for image in expected.values()}) == 10
    others = images(it, wanted(["a circle above a circle", *CAPTIONS[::-1]], 3, seed=3)[::-1], batch_size)
    for key, image in expected.items():
        assert torch.allclose(others[key], image, atol=BATCHING)


def test_a_picture_is_drawn_by_its_own_generator_alone(it):
    picture = Picture(5, CAPTIONS[3], 11, 2)
    x_0 = it.encode([picture.caption], picture.generator(), HOW.temperature)
    alone = it.decode(it.flow(x_0, HOW).x)[0]
    assert torch.allclose(images(it, wanted(CAPTIONS, 3, 11), 4)[picture.caption, 2], alone, atol=BATCHING)


@pytest.mark.parametrize("change", [{"seed": 12}, {"number": 1}, {"caption": "a circle."}])
def test_another_seed_number_or_caption_is_another_draw(change):
    picture = Picture(0, "a circle", 11, 0)
    one, other = picture.generator(), replace(picture, **change).generator()
    assert torch.randn(4, generator=one).tolist() != torch.randn(4, generator=other).tolist()


def test_the_place_in_the_file_is_no_part_of_the_draw():
    assert (
        Picture(0, "a", 1, 2).generator().initial_seed() == Picture(9, "a", 1, 2).generator().initial_seed()
    )


# ------------------------------------------------------------------------------------------------- folders


def lines(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "manifest.jsonl").read_text(encoding="utf-8").splitlines()]


def plain(pictures):
    """A picture of one colour for each."""
    return [(p, torch.full((3, 2, 2), p.number / 10 + p.index / 100)) for p in pictures]


def test_a_folder_holds_a_file_for_each_picture_and_a_line_about_it(tmp_path):
    pictures = wanted(["a circle", "עיגול 🎈"], 2, seed=3)
    listed = write_pictures(tmp_path / "new", plain(pictures), {"scale": 2.0})
    assert sorted(p.name for p in listed.parent.iterdir()) == [
        *sorted(p.file for p in pictures),
        "manifest.jsonl",
    ]
    for line, picture in zip(lines(tmp_path / "new"), pictures, strict=True):
        assert (line["caption"], line["seed"], line["number"]) == (picture.caption, 3, picture.number)
        assert line["scale"] == 2.0
        pixels = np.asarray(Image.open(tmp_path / "new" / line["file"]))
        assert (pixels == round(255 * (picture.number / 10 + picture.index / 100))).all()


def test_a_folder_keeps_what_was_in_it_and_lists_every_file_once(tmp_path):
    write_pictures(tmp_path, plain(wanted(["a", "b"], 1, seed=0)), {"steps": 1})
    write_pictures(tmp_path, plain(wanted(["a"], 2, seed=0)), {"steps": 2})
    write_pictures(tmp_path, plain(wanted(["a"], 1, seed=1)), {"steps": 3})
    found = {line["file"]: line["steps"] for line in lines(tmp_path)}
    assert found == {
        "00000-a-seed0-0.png": 2,
        "00001-b-seed0-0.png": 1,
        "00000-a-seed0-1.png": 2,
        "00000-a-seed1-0.png": 3,
    }
    assert len(lines(tmp_path)) == 4
    assert {p.name for p in tmp_path.glob("*.png")} == found.keys()


def test_whoever_stops_it_has_a_list_of_what_is_there(tmp_path):
    def stopped():
        yield from plain(wanted(["a"], 2, seed=0))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_pictures(tmp_path, stopped(), {})
    assert [line["file"] for line in lines(tmp_path)] == ["00000-a-seed0-0.png", "00000-a-seed0-1.png"]


def test_a_folder_that_cannot_be_written_and_a_list_that_cannot_be_read_are_named(tmp_path):
    taken = written(tmp_path, "a file", "taken")
    with pytest.raises(RunError, match=r"cannot write .*taken.*choose another --out"):
        write_pictures(taken / "pictures", plain(wanted(["a"], 1, 0)), {})
    written(tmp_path, '{"file": "a.png"', "manifest.jsonl")
    with pytest.raises(RunError, match=r"cannot read .*manifest\.jsonl.*move that file away"):
        write_pictures(tmp_path, plain(wanted(["a"], 1, 0)), {})
    assert not list(tmp_path.glob("*.png"))
