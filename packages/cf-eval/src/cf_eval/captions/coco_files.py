"""Captions in the files COCO's caption evaluation reads, plain or .gz."""

import gzip
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ImageId = int | str


def read_candidates(path: str | Path) -> dict[ImageId, str]:
    """A list of {"image_id", "caption"}, as caption servers take, or an object {id: caption}.

    ValueError for another layout and for an image with two captions.
    """
    content = _read(path)
    if isinstance(content, Mapping):
        return dict(content)
    candidates: dict[ImageId, str] = {}
    for image, caption in _rows(content, path):
        if image in candidates:
            raise ValueError(f"{path} has two captions for image {image!r}; leave one")
        candidates[image] = caption
    return candidates


def read_references(path: str | Path) -> dict[ImageId, list[str]]:
    """COCO annotations ({"annotations": [{"image_id", "caption"}]}), their list alone, or {id: [captions]}.

    The captions of an image keep the order of the file. ValueError for another layout.
    """
    content = _read(path)
    if isinstance(content, Mapping) and "annotations" not in content:
        return {image: [rows] if isinstance(rows, str) else list(rows) for image, rows in content.items()}
    references: dict[ImageId, list[str]] = {}
    for image, caption in _rows(content["annotations"] if isinstance(content, Mapping) else content, path):
        references.setdefault(image, []).append(caption)
    return references


def _read(path: str | Path) -> Any:
    path = Path(path)
    content = path.read_bytes()
    return json.loads(gzip.decompress(content) if path.suffix == ".gz" else content)


def _rows(content: Any, path: str | Path) -> list[tuple[ImageId, str]]:
    if not isinstance(content, list):
        raise ValueError(
            f"{path} holds {type(content).__name__}; a list of image_id and caption was expected"
        )
    for i, row in enumerate(content):
        if not isinstance(row, Mapping) or not {"image_id", "caption"} <= set(row):
            raise ValueError(f"entry {i} of {path} is {row!r}; it needs an image_id and a caption")
    return [(row["image_id"], row["caption"]) for row in content]
