"""COCO in Karpathy's split, read from files made in its real layout: names, splits, sentences, ids; and broken ones."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cf_apps.data.captioned import CaptionedImages, DataError
from cf_apps.data.coco_karpathy import is_coco_karpathy, load_coco_karpathy
from PIL import Image

# name -> (folder, split, colour); sizes differ and one is grey, as in COCO
PICTURES = {
    "COCO_train2014_000000000009.jpg": ("train2014", "train", (250, 10, 10)),
    "COCO_train2014_000000000025.jpg": ("train2014", "train", (10, 250, 10)),
    "COCO_val2014_000000000042.jpg": ("val2014", "restval", (10, 10, 250)),
    "COCO_val2014_000000000073.jpg": ("val2014", "val", (128, 128, 128)),
    "COCO_val2014_000000391895.jpg": ("val2014", "test", (250, 250, 10)),
    "COCO_val2014_000000522418.jpg": ("val2014", "test", (10, 250, 250)),
}


def record(name: str, folder: str, split: str, number: int) -> dict[str, Any]:
    """An entry as the file has them: raw sentences with odd blanks, tokens, ids."""
    raw = [
        f"Picture {number}, said once. ",
        f"picture {number}\nsaid  again",
        f"the {split} picture {number}",
    ]
    return {
        "filepath": folder,
        "sentids": [3 * number + k for k in range(3)],
        "filename": name,
        "imgid": number,
        "split": split,
        "sentences": [
            {"tokens": text.lower().split(), "raw": text, "imgid": number, "sentid": 3 * number + k}
            for k, text in enumerate(raw)
        ],
        "cocoid": int(name.rsplit("_", 1)[1].split(".")[0]),
    }


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder as COCO's: dataset_coco.json, train2014, val2014."""
    records = [
        record(name, folder, split, i) for i, (name, (folder, split, _)) in enumerate(PICTURES.items())
    ]
    for i, (name, (folder, _, colour)) in enumerate(PICTURES.items()):
        (tmp_path / folder).mkdir(exist_ok=True)
        picture = Image.new("RGB", (31 + 7 * i, 24), colour)
        (picture.convert("L") if i == 3 else picture).save(tmp_path / folder / name, quality=95)
    write(tmp_path, records)
    return tmp_path


def write(root: Path, images: list[dict[str, Any]]) -> None:
    (root / "dataset_coco.json").write_text(json.dumps({"images": images, "dataset": "coco"}))


def records_of(root: Path) -> list[dict[str, Any]]:
    return json.loads((root / "dataset_coco.json").read_text())["images"]


def load(root: Path, **options: Any):
    return load_coco_karpathy(root, image_size=16, **options)


# ---------------------------------------------------------------------------------- what is read


def test_training_takes_train_and_restval_and_ids_are_cocos(root):
    coco = load(root)
    assert coco.train.ids == (9, 25, 42)
    assert coco.val.ids == (73,)
    assert coco.test.ids == (391895, 522418)
    assert not len(coco.skipped)


def test_each_side_is_a_set_of_captioned_images(root):
    for side in (load(root).train, load(root).val, load(root).test):
        assert isinstance(side, CaptionedImages)
        assert side.image_size == 16


def test_a_batch_shows_the_pictures_asked_for_square_and_in_rgb(root):
    batch = load(root).train.batch(torch.tensor([2, 0]))
    assert batch.images.shape == (2, 3, 16, 16)
    assert batch.images.dtype == torch.uint8
    for image, colour in zip(batch.images, [(10, 10, 250), (250, 10, 10)], strict=True):
        assert np.abs(image.float().mean((1, 2)).numpy() - colour).max() < 6  # JPEG's own error
    grey = load(root).val.batch(torch.tensor([0])).images[0].float()
    assert (grey.amax(0) - grey.amin(0)).max() == 0


def test_sentences_come_in_one_line_and_the_first_without_a_generator(root):
    train = load(root).train
    assert train.batch(torch.tensor([1, 0])).captions == ["Picture 1, said once.", "Picture 0, said once."]
    assert train.references(torch.tensor([2, 0])) == [
        ["Picture 2, said once.", "picture 2 said again", "the restval picture 2"],
        ["Picture 0, said once.", "picture 0 said again", "the train picture 0"],
    ]


def test_a_generator_draws_every_sentence_equally_often_and_repeats_itself(root):
    test = load(root).test
    ones = torch.ones(3_000, dtype=torch.int64)
    drawn = test.captions(ones, torch.Generator().manual_seed(0))
    assert drawn == test.captions(ones, torch.Generator().manual_seed(0))
    for sentence in test.references(torch.tensor([1]))[0]:
        assert drawn.count(sentence) == pytest.approx(1_000, abs=110)  # 4 standard deviations


def test_captions_are_those_of_the_batch_without_a_look_at_the_pictures(root):
    train, indices = load(root).train, torch.tensor([2, 2, 1])
    generators = [torch.Generator().manual_seed(4) for _ in range(2)]
    assert train.batch(indices, generators[0]).captions == train.captions(indices, generators[1])
    (root / "val2014" / "COCO_val2014_000000000042.jpg").write_bytes(b"now broken")
    assert len(train.captions(indices)) == 3


