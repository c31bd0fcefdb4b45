"""What captions are worth: references of every kind of set, truth by the scene, scores that are cf-eval's, and jars."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from cf_apps.caption import evaluate as evaluate_module
from cf_apps.caption import sources as sources_module
from cf_apps.caption import text_score
from cf_apps.caption.evaluate import JavaTools, captioned, score, show, truth_table, words_table
from cf_apps.caption.sample import Captioner
from cf_apps.caption.sources import (
    CaptionSource,
    drawn_captions,
    open_captions,
    references,
    some_captions,
)
from cf_apps.caption.text_score import held_out_texts
from cf_apps.data.captioned import DataError, ImageTextArrays
from cf_apps.data.captioned_shapes import CaptionedShapes, split_of
from cf_apps.data.pairs import SkippedSamples
from cf_apps.data.shapes_statements import true_of
from cf_apps.engine.commands.app import Scoring
from cf_apps.engine.errors import ConfigError
from cf_apps.engine.flow import SampleConfig
from cf_apps.engine.watching.progress import Silence
from cf_eval.captions import score_captions
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent))
from caption_tiny import CAPTIONS, IMAGE_VE, dice, model, write_folder

SCENES = CaptionedShapes(size=40, image_size=16, seed=123)
EVERY = torch.arange(len(SCENES))
HOW = SampleConfig(1.0, 1, "euler")


@pytest.fixture(autouse=True)
def _few_held_out_scenes(monkeypatch):
    monkeypatch.setattr(sources_module, "HELD_OUT_SCENES", 24)


# ---------------------------------------------------------------------------------- sets


def test_every_kind_of_set_has_a_test_side_with_references(tmp_path):
    karpathy = tmp_path / "coco"
    (karpathy / "val2014").mkdir(parents=True)
    records = []
    for i, split in enumerate(("train", "restval", "val", "test", "test")):
        Image.new("RGB", (20, 30), (50 * i, 9, 9)).save(karpathy / "val2014" / f"{i}.jpg")
        sentences = [{"raw": f"picture {i}, {k}", "tokens": []} for k in range(5)]
        records.append(
            {
                "filepath": "val2014",
                "filename": f"{i}.jpg",
                "split": split,
                "cocoid": i,
                "sentences": sentences,
            }
        )
    (karpathy / "dataset_coco.json").write_text(json.dumps({"images": records}))
    sizes = {}
    for name in ("shapes", "emoji", str(write_folder(tmp_path / "own")), str(karpathy)):
        source = open_captions(name, 32)
        test = source.held_out("test")
        sizes[name] = [len(source.train), len(source.held_out("val")), len(test)]
        of_two = references(test, torch.tensor([1, 0]))
        assert of_two == references(test, torch.tensor([0, 1]))[::-1]
        assert all(1 <= len(texts) <= 5 and all(texts) for texts in of_two)
        assert test.batch(torch.tensor([0])).images.shape == (1, 3, 32, 32)
    assert sizes[str(karpathy)] == [2, 1, 2]
    assert sizes["shapes"][2] == 24


def test_references_of_scenes_are_five_true_captions_and_test_scenes_are_others_than_val():
    source = open_captions("shapes", 16)
    for data in (source.val, source.test):
        for index, texts in enumerate(references(data, torch.arange(24))):
            assert len(texts) == 5
            assert all(true_of(text, *data.truth(index)) for text in texts)
    assert not torch.equal(source.val.batch(EVERY[:5]).images, source.test.batch(EVERY[:5]).images)


def test_a_set_that_tells_no_references_is_refused():
    class Silent:
        name, image_size = "silent", 16

        def __len__(self):
            return 1

        def batch(self, indices, generator=None): ...

    with pytest.raises(DataError, match="silent does not tell all captions"):
        references(Silent(), torch.tensor([0]))


def test_drawn_captions_are_those_of_the_batch():
    images = torch.zeros(3, 3, 4, 4, dtype=torch.uint8)
    data = ImageTextArrays(images, (("a", "b"), ("c", "d"), ("e",)), "letters")
    indices = torch.tensor([2, 0, 1, 0])
    assert drawn_captions(data, indices, dice(1)) == data.batch(indices, dice(1)).captions
    assert some_captions(data, 2) == some_captions(data, 2)
    assert len(some_captions(data, 99)) == 3


def test_skipped_samples_are_said_and_noted():
    none, two = SkippedSamples(), SkippedSamples((("a.png", "broken"), ("b.png", "no caption")))
    assert none.said() == none.notes() == []
    assert two.said() == ["2 samples were skipped; log.jsonl in the run folder lists them"]
    assert two.notes()[0]["samples"] == [["a.png", "broken"], ["b.png", "no caption"]]


def test_held_out_captions_of_scenes_are_words_that_training_never_sees(monkeypatch):
    monkeypatch.setattr(text_score, "PER_TASK", 3)
    monkeypatch.setattr(text_score, "PER_TASK_OPEN", 1)
    for split in ("val", "test"):
        texts = held_out_texts("shapes", split)
        assert len(set(texts)) == len(texts) == 6 * 4
        assert {split_of(text) for text in texts} == {split}


# ---------------------------------------------------------------------------------- truth


def test_true_captions_of_scenes_are_all_true_and_those_of_other_scenes_are_not():
    texts = [texts[0] for texts in references(SCENES, EVERY)]
    right = truth_table(SCENES, texts)
    assert {right[name] for name in ("grammatical", "true", "complete", "shape_true", "count_true")} == {1.0}
    wrong = truth_table(SCENES, texts[1:] + texts[:1])
    assert wrong["grammatical"] == 1.0
    assert wrong["true"] < 0.1
    assert 0.1 < wrong["colour_true"] < 0.7


def test_what_is_not_grammatical_states_nothing_and_is_not_true():
    texts = [texts[0] for texts in references(SCENES, EVERY)]
    half = [text if i % 2 else "a red red" for i, text in enumerate(texts)]
    table, whole = truth_table(SCENES, half), truth_table(SCENES, texts)
    assert (table["grammatical"], table["true"], table["shape_true"]) == (0.5, 0.5, 1.0)
    assert table["statements"] < whole["statements"]
    assert set(truth_table(SCENES, ["nonsense"])) == {"grammatical", "true", "complete", "statements"}


# ---------------------------------------------------------------------------------- scores


def test_scores_are_those_of_cf_eval_with_the_number_of_different_captions():
    said = references(SCENES, EVERY)
    written = [texts[2] for texts in said[1:] + said[:1]]
    table, direct = words_table(written, said), score_captions(written, said)
    assert all(table[name] == direct[name] for name in ("bleu_1", "bleu_4", "cider_d", "rouge_l"))
    assert table["different"] == len(set(written))


def test_the_table_sets_the_model_beside_luck_and_beside_the_most_there_is_to_reach():
    captioner = Captioner(model(sigma=1.0))
    columns = score(captioner, Scoring("shapes", "test", HOW, 0, Silence()))
    assert list(columns) == ["written", "another_picture's", "a_true_one"]
    assert columns["a_true_one"]["true"] == 1.0
    assert columns["another_picture's"]["true"] < columns["a_true_one"]["true"]
    assert columns["another_picture's"]["cider_d"] < columns["a_true_one"]["cider_d"]
    assert columns["written"]["captions"] == 24


def test_a_set_without_truth_has_words_only(tmp_path):
    folder = write_folder(tmp_path / "own")
    columns = score(Captioner(model()), Scoring(str(folder), "test", HOW, 0, Silence()))
    assert list(columns) == ["written", "another_picture's"]
    assert "grammatical" not in columns["written"]
    assert columns["written"]["captions"] >= 1


def test_where_the_source_was_taught_the_table_says_what_it_says_without_the_flow():
    pixels: dict[str, Any] = {"codec": {"name": "pixels"}, "image_ve": IMAGE_VE}
    taught = model(**pixels, loss__mean_weight=1.0)
    data = CaptionedShapes(size=5, image_size=16, seed=7)
    found = captioned(Captioner(taught), data, HOW, Silence())
    latent = taught.encode(data.batch(torch.arange(5)).images)
    with torch.no_grad():
        assert found.without_flow == taught.write(taught.modules["image_ve"](latent.mean).mean)
    assert captioned(Captioner(model(**pixels)), data, HOW, Silence()).without_flow is None
    columns = score(Captioner(taught), Scoring("shapes", "test", HOW, 0, Silence()))
    assert list(columns) == ["written", "encoder_alone", "another_picture's", "a_true_one"]


def test_one_caption_is_drawn_for_each_picture_in_order():
    data = CaptionedShapes(size=7, image_size=16, seed=5)
    captioner = Captioner(model(sigma=0.0))  # without noise a picture has one caption
    found = captioned(captioner, data, HOW, Silence())
    images = data.batch(EVERY[:7]).images
    assert found.written == [captioner.captions(image[None], HOW, dice())[0] for image in images]
    assert found.references == references(data, EVERY[:7])


def test_pictures_are_shown_with_captions_under_them(tmp_path):
    pictures = show(Captioner(model()), Scoring("shapes", "test", HOW, 0, Silence()))
    assert set(pictures) == {"captions"}
    assert pictures["captions"].width > 5 * evaluate_module.SHOWN_SIDE


# ---------------------------------------------------------------------------------- jars


def test_scores_that_need_java_are_left_out_loudly_where_it_is_not_there(capsys):
    protocol = JavaTools(java="/no/such/java").protocol()
    assert protocol.metrics == ("bleu", "cider_d", "rouge_l")
    said = capsys.readouterr().out
    assert "METEOR skipped: " in said
    assert "SPICE skipped: no jar was named" in said
    assert "pass --spice-jar" in said


@pytest.mark.parametrize("name", ["meteor", "spice"])
def test_a_jar_that_was_named_and_is_not_there_is_refused(name, tmp_path):
    with pytest.raises(ConfigError, match=f"{name.upper()}: no .* jar at "):
        JavaTools(**{f"{name}_jar": tmp_path / "no.jar"}).protocol()


def test_a_source_names_its_held_out_sides():
    arrays = ImageTextArrays(torch.zeros(1, 3, 4, 4, dtype=torch.uint8), ((CAPTIONS[0],),), "one")
    source = CaptionSource("x", arrays, SCENES, arrays)
    assert source.held_out("val") is SCENES
    assert source.held_out("test") is arrays
