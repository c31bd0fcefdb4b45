"""Detectors of transformers as GenEval detectors, from a local folder: DETR, YOLOS, RT-DETR, Deformable DETR, ..."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from cf_eval.geneval.coco_classes import geneval_name
from cf_eval.geneval.objects import FoundObject, Picture
from cf_eval.images.weights import state_sha256


@dataclass(frozen=True)
class TransformersDetector:
    """An object detection model and its processor; `transformers_detector` makes one.

    least_score: detections below it are not handed on; keep it under the thresholds of the rules.
    """

    model: Any
    processor: Any
    sha256: str
    device: str = "cpu"
    least_score: float = 0.05

    @property
    def name(self) -> str:
        return f"{type(self.model).__name__} (transformers), sha256 {self.sha256[:8]}"

    def __call__(self, picture: Picture) -> list[FoundObject]:
        """Objects of one picture; boxes in its own pixels, labels in GenEval's names."""
        inputs = self.processor(
            images=picture.numpy(), return_tensors="pt", input_data_format="channels_first"
        )
        with torch.no_grad():
            outputs = self.model(**inputs.to(self.device))
        found = self.processor.post_process_object_detection(
            outputs, threshold=self.least_score, target_sizes=[tuple(picture.shape[1:])]
        )[0]
        rows = zip(found["labels"].tolist(), found["scores"].tolist(), found["boxes"].tolist(), strict=True)
        names = self.model.config.id2label
        return [FoundObject(geneval_name(names[label]), score, tuple(box)) for label, score, box in rows]


def transformers_detector(folder: str | Path, device: str = "cpu") -> TransformersDetector:
    """The detector that transformers saved in a local folder, with its image processor."""
    try:
        from transformers import AutoImageProcessor, AutoModelForObjectDetection
    except ImportError as error:
        raise ImportError('detectors of transformers need it: pip install "cf-eval[clip]"') from error
    if not Path(folder).is_dir():
        raise FileNotFoundError(f"{folder} is no folder; give one that save_pretrained wrote")
    processor = AutoImageProcessor.from_pretrained(str(folder), local_files_only=True)
    model = AutoModelForObjectDetection.from_pretrained(str(folder), local_files_only=True).eval().to(device)
    return TransformersDetector(model, processor, state_sha256(model.state_dict()), device)
