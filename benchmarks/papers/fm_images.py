"""Pictures for the Flow Matching paper's tables: bytes, a training and a test part, from files the user names.

`idx` files as MNIST and Fashion-MNIST come (gzipped or not, one folder), or anything `datasets.load_dataset` reads.
"""

import gzip
import struct
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

IDX = {"train": "train", "test": "t10k"}


@dataclass(frozen=True)
class Images:
    """Bytes of one part of a data set, with the classes its features are trained on."""

    pixels: UInt8[Tensor, "n c h w"]
    labels: Int64[Tensor, "n"]

    def first(self, n: int) -> "Images":
        return Images(self.pixels[:n], self.labels[:n])


def read_images(data: str, part: str, side: int) -> Images:
    """`data`: a folder of idx files, or a name for `datasets`. Pictures are brought to side x side bytes.

    side below their own: mean over whole blocks; above: a border of the darkest byte, so that no pixel is made up.
    """
    folder = Path(data)
    found = (
        read_idx(folder, part)
        if folder.is_dir() and _idx_file(folder, part, "images")
        else _from_datasets(data, part)
    )
    return Images(resized(found.pixels, side), found.labels)


def read_idx(folder: Path, part: str) -> Images:
    """(n, 1, h, w) bytes and their classes from a folder of idx files."""
    images, labels = (_idx_file(folder, part, kind) for kind in ("images", "labels"))
    if images is None or labels is None:
        raise SystemExit(
            f"{folder} has no {IDX[part]}-images-idx3-ubyte and {IDX[part]}-labels-idx1-ubyte (.gz or not)"
        )
    return Images(_idx(images)[:, None], _idx(labels).long())


def _idx_file(folder: Path, part: str, kind: str) -> Path | None:
    return next(iter(sorted(folder.glob(f"{IDX[part]}-{kind}-idx*-ubyte*"))), None)


def _idx(file: Path) -> UInt8[Tensor, "..."]:
    """Magic (0, 0, 8 for bytes, number of axes), the axes' lengths, big-endian, then the bytes."""
    raw = (gzip.open if file.suffix == ".gz" else open)(file, "rb").read()
    zeros, kind, axes = struct.unpack(">HBB", raw[:4])
    if (zeros, kind) != (0, 8):
        raise SystemExit(f"{file} is not an idx file of bytes")
    shape = struct.unpack(f">{axes}I", raw[4 : 4 + 4 * axes])
    return torch.frombuffer(bytearray(raw[4 + 4 * axes :]), dtype=torch.uint8).reshape(shape)


def _from_datasets(name: str, part: str) -> Images:
    import datasets
    import numpy as np

    rows = datasets.load_dataset(name, split=part)
    image = next(key for key in ("image", "img") if key in rows.features)
    label = next((key for key in ("label", "fine_label") if key in rows.features), None)
    pixels = torch.stack(
        [torch.from_numpy(np.array(row[image].convert("RGB"))).movedim(-1, 0) for row in rows]
    )
    labels = torch.tensor(rows[label]) if label else torch.zeros(len(rows), dtype=torch.int64)
    return Images(pixels, labels)


def resized(pixels: UInt8[Tensor, "n c h w"], side: int) -> UInt8[Tensor, "n c side side"]:
    """Whole blocks averaged, or a border added; anything between is refused."""
    h, w = pixels.shape[-2:]
    if h != w:
        raise SystemExit(f"pictures must be square, got {h} x {w}")
    if side == h:
        return pixels
    if side > h and (side - h) % 2 == 0:
        return F.pad(pixels, [(side - h) // 2] * 4)
    if side < h and h % side == 0:
        return torch.cat(
            [F.avg_pool2d(part.float(), h // side).round().byte() for part in pixels.split(4096)]
        )
    raise SystemExit(
        f"cannot bring {h} x {h} to {side} x {side} without resampling; give a multiple, or a border"
    )


def dequantised(pixels: UInt8[Tensor, "b c h w"], generator: torch.Generator) -> Float[Tensor, "b c h w"]:
    """y = (pixels + u)/128 - 1, u ~ U[0, 1)   (Lipman et al. eq. 36)"""
    u = torch.rand(pixels.shape, generator=generator, device=generator.device).to(pixels.device)
    return (pixels + u) / 128 - 1
