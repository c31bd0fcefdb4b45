"""Make cf_apps' bundled set from a folder with `captions.json` and `images_64.npz`.

    python tools/make_emoji_set.py FOLDER apps/src/cf_apps/assets/emoji

captions.json: a list of {style, unified, label, tags, subcategory}; images_64.npz: `images`, uint8
(n, 64, 64, 3), on white, in the same order. Only the Noto pictures (Apache-2.0) are taken. Writes
sprite.webp (lossless, row by row) and captions.json (one object per picture, in the same order).
"""

import argparse
import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from emoji_captions import captions, telling_tags
from PIL import Image

COLUMNS = 44  # the sprite is about square; WebP ends at 16,383 pixels
SAME_PICTURE = 4.0  # rms grey levels at 16 x 16: a flag with two names is at 0, a man and a woman at 5
WRONG_PICTURE = {"flag: Sark"}  # shows the flag of Saudi Arabia

GENDER = re.compile(r"\b(wo)?m[ae]n\b|\b(person|people|women|mer(?=person)|boy|girl|male|female)\b")
SAME_THING = (
    (re.compile(r"^(family|kiss|couple with heart): .*"), r"\1"),
    (re.compile(r": facing right"), ""),
    (re.compile(r"^(merman|mermaid|merperson)$"), "merperson"),
    (re.compile(r"^(prince|princess)$"), "prince"),
    (re.compile(r"^(Santa|Mrs\.|Mx) Claus$"), "Claus"),
    (re.compile(r"^older person$"), "old"),
)


def base_label(label: str) -> str:
    """The label without gender or direction: their pictures are too alike to be on both sides of a split."""
    for pattern, base in SAME_THING:
        label = pattern.sub(base, label)
    return " ".join(GENDER.sub("", label).replace(":", " ").split()) or "person"


def groups(labels: list[str], images: np.ndarray) -> list[str]:
    """One key per picture; equal for equal base labels and for (nearly) equal pictures."""
    keys = [base_label(label) for label in labels]
    small = images.reshape(-1, 16, 4, 16, 4, 3).mean((2, 4)).reshape(len(images), -1)
    for i, picture in enumerate(small):
        for j in np.flatnonzero(np.sqrt(((small[:i] - picture) ** 2).mean(1)) < SAME_PICTURE):
            merged, kept = keys[i], keys[j]
            keys = [kept if key == merged else key for key in keys]
    return keys


def sprite(images: np.ndarray) -> Image.Image:
    """The pictures row by row on one white sheet."""
    n, size = len(images), images.shape[1]
    rows = -(-n // COLUMNS)
    sheet = np.full((rows * COLUMNS, size, size, 3), 255, np.uint8)
    sheet[:n] = images
    sheet = sheet.reshape(rows, COLUMNS, size, size, 3).transpose(0, 2, 1, 3, 4)
    return Image.fromarray(sheet.reshape(rows * size, COLUMNS * size, 3))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    arguments = parser.parse_args()

    rows: list[dict[str, Any]] = json.loads((arguments.source / "captions.json").read_text(encoding="utf-8"))
    taken = [i for i, r in enumerate(rows) if r["style"] == "noto" and r["label"] not in WRONG_PICTURE]
    images = np.load(arguments.source / "images_64.npz")["images"][taken]
    rows = [rows[i] for i in taken]

    frequency = Counter(tag for row in rows for tag in row["tags"])
    keys = groups([row["label"] for row in rows], images)
    records = [
        {
            "code": row["unified"],
            "group": key,
            "captions": captions(
                row["label"], row["subcategory"], telling_tags(row["label"], row["tags"], frequency)
            ),
        }
        for row, key in zip(rows, keys, strict=True)
    ]
    arguments.target.mkdir(parents=True, exist_ok=True)
    sprite(images).save(arguments.target / "sprite.webp", lossless=True, quality=100, method=6, exact=True)
    lines = ",\n".join(json.dumps(record, ensure_ascii=False) for record in records)
    (arguments.target / "captions.json").write_text(f"[\n{lines}\n]\n", encoding="utf-8")
    print(f"{len(records)} pictures in {len(set(keys))} groups")


if __name__ == "__main__":
    main()
