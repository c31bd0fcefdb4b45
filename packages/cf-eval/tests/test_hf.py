"""The metrics as evaluate.Metrics: the numbers of the library, nothing written, no clash between processes."""

import multiprocessing
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch

evaluate = pytest.importorskip("evaluate", reason="NO EVALUATE: its metrics were not tried")

from cf_eval import hf  # noqa: E402
from cf_eval.captions.caption_metrics import score_captions  # noqa: E402
from cf_eval.captions.protocol import CaptionProtocol  # noqa: E402
from cf_eval.clip_encoders import ClipEncoder  # noqa: E402
from cf_eval.clip_score import ClipScore  # noqa: E402
from cf_eval.depth.score import DepthMetrics  # noqa: E402
from cf_eval.geneval.objects import FoundObject  # noqa: E402
from cf_eval.geneval.prompts import geneval_prompts  # noqa: E402
from cf_eval.images.cmmd import CMMD  # noqa: E402
from cf_eval.images.fid import FID  # noqa: E402
from cf_eval.images.inception_score import InceptionScore, Splits  # noqa: E402
from cf_eval.images.kid import KID, Subsets  # noqa: E402
from cf_eval.images.paired_quality import PairedQuality  # noqa: E402
from cf_eval.images.prdc import PRDC, Neighbourhood  # noqa: E402
from cf_eval.likelihood import BitsPerDimension  # noqa: E402
from cf_eval.reconstruction import TokenReconstruction  # noqa: E402

EXACT = 1e-12
CAPTIONS = ["a cat sits on a mat", "two dogs run", "a red bus"]
REFERENCES = [["The cat sat on a mat."], ["Two dogs are running.", "dogs run"], ["A bus"]]


@dataclass
class Pixels:
    """The red channel, in float64: features that need no network."""

    name: str = "red pixels"
    weights: dict[str, str] = field(default_factory=dict)
    rounding: str = "round"

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        return images[:, 0].double().flatten(1) / 255


@pytest.fixture(autouse=True)
def _a_cache_of_its_own(tmp_path, monkeypatch):
    monkeypatch.setattr(evaluate.config, "HF_METRICS_CACHE", str(tmp_path / "cache"))


def pictures(n: int, seed: int, side: int = 3) -> torch.Tensor:
    draw = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (n, 3, side, side), generator=draw).to(torch.uint8)


@pytest.mark.parametrize(
    ("metric", "own"),
    [
        (hf.FIDMetric(Pixels()), FID(Pixels())),
        (hf.KIDMetric(Pixels(), subsets=Subsets(4, 5)), KID(Pixels(), Subsets(4, 5))),
        (hf.PRDCMetric(Pixels(), neighbourhood=Neighbourhood(2)), PRDC(Pixels(), Neighbourhood(2))),
        (hf.CMMDMetric(Pixels()), CMMD(Pixels())),
    ],
    ids=["fid", "kid", "prdc", "cmmd"],
)
def test_predictions_are_the_generated_set_and_references_the_real_one(metric, own):
    real, generated = pictures(13, 1), pictures(11, 2)
    own.add_batch(real=real)
    own.add_batch(generated=generated)
    metric.add_batch(predictions=generated[:4], references=real[:7])
    metric.add_batch(references=real[7:])
    metric.add(prediction=generated[4])
    found = metric.compute(predictions=generated[5:])
    expected = own.compute()
    assert {name: found[name] for name in expected.values} == pytest.approx(expected.values, abs=EXACT)
    assert (found["protocol"], found["count"]) == (expected.protocol, 11)
    assert metric.result.details == expected.details


def test_a_reference_file_stands_in_for_the_real_set(tmp_path):
    own = FID(Pixels())
    own.add_batch(real=pictures(13, 1))
    own.save_reference(tmp_path / "real.npz")
    own.add_batch(generated=pictures(30, 2))
    metric = hf.load("fid", Pixels(), reference=tmp_path / "real.npz")
    for _ in range(2):
        found = metric.compute(predictions=pictures(30, 2))
        assert found["frechet_distance"] == pytest.approx(own.compute().value, abs=1e-9)


def test_floats_need_their_value_range():
    metric = hf.FIDMetric(Pixels(), value_range="0..1")
    metric.add_batch(predictions=pictures(5, 1) / 255, references=pictures(6, 2) / 255)
    exact = hf.FIDMetric(Pixels()).compute(predictions=pictures(5, 1), references=pictures(6, 2))
    assert metric.compute()["frechet_distance"] == pytest.approx(exact["frechet_distance"], abs=EXACT)
    with pytest.raises(ValueError, match=r"value_range=.0\.\.1."):
        hf.FIDMetric(Pixels()).add_batch(predictions=pictures(5, 1) / 255)


def test_metrics_without_references_say_so():
    for metric, own, given in (
        (
            hf.InceptionScoreMetric(Pixels(), splits=Splits(2)),
            InceptionScore(Pixels(), Splits(2)),
            pictures(9, 1),
        ),
        (hf.BitsPerDimensionMetric(12), BitsPerDimension(12), torch.tensor([-30.0, -41.5, -7.25])),
    ):
        own.add_batch(given)
        found, expected = metric.compute(predictions=given), own.compute()
        assert {name: found[name] for name in expected.values} == pytest.approx(expected.values, abs=EXACT)
        with pytest.raises(ValueError, match="no references; pass predictions alone"):
            metric.add_batch(predictions=given, references=given)
    assert hf.BitsPerDimensionMetric(12).compute(predictions=[-30.0, -41.5, -7.25])["count"] == 3


