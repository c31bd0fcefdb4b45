"""The metrics as `evaluate.Metric`s: add_batch, then compute, with what was added kept in memory.

>>> metric = load("captions")
>>> metric.compute(predictions=["a cat", "two dogs"], references=[["a cat sits"], ["two dogs run"]])

Unlike evaluate's own (hf_in_memory.py says why) these write nothing, lock nothing and look nothing up. compute returns
the values by name with `protocol` and `count`, forgets what was added, and leaves the whole Result in `result`. Where
torch.distributed was started all ranks must call compute, and each gets the numbers of all.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch

from cf_eval.captions.caption_metrics import CaptionMetrics
from cf_eval.captions.protocol import CaptionProtocol
from cf_eval.clip_encoders import ClipEncoder
from cf_eval.clip_score import ClipScore
from cf_eval.depth.protocols import DepthProtocol
from cf_eval.depth.score import DepthMetrics
from cf_eval.geneval.colours import ColourClassifier
from cf_eval.geneval.objects import Detector
from cf_eval.geneval.prompts import geneval_prompts
from cf_eval.geneval.score import GenEval
from cf_eval.hf_in_memory import Image, InMemoryMetric, List, Value
from cf_eval.images.cmmd import CMMD
from cf_eval.images.features import Features
from cf_eval.images.fid import FID
from cf_eval.images.inception_score import InceptionScore
from cf_eval.images.kid import KID
from cf_eval.images.paired_quality import PairedQuality
from cf_eval.images.prdc import PRDC
from cf_eval.likelihood import BitsPerDimension
from cf_eval.reconstruction import TokenReconstruction
from cf_eval.result import Result

MAP = List(List(Value("float32")))


class TwoSetsMetric(InMemoryMetric):
    """Generated pictures are the predictions, real ones the references; the two may come apart and differ in number.

    value_range: of tensors and arrays, "uint8", "0..1" or "-1..1".
    """

    def __init__(self, new: Callable[[], Any], value_range: str) -> None:
        self._value_range = value_range
        super().__init__(new)

    def _feed(self, predictions: Any, references: Any, **more: Any) -> None:
        for name, images in (("generated", predictions), ("real", references)):
            if images is not None:
                self._metric.add_batch(**{name: images}, value_range=self._value_range, **more)


class FIDMetric(TwoSetsMetric):
    """FID, or the Fréchet distance of other features. reference: an npz of the real set, in place of references."""

    about = "Fréchet distance of two sets of pictures (Heusel et al. 2017)"

    def __init__(
        self, features: Features, reference: str | Path | None = None, value_range: str = "uint8"
    ) -> None:
        super().__init__(lambda: _fid(features, reference), value_range)


def _fid(features: Features, reference: str | Path | None) -> FID:
    metric = FID(features)
    if reference is not None:
        metric.load_reference(reference)
    return metric


class KIDMetric(TwoSetsMetric):
    about = "Kernel Inception Distance (Binkowski et al. 2018)"

    def __init__(self, features: Features, value_range: str = "uint8", **options: Any) -> None:
        super().__init__(lambda: KID(features, **options), value_range)


class PRDCMetric(TwoSetsMetric):
    about = "Precision, recall (Kynkäänniemi et al. 2019), density and coverage (Naeem et al. 2020)"

    def __init__(self, features: Features, value_range: str = "uint8", **options: Any) -> None:
        super().__init__(lambda: PRDC(features, **options), value_range)


class CMMDMetric(TwoSetsMetric):
    about = "CMMD of CLIP embeddings (Jayasumana et al. 2024)"

    def __init__(self, features: Features, value_range: str = "uint8") -> None:
        super().__init__(lambda: CMMD(features), value_range)


class InceptionScoreMetric(InMemoryMetric):
    about = "Inception Score (Salimans et al. 2016); predictions alone"
    columns: ClassVar[Mapping[str, Any]] = {"predictions": Image()}

    def __init__(self, features: Features, value_range: str = "uint8", **options: Any) -> None:
        self._value_range = value_range
        super().__init__(lambda: InceptionScore(features, **options))

    def _feed(self, predictions: Any, references: Any, **more: Any) -> None:
        if references is not None:
            raise ValueError("the Inception Score has no references; pass predictions alone")
        self._metric.add_batch(predictions, self._value_range, **more)


class PSNRSSIMMetric(InMemoryMetric):
    about = "PSNR and SSIM of pictures beside their targets"

    def __init__(self, value_range: str = "uint8", **options: Any) -> None:
        self._value_range = value_range
        super().__init__(lambda: PairedQuality(**options))

    def _feed(self, predictions: Any, references: Any, **more: Any) -> None:
        self._metric.add_batch(_stacked(predictions), _stacked(references), self._value_range, **more)


class ClipScoreMetric(InMemoryMetric):
    """Predictions are pictures, references their captions, one each. convention: a name, see cf_eval.clip_score."""

    about = "CLIP score by a named convention (CrossFlow, Hessel et al. 2021, torchmetrics)"
    columns: ClassVar[Mapping[str, Any]] = {"predictions": Image(), "references": Value("string")}

    def __init__(self, encoder: ClipEncoder, convention: str, value_range: str = "uint8") -> None:
        self._value_range = value_range
        super().__init__(lambda: ClipScore(encoder, convention))

    def _feed(self, predictions: Any, references: Any, **more: Any) -> None:
        self._metric.add_batch(predictions, references, value_range=self._value_range, **more)


class CaptionsMetric(InMemoryMetric):
    """Predictions are captions, references a list of captions for each."""

    about = "BLEU, CIDEr-D and ROUGE-L as COCO's caption evaluation; METEOR and SPICE where asked for"
    columns: ClassVar[Mapping[str, Any]] = {
        "predictions": Value("string"),
        "references": List(Value("string")),
    }

    def __init__(self, protocol: CaptionProtocol | None = None) -> None:
        super().__init__(lambda: CaptionMetrics(protocol))

    def _feed(self, predictions: Any, references: Any, **more: Any) -> None:
        self._metric.add_batch(predictions, references, **more)

    def _computed(self) -> Result:
        whole = self._metric.gathered()
        try:
            return whole.compute().result
        finally:
            whole.close()
            self._metric.close()


class DepthMetric(InMemoryMetric):
    """Predictions and references are depth maps (h, w). protocol: a name, see cf_eval.depth.protocols."""

    about = "Errors of depth maps by a named protocol: crop, caps, alignment"
    columns: ClassVar[Mapping[str, Any]] = {"predictions": MAP, "references": MAP}

    def __init__(self, protocol: str | DepthProtocol) -> None:
        super().__init__(lambda: DepthMetrics(protocol))

    def _feed(self, predictions: Any, references: Any, **more: Any) -> None:
        self._metric.add_batch(predictions, references, **more)


class GenEvalMetric(InMemoryMetric):
    """Predictions are uint8 (3, h, w) pictures, references prompts: indices into the 553, or GenEvalPrompts."""

    about = "GenEval's six tasks and their mean (Ghosh et al. 2023)"
    columns: ClassVar[Mapping[str, Any]] = {"predictions": Image(), "references": Value("int64")}

    def __init__(self, detector: Detector, colours: ColourClassifier, **options: Any) -> None:
        super().__init__(lambda: GenEval(detector, colours, **options))

    def _feed(self, predictions: Any, references: Any, **more: Any) -> None:
        prompts = [geneval_prompts()[prompt] if isinstance(prompt, int) else prompt for prompt in references]
        self._metric.add_batch(predictions, prompts, **more)


class BitsPerDimensionMetric(InMemoryMetric):
    """Predictions are log-likelihoods in nats; there are no references."""

    about = "Bits per dimension (Lipman et al. 2022, eq. 36 and 37)"
    columns: ClassVar[Mapping[str, Any]] = {"predictions": Value("float64")}

    def __init__(self, dimensions: int, **options: Any) -> None:
        super().__init__(lambda: BitsPerDimension(dimensions, **options))

    def _feed(self, predictions: Any, references: Any, **more: Any) -> None:
        if references is not None:
            raise ValueError("bits per dimension have no references; pass predictions alone")
        self._metric.add_batch(torch.as_tensor(predictions, dtype=torch.float64), **more)


class TokenReconstructionMetric(InMemoryMetric):
    """Predictions are decoded tokens, references the true ones, (b, n, d) both; add_batch takes mask=, (b, n)."""

    about = "Mean cosine of decoded and true tokens (CrossFlow table 9)"
    columns: ClassVar[Mapping[str, Any]] = {
        "predictions": MAP,
        "references": MAP,
        "mask": List(Value("bool")),
    }

    def __init__(self) -> None:
        super().__init__(TokenReconstruction)

    def _feed(self, predictions: Any, references: Any, **more: Any) -> None:
        if "mask" not in more:
            raise ValueError("token reconstruction needs mask=, True on the tokens of each caption")
        planes = (_stacked(rows) for rows in (predictions, references, more.pop("mask")))
        self._metric.add_batch(*planes, **more)


def _stacked(rows: Any) -> torch.Tensor:
    """A batch as one tensor, whether it came as that or as a list."""
    return rows if isinstance(rows, torch.Tensor) else torch.stack([torch.as_tensor(row) for row in rows])


METRICS: Mapping[str, Callable[..., InMemoryMetric]] = {
    "fid": FIDMetric,
    "kid": KIDMetric,
    "prdc": PRDCMetric,
    "cmmd": CMMDMetric,
    "inception_score": InceptionScoreMetric,
    "psnr_ssim": PSNRSSIMMetric,
    "clip_score": ClipScoreMetric,
    "captions": CaptionsMetric,
    "depth": DepthMetric,
    "geneval": GenEvalMetric,
    "bits_per_dimension": BitsPerDimensionMetric,
    "token_reconstruction": TokenReconstructionMetric,
}


def load(name: str, *arguments: Any, **options: Any) -> InMemoryMetric:
    """A metric by name, with the arguments of its class. Raises ValueError listing the known names."""
    if name not in METRICS:
        raise ValueError(f"unknown metric {name!r}; known: {', '.join(METRICS)}")
    return METRICS[name](*arguments, **options)