def test_the_json_may_lie_elsewhere_and_the_pictures_side_by_side(root, tmp_path_factory):
    flat = tmp_path_factory.mktemp("flat")
    for name, (folder, _, _) in PICTURES.items():
        (root / folder / name).rename(flat / name)
    coco = load_coco_karpathy(root / "dataset_coco.json", pictures=flat, image_size=16)
    assert [len(side) for side in (coco.train, coco.val, coco.test)] == [3, 1, 2]


def test_flickr_files_of_the_same_authors_are_read(root):
    records = records_of(root)
    for entry in records:
        (root / entry["filepath"] / entry["filename"]).rename(root / entry["filename"])
        del entry["filepath"], entry["cocoid"]
    write(root, records)
    assert load(root).test.ids == (4, 5)  # imgid


def test_tokens_stand_in_for_a_missing_raw_sentence(root):
    records = records_of(root)
    del records[0]["sentences"][0]["raw"]
    write(root, records)
    assert load(root).train.batch(torch.tensor([0])).captions == ["picture 0, said once."]


def test_such_a_set_is_known_by_its_json(root, tmp_path_factory):
    assert is_coco_karpathy(root)
    assert is_coco_karpathy(root / "dataset_coco.json")
    assert not is_coco_karpathy(tmp_path_factory.mktemp("other"))
    assert not is_coco_karpathy("shapes")


# ---------------------------------------------------------------------------------- what is wrong


def test_missing_and_empty_pictures_are_skipped_counted_and_named(root):
    (root / "train2014" / "COCO_train2014_000000000025.jpg").unlink()
    (root / "val2014" / "COCO_val2014_000000391895.jpg").write_bytes(b"")
    coco = load(root)
    assert coco.train.ids == (9, 42)
    assert coco.test.ids == (522418,)
    assert {name for name, _ in coco.skipped.samples} == {
        "train2014/COCO_train2014_000000000025.jpg",
        "val2014/COCO_val2014_000000391895.jpg",
    }
    assert all(reason == "no such file, or an empty one" for _, reason in coco.skipped.samples)


def test_a_picture_of_which_nothing_is_said_is_skipped(root):
    records = records_of(root)
    records[0]["sentences"] = []
    records[1]["sentences"] = [{"raw": "  \n ", "tokens": []}, {"raw": "", "tokens": []}]
    write(root, records)
    coco = load(root)
    assert coco.train.ids == (42,)
    assert [reason for _, reason in coco.skipped.samples] == ["no sentence", "no sentence"]


def test_a_damaged_picture_is_named_with_the_remedy_when_it_is_reached(root):
    path = root / "train2014" / "COCO_train2014_000000000009.jpg"
    path.write_bytes(path.read_bytes()[:200])
    train = load(root).train
    assert len(train.batch(torch.tensor([1])).captions) == 1
    with pytest.raises(DataError, match=r"000000000009.jpg: .*fetch this picture again, or delete it"):
        train.batch(torch.tensor([0]))
    path.unlink()
    with pytest.raises(DataError, match=r"000000000009.jpg: No such file"):
        train.batch(torch.tensor([0]))


def broken(change: Any) -> Any:
    """A change of the first record."""

    def apply(root: Path) -> None:
        records = records_of(root)
        change(records[0])
        write(root, records)

    return apply


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda root: (root / "dataset_coco.json").unlink(), "no such file: .*dataset_coco.json"),
        (lambda root: (root / "dataset_coco.json").write_text("{"), "cannot read .*dataset_coco.json"),
        (
            lambda root: (root / "dataset_coco.json").write_bytes(b"\xff\xfe\x00"),
            "cannot read .*dataset_coco.json",
        ),
        (
            lambda root: (root / "dataset_coco.json").write_text("[]"),
            "no Karpathy split: it has no list 'images'",
        ),
        (lambda root: write(root, []), "no list 'images'"),
        (
            lambda root: (root / "dataset_coco.json").write_text('{"annotations": [], "images": 3}'),
            "no list 'images'",
        ),
        (broken(lambda entry: entry.pop("split")), "image 0 has no 'split', only filepath"),
        (broken(lambda entry: entry.pop("filename")), "image 0 has no 'filename'"),
        (broken(lambda entry: entry.pop("sentences")), "image 0 has no 'sentences'"),
        (broken(lambda entry: (entry.pop("cocoid"), entry.pop("imgid"))), "image 0 has no 'cocoid'"),
        (
            broken(lambda entry: entry.update(split="trian")),
            "unknown split 'trian'; known: train, restval, val, test",
        ),
        (broken(lambda entry: entry.update(cocoid="9")), "image 0 has cocoid '9'; expected a int"),
    ],
)
def test_a_file_that_is_no_such_split_is_refused_in_one_line(root, spoil, message):
    spoil(root)
    with pytest.raises(DataError, match=message) as caught:
        load_coco_karpathy(root / "dataset_coco.json", image_size=16)
    assert "\n" not in str(caught.value)


def test_a_side_without_a_picture_is_refused_with_the_first_that_are_missing(root):
    for name in ("COCO_val2014_000000391895.jpg", "COCO_val2014_000000522418.jpg"):
        (root / "val2014" / name).unlink()
    with pytest.raises(
        DataError, match=r"no picture of dataset_coco.json's test side; 2 skipped \(val2014/COCO"
    ):
        load(root)


def test_a_folder_of_pictures_that_is_not_there_is_refused(root):
    with pytest.raises(DataError, match=r"no such folder of pictures: .*nowhere"):
        load(root, pictures=root / "nowhere")
