"""CLIP score: how near the embeddings of picture and caption are. Papers that print it mean different numbers.

    crossflow      mean of max(cos, 0)               whole square picture, bilinear, as floats      (CrossFlow table 2)
    hessel         mean of 2.5 max(cos, 0)           CLIP's preparation; "A photo depicts " + caption
    torchmetrics   max(mean of 100 cos, 0)           CLIP's preparation

With references, hessel also gives RefCLIPScore: per picture, the harmonic mean of CLIPScore and of
max(0, cos(caption, nearest reference)).   (Hessel et al. 2021, eq. 1 and 2)
"""

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from cf_eval.clip_encoders import ClipEncoder, clip_square, shorter_side_to
from cf_eval.distributed import Group
from cf_eval.images.feature_set import Id
from cf_eval.images.read import VALUE_RANGES, Images, image_batches, listed, require_range
from cf_eval.images.resize import antialias_bilinear, half_pixel_bilinear
from cf_eval.result import Result
from cf_eval.samples import Samples, ids_for, mean

Resize = Callable[[Tensor, tuple[int, int]], Tensor]


@dataclass(frozen=True)
class ClipConvention:
    """What a CLIP score is in somebody's paper or library, as data.

    weight: what cosines are multiplied by. prefix: what stands before each text. clipped: what is held at 0 from
    below, each "pair" or the "mean". floats: resize of the whole picture as floats; None is CLIP's own preparation,
    with `to_pixel` as in `clip_square`. said: all that in words, for the result.
    """

    weight: float
    prefix: str
    clipped: str
    floats: Resize | None
    said: str
    to_pixel: Callable[[float], int] = round

    def __str__(self) -> str:
        return self.said


CONVENTIONS: Mapping[str, ClipConvention] = {
    "crossflow": ClipConvention(
        1.0, "", "pair", antialias_bilinear, "1 x max(cos, 0) per pair; bilinear floats, antialias, no crop"
    ),
    # torchvision resized tensors so before 0.17; the paper does not state its version
    "crossflow_no_antialias": ClipConvention(
        1.0,
        "",
        "pair",
        half_pixel_bilinear,
        "1 x max(cos, 0) per pair; bilinear floats, no antialias, no crop",
    ),
    "hessel": ClipConvention(
        2.5,
        "A photo depicts ",
        "pair",
        None,
        "2.5 x max(cos, 0) per pair; prefix 'A photo depicts'; bicubic bytes, centre crop",
    ),
    # but for captions beyond the context, whose end token torchmetrics 1.9 cuts off
    "torchmetrics": ClipConvention(
        100.0, "", "mean", None, "max(100 x mean cos, 0); bicubic bytes, centre crop of transformers", int
    ),
}


@dataclass(frozen=True)
class PairCosines:
    """Of one picture: cos(picture, caption), and cos(caption, nearest reference) where there are references."""

    caption: float
    reference: float | None = None


