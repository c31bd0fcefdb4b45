"""The command line: the numbers of the library, as a table and as JSON; what the user can repair is one line."""

import json
import sys
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import torch
from cf_eval import cli_images
from cf_eval.captions.caption_metrics import score_captions
from cf_eval.cli import COMMANDS, main, run
from cf_eval.clip_encoders import ClipEncoder
from cf_eval.depth.score import DepthMetrics
from cf_eval.frechet import frechet_distance
from cf_eval.geneval.prompts import geneval_prompts
from cf_eval.images.kid import KID
from cf_eval.images.prdc import PRDC
from cf_eval.images.read import read_picture
from cf_eval.moments import Moments
from cf_eval.result import Result
from PIL import Image

EXACT = 1e-9
CANDIDATES = {"3": "a cat sits on a mat", "1": "two dogs run", "2": "a red bus"}
ANNOTATIONS = [
    (1, "Two dogs are running."),
    (1, "dogs run"),
    (2, "A bus"),
    (3, "The cat sat on a mat."),
    (9, "a sheep"),
]


@dataclass
class Pixels:
    """Means of quarters of the red channel: features that need no network."""

    name: str = "red quarters"
    weights: dict[str, str] = field(default_factory=dict)
    rounding: str = "round"

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        return (
            images[:, 0].double().unflatten(2, (2, -1)).mean(3).unflatten(1, (2, -1)).mean(2).flatten(1) / 255
        )


@pytest.fixture(autouse=True)
def _features_without_weights(monkeypatch):
    for name in ("inception", "efficientnet-lite0", "clip-cmmd"):
        monkeypatch.setitem(cli_images.FEATURES, name, lambda path, of: Pixels())


@pytest.fixture
def folders(tmp_path) -> tuple[Path, Path]:
    draw = np.random.default_rng(0)
    for name, count, high in (("real", 11, 256), ("generated", 9, 200)):
        (tmp_path / name).mkdir()
        for i in range(count):
            values = draw.integers(0, high, (6, 6, 3), dtype=np.uint8)
            Image.fromarray(values).save(tmp_path / name / f"{i:02}.png")
    return tmp_path / "real", tmp_path / "generated"


@pytest.fixture
def captions(tmp_path) -> tuple[Path, Path]:
    rows = [{"image_id": image, "caption": caption} for image, caption in ANNOTATIONS]
    return write(tmp_path / "c.json", CANDIDATES), write(tmp_path / "r.json", {"annotations": rows})


def write(path: Path, content) -> Path:
    path.write_text(json.dumps(content))
    return path


def measured(*words, out: Path) -> Result:
    """Of a command that must succeed."""
    assert run([*map(str, words), "--json", str(out)]) == 0
    assert not list(out.parent.glob("*.tmp"))
    return Result.from_json(out.read_text())


