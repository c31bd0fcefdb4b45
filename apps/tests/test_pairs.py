"""Folders as people make them, good and bad."""

import csv
import io
import json
import unicodedata
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from cf_apps.data.captioned import CaptionedImages, DataError
from cf_apps.data.pairs import Pairs, load_pairs
from PIL import Image

NAMES = [f"{i:02}.png" for i in range(12)]


def picture(i: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 6 + i), (i, 0, 255 - i)).save(buffer, "PNG")
    return buffer.getvalue()


def put(folder: Path, name: str, i: int) -> None:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(picture(i))


def write_rows(folder: Path, kind: str, rows: list[dict]) -> None:
    path = folder / f"metadata.{kind}"
    if kind == "jsonl":
        path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    else:
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)


def content(pairs: Pairs) -> dict[int, tuple[str, ...]]:
    """red level (the picture's number) -> phrasings, over both halves"""
    halves = (pairs.train, pairs.val)
    return {int(h.images[k, 0, 0, 0]): h.captions[k] for h in halves for k in range(len(h))}


def load(folder: Path) -> Pairs:
    return load_pairs(folder, image_size=7, val_fraction=0.25)


EXPECTED = {i: (f"picture {i}",) for i in range(12)}


@pytest.fixture(params=["jsonl", "csv"])
def table(request) -> str:
    return request.param


@pytest.mark.parametrize("column", ["text", "caption", "prompt"])
def test_a_folder_with_a_table_gives_each_image_its_caption(tmp_path, table, column):
    for i, name in enumerate(NAMES):
        put(tmp_path, name, i)
    write_rows(tmp_path, table, [{"file_name": n, column: f"picture {i}"} for i, n in enumerate(NAMES)])
    pairs = load(tmp_path)
    assert content(pairs) == EXPECTED
    assert len(pairs.skipped) == 0
    assert isinstance(pairs.train, CaptionedImages)
    assert pairs.train.images.shape[1:] == (3, 7, 7)
    assert len(pairs.val) > 0


def test_a_folder_with_text_files_gives_each_image_its_caption(tmp_path):
    for i, name in enumerate(NAMES):
        put(tmp_path, name, i)
        (tmp_path / name).with_suffix(".txt").write_text(f"picture {i}\n")
    assert content(load(tmp_path)) == EXPECTED


def test_lines_of_a_text_file_are_phrasings(tmp_path):
    put(tmp_path, "a.png", 3)
    (tmp_path / "a.txt").write_text("\ufeffa cat\r\n\r\n  one cat \r\n", encoding="utf-8")
    assert content(load(tmp_path)) == {3: ("a cat", "one cat")}


def test_a_parquet_file_and_a_folder_of_them_give_the_same(tmp_path):
    cells = [{"bytes": picture(i), "path": None} for i in range(12)]
    rows = pa.table({"image": cells, "text": [f"picture {i}" for i in range(12)]})
    pq.write_table(rows[:5], tmp_path / "part-0.parquet")
    pq.write_table(rows[5:], tmp_path / "part-1.parquet")
    assert content(load(tmp_path)) == EXPECTED
    assert len(content(load(tmp_path / "part-0.parquet"))) == 5


def test_parquet_as_the_datasets_library_writes_it_is_read(tmp_path):
    import datasets

    rows = {
        "image": [Image.open(io.BytesIO(picture(i))) for i in range(12)],
        "caption": [f"picture {i}" for i in range(12)],
    }
    features = datasets.Features({"image": datasets.Image(), "caption": datasets.Value("string")})
    datasets.Dataset.from_dict(rows, features=features).to_parquet(tmp_path / "train.parquet")
    assert content(load(tmp_path)) == EXPECTED


def test_parquet_of_plain_bytes_or_of_paths_is_read(tmp_path):
    put(tmp_path, "far/1.png", 1)
    pq.write_table(pa.table({"image": [picture(0)], "prompt": ["picture 0"]}), tmp_path / "bytes.parquet")
    pq.write_table(pa.table({"image": ["far/1.png"], "prompt": ["picture 1"]}), tmp_path / "paths.parquet")
    assert content(load(tmp_path)) == {0: ("picture 0",), 1: ("picture 1",)}


