"""Pictures that know their own seed: the same in any order and any batch, one file each, and a list of them all.

FOLDER/  00000-a-red-circle-seed3-0.png  00000-a-red-circle-seed3-1.png  00001-...  manifest.jsonl
"""

import json
import re
import unicodedata
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from cf_apps.engine.errors import RunError
from cf_apps.engine.files import write_text
from cf_apps.engine.flow import SampleConfig
from cf_apps.engine.seeds import step_generator
from cf_apps.engine.watching.progress import Progress
from cf_apps.engine.watching.render import save_png, to_pil
from cf_apps.t2i.sample import Sampler

MANIFEST = "manifest.jsonl"
LONGEST = 60  # characters of a caption in a file name; every file system takes 255 bytes


@dataclass(frozen=True)
class Picture:
    """One to draw: `number` of the pictures of `caption` by `seed`. index: the caption's place, for the file name."""

    index: int
    caption: str
    seed: int
    number: int

    def generator(self) -> torch.Generator:
        """What x_0 is drawn from: a function of seed, caption and number, and of nothing else."""
        words = zlib.crc32(self.caption.encode("utf-8", "surrogatepass"))
        return step_generator("cpu", self.seed, self.number, words)

    @property
    def file(self) -> str:
        """`00012-a-red-circle-seed3-1.png`: ASCII, whatever the script, as some file systems change other letters."""
        plain = unicodedata.normalize("NFKD", self.caption[: 4 * LONGEST]).encode("ascii", "ignore").decode()
        words = re.sub(r"[^a-z0-9]+", "-", plain.lower()).strip("-")
        if len(words) > LONGEST:
            words = words[: LONGEST + 1].rpartition("-")[0] or words[:LONGEST]
        return "-".join(
            [f"{self.index:05d}", *([words] if words else []), f"seed{self.seed}-{self.number}.png"]
        )


def wanted(captions: Sequence[str], count: int, seed: int) -> list[Picture]:
    """`count` pictures of each caption, caption by caption."""
    return [Picture(index, text, seed, k) for index, text in enumerate(captions) for k in range(count)]


def drawn(
    sampler: Sampler, pictures: Sequence[Picture], how: SampleConfig, batch_size: int, line: Progress
) -> Iterator[tuple[Picture, Float[Tensor, "3 H W"]]]:
    """The pictures in [0, 1], one after the other, drawn `batch_size` at a time."""
    for start in range(0, len(pictures), batch_size):
        batch = pictures[start : start + batch_size]
        images = sampler.draw([p.caption for p in batch], how, [p.generator() for p in batch], batch_size)
        done = start + len(batch)
        line.show(done / len(pictures), f"{done} of {len(pictures)} pictures")
        yield from zip(batch, images, strict=True)


def write_pictures(
    folder: Path, images: Iterable[tuple[Picture, Float[Tensor, "3 H W"]]], record: Mapping[str, Any]
) -> Path:
    """Write each picture as it comes and, after it, its line in FOLDER/manifest.jsonl; returns the manifest.

    record: what is said of every picture beside its file, caption, seed and number. Pictures that the folder holds
    from before, and their lines, stay, unless they have the same name. Raises RunError where it cannot be written.
    """
    manifest = folder / MANIFEST
    earlier = _lines(manifest)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with manifest.open("a", encoding="utf-8") as file:
            for picture, image in images:
                save_png(to_pil(image), folder / picture.file)
                own = {"file": picture.file, "caption": picture.caption}
                own |= {"seed": picture.seed, "number": picture.number}
                file.write(json.dumps(own | dict(record), ensure_ascii=False) + "\n")
                file.flush()  # whoever stops it has a list of what is there
        if earlier:  # of two lines about a file the later one is true
            write_text(manifest, "".join((earlier | _lines(manifest)).values()))
    except OSError as error:
        raise RunError(f"cannot write {folder}: {error.strerror or error}; choose another --out") from error
    return manifest


def _lines(manifest: Path) -> dict[str, str]:
    """The lines of an earlier manifest by the file they speak of."""
    if not manifest.exists():
        return {}
    try:
        lines = [line for line in manifest.read_text(encoding="utf-8").split("\n") if line]
        return {json.loads(line)["file"]: f"{line}\n" for line in lines}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(
            f"cannot read {manifest} ({error}); choose another --out, or move that file away"
        ) from error