def complaint(capsys, *words) -> str:
    """The one line of a command that must fail."""
    assert run([*map(str, words)]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert said.count("\n") == 1
    return said


def tensor_of(folder: Path) -> torch.Tensor:
    return torch.stack([read_picture(path) for path in sorted(folder.iterdir())])


def test_help_lists_every_command_and_a_command_its_options(capsys):
    assert run(["--help"]) == 0
    said = capsys.readouterr().out
    assert all(f"  {name} " in said for name in COMMANDS)
    for name in COMMANDS:
        with pytest.raises(SystemExit) as ended:
            run([name, "--help"])
        assert ended.value.code == 0
        assert "--json" in capsys.readouterr().out


def test_main_exits_with_the_code_of_the_command(capsys):
    for words, code in (([], 0), (["fidd"], 2)):
        with pytest.raises(SystemExit) as ended:
            main(words)
        assert ended.value.code == code
    assert capsys.readouterr().err == f"error: unknown command 'fidd'; known: {', '.join(COMMANDS)}\n"


def test_without_its_libraries_it_says_what_to_install(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "tyro", None)
    assert 'pip install "cf-eval[cli]"' in complaint(capsys, "captions", "a", "b")


def test_the_distance_of_two_folders_is_that_of_their_features(folders, tmp_path, capsys):
    found = measured("fd", *folders, "--weights", "any", "--batch-size", 4, out=tmp_path / "out.json")
    features = Pixels()
    expected = frechet_distance(*(features(tensor_of(folder)) for folder in folders))
    assert found.value == pytest.approx(expected, abs=EXACT)
    assert (found.metric, found.count, found.details["real_count"]) == ("frechet_distance", 9, 11)
    printed = capsys.readouterr().out
    assert f"{found.value:.6g}" in printed
    assert "red quarters" in printed


def test_statistics_stand_in_for_the_real_set_or_for_both(folders, tmp_path):
    stored = tmp_path / "real.npz"
    out = tmp_path / "out.json"
    whole = measured("fid", *folders, "--weights", "any", "--save-real", stored, out=out)
    again = measured("fid", stored, folders[1], "--weights", "any", out=out)
    assert again.value == pytest.approx(whole.value, abs=EXACT)
    assert again.details["reference"]["file"] == "real.npz"
    moments = Moments.of(Pixels()(tensor_of(folders[1])))
    np.savez(tmp_path / "other.npz", mu=moments.mean, sigma=moments.cov)
    both = measured("fid", stored, tmp_path / "other.npz", "--generated-count", 9, out=out)
    assert both.value == pytest.approx(whole.value, abs=EXACT)
    assert (both.metric, both.count, both.details["real_count"]) == ("frechet_distance", 9, 11)


def test_kernel_distance_and_neighbours_are_the_librarys(folders, tmp_path):
    out = tmp_path / "out.json"
    for words, metric in (
        (("kid", "--subsets", 0), KID(Pixels(), None)),
        (("prdc", "--k", 3), PRDC(Pixels())),
    ):
        for name, folder in zip(("real", "generated"), folders, strict=True):
            metric.add_batch(**{name: tensor_of(folder)})
        found = measured(words[0], *folders, *words[1:], "--weights", "any", out=out)
        assert found.values == pytest.approx(metric.compute().values, abs=EXACT)
        assert found.protocol == metric.compute().protocol
    subsets = measured(
        "kid", *folders, "--subsets", 5, "--subset-size", 7, "--seed", 3, "--weights", "any", out=out
    )
    assert "5 subsets of 7, seed 3" in subsets.protocol
    same = measured("cmmd", folders[0], folders[0], "--weights", "any", out=out)
    assert same.value == pytest.approx(0, abs=EXACT)


def test_captions_are_scored_as_by_the_library_whatever_kind_their_ids_have(captions, tmp_path, capsys):
    each = tmp_path / "each.json"
    words = (
        "captions",
        *captions,
        "--only-candidates",
        "--confidence",
        0.9,
        "--resamples",
        20,
        "--per-caption",
        each,
    )
    found = measured(*words, out=tmp_path / "out.json")
    references = {name: [c for image, c in ANNOTATIONS if str(image) == name] for name in CANDIDATES}
    expected = score_captions(CANDIDATES, references)
    assert found.values == pytest.approx(expected.result.values, abs=EXACT)
    assert json.loads(each.read_text()) == expected.per_caption
    low, high = found.details["intervals"]["cider_d"]
    assert f"{low:.6g} to {high:.6g}" in capsys.readouterr().out
    chosen = measured(
        "captions", *captions, "--only-candidates", "--metrics", "rouge_l", out=tmp_path / "out.json"
    )
    assert list(chosen.values) == ["rouge_l"]


def test_warnings_are_notes_and_not_tracebacks(tmp_path, capsys, recwarn):
    one = write(tmp_path / "c.json", {"a": "a cat"}), write(tmp_path / "r.json", {"a": ["a cat"]})
    assert run(["captions", *map(str, one)]) == 0
    assert capsys.readouterr().err.startswith("note: CIDEr-D of one image is 0")
    assert not len(recwarn)


def test_depth_maps_are_read_at_the_scale_that_is_told(tmp_path):
    draw = np.random.default_rng(1)
    truths = [draw.integers(400, 9000, (7, 5), dtype=np.uint16) for _ in range(3)]
    predictions = [draw.uniform(0.5, 9, (7, 5)) for _ in truths]
    for folder in ("truth", "npy", "png"):
        (tmp_path / folder).mkdir()
    for i, (truth, prediction) in enumerate(zip(truths, predictions, strict=True)):
        Image.fromarray(truth).save(tmp_path / f"truth/{i}.png")
        np.save(tmp_path / f"npy/{i}.npy", prediction[None])
        Image.fromarray((prediction * 5000).astype(np.uint16)).save(tmp_path / f"png/{i}.png")
    expected = DepthMetrics("scannet_marigold")
    expected.add_batch(predictions, [truth / 1000 for truth in truths])
    words = ("--protocol", "scannet_marigold", "--scale", 1000)
    found = measured("depth", tmp_path / "npy", tmp_path / "truth", *words, out=tmp_path / "out.json")
    assert found.values == pytest.approx(expected.compute().values, abs=EXACT)
    assert found.protocol == expected.compute().protocol
    quantised = [np.floor(prediction * 5000) / 5000 for prediction in predictions]
    rounded = DepthMetrics(expected.protocol)
    rounded.add_batch(quantised, [truth / 1000 for truth in truths])
    words = (*words, "--prediction-scale", 5000, "--table", tmp_path / "table.csv")
    found = measured("depth", tmp_path / "png", tmp_path / "truth", *words, out=tmp_path / "out.json")
    assert found.values == pytest.approx(rounded.compute().values, abs=EXACT)
    assert len((tmp_path / "table.csv").read_text().splitlines()) == 4


def test_diodes_masks_are_read_from_a_folder(tmp_path):
    draw = np.random.default_rng(2)
    for folder in ("prediction", "truth", "mask"):
        (tmp_path / folder).mkdir()
    truth, prediction, mask = (
        draw.uniform(1, 9, (4, 6)),
        draw.uniform(1, 9, (4, 6)),
        draw.integers(0, 2, (4, 6)),
    )
    np.save(tmp_path / "prediction/a.npy", prediction)
    np.save(tmp_path / "truth/a.npy", truth)
    Image.fromarray((255 * mask).astype(np.uint8)).save(tmp_path / "mask/a.png")
    expected = DepthMetrics("diode_marigold")
    expected.add_batch([prediction], [truth], [mask])
    words = ("--protocol", "diode_marigold", "--masks", tmp_path / "mask")
    found = measured("depth", tmp_path / "prediction", tmp_path / "truth", *words, out=tmp_path / "out.json")
    assert found.values == pytest.approx(expected.compute().values, abs=EXACT)


def test_a_caption_is_matched_to_its_picture_by_name(folders, tmp_path, monkeypatch):
    """A picture's embedding is its mean red, a caption's what it says: only the right pairs give the right cosines."""

    def of_red(red: torch.Tensor) -> torch.Tensor:
        return torch.stack([red.cos(), red.sin()], 1)

    def pictures(pixels: torch.Tensor) -> torch.Tensor:
        return of_red(pixels[:, 0].double().mean((1, 2)))

    toy = ClipEncoder("toy", 6, pictures, lambda texts: of_red(torch.tensor([float(text) for text in texts])))
    monkeypatch.setattr("cf_eval.cli_clip.transformers_clip_encoder", lambda path, device: toy)
    angles = {path.stem: 0.1 * i for i, path in enumerate(sorted(folders[0].iterdir()))}
    said = write(
        tmp_path / "c.json",
        [{"image_id": f"{name}.png", "caption": str(a)} for name, a in angles.items()][::-1],
    )
    words = ("--model", "any", "--convention", "crossflow", "--batch-size", 4)
    found = measured("clip-score", folders[0], said, *words, out=tmp_path / "out.json")
    mean, std = 0.48145466, 0.26862954
    reds = {
        p.stem: float(((read_picture(p)[0].double() / 255).mean() - mean) / std) for p in folders[0].iterdir()
    }
    expected = np.mean([max(np.cos(reds[name] - angle), 0) for name, angle in angles.items()])
    assert found.value == pytest.approx(expected, abs=1e-5)  # pixels are float32
    assert found.count == 11


def saved_objects(*objects: tuple) -> list[dict]:
    named = ("label", "score", "box", "colour")
    return [dict(zip(named, thing, strict=False)) for thing in objects]


def test_saved_detections_are_judged_by_genevals_rules(tmp_path):
    box = [10, 10, 60, 60]
    pictures = [
        ("a photo of a bench", saved_objects(("bench", 0.9, box))),
        ("a photo of a bench", saved_objects(("bench", 0.2, box))),
        ("a photo of a red apple", saved_objects(("apple", 0.9, box, "red"))),
        ("a photo of a red apple", saved_objects(("apple", 0.9, box, "green"))),
        ("a photo of a red apple", saved_objects(("apple", 0.5, box, "green"), ("apple", 0.9, box, "red"))),
    ]
    texts = [prompt.text for prompt in geneval_prompts()]
    rows = [
        {"prompt": texts.index(text) if i % 2 else text, "objects": found}
        for i, (text, found) in enumerate(pictures)
    ]
    rows = [{**row, "id": i} for i, row in enumerate(rows)]
    content = {"detector": "mine", "colours": "by eye", "pictures": [*rows, rows[0]]}
    file = write(tmp_path / "d.json", content)
    found = measured("geneval", file, "--table", tmp_path / "table.jsonl", out=tmp_path / "out.json")
    assert found.values == pytest.approx({"single_object": 1 / 2, "colors": 2 / 3, "overall": 7 / 12})
    assert found.count == 5
    assert found.details["duplicates_dropped"] == 1
    assert found.protocol.startswith("detector mine; colours by eye; score > 0.3")
    assert len((tmp_path / "table.jsonl").read_text().splitlines()) == 5
    strict = measured("geneval", file, "--threshold", 0.95, out=tmp_path / "out.json")
    assert strict.values["overall"] == 0


def detections(tmp_path: Path, **changes) -> Path:
    thing = {"label": "apple", "score": 0.9, "box": [1, 2, 30, 40], "colour": "red"}
    row = {"prompt": "a photo of a red apple", "objects": [{**thing, **changes}]}
    return write(tmp_path / "d.json", {"detector": "mine", "colours": "by eye", "pictures": [row]})


def test_detections_that_are_not_as_they_should_be_are_named(tmp_path, capsys):
    for changes, words in (
        ({"colour": None}, "picture 0: its prompt, 'a photo of a red apple', names a colour and the apple"),
        ({"colour": "crimson"}, "picture 0, object 0: unknown colour 'crimson'; known: red, orange"),
        ({"label": "apples"}, "picture 0, object 0: unknown label 'apples'"),
        ({"box": [1, 2, 3]}, "picture 0, object 0: a score and a box of left, top, right, bottom"),
    ):
        assert words in complaint(capsys, "geneval", detections(tmp_path, **changes))
    wrong = write(
        tmp_path / "d.json", {"detector": "x", "colours": "y", "pictures": [{"prompt": 553, "objects": []}]}
    )
    assert "picture 0: prompt 553 is not one of GenEval's" in complaint(capsys, "geneval", wrong)
    assert "'pictures': None" in complaint(capsys, "geneval", write(wrong, {"detector": "x", "colours": "y"}))


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("fid missing generated --weights x", "missing does not exist; give a folder"),
        ("fid real generated", "inception needs its weights; pass --weights PATH"),
        ("fid real generated --weights x --protocol tf", "unknown protocol 'tf'; known: pytorch-fid"),
        ("fd real generated --features vgg --weights x", "unknown features 'vgg'; known: inception"),
        ("fd real generated --weights x --save-real stats", "--save-real writes an npz, by which it is known later"),
        ("fd real empty --weights x", "no pictures in empty"),
        ("fd real generated --weights x --batch-size 0", "--batch-size must be at least 1, got 0"),
        ("fd real generated --weights x --json no/out.json", "no is no folder; make it"),
        ("kid real generated --weights x", "has 11 pictures; this needs at least 1000"),
        ("prdc real generated --weights x --k 0", "k must be at least 1, got 0"),
        ("prdc real generated --weights x --k 9", "generated, has 9 pictures; this needs at least 10"),
        ("prdc real generated --weights x --ties maybe", "unknown ties 'maybe'; known: inside, outside"),
        ("captions c.json r.json", "1 images have no candidate: '9'"),
        ("captions c.json r.json --metrics blue", "unknown caption metric 'blue'; known: bleu"),
        ("captions c.json r.json --tokenizer moses", "unknown tokenizer 'moses'; known: python"),
        ("captions c.json nothing.json", "nothing.json"),
        ("captions c.json r.json --only-candidates --tokenizer java --java /no/java", "no Java at '/no/java'"),
        ("captions broken.json r.json", "Expecting"),
        ("depth real generated --protocol eigen", "unknown depth protocol 'eigen'; known: kitti_adabins"),
        ("depth real real --protocol nyu", "holds levels, not metres; pass --scale"),
        ("depth real real --protocol nyu --scale -1", "--scale must be positive, got -1.0"),
        ("depth real real --protocol nyu --scale 256", "one plane of numbers was expected"),
        ("depth generated real --protocol nyu --scale 256", "2 names have no prediction: 09, 10"),
        ("depth real real --protocol diode_marigold --scale 256", "takes its masks from the data set; pass --masks"),
        ("clip-score real c.json --model x --convention hesse", "unknown CLIP score convention 'hesse'"),
        ("clip-score real c.json --model x --convention hessel", "3 names have no picture: 3, 1, 2"),
        ("clip-score real named.json --model x --convention hessel", "x is no folder; give one that save_pretrained"),
    ],
)  # fmt: skip
def test_bad_input_is_one_line_that_names_it(
    words, expected, folders, captions, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    Path("broken.json").write_text('{"a": "b"')
    write(Path("named.json"), {path.name: "a cat" for path in folders[0].iterdir()})
    Path("out.json").write_text("of a run before")
    assert expected in complaint(
        capsys, *words.split(), *(() if "--json" in words else ("--json", "out.json"))
    )
    assert Path("out.json").read_text() == "of a run before"


def test_wrong_options_end_with_code_2(capsys):
    with pytest.raises(SystemExit) as ended:
        run(["captions", "a.json", "b.json", "--metrik", "bleu"])
    assert ended.value.code == 2
    assert "--metrik" in capsys.readouterr().err
