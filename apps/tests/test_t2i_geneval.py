"""Scores of prompts: every picture judged by its own prompt, with networks from local files, or refused by name."""

import json
import os
import sys
from pathlib import Path

import pytest
import torch
from cf_apps.cli import run
from cf_apps.engine.errors import ConfigError
from cf_apps.engine.flow import SampleConfig
from cf_apps.engine.watching.progress import Silence
from cf_apps.t2i.sample import Sampler
from cf_apps.t2i.scoring.geneval import PromptScoring, score_prompts
from cf_apps.t2i.scoring.judges import JudgePaths, clip_of, colours_of, detector_of
from cf_eval import ClipColours, PaletteColours, geneval_prompts
from cf_eval.geneval.objects import FoundObject
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent))
from t2i_tiny import CPU, flags, sampler, write_folder

HOW = SampleConfig(scale=1.0, steps=1, solver="euler")
FLOAT32 = 1e-5
CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
CAPTIONS = ["a red circle", "a blue square", "two green circles"]


# ------------------------------------------------------------------------------------------------- stand-ins


class Painter(Sampler):
    """Paints the number of the prompt instead of what it says: red times 256 and green, in every pixel."""

    def draw(self, captions, how, draws, batch_size=128):
        numbers = [NUMBER[text] for text in captions]
        bytes_of = torch.tensor([[n // 256, n % 256, 0] for n in numbers]) / 255
        return bytes_of.view(-1, 3, 1, 1).expand(-1, 3, 16, 16)


NUMBER = {prompt.text: number for number, prompt in enumerate(geneval_prompts())}
CORNER = {"left of": (-9, 0), "right of": (9, 0), "above": (0, -9), "below": (0, 9)}


class Eye:
    """Reads the prompt's number and reports exactly what it demands, but for prompts it is told to be blind to."""

    name = "an eye that knows the truth"

    def __init__(self, blind=()):
        self.blind, self.asked = set(blind), []

    def __call__(self, picture):
        number = 256 * int(picture[0, 0, 0]) + int(picture[1, 0, 0])
        self.asked.append(number)
        prompt, found, places = geneval_prompts()[number], [], []
        for required in prompt.include:
            x, y = (8.0, 8.0)
            if required.position is not None:
                relation, target = required.position
                dx, dy = CORNER[relation]
                x, y = places[target][0] + dx, places[target][1] + dy
            places.append((x, y))
            box = (x - 1, y - 1, x + 1, y + 1)
            found += [FoundObject(required.label, 0.99, box) for _ in range(required.count)]
        return [] if number in self.blind else found


class Ear:
    """Says of each object the colour its prompt demands of its class."""

    name = "an ear for the prompt"

    def __call__(self, picture, things):
        prompt = geneval_prompts()[256 * int(picture[0, 0, 0]) + int(picture[1, 0, 0])]
        wanted = {required.label: required.colour for required in prompt.include}
        return [wanted[thing.label] for thing in things]


def asked(prompts: str, paths: JudgePaths, count: int = 1, **changes) -> PromptScoring:
    return PromptScoring(prompts, paths, HOW, Silence(), count, **changes)


@pytest.fixture
def judged(monkeypatch):
    """score_prompts with an eye instead of a detector."""

    def judge(eye: Eye, count: int = 1):
        monkeypatch.setattr("cf_apps.t2i.scoring.geneval.detector_of", lambda paths, device: eye)
        monkeypatch.setattr("cf_apps.t2i.scoring.geneval.colours_of", lambda paths, device: Ear())
        painter = Painter(sampler(language__max_tokens=40, text_ve__max_tokens=40).model)
        return score_prompts(painter, asked("geneval", JudgePaths(), count, batch_size=100))["GenEval"]

    return judge


def test_pictures_that_are_right_score_one(judged):
    column = judged(eye := Eye(), count=1)
    assert eye.asked == list(range(553))
    assert column["overall"] == 1.0
    assert column["count"] == 553
    assert column["measured_as"]["details"]["missing_tasks"] == []
    assert "an eye that knows the truth; colours an ear for the prompt" in column["measured_as"]["protocol"]


def test_every_prompt_is_drawn_as_often_as_asked(judged):
    eye = Eye()
    assert judged(eye, count=3)["count"] == 3 * 553
    assert eye.asked == [number for number in range(553) for _ in range(3)]


def test_pictures_are_judged_by_their_own_prompts(judged):
    """Blind to every second prompt of one task: half of that task is lost and nothing else."""
    ours = [n for n, prompt in enumerate(geneval_prompts()) if prompt.tag == "counting"]
    column = judged(Eye(blind=ours[::2]))
    assert column["counting"] == pytest.approx(0.5)
    assert [column[tag] for tag in ("single_object", "two_object", "colors", "position", "color_attr")] == [
        1.0
    ] * 5
    assert column["overall"] == pytest.approx(5.5 / 6)


# ------------------------------------------------------------------------------------------------- real formats


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Path:
    """A random CLIP as transformers saves it; its words are letters."""
    transformers = pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("clip")
    letters = "abcdefghijklmnopqrstuvwxyz"
    tokens = [*letters, *(c + "</w>" for c in letters), "<|startoftext|>", "<|endoftext|>"]
    size = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = {
        "vocab_size": len(tokens),
        "max_position_embeddings": 40,
        "bos_token_id": 52,
        "eos_token_id": 53,
        **size,
    }
    vision = {"image_size": 24, "patch_size": 8, **size}
    torch.manual_seed(0)
    model = transformers.CLIPModel(
        transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=8)
    )
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))  # else all texts are nearly alike
    model.save_pretrained(folder)
    transformers.CLIPTokenizer(vocab={token: i for i, token in enumerate(tokens)}, merges=[]).save_pretrained(
        folder
    )
    return folder


