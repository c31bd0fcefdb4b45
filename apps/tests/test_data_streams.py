"""The same pairs from every kind of source, entered anywhere; broken sources named."""

import io
import json
import tarfile
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from cf_apps.data.captioned import DataError, ImageTextArrays
from cf_apps.data.captioned_shapes import CaptionedShapes
from cf_apps.data.pair_layouts import open_pairs
from cf_apps.data.pairs import load_pairs
from cf_apps.data.sources import open_source, open_stream
from cf_apps.data.streams.built_in import built_in_source
from cf_apps.data.streams.raw import PairSource
from PIL import Image

COUNT = 7
EXPECTED = [(i, (f"picture {i}", f"number {i}")) for i in range(COUNT)]


def picture(i: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 6 + i), (i, 0, 255 - i)).save(buffer, "PNG")
    return buffer.getvalue()


def content(source: PairSource, start: int | None = None) -> list[tuple[int, tuple[str, ...]]]:
    """(the picture's number, phrasings); with `start`, of the first unit from there on"""
    pairs = source if start is None else source.units[0].read(start)
    return [(Image.open(io.BytesIO(pair.read())).getpixel((0, 0))[0], pair.captions) for pair in pairs]


def write_text_files(folder: Path) -> str:
    folder.mkdir()
    for i in range(COUNT):
        (folder / f"{i}.png").write_bytes(picture(i))
        (folder / f"{i}.txt").write_text(f"picture {i}\nnumber {i}\n")
    return str(folder)


def write_jsonl(folder: Path) -> str:
    """as the public code lists its pairs: img_path and prompt, pictures in a folder beside"""
    (folder / "imgs").mkdir(parents=True)
    rows = []
    for i in range(COUNT):
        (folder / f"imgs/{i}.png").write_bytes(picture(i))
        rows += [{"img_path": f"imgs/{i}.png", "prompt": said} for said in EXPECTED[i][1]]
    (folder / "img_text_pair.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(folder / "img_text_pair.jsonl")


def write_parquet(folder: Path) -> str:
    folder.mkdir()
    images = [{"bytes": picture(i), "path": None} for i in range(COUNT)]
    pq.write_table(
        pa.table({"image": images, "captions": [list(c) for _, c in EXPECTED]}), folder / "a.parquet"
    )
    return str(folder)


def write_tar(path: Path, numbers: range, mode: str = "w") -> None:
    with tarfile.open(path, mode) as tar:
        for i in numbers:
            caption = (
                {"txt": "\n".join(EXPECTED[i][1])}
                if i % 2
                else {"json": json.dumps({"text": EXPECTED[i][1]})}
            )
            for ending, data in {"png": picture(i), **{k: v.encode() for k, v in caption.items()}}.items():
                member = tarfile.TarInfo(f"00/{i:04}.{ending}")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))


def write_tars(folder: Path) -> str:
    folder.mkdir()
    write_tar(folder / "0.tar", range(4))
    write_tar(folder / "1.tar", range(4, COUNT))
    return str(folder)


def write_hub(folder: Path) -> str:
    write_parquet(folder)
    return f"hub:{folder}"


