"""`cf-eval clip-score IMAGES CAPTIONS`."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from cf_eval.captions.coco_files import read_candidates
from cf_eval.cli_report import Output, Place, by_stem, one_of, require_same_names, tracked
from cf_eval.clip_encoders import ClipEncoder, open_clip_encoder, transformers_clip_encoder
from cf_eval.clip_score import CONVENTIONS, ClipScore
from cf_eval.images.read import SUFFIXES


@dataclass(frozen=True)
class ClipScoreCommand:
    """CLIP score of a folder of pictures and their captions, by a named convention."""

    images: Annotated[Place, tyro.conf.arg(metavar="IMAGES")]
    """Folder of pictures."""
    captions: Annotated[Place, tyro.conf.arg(metavar="CAPTIONS")]
    """JSON: {picture: caption}, or a list of {"image_id", "caption"}; names as in the folder, without ending."""
    model: Path
    """Folder of a CLIP that transformers saved, or with --architecture a file of open_clip's weights."""
    convention: Annotated[str, one_of(tuple(CONVENTIONS))]
    architecture: str | None = None
    """An architecture of open_clip, such as ViT-B-32-quickgelu."""
    batch_size: int = 32
    device: str = "cpu"
    output: Output = field(default_factory=Output)

    def run(self) -> None:
        self.output.check()
        if self.convention not in CONVENTIONS:
            raise ValueError(
                f"unknown CLIP score convention {self.convention!r}; known: {', '.join(CONVENTIONS)}"
            )
        if self.batch_size < 1:
            raise ValueError(f"--batch-size must be at least 1, got {self.batch_size}")
        pictures = by_stem(self.images, SUFFIXES)
        captions = by_picture(read_candidates(self.captions))
        require_same_names(captions, pictures, "caption", "picture")
        metric = ClipScore(self.encoder(), self.convention)
        for names in tracked(list(pictures), "pictures", self.batch_size):
            paths = [pictures[name] for name in names]
            metric.add_batch(paths, [captions[name] for name in names], batch_size=self.batch_size)
        self.output.show(metric.compute())

    def encoder(self) -> ClipEncoder:
        """Raises OSError where the weights are not, ValueError for an unknown architecture."""
        if self.architecture is not None:
            return open_clip_encoder(self.architecture, self.model, self.device)
        if self.model.is_file():
            raise ValueError(
                f"{self.model} is a file; name its --architecture, or give a folder of transformers"
            )
        return transformers_clip_encoder(self.model, self.device)


def by_picture(captions: dict[int | str, str]) -> dict[str, str]:
    """By the names of the pictures without their ending. Raises ValueError for two captions of one picture."""
    named: dict[str, str] = {}
    for picture, caption in captions.items():
        path = Path(str(picture))
        name = (path.with_suffix("") if path.suffix.lower() in SUFFIXES else path).as_posix()
        if name in named:
            raise ValueError(f"picture {name!r} has two captions; leave one")
        if not isinstance(caption, str):
            raise ValueError(f"the caption of picture {name!r} is {caption!r}; it must be a string")
        named[name] = caption
    return named