@pytest.fixture(scope="module")
def yolos(tmp_path_factory) -> Path:
    """A random detector as transformers saves it."""
    transformers = pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("yolos")
    size = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = transformers.YolosConfig(
        image_size=[32, 32], num_detection_tokens=3, id2label={0: "cat", 1: "dog", 2: "cup"}, **size
    )
    torch.manual_seed(0)
    transformers.YolosForObjectDetection(config).save_pretrained(folder)
    transformers.YolosImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("t2i")
    data, out = write_folder(folder / "pairs"), folder / "run"
    words = ["t2i", "train", "--data", str(data), "--out", str(out), "--steps", "1", "--device", "cpu"]
    assert run([*words, *flags()]) == 0
    return out


@torch.no_grad()
def clip_score_by_hand(folder: Path, files: list[Path], captions: list[str]) -> float:
    """Mean of max(cos, 0): files as floats, bilinear with antialias to the tower's side, CLIP's mean and deviation."""
    import numpy as np
    import transformers

    model = transformers.CLIPModel.from_pretrained(folder).eval()
    tokens = transformers.AutoTokenizer.from_pretrained(folder)(captions, padding=True, return_tensors="pt")
    pixels = torch.stack([torch.from_numpy(np.array(Image.open(f))) for f in files]).permute(0, 3, 1, 2) / 255
    pixels = torch.nn.functional.interpolate(pixels, (24, 24), mode="bilinear", antialias=True)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (CLIP_MEAN, CLIP_STD))
    output = model(**tokens, pixel_values=(pixels - mean) / std)
    return float((output.image_embeds * output.text_embeds).sum(1).clamp(min=0).mean())


def test_the_clip_score_is_that_of_the_files_that_sample_writes(trained, clip, tmp_path, capsys):
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("\n".join(CAPTIONS))
    common = [str(trained), "--prompts", str(prompts), "-n", "2", "--seed", "4"]
    assert run(["t2i", "sample", *common, "--out", str(tmp_path / "pictures")]) == 0
    report = tmp_path / "report.json"
    assert run(["t2i", "evaluate", *common, "--clip", str(clip), "--out", str(report)]) == 0
    assert "by crossflow: 1 x max(cos, 0)" in " ".join(capsys.readouterr().out.split())
    lines = [json.loads(line) for line in (tmp_path / "pictures" / "manifest.jsonl").read_text().splitlines()]
    files = [tmp_path / "pictures" / line["file"] for line in lines]
    expected = clip_score_by_hand(clip, files, [line["caption"] for line in lines])
    column = json.loads(report.read_text())["CLIP score"]
    assert column["clip_score"] == pytest.approx(expected, abs=FLOAT32)
    assert expected > 0.01
    assert column["count"] == 6