class ClipScore:
    """Running CLIP score of pairs of picture and caption, by a named convention; mergeable."""

    def __init__(self, encoder: ClipEncoder, convention: str) -> None:
        if convention not in CONVENTIONS:
            raise ValueError(f"unknown CLIP score convention {convention!r}; known: {', '.join(CONVENTIONS)}")
        self.encoder = encoder
        self.name = convention
        self.convention = CONVENTIONS[convention]
        self.samples: Samples[PairCosines] = Samples()

    def add_batch(
        self,
        images: Images,
        captions: Sequence[str],
        references: Sequence[Sequence[str]] | None = None,
        *,
        value_range: str = "uint8",
        ids: Sequence[Id] | None = None,
        batch_size: int = 32,
    ) -> None:
        """Add pairs. images: (b, 3, h, w), (b, h, w, 3) as an array, Pillow images, paths or a folder.

        value_range: of tensors and arrays, "uint8", "0..1" or "-1..1". references: for RefCLIPScore, one or more
        captions of each picture; only with the convention "hessel". Pictures whose id came before are dropped.
        """
        images = listed(images)
        names = ids_for(len(captions), ids)
        self._check(len(images), captions, references)
        start = 0
        for pixels in self._pixels(images, value_range, batch_size):
            here = slice(start, start + len(pixels))
            said = None if references is None else references[here]
            rows = self._cosines(pixels, captions[here], said)
            for row, id in zip(rows, names[here], strict=True):
                if self.samples.is_new(id):
                    self.samples.append(row, id)
            start += len(pixels)

    def merge(self, other: "ClipScore") -> None:
        """Take in what another rank or shard has seen, by the same model and convention."""
        if (self.name, self.encoder.name, dict(self.encoder.weights)) != (
            other.name,
            other.encoder.name,
            dict(other.encoder.weights),
        ):
            raise ValueError(
                f"cannot merge CLIP scores {other.name!r} of {other.encoder.name} into {self.name!r} of "
                f"{self.encoder.name}, or their weights differ"
            )
        self.samples.merge(other.samples)

    def gathered(self, group: Group | None = None) -> "ClipScore":
        """A new metric that has seen what all ranks of the group have, the same on each. All ranks must call it."""
        whole = copy.copy(self)
        whole.samples = self.samples.gathered(group)
        return whole

    def per_pair(self) -> list[float]:
        """The score of each pair, in the order added; where the mean is clipped, of the pair before that."""
        return [self._score(row) for row in self.samples.rows]

    def compute(self) -> Result:
        """clip_score, and ref_clip_score where every pair has references."""
        rows = self.samples.rows
        if not rows:
            raise ValueError("no pairs were added; call add_batch first")
        values = {"clip_score": mean(self.per_pair())}
        if self.convention.clipped == "mean":
            values["clip_score"] = max(values["clip_score"], 0.0)
        with_references = [row for row in rows if row.reference is not None]
        if with_references:
            if len(with_references) < len(rows):
                raise ValueError(
                    f"{len(with_references)} of {len(rows)} pairs have references; RefCLIPScore needs them all"
                )
            values["ref_clip_score"] = mean(self._with_reference(row) for row in rows)
        return Result(
            metric="clip_score",
            values=values,
            protocol=f"{self.name}: {self.convention}; {self.encoder.name}, float32",
            count=len(rows),
            details={"duplicates_dropped": self.samples.dropped, **self.encoder.weights},
        )

    def _check(
        self, images: int, captions: Sequence[str], references: Sequence[Sequence[str]] | None
    ) -> None:
        if isinstance(captions, str) or images != len(captions):
            raise ValueError(f"{images} images for {len(captions)} captions; give a list, one for one")
        if references is None:
            return
        if self.name != "hessel":
            raise ValueError(f"RefCLIPScore is defined for the convention 'hessel', not {self.name!r}")
        if len(references) != images:
            raise ValueError(f"{len(references)} lists of references for {images} images; give one for one")
        for index, said in enumerate(references):
            if isinstance(said, str) or not said:
                raise ValueError(f"references of image {index} must be a list of captions, got {said!r}")

    def _pixels(
        self, images: Images, value_range: str, batch_size: int
    ) -> Iterator[Float[Tensor, "b 3 s s"]]:
        size, resize = self.encoder.image_size, self.convention.floats
        if resize is None:
            for batch in image_batches(images, value_range, batch_size=batch_size):
                yield clip_square(batch, size, self.convention.to_pixel)
            return
        for batch in _float_batches(images, value_range, batch_size):
            h, w = batch.shape[2:]
            if h != w:
                raise ValueError(
                    f"{self.name} does not crop, so pictures must be square, got {h} x {w}; crop them first"
                )
            yield resize(batch, shorter_side_to(size, h, w))

    def _cosines(
        self,
        pixels: Float[Tensor, "b 3 s s"],
        captions: Sequence[str],
        references: Sequence[Sequence[str]] | None,
    ) -> list[PairCosines]:
        spoken = self.encoder.texts([self.convention.prefix + caption for caption in captions])
        cosines = (self.encoder.pictures(pixels) * spoken).sum(1).tolist()
        if references is None:
            return [PairCosines(cosine) for cosine in cosines]
        flat = self.encoder.texts([self.convention.prefix + text for said in references for text in said])
        nearest = [
            float((own @ caption).max())
            for own, caption in zip(flat.split([len(said) for said in references]), spoken, strict=True)
        ]
        return [PairCosines(*pair) for pair in zip(cosines, nearest, strict=True)]

    def _score(self, row: PairCosines) -> float:
        cosine = row.caption if self.convention.clipped == "mean" else max(row.caption, 0.0)
        return self.convention.weight * cosine

    def _with_reference(self, row: PairCosines) -> float:
        a, b = self._score(row), max(row.reference or 0.0, 0.0)
        return 2 * a * b / (a + b) if a + b else 0.0


def _float_batches(images: Images, value_range: str, batch_size: int) -> Iterator[Float[Tensor, "b 3 h w"]]:
    """Batches in 0..1; floats are not rounded to bytes on the way."""
    if value_range != "uint8" and value_range in VALUE_RANGES and isinstance(images, Tensor):
        low, high = require_range(images, value_range)
        for batch in images.split(batch_size):
            yield (batch.detach().cpu().float() - low) / (high - low)
        return
    for batch in image_batches(images, value_range, batch_size=batch_size):
        yield batch.to(torch.float32) / 255