def test_rows_that_name_one_image_twice_are_two_phrasings(tmp_path, table):
    put(tmp_path, "a.png", 1)
    rows = [{"file_name": "a.png", "text": "a cat"}, {"file_name": "./a.png", "text": "one cat"}]
    write_rows(tmp_path, table, rows)
    assert content(load(tmp_path)) == {1: ("a cat", "one cat")}


def test_equal_names_in_different_folders_are_different_images(tmp_path, table):
    put(tmp_path, "x/a.png", 1)
    put(tmp_path, "y/a.png", 2)
    rows = [{"file_name": "x/a.png", "text": "one"}, {"file_name": "y/a.png", "text": "two"}]
    write_rows(tmp_path, table, rows)
    assert content(load(tmp_path)) == {1: ("one",), 2: ("two",)}


def test_names_and_captions_in_any_script_are_read(tmp_path, table):
    folder = tmp_path / "my [cats] *☃"
    put(folder, "猫 #1.PNG", 1)
    put(folder, unicodedata.normalize("NFD", "café.png"), 2)  # as macOS writes it
    rows = [{"file_name": "猫 #1.PNG", "text": "Eine Katze, „süß“"}]
    rows += [{"file_name": unicodedata.normalize("NFC", "café.png"), "text": "un café"}]
    write_rows(folder, table, rows)
    assert content(load(folder)) == {1: ("Eine Katze, „süß“",), 2: ("un café",)}


def test_captions_that_look_like_numbers_or_nothing_stay_text(tmp_path, table):
    for i in range(3):
        put(tmp_path, f"{i}.png", i)
    texts = ["007", "None", "1.50"]
    write_rows(tmp_path, table, [{"file_name": f"{i}.png", "text": t} for i, t in enumerate(texts)])
    assert content(load(tmp_path)) == {i: (t,) for i, t in enumerate(texts)}


def test_a_list_of_captions_is_a_list_of_phrasings(tmp_path):
    put(tmp_path, "a.png", 1)
    write_rows(tmp_path, "jsonl", [{"file_name": "a.png", "captions": ["a cat", "", "one cat"]}])
    assert content(load(tmp_path)) == {1: ("a cat", "one cat")}


def test_bad_samples_are_skipped_counted_and_listed(tmp_path, table):
    for i, name in enumerate(NAMES):
        put(tmp_path, name, i)
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    noise.save(tmp_path / "cut.jpg")
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "cut.jpg").read_bytes()[:1500])
    (tmp_path / "empty.png").touch()
    (tmp_path / "poem.png").write_text("a text file with the wrong name")
    put(tmp_path, "mute.png", 99)
    put(tmp_path, "blank.png", 98)
    (tmp_path / "._00.png").write_bytes(b"macOS leaves these")
    rows = [{"file_name": n, "text": f"picture {i}"} for i, n in enumerate(NAMES)]
    rows += [{"file_name": n, "text": "x"} for n in ("cut.jpg", "empty.png", "poem.png", "gone.png")]
    rows += [{"file_name": "blank.png", "text": "  "}]
    write_rows(tmp_path, table, rows)

    pairs = load(tmp_path)
    assert content(pairs) == EXPECTED
    reasons = dict(pairs.skipped.samples)
    assert set(reasons) == {"cut.jpg", "empty.png", "poem.png", "gone.png", "mute.png", "blank.png"}
    assert "truncated" in reasons["cut.jpg"]
    assert "0 bytes" in reasons["empty.png"]
    assert "not an image" in reasons["poem.png"]
    assert reasons["gone.png"] == "no such file"
    assert reasons["mute.png"] == reasons["blank.png"] == "no caption"
    assert str(pairs.skipped).startswith("6 skipped (")
    assert str(pairs.skipped).endswith("and 3 more)")


def test_an_image_without_a_text_file_is_skipped(tmp_path):
    put(tmp_path, "a.png", 1)
    put(tmp_path, "b.png", 2)
    (tmp_path / "a.txt").write_text("a cat")
    pairs = load(tmp_path)
    assert content(pairs) == {1: ("a cat",)}
    assert pairs.skipped.samples == (("b.png", "no caption"),)


def test_a_broken_cell_of_a_parquet_file_is_skipped(tmp_path):
    cells = [{"bytes": b, "path": None} for b in (picture(0), picture(1)[:40], None)]
    pq.write_table(pa.table({"image": cells, "text": ["picture 0", "x", "y"]}), tmp_path / "a.parquet")
    pairs = load(tmp_path)
    assert content(pairs) == {0: ("picture 0",)}
    assert [name for name, _ in pairs.skipped.samples] == ["a.parquet[1]", "a.parquet[2]"]