def test_networks_come_from_folders_in_the_formats_of_their_libraries(clip, yolos):
    paths = JudgePaths(detector=yolos, clip=clip)
    assert detector_of(paths, CPU).name.startswith("YolosForObjectDetection")
    assert clip_of(paths, CPU).image_size == 24
    assert isinstance(colours_of(paths, CPU), ClipColours)
    assert isinstance(colours_of(JudgePaths(detector=yolos), CPU), PaletteColours)


def test_geneval_runs_with_a_detector_of_transformers(yolos, monkeypatch):
    few = geneval_prompts()[:80:20]
    monkeypatch.setattr("cf_eval.geneval_prompts", lambda: few)
    it = sampler(language__max_tokens=40, text_ve__max_tokens=40)
    column = score_prompts(it, asked("geneval", JudgePaths(detector=yolos), count=2))["GenEval"]
    assert column["count"] == 8
    assert 0 <= column["overall"] <= 1
    assert "YolosForObjectDetection" in column["measured_as"]["protocol"]


@pytest.mark.skipif(
    "CF_FASTEST_DET" not in os.environ, reason="CF_FASTEST_DET names no FastestDet checkpoint"
)
def test_fastest_det_is_a_detector():
    detector = detector_of(JudgePaths(detector=Path(os.environ["CF_FASTEST_DET"])), CPU)
    assert detector.name.startswith("FastestDet")


# ------------------------------------------------------------------------------------------------- refused


def test_without_weights_it_is_said_which_path_is_needed():
    with pytest.raises(ConfigError, match=r"GenEval needs a detector.*--detector PATH"):
        detector_of(JudgePaths(), CPU)
    with pytest.raises(ConfigError, match=r"the CLIP score needs a CLIP.*--clip PATH.*--architecture"):
        clip_of(JudgePaths(), CPU)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--prompts", "geneval"], "GenEval needs a detector"),
        (["--prompts", "geneval", "--detector", "nowhere"], "--detector nowhere cannot be used"),
        (["--prompts", "geneval", "--detector", "."], "--detector . cannot be used"),
        (["--prompts", "geneval", "--detector", "p.txt"], "another or a damaged file"),
        (["--prompts", "p.txt"], "the CLIP score needs a CLIP"),
        (["--prompts", "p.txt", "--clip", "nowhere"], "--clip nowhere cannot be used"),
        (["--prompts", "p.txt", "--clip", "."], "--clip . cannot be used"),
        (["--prompts", "p.txt", "--clip", "p.txt"], "name its --architecture"),
        (
            ["--prompts", "p.txt", "--clip", "p.txt", "--architecture", "ViT-Z"],
            "unknown architecture 'ViT-Z'",
        ),
        (["--prompts", "p.txt", "--detector", "."], "give --prompts geneval, not p.txt"),
        (["--clip", "p.txt"], "give --prompts as well"),
        (["--prompts", "p.txt", "-n", "0"], "-n must be at least 1, got 0"),
    ],
)
def test_judges_that_cannot_be_are_named_before_anything_is_drawn(
    trained, tmp_path, monkeypatch, capsys, options, expected
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "p.txt").write_text("a red circle\n" * 90_000)
    monkeypatch.setattr("cf_apps.t2i.sample.Sampler.draw", lambda *a, **k: pytest.fail("drawn"))
    assert run(["t2i", "evaluate", str(trained), *options, "--device", "cpu"]) == 2
    said = capsys.readouterr().err
    assert expected in said
    assert said.count("error:") == 1
