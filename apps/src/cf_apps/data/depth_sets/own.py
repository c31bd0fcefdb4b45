"""Your own pairs, as a folder or as one numpy file.

    folder/depth.json                 {"scale": 0.001}         metres per count
    folder/image/NAME.png (or .jpg)   any picture
    folder/depth/NAME.png             a 16-bit grey PNG of counts, 0 where there is no reading

NAME may have folders in it (`image/kitchen/0001.png`): pictures of one folder then stay on one side of the split, as
frames of one video must. Pictures without a usable depth map are skipped and listed.

    pairs.npz     rgb (n, h, w, 3) uint8, depth (n, h, w); floats are metres, integers are counts of `scale` metres
                  group (n,), if given, names what stays on one side of the split
"""

import hashlib
import json
import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cf_apps.data.captioned import DataError, split_by_hash
from cf_apps.data.depth_pairs import DepthArrays, DepthPair
from cf_apps.data.depth_sets.files import DepthFiles, DepthRecord, paired
from cf_apps.data.depth_sets.reading import read_png16, readings
from cf_apps.data.pair_layouts import IMAGE_SUFFIXES
from cf_apps.data.pairs import SkippedSamples
from cf_apps.data.pictures import read_picture

EXAMPLE = '{"scale": 0.001}'
IN_MEMORY = 2 * 2**30  # bytes of pairs, at the model's size, up to which a folder is read once and kept
HELD_OUT = 0.1  # of the groups: half to choose by, half to report


def own_folder(folder: Path, size: tuple[int, int]) -> DepthFiles:
    """The pairs of a folder; what `skipped` lists cannot be used. Raises DataError in one line."""
    scale = _scale(folder / "depth.json")
    images = sorted(p for p in (folder / "image").rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES)
    if not images:
        raise DataError(f"{folder} has no pictures in image/; put image/NAME.png and depth/NAME.png there")
    decode = partial(_decode, per_metre=1 / scale)
    records: list[DepthRecord] = []
    skipped: list[tuple[str, str]] = []
    for image in images:
        name = image.relative_to(folder / "image")
        record = DepthRecord(image, folder / "depth" / name.with_suffix(".png"), group=_group(image, name))
        try:
            if not record.depth.is_file():
                raise DataError(f"no depth map {record.depth}")
            if not DepthFiles("", (record,), decode, size).pair(0).valid.any():
                raise DataError(f"{record.depth} has no pixel with a reading")
        except DataError as error:
            skipped.append((name.as_posix(), str(error)))
        else:
            records.append(record)
    left_out = SkippedSamples(tuple(skipped))
    if not records:
        raise DataError(f"{folder}: no usable pair; {left_out}")
    return DepthFiles(str(folder), tuple(records), decode, size, left_out)


def own_arrays(path: Path, size: tuple[int, int]) -> tuple[DepthArrays, list[str], SkippedSamples]:
    """The pairs of a numpy file at the model's size, the group of each, and the ones without a reading."""
    try:
        with np.load(path, allow_pickle=False) as file:
            held = {name: file[name] for name in file.files}
    except Exception as error:  # zipfile's, numpy's and the system's own
        raise DataError(
            f"cannot read {path}: {' '.join(str(error).split())}; save it with numpy.savez"
        ) from error
    rgb, depth = _checked(path, held)
    scale = _positive(held["scale"].item(), f"{path}: scale") if "scale" in held else 1.0
    pairs = [
        _arrays_pair(image, values.astype(np.float32) * np.float32(scale)).resized(*size)
        for image, values in zip(rgb, depth, strict=True)
    ]
    kept = [i for i, pair in enumerate(pairs) if pair.valid.any()]
    if not kept:
        raise DataError(f"{path}: no depth map has a reading; 0 and NaN are 'no reading'")
    groups = [str(g) for g in held["group"]] if "group" in held else [_hash(image.tobytes()) for image in rgb]
    images, depths, valid = (
        torch.stack([getattr(pairs[i], part) for i in kept]) for part in ("image", "depth", "valid")
    )
    skipped = SkippedSamples(tuple((str(i), "no reading") for i in range(len(pairs)) if i not in set(kept)))
    return DepthArrays(images, depths, valid, str(path)), [groups[i] for i in kept], skipped


def in_memory(pairs: DepthFiles) -> DepthArrays | DepthFiles:
    """The same pairs read once, where they fit; the files themselves where they do not."""
    h, w = pairs.size
    if len(pairs) * h * w * (3 + 4 + 1) > IN_MEMORY:
        return pairs
    batch = pairs.batch(torch.arange(len(pairs)))
    return DepthArrays(batch.images, batch.depth, batch.valid, pairs.name)


def three_ways(
    groups: Sequence[str], held_out: float = HELD_OUT
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(train, val, test) indices; pairs of one group stay together, and a group's side depends on its name alone.

    Where only one group is held out, val and test are the same; where there is only one at all, all three are.
    """
    train, held = split_by_hash(groups, held_out)
    if not len(held):
        return train, train, train
    test, val = split_by_hash([f"val or test: {groups[i]}" for i in held.tolist()], 0.5)
    return train, held[val] if len(val) else held, held[test]


def _decode(record: DepthRecord, per_metre: float) -> DepthPair:
    depth = read_png16(record.depth, per_metre)
    return paired(record, read_picture(record.image), depth, readings(depth, 0.0, math.inf))


def _arrays_pair(image: np.ndarray, depth: np.ndarray) -> DepthPair:
    metres = torch.from_numpy(depth)
    return DepthPair(
        torch.from_numpy(image).permute(2, 0, 1).contiguous(), metres, readings(metres, 0.0, math.inf)
    )


def _checked(path: Path, held: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """rgb and depth, of shapes and kinds that fit."""
    if missing := [name for name in ("rgb", "depth") if name not in held]:
        raise DataError(f"{path} has no array {', '.join(missing)}; it has {', '.join(held) or 'none'}")
    rgb, depth = held["rgb"], held["depth"]
    if (
        rgb.dtype != np.uint8
        or rgb.ndim != 4
        or rgb.shape[-1] != 3
        or rgb.shape[:3] != depth.shape
        or not len(rgb)
    ):
        raise DataError(
            f"{path}: rgb is {rgb.dtype} {rgb.shape}, depth {depth.shape}; "
            "they must be uint8 (n, h, w, 3) and (n, h, w)"
        )
    if depth.dtype.kind not in "fui" or (depth.dtype.kind != "f" and "scale" not in held):
        raise DataError(
            f"{path}: depth is {depth.dtype}; give floats in metres, or counts and `scale`, metres a count"
        )
    return rgb, depth


def _scale(path: Path) -> float:
    """Metres per count from depth.json."""
    try:
        values: Any = json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError as error:
        raise DataError(
            f"no {path}: it says how many metres a count of the depth maps is, like {EXAMPLE}"
        ) from error
    except (OSError, ValueError) as error:
        raise DataError(f"cannot read {path}: {error}; it should be like {EXAMPLE}") from error
    if not isinstance(values, dict) or "scale" not in values:
        raise DataError(f"{path} has no key scale; it should be like {EXAMPLE}")
    return _positive(values["scale"], f"{path}: scale")


def _positive(value: Any, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise DataError(f"{name} must be a positive number of metres, got {value!r}, as in {EXAMPLE}")
    return float(value)


def _group(image: Path, name: Path) -> str:
    """The picture's sub-folder, or its own content: copies of one picture then stay together."""
    return name.parent.as_posix() if len(name.parts) > 1 else _hash(image.read_bytes())


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