def test_pairs_are_scored_as_by_the_library():
    a, b = pictures(3, 1, side=13), pictures(3, 2, side=13)
    quality = PairedQuality(planes="y")
    quality.add_batch(a, b)
    draw = torch.Generator().manual_seed(3)
    near, far = (torch.rand(4, 5, 7, generator=draw) + 0.5 for _ in range(2))
    depth = DepthMetrics("scannet_marigold")
    depth.add_batch(near, far, ids=[1, 2, 3, 3])
    mask = torch.tensor([[True] * 3 + [False] * 2] * 4)
    tokens = TokenReconstruction()
    tokens.add_batch(near, far, mask)
    for metric, own, predictions, references, more in (
        (hf.PSNRSSIMMetric(planes="y"), quality, a, b, {}),
        (hf.PSNRSSIMMetric(planes="y"), quality, list(a), list(b), {}),
        (
            hf.DepthMetric("scannet_marigold"),
            depth,
            list(near.numpy()),
            list(far.numpy()),
            {"ids": [1, 2, 3, 3]},
        ),
        (hf.TokenReconstructionMetric(), tokens, near, far, {"mask": mask}),
    ):
        found, expected = (
            metric.compute(predictions=predictions, references=references, **more),
            own.compute(),
        )
        assert {name: found[name] for name in expected.values} == pytest.approx(expected.values, abs=EXACT)
        assert found["count"] == expected.count
    with pytest.raises(ValueError, match="needs mask="):
        hf.TokenReconstructionMetric().add_batch(predictions=near, references=far)


def test_clip_score_and_geneval_take_their_models():
    toy = ClipEncoder(
        "toy", 3, lambda x: x.flatten(1)[:, :2], lambda texts: torch.tensor([[len(t), 3.0] for t in texts])
    )
    own = ClipScore(toy, "torchmetrics")
    own.add_batch(pictures(3, 1), CAPTIONS)
    found = hf.ClipScoreMetric(toy, "torchmetrics").compute(predictions=pictures(3, 1), references=CAPTIONS)
    assert found["clip_score"] == pytest.approx(own.compute().value, abs=EXACT)

    class Sees:
        name = "sees benches"

        def __call__(self, picture: torch.Tensor) -> list[FoundObject]:
            return [FoundObject("bench", 0.95, (1.0, 1.0, 9.0, 9.0))] if picture.sum() else []

    class Names:
        name = "names nothing"

        def __call__(self, picture: torch.Tensor, things: list[FoundObject]) -> list[str]:
            return ["red"] * len(things)

    bench = next(i for i, prompt in enumerate(geneval_prompts()) if prompt.text == "a photo of a bench")
    metric = hf.GenEvalMetric(Sees(), Names())
    black = torch.zeros(3, 9, 9, dtype=torch.uint8)
    metric.add_batch(predictions=[black + 1, black], references=[bench, geneval_prompts()[bench]])
    assert metric.compute()["single_object"] == 0.5


def test_captions_start_afresh_after_compute():
    metric = hf.load("captions", CaptionProtocol(metrics=("bleu", "cider_d")))
    expected = score_captions(CAPTIONS, REFERENCES, CaptionProtocol(metrics=("bleu", "cider_d"))).result
    for _ in range(2):
        metric.add(prediction=CAPTIONS[0], reference=REFERENCES[0])
        assert len(metric) == 1
        metric.add_batch(predictions=CAPTIONS[1:], references=REFERENCES[1:])
        assert len(metric) == 3
        found = metric.compute()
        assert len(metric) == 0
        assert found == {**expected.values, "protocol": expected.protocol, "count": 3}
    with pytest.raises(ValueError, match="no captions were added"):
        metric.compute()


def test_evaluate_can_combine_them():
    both = evaluate.combine(
        {name: hf.load("captions", CaptionProtocol((name,))) for name in ("bleu", "rouge_l")}
    )
    both.add_batch(predictions=CAPTIONS, references=REFERENCES)
    found = both.compute()
    expected = score_captions(CAPTIONS, REFERENCES)
    assert found["bleu_4"] == pytest.approx(expected["bleu_4"], abs=EXACT)
    assert found["rouge_l"] == pytest.approx(expected["rouge_l"], abs=EXACT)


def test_a_name_that_is_not_there_lists_those_that_are():
    assert all(issubclass(kind, evaluate.Metric) for kind in hf.METRICS.values())
    with pytest.raises(ValueError, match="unknown metric 'bleu'; known: fid, kid"):
        hf.load("bleu")


def score_here(cache: str, first: str, answers, meeting) -> None:
    """One of two processes that share a cache folder and are in the middle of a stream at the same time."""
    evaluate.config.HF_METRICS_CACHE = cache
    metric = hf.load("captions")
    metric.add_batch(predictions=[first], references=[REFERENCES[0]])
    meeting.wait(timeout=60)
    metric.add_batch(predictions=CAPTIONS[1:], references=REFERENCES[1:])
    answers.put((first, metric.compute()["rouge_l"]))


def test_two_processes_beside_one_another_get_their_own_numbers_and_leave_no_files(tmp_path):
    fork = multiprocessing.get_context("fork")  # evaluate takes seconds to import anew
    answers, meeting = fork.Queue(), fork.Barrier(2)
    firsts = [CAPTIONS[0], "a dog on the moon"]
    cache = tmp_path / "cache"
    started = [
        fork.Process(target=score_here, args=(str(cache), first, answers, meeting)) for first in firsts
    ]
    for process in started:
        process.start()
    found = dict(answers.get(timeout=60) for _ in firsts)
    for process in started:
        process.join(timeout=60)
    for first in firsts:
        expected = score_captions([first, *CAPTIONS[1:]], REFERENCES)["rouge_l"]
        assert found[first] == pytest.approx(expected, abs=EXACT)
    assert found[firsts[0]] != found[firsts[1]]
    assert not list(Path(tmp_path).rglob("*"))