def test_copies_of_a_picture_never_meet_across_the_split(tmp_path):
    for i in range(30):
        put(tmp_path, f"{i}.png", i % 6)
        (tmp_path / f"{i}.txt").write_text(f"picture {i}")
    pairs = load_pairs(tmp_path, image_size=7, val_fraction=0.4)
    sides = [set(half.images[:, 0, 0, 0].tolist()) for half in (pairs.train, pairs.val)]
    assert sides[0].isdisjoint(sides[1])
    assert sides[0] | sides[1] == set(range(6))


def test_loading_twice_gives_the_same_split(tmp_path):
    for i, name in enumerate(NAMES):
        put(tmp_path, name, i)
        (tmp_path / name).with_suffix(".txt").write_text(f"picture {i}")
    before = load(tmp_path).val.captions
    (tmp_path / "00.png").rename(tmp_path / "zz.png")
    (tmp_path / "00.txt").rename(tmp_path / "zz.txt")
    assert set(load(tmp_path).val.captions) == set(before)


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(DataError, match=r"no such data folder: .*nowhere"):
        load(tmp_path / "nowhere")


def test_a_folder_without_images_names_the_layouts(tmp_path):
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(DataError, match=r"holds no images.*metadata.jsonl"):
        load(tmp_path)


def test_a_file_that_is_no_table_is_refused(tmp_path):
    put(tmp_path, "a.png", 1)
    with pytest.raises(DataError, match="is a file; give its folder"):
        load(tmp_path / "a.png")


def test_two_tables_are_one_too_many(tmp_path):
    for kind in ("jsonl", "csv"):
        write_rows(tmp_path, kind, [{"file_name": "a.png", "text": "a cat"}])
    with pytest.raises(DataError, match="remove one"):
        load(tmp_path)


def test_unknown_columns_are_listed_beside_the_known_ones(tmp_path, table):
    put(tmp_path, "a.png", 1)
    write_rows(tmp_path, table, [{"file_name": "a.png", "beschreibung": "eine Katze"}])
    with pytest.raises(DataError, match=r"no column text / caption / prompt.*file_name, beschreibung"):
        load(tmp_path)
    write_rows(tmp_path, table, [{"bild": "a.png", "text": "eine Katze"}])
    with pytest.raises(DataError, match=r"no column file_name.*bild, text"):
        load(tmp_path)


def test_a_row_without_a_file_name_is_named(tmp_path, table):
    put(tmp_path, "a.png", 1)
    write_rows(tmp_path, table, [{"file_name": "a.png", "text": "x"}, {"file_name": "", "text": "y"}])
    with pytest.raises(DataError, match="row 1 has no file_name"):
        load(tmp_path)


def test_a_comma_never_cuts_a_caption_short(tmp_path):
    put(tmp_path, "a.png", 1)
    (tmp_path / "metadata.csv").write_text('file_name,text\na.png,"a cat, asleep"\n')
    assert content(load(tmp_path)) == {1: ("a cat, asleep",)}
    (tmp_path / "metadata.csv").write_text("file_name,text\na.png,a cat, asleep\n")
    with pytest.raises(DataError, match=r"line 2 has more cells.*in double quotes"):
        load(tmp_path)


@pytest.mark.parametrize("name", ["metadata.jsonl", "metadata.csv", "rows.parquet"])
@pytest.mark.parametrize("garbage", [b"", b"\x00\x01\x02{[", b'{"file_name": "a.png", "text": '])
def test_a_broken_table_is_one_clear_line(tmp_path, name, garbage):
    put(tmp_path, "a.png", 1)
    (tmp_path / name).write_bytes(garbage)
    with pytest.raises(DataError) as caught:
        load(tmp_path)
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_nothing_usable_says_what_was_wrong(tmp_path):
    (tmp_path / "a.png").touch()
    (tmp_path / "a.txt").write_text("a cat")
    with pytest.raises(DataError, match=r"no usable captioned image; 1 skipped \(a.png: the file is empty"):
        load(tmp_path)


def test_a_senseless_size_is_refused(tmp_path):
    with pytest.raises(ValueError, match="image_size must be a positive"):
        load_pairs(tmp_path, image_size=0)