LAYOUTS: dict[str, Callable[[Path], str]] = {
    "text files": write_text_files,
    "jsonl": write_jsonl,
    "parquet": write_parquet,
    "tars": write_tars,
    "hub": write_hub,
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_same_pairs(tmp_path, layout):
    assert content(open_stream(LAYOUTS[layout](tmp_path / "data"), 8)) == EXPECTED


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_unit_entered_in_the_middle_goes_on_as_if_read_from_the_start(tmp_path, layout):
    source = open_stream(LAYOUTS[layout](tmp_path / "data"), 8)
    whole = content(source, 0)
    for start in (1, 3, len(whole), len(whole) + 2):
        assert content(source, start) == whole[start:]


@pytest.mark.parametrize("layout", ["jsonl", "tars", "hub"])
def test_new_layouts_can_be_trained_on_as_they_are(tmp_path, layout):
    source = open_source(LAYOUTS[layout](tmp_path / "data"), 8)
    assert len(source.train) + len(source.val) == COUNT
    assert len(source.skipped) == 0
    assert source.train.images.shape[1:] == (3, 8, 8)


def test_each_tar_is_a_unit_and_compressed_ones_are_read(tmp_path):
    source = open_pairs(Path(write_tars(tmp_path / "data")))
    assert [unit.name for unit in source.units] == ["0.tar", "1.tar"]
    write_tar(tmp_path / "whole.tar", range(COUNT), "w:gz")
    assert content(open_pairs(tmp_path / "whole.tar")) == EXPECTED


def test_contents_tell_sources_apart(tmp_path):
    folder = Path(write_text_files(tmp_path / "data"))
    before = open_pairs(folder).contents
    assert open_pairs(folder).contents == before
    (folder / "new.png").write_bytes(picture(1))
    assert open_pairs(folder).contents != before


def test_built_in_sets_stream_what_they_train(monkeypatch):
    monkeypatch.setattr("cf_apps.data.captioned_shapes.BLOCK", 4)  # drawing 1,024 scenes takes seconds
    source = open_stream("shapes", 16, seed=3)
    pairs = list(islice(source, 2))
    assert next(source.units[0].read(1)) == pairs[1] != pairs[0]
    batch = CaptionedShapes(image_size=16, seed=3).batch(torch.tensor([0, 1]))
    for pair, image, caption in zip(pairs, batch.images, batch.captions, strict=True):
        decoded = torch.from_numpy(np.array(Image.open(io.BytesIO(pair.read()))))
        assert torch.equal(decoded.permute(2, 0, 1), image)
        assert pair.captions == (caption,)


def test_a_set_in_memory_streams_all_its_phrasings():
    images = torch.arange(2 * 3 * 5 * 5, dtype=torch.uint8).view(2, 3, 5, 5)
    data = ImageTextArrays(images, (("a", "b"), ("c",)), "two")
    assert [pair.captions for pair in built_in_source("two", data)] == [("a", "b"), ("c",)]


def test_a_tar_cut_short_is_named(tmp_path):
    write_tars(tmp_path / "data")
    path = tmp_path / "data/1.tar"
    path.write_bytes(path.read_bytes()[:1100])
    with pytest.raises(DataError, match=r"cannot read .*1.tar as a tar: .*fetch it again"):
        content(open_pairs(tmp_path / "data"))


def test_a_member_that_is_damaged_costs_its_sample_only(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for name, data in {"0.png": picture(0), "0.json": b"{not json", "1.png": picture(1)[:45], "1.txt": b"cut",
                           "2.txt": b"no picture", "3.png": picture(3), "3.caption": b"fine"}.items():  # fmt: skip
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    pairs = load_pairs(tmp_path / "a.tar", image_size=5, val_fraction=0.0)
    assert pairs.train.captions == (("fine",),)
    reasons = dict(pairs.skipped.samples)
    assert reasons.keys() == {"0", "1", "2"}
    assert reasons["0"] == "no caption"
    assert "truncated" in reasons["1"]
    assert "0 bytes" in reasons["2"]


@pytest.mark.parametrize(("name", "words"), [
    ("hub:/no/such/set", "cannot open hub:/no/such/set"),
    ("data.zip", "give its folder, or a .parquet, .tar, .jsonl or .csv file"),
    ("nowhere", r"no such data folder: .*or name a built-in set"),
])  # fmt: skip
def test_what_is_no_source_is_refused_in_one_line(tmp_path, monkeypatch, name, words):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (tmp_path / "data.zip").write_bytes(b"PK")
    name = name if name.startswith("hub:") else str(tmp_path / name)
    with pytest.raises(DataError, match=words) as caught:
        open_source(name, 8)
    assert "\n" not in str(caught.value)
