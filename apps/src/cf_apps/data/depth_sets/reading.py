"""Single files of depth data, each read into tensors or refused with a line that names it and the remedy."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from cf_apps.data.captioned import DataError


def read_png16(path: Path, per_metre: float) -> Float[Tensor, "h w"]:
    """A 16-bit grey PNG of counts, as metres: count / per_metre. 0 stays 0, which is 'no reading'."""
    from PIL import Image

    with _named(path, "a depth map"), Image.open(path) as file:
        file.load()
        if not file.mode.startswith("I"):
            raise DataError(
                f"{path} is a depth map of mode {file.mode}; it must be a grey PNG of 16 bits, so export it again"
            )
        counts = np.asarray(file).astype(np.float32)
    return torch.from_numpy(counts / np.float32(per_metre))


def read_npy(path: Path) -> Float[Tensor, "h w"]:
    """A numpy file of one map, (h, w) or (h, w, 1), as float32."""
    with _named(path, "a numpy file"):
        values = np.load(path, allow_pickle=False)
    plane = values[..., 0] if values.ndim == 3 and values.shape[-1] == 1 else values
    if plane.ndim != 2:
        raise DataError(f"{path} holds an array of shape {values.shape}; a map is (h, w) or (h, w, 1)")
    return torch.from_numpy(plane.astype(np.float32))


def read_float32(path: Path, height: int, width: int) -> Float[Tensor, "{height} {width}"]:
    """height x width raw little-endian float32 numbers, row by row, without a header."""
    with _named(path, "a raw depth map"):
        data = path.read_bytes()
    if len(data) != 4 * height * width:
        raise DataError(
            f"{path} holds {len(data):,} bytes; {height} x {width} depths in float32 are {4 * height * width:,}, "
            "so copy it anew"
        )
    return torch.from_numpy(np.frombuffer(data, "<f4").reshape(height, width).copy())


def read_split(path: Path, at_least: int) -> Iterator[tuple[int, list[str]]]:
    """(line number, fields) of a split list, empty lines left out.

    Raises DataError for a list that is missing or empty, and for a line of fewer than `at_least` fields.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"cannot read the split list {path}: {reason}; put it there") from error
    rows = [(number, line.split()) for number, line in enumerate(lines, start=1) if line.strip()]
    if not rows:
        raise DataError(f"the split list {path} is empty; put the published one in its place")
    for number, fields in rows:
        if len(fields) < at_least:
            raise DataError(
                f"{path}, line {number}: {len(fields)} fields where {at_least} belong ({' '.join(fields)!r}); "
                "copy the list anew"
            )
        yield number, fields


def located(relative: str, roots: Sequence[Path]) -> Path:
    """The file of that relative name under the first root that has it, else under the first root.

    Some lists start their names with a slash, though they are relative.
    """
    relative = relative.lstrip("/")
    return next((root / relative for root in roots if (root / relative).exists()), roots[0] / relative)


def readings(depth: Float[Tensor, "h w"], least: float, most: float) -> Bool[Tensor, "h w"]:
    """Where least < depth < most; NaN and infinity are no readings."""
    return (depth > least) & (depth < most) & depth.isfinite()


@contextmanager
def _named(path: Path, what: str) -> Iterator[None]:
    """Whatever goes wrong while reading `path` is a DataError that names it."""
    try:
        yield
    except DataError:
        raise
    except FileNotFoundError as error:
        raise DataError(f"no such file: {path}; the data set is incomplete, so copy it anew") from error
    except Exception as error:  # decoders raise OSError, SyntaxError, ValueError, EOFError, struct.error, ...
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"cannot read {path} as {what}: {reason}; it is damaged, so copy it anew") from error
