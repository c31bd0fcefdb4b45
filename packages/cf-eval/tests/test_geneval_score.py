"""GenEval's table, the colour classifiers, and detectors as they are wired."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from cf_eval.clip_encoders import ClipEncoder, clip_square
from cf_eval.geneval.colours import PALETTE, TEMPLATES, ClipColours, PaletteColours, cielab, cut_out
from cf_eval.geneval.fastest_det import FASTEST_DET_FILE, FastestDetNet, decode, load_fastest_det
from cf_eval.geneval.objects import FoundObject, GenEvalRules
from cf_eval.geneval.prompts import COLOURS, TAGS, geneval_prompts
from cf_eval.geneval.score import GenEval

PICTURE = torch.zeros(3, 16, 20, dtype=torch.uint8)


class Fixed:
    """A detector that says the same of every picture."""

    def __init__(self, *found: FoundObject, name: str = "fixed") -> None:
        self.found, self.name = found, name

    def __call__(self, picture):
        return self.found


class AllRed:
    name = "all red"

    def __call__(self, picture, things):
        return ["red"] * len(things)


def first(tag: str, n: int = 1):
    return [p for p in geneval_prompts() if p.tag == tag][:n]


def seen(label: str) -> FoundObject:
    return FoundObject(label, 0.99, (0.0, 0.0, 9.0, 9.0))


def test_overall_is_the_mean_of_the_tasks_not_of_the_pictures():
    single, counting = first("single_object", 3), first("counting", 1)
    score = GenEval(Fixed(seen(single[0].include[0].label)), AllRed())
    score.add_batch([PICTURE] * 4, [*single, *counting])
    values = score.compute().values
    assert values["single_object"] == pytest.approx(1 / 3)
    assert values["counting"] == 0
    assert values["overall"] == pytest.approx((1 / 3 + 0) / 2)


def test_crossflows_row_of_the_papers_table_averages_to_its_overall():
    """CrossFlow table 7: six tasks and the printed 0.55."""
    row = {
        "single_object": 0.98,
        "two_object": 0.72,
        "counting": 0.39,
        "colors": 0.82,
        "position": 0.18,
        "color_attr": 0.21,
    }
    score = GenEval(Fixed(), AllRed())
    for tag, accuracy in row.items():
        p = first(tag)[0]
        score.detector = Fixed(*(seen(r.label) for r in p.include for _ in range(r.count)), name="fixed")
        right = judged_as(score, p, True)
        wrong = judged_as(score, p, False)
        for i in range(100):
            score.samples.append(right if i < round(100 * accuracy) else wrong)
    result = score.compute()
    assert {tag: result.values[tag] for tag in row} == pytest.approx(row)
    assert list(result.values) == [*TAGS, "overall"]
    assert round(result.values["overall"], 2) == 0.55
    assert (result.count, result.details["missing_tasks"]) == (600, [])


def judged_as(score, p, correct: bool):
    from cf_eval.geneval.judge import Verdict
    from cf_eval.geneval.score import JudgedPicture

    return JudgedPicture(p.text, p.tag, Verdict(() if correct else ("not there",)))


def test_the_result_names_detector_colours_and_rules_and_what_is_missing():
    score = GenEval(Fixed(), AllRed(), GenEvalRules(threshold=0.25))
    score.add(PICTURE, first("colors")[0])
    result = score.compute()
    assert "detector fixed; colours all red; score > 0.25" in result.protocol
    assert result.details["missing_tasks"] == [tag for tag in TAGS if tag != "colors"]
    assert result.details["prompts"] == 1


def test_ranks_merge_to_the_whole_and_a_picture_counts_once():
    prompts = [p for tag in TAGS for p in first(tag, 3)]
    ids = [f"{i:05}/0000" for i in range(len(prompts))]
    detector = Fixed(*(seen(label) for label in {r.label for p in prompts[::2] for r in p.include}))
    whole = GenEval(detector, AllRed())
    whole.add_batch([PICTURE] * len(prompts), prompts, ids)
    parts = [GenEval(detector, AllRed()) for _ in range(3)]
    parts[0].add_batch([PICTURE] * 5, prompts[:5], ids[:5])
    parts[2].add_batch([PICTURE] * (len(prompts) - 4), prompts[4:], ids[4:])
    for part in parts[1:]:
        parts[0].merge(part)
    assert parts[0].compute().values == whole.compute().values
    assert parts[0].compute().details["duplicates_dropped"] == 1
    with pytest.raises(ValueError, match="cannot merge GenEval by detector other"):
        whole.merge(GenEval(Fixed(name="other"), AllRed()))


def test_the_table_of_pictures_gives_the_reason_of_each_failure(tmp_path: Path):
    score = GenEval(Fixed(), AllRed())
    score.add(PICTURE, first("two_object")[0], "00080/0000")
    score.save_table(tmp_path / "pictures.jsonl")
    line = json.loads((tmp_path / "pictures.jsonl").read_text())
    assert (line["id"], line["correct"], line["tag"]) == ("00080/0000", False, "two_object")
    assert len(line["reasons"]) == 2


def test_misuse_is_named():
    score = GenEval(Fixed(), AllRed())
    with pytest.raises(ValueError, match="no pictures were added"):
        score.compute()
    with pytest.raises(ValueError, match="1 pictures for 2 prompts"):
        score.add_batch([PICTURE], first("colors", 2))


def test_lab_is_scikit_images():
    color = pytest.importorskip("skimage.color")
    rgb = torch.randint(0, 256, (200, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    expected = color.rgb2lab(rgb.numpy()[None])[0]
    np.testing.assert_allclose(cielab(rgb).numpy(), expected, atol=2e-3)


@pytest.mark.parametrize("colour", COLOURS)
def test_a_plain_object_has_its_colour_in_its_box_and_in_its_mask(colour):
    picture = torch.full((3, 30, 40), 128, dtype=torch.uint8)
    picture[:, 10:20, 5:25] = torch.tensor(PALETTE[colour], dtype=torch.uint8)[:, None, None]
    mask = torch.zeros(30, 40, dtype=torch.bool)
    mask[10:20, 5:25] = True
    classify = PaletteColours()
    assert classify(picture, [FoundObject("car", 0.9, (5.0, 10.0, 25.0, 20.0))]) == [colour]
    assert classify(picture, [FoundObject("car", 0.9, (0.0, 0.0, 40.0, 30.0), mask)]) == [colour]


def test_an_object_is_cut_out_and_its_surroundings_are_grey():
    picture = torch.arange(3 * 6 * 7, dtype=torch.uint8).reshape(3, 6, 7)
    mask = torch.zeros(6, 7, dtype=torch.bool)
    mask[2, 3] = True
    cut = cut_out(picture, FoundObject("cat", 0.9, (2.4, 1.6, 5.6, 3.7), mask))
    assert cut.shape == (3, 2, 4)
    assert torch.equal(cut[:, 0, 1], picture[:, 2, 3])
    assert int((cut == 0x99).sum()) == 3 * (8 - 1)
    plain = cut_out(picture, FoundObject("cat", 0.9, (2.4, 1.6, 5.6, 3.7)))
    assert torch.equal(plain, picture[:, 2:4, 2:6])


def test_a_box_at_the_rim_or_without_area_still_has_a_pixel():
    picture = torch.zeros(3, 6, 7, dtype=torch.uint8)
    assert cut_out(picture, FoundObject("cat", 0.9, (-3.0, -3.0, 99.0, 99.0))).shape == (3, 6, 7)
    assert cut_out(picture, FoundObject("cat", 0.9, (7.0, 6.0, 7.0, 6.0))).shape == (3, 1, 1)
    with pytest.raises(ValueError, match=r"mask of cat is \(2, 2\), the picture \(6, 7\)"):
        cut_out(picture, FoundObject("cat", 0.9, (0.0, 0.0, 1.0, 1.0), torch.ones(2, 2, dtype=torch.bool)))


def colour_clip() -> ClipEncoder:
    """A CLIP that embeds pixels by their mean colour and sentences by the colour they name."""

    def texts(sentences):
        rows = [PALETTE[next(c for c in COLOURS if f" {c}" in s)] for s in sentences]
        return torch.tensor(rows).float() / 255 - 0.5

    def pixels(x):
        mean, std = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
        back = x * torch.tensor(std).view(3, 1, 1) + torch.tensor(mean).view(3, 1, 1)
        return back.mean((2, 3)) - 0.5

    return ClipEncoder("colour clip", 8, pixels, texts)


@pytest.mark.parametrize("colour", ["red", "green", "blue", "yellow", "purple"])
def test_clip_names_the_colour_whose_sentences_are_nearest(colour):
    picture = torch.full((3, 30, 40), 128, dtype=torch.uint8)
    picture[:, 10:20, 5:25] = torch.tensor(PALETTE[colour], dtype=torch.uint8)[:, None, None]
    classify = ClipColours(colour_clip())
    assert classify(picture, [FoundObject("car", 0.9, (5.0, 10.0, 25.0, 20.0))] * 2) == [colour, colour]
    assert classify(picture, []) == []


def test_clip_is_asked_in_three_sentences_that_name_the_class():
    asked = []

    def texts(sentences):
        asked.extend(sentences)
        return torch.rand(len(sentences), 4, generator=torch.Generator().manual_seed(0))

    clip = ClipEncoder("c", 8, lambda x: x.flatten(1)[:, :4], texts)
    classify = ClipColours(clip)
    for _ in range(2):
        classify(PICTURE, [FoundObject("hot dog", 0.9, (0.0, 0.0, 9.0, 9.0))])
    assert len(asked) == len(COLOURS) * len(TEMPLATES)
    assert asked[:3] == [
        "a photo of a red hot dog",
        "a photo of a red-colored hot dog",
        "a photo of a red object",
    ]


def test_clips_square_is_pillows():
    image = pytest.importorskip("PIL.Image")
    picture = torch.randint(
        0, 256, (3, 37, 61), generator=torch.Generator().manual_seed(0), dtype=torch.uint8
    )
    pillow = image.fromarray(picture.movedim(0, 2).numpy()).resize((23, 14), image.Resampling.BICUBIC)
    left = round((23 - 14) / 2)
    expected = np.asarray(pillow).astype(np.float32)[:, left : left + 14] / 255
    ours = clip_square(picture[None], 14)[0].movedim(0, 2).numpy()
    # Pillow computes its kernel in fixed point: now and then a byte falls to the other side
    assert np.abs(ours - expected).max() <= 1 / 255 + 1e-6
    assert (np.abs(ours - expected) > 1e-6).mean() < 0.01


def test_the_detectors_network_has_the_released_size_and_grid():
    network = FastestDetNet().eval()
    assert sum(p.numel() for p in network.parameters()) == 244_490
    assert len(network.state_dict()) == 420
    with torch.no_grad():
        cells = network(torch.rand(2, 3, 96, 64, generator=torch.Generator().manual_seed(0)))
    assert cells.shape == (2, 85, 6, 4)
    assert torch.allclose(cells[:, 5:].sum(1), torch.ones(2, 6, 4))
    assert ((cells[:, 0] >= 0) & (cells[:, 0] <= 1)).all()


def test_a_cell_is_decoded_to_the_box_it_says():
    cells = torch.zeros(85, 4, 5)
    cells[5, :] = 1.0
    cells[:, 1, 2] = 0
    cells[0, 1, 2], cells[5 + 16, 1, 2] = 0.8, 0.75
    cells[1, 1, 2], cells[2, 1, 2] = torch.atanh(torch.tensor(0.5)), torch.atanh(torch.tensor(-0.25))
    cells[3, 1, 2], cells[4, 1, 2] = torch.logit(torch.tensor(0.2)), torch.logit(torch.tensor(0.1))
    (found,) = decode(cells, 0.1, 80, 100)
    assert found.label == "dog"
    assert found.score == pytest.approx(0.6)
    # centre (2.5 / 5, 0.75 / 4) of the picture, sides 0.2 and 0.1 of it
    assert found.box == pytest.approx((40.0, 11.0, 60.0, 19.0), abs=1e-4)
    cells[3, 1, 2] = 20.0
    assert decode(cells, 0.1, 80, 100)[0].box[::2] == pytest.approx((0.0, 100.0), abs=1e-4)
    assert decode(cells, 0.61, 80, 100) == []


def test_weights_that_are_not_the_detectors_are_refused(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match="is no file; give the path of FastestDet"):
        load_fastest_det(tmp_path / "none.pth")
    torch.save({"a": torch.zeros(3)}, tmp_path / "short.pth")
    with pytest.raises(ValueError, match="truncated"):
        load_fastest_det(tmp_path / "short.pth")


@pytest.mark.skipif(
    "CF_FASTEST_DET" not in os.environ, reason="CF_FASTEST_DET names no FastestDet checkpoint"
)
@pytest.mark.skipif(
    "CF_PHOTOS" not in os.environ, reason="CF_PHOTOS names no folder with captions.json of photographs"
)
def test_the_released_detector_finds_what_stands_in_real_photographs():
    """Precision of classes at score 0.5; channels in the wrong order or a wrong shuffle fall far below."""
    from cf_eval.geneval.coco_classes import geneval_name
    from cf_eval.images.read import read_picture

    detector = load_fastest_det(os.environ["CF_FASTEST_DET"])
    folder = Path(os.environ["CF_PHOTOS"])
    right = wrong = 0
    for photo in json.loads((folder / "captions.json").read_text()):
        if photo["objects"]:
            found = {t.label for t in detector(read_picture(folder / photo["file"])) if t.score > 0.5}
            truth = {geneval_name(thing["cat"]) for thing in photo["objects"]}
            right, wrong = right + len(found & truth), wrong + len(found - truth)
    assert right > 55
    assert right / (right + wrong) > 0.84
    assert FASTEST_DET_FILE.sha256[:8] in detector.name


def test_a_detector_of_transformers_is_read_from_a_folder(tmp_path: Path):
    transformers = pytest.importorskip("transformers")
    from cf_eval.geneval.transformers_detector import transformers_detector

    torch.manual_seed(0)
    config = transformers.YolosConfig(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        image_size=[32, 32],
        num_detection_tokens=5,
        id2label={0: "mouse", 1: "cat", 2: "dog"},
    )
    model = transformers.YolosForObjectDetection(config)
    model.save_pretrained(tmp_path)
    transformers.YolosImageProcessor(size={"height": 32, "width": 32}).save_pretrained(tmp_path)
    detector = transformers_detector(tmp_path)
    picture = torch.randint(
        0, 256, (3, 40, 60), generator=torch.Generator().manual_seed(0), dtype=torch.uint8
    )
    found = detector(picture)
    assert len(found) == 5
    assert {t.label for t in found} <= {"computer mouse", "cat", "dog"}
    with torch.no_grad():
        inputs = detector.processor(images=picture, return_tensors="pt")
        outputs = detector.model(**inputs)
    scores = outputs.logits.softmax(-1)[0, :, :-1].max(-1).values
    assert sorted(t.score for t in found) == pytest.approx(sorted(scores.tolist()), rel=1e-5)
    cx, cy, w, h = outputs.pred_boxes[0, 0].tolist()
    expected = (60 * (cx - w / 2), 40 * (cy - h / 2), 60 * (cx + w / 2), 40 * (cy + h / 2))
    assert found[0].box == pytest.approx(expected, rel=1e-4)
    assert detector.name.startswith("YolosForObjectDetection")
    with pytest.raises(FileNotFoundError, match="is no folder"):
        transformers_detector(tmp_path / "none")
