"""What one shard holds, as named tensors and back."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from cf_encoders import TextFeatures
from jaxtyping import Bool, Float, Int64, Shaped, UInt8
from torch import Tensor

from cf_apps.data.captioned import DataError

HALF = torch.float16


@dataclass(frozen=True)
class Ragged:
    """Rows of different lengths, end to end: row i is values[ends[i - 1] : ends[i]]."""

    values: Shaped[Tensor, "total *d"]
    ends: Int64[Tensor, "n"]

    @classmethod
    def of_bytes(cls, rows: Sequence[bytes]) -> "Ragged":
        ends = torch.tensor([len(row) for row in rows], dtype=torch.int64).cumsum(0)
        data = bytearray(b"".join(rows))
        return cls(
            torch.frombuffer(data, dtype=torch.uint8) if data else torch.empty(0, dtype=torch.uint8), ends
        )

    def row(self, i: int) -> Shaped[Tensor, "r *d"]:
        return self.values[int(self.ends[i - 1]) if i else 0 : int(self.ends[i])]

    def row_bytes(self, i: int) -> bytes:
        return self.row(i).numpy().tobytes()

    @classmethod
    def joined(cls, parts: Sequence["Ragged"]) -> "Ragged":
        """The rows of all parts, in order."""
        before = torch.tensor([0, *(len(part.values) for part in parts)]).cumsum(0).tolist()
        ends = [part.ends + start for part, start in zip(parts, before, strict=False)]
        return cls(torch.cat([part.values for part in parts]), torch.cat(ends))


@dataclass(frozen=True)
class Features:
    """Token features of captions, in half precision. lengths: how many of a caption's rows are tokens, not padding."""

    rows: Ragged
    lengths: Int64[Tensor, "m"]

    @classmethod
    def packed(cls, features: TextFeatures, padding: str) -> "Features":
        """padding: `left out`, or `kept` for an encoder that looks at what the model makes of it.

        Raises DataError for features beyond the range of half precision.
        """
        kept = torch.ones_like(features.mask) if padding == "kept" else features.mask
        rows = features.tokens[kept].to(HALF).cpu()
        if not rows.isfinite().all():
            raise DataError(
                f"token features reach {features.tokens.abs().max():.3g}, beyond half precision (65504); this language "
                "model cannot be extracted, train on the pairs themselves"
            )
        return cls(Ragged(rows, kept.sum(1).cumsum(0).cpu()), features.mask.sum(1).cpu())

    @classmethod
    def joined(cls, parts: Sequence["Features"]) -> "Features":
        return cls(Ragged.joined([part.rows for part in parts]), torch.cat([part.lengths for part in parts]))

    def unpacked(self, captions: Sequence[int], max_tokens: int) -> tuple[Float[Tensor, "b n d"], Tensor]:
        """Tokens and lengths of the captions of these numbers; padding that was left out is zero."""
        tokens = torch.zeros(len(captions), max_tokens, self.rows.values.shape[-1], dtype=HALF)
        for tokens_of_one, caption in zip(tokens, captions, strict=True):
            rows = self.rows.row(caption)
            tokens_of_one[: len(rows)] = rows
        return tokens, self.lengths[list(captions)]


def token_mask(lengths: Int64[Tensor, "b"], max_tokens: int) -> Bool[Tensor, "b n"]:
    """True on tokens, False on padding."""
    return torch.arange(max_tokens) < lengths[:, None]


@dataclass(frozen=True)
class Content:
    """One shard's samples: name, phrasings, x_1 and, where the set has them, its mirror image, features, the picture.

    draws: the number in [0, 1) that the bytes of each picture's file give; it decides on the sample's side.
    caption_ends: the captions of sample i are those from caption_ends[i - 1] to caption_ends[i].
    pictures: encoded, of the size that the model sees.
    """

    names: Ragged
    draws: Float[Tensor, "n"]
    captions: Ragged
    caption_ends: Int64[Tensor, "n"]
    latents: Float[Tensor, "n c h w"]
    flipped: Float[Tensor, "n c h w"] | None = None
    features: Features | None = None
    pictures: Ragged | None = None

    def __len__(self) -> int:
        return len(self.latents)

    def caption(self, sample: int, u: float) -> int:
        """The number of the phrasing that u in [0, 1) chooses."""
        start = int(self.caption_ends[sample - 1]) if sample else 0
        return start + int(u * (int(self.caption_ends[sample]) - start))

    def text(self, caption: int) -> str:
        return self.captions.row_bytes(caption).decode()

    def tensors(self) -> dict[str, Tensor]:
        """By name, as safetensors keeps them."""
        found = {"draws": self.draws, "caption_ends": self.caption_ends, "latents": self.latents.to(HALF)}
        if self.flipped is not None:
            found["flipped"] = self.flipped.to(HALF)
        ragged = {"names": self.names, "captions": self.captions, "pictures": self.pictures}
        if self.features is not None:
            ragged["features"], found["feature_lengths"] = self.features.rows, self.features.lengths
        for name, rows in ragged.items():
            if rows is not None:
                found[name], found[f"{name}.ends"] = rows.values, rows.ends
        return {name: tensor.contiguous() for name, tensor in found.items()}

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor]) -> "Content":
        """The inverse of `tensors`. Raises KeyError for tensors that are no shard's."""

        def ragged(name: str) -> Ragged:
            return Ragged(tensors[name], tensors[f"{name}.ends"])

        return cls(
            ragged("names"),
            tensors["draws"],
            ragged("captions"),
            tensors["caption_ends"],
            tensors["latents"],
            tensors.get("flipped"),
            Features(ragged("features"), tensors["feature_lengths"]) if "features" in tensors else None,
            ragged("pictures") if "pictures" in tensors else None,
        )


def packed_pictures(pictures: Sequence[UInt8[Tensor, "3 s s"]]) -> Ragged:
    """Square pictures as JPEG with whole colours (4:4:4) at quality 92: a tenth of the bytes, nothing to be seen."""
    from PIL import Image

    def jpeg(picture: Tensor) -> bytes:
        buffer = io.BytesIO()
        array = picture.permute(1, 2, 0).contiguous().numpy()
        Image.fromarray(array).save(buffer, "JPEG", quality=92, subsampling=0)
        return buffer.getvalue()

    return Ragged.of_bytes([jpeg(picture) for picture in pictures])
