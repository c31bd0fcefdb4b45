"""Reading shards: mapped into memory, so that only the samples of a batch are read."""

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

import torch
from cf_encoders import TextFeatures
from jaxtyping import Float, Int64, UInt8
from safetensors import SafetensorError, safe_open
from torch import Tensor

from cf_apps.data.captioned import DataError
from cf_apps.data.shards.content import Content, token_mask
from cf_apps.data.shards.order import WINDOW, block_order, uniforms
from cf_apps.data.shards.records import MANIFEST, PLAN, Manifest, read, shards_folder
from cf_apps.data.square_image import rgb

Side = Literal["train", "val"]
AGAIN = "run the same `crossflow t2i extract` again with --verify, which makes damaged shards anew"


@dataclass(frozen=True)
class StoredBatch:
    """Some samples: a phrasing of each, x_1, and where the set has them, the phrasing's features and the picture.

    text: in half precision, as it was kept; the mask is False on padding.
    """

    captions: list[str]
    latents: Float[Tensor, "b c h w"]
    text: TextFeatures | None
    pictures: UInt8[Tensor, "b 3 s s"] | None


@dataclass(frozen=True)
class Shards:
    """One side of a finished set."""

    folder: Path
    manifest: Manifest
    side: Side = "train"

    @property
    def counts(self) -> tuple[int, ...]:
        """Samples of this side in each shard."""
        train = self.manifest.train
        if self.side == "train":
            return train
        return tuple(shard.samples - kept for shard, kept in zip(self.manifest.shards, train, strict=True))

    def __len__(self) -> int:
        return sum(self.counts)

    def stream(self, first: int, size: int, seed: int, window: int = WINDOW) -> StoredBatch:
        """Places first, ..., first + size - 1 of the endless shuffled stream (`block_order`).

        Each with a phrasing drawn for its place, and mirrored at even odds where the set has mirror images.
        """
        shards, samples = block_order(self.counts, first, size, seed, window)
        phrasings = uniforms(first, size, seed, 0)
        mirrored = (
            uniforms(first, size, seed, 1) < 0.5 if self.manifest.plan.flip else torch.zeros(size).bool()
        )
        return self._batch(shards, samples, phrasings, mirrored)

    def names(self, first: int, size: int, seed: int, window: int = WINDOW) -> list[str]:
        """What the source calls the samples of `stream`."""
        found = []
        for number, sample in zip(*block_order(self.counts, first, size, seed, window), strict=True):
            shard = self._shard(int(number))
            found.append(shard.names.row_bytes(int(self._samples(shard)[sample])).decode())
        return found

    def captions(self, most: int) -> list[str]:
        """All phrasings of the first samples of this side, `most` samples at the most."""
        found: list[str] = []
        for number, count in enumerate(self.counts):
            if most <= 0:
                break
            shard = self._shard(number)
            for sample in self._samples(shard)[: min(most, count)].tolist():
                found += [
                    shard.text(k) for k in range(shard.caption(sample, 0.0), int(shard.caption_ends[sample]))
                ]
            most -= count
        return found

    def _batch(
        self, shards: Int64[Tensor, "b"], samples: Int64[Tensor, "b"], phrasings: Tensor, mirrored: Tensor
    ) -> StoredBatch:
        plan, size = self.manifest.plan, len(shards)
        captions = [""] * size
        latents = torch.empty(size, *plan.latent)
        tokens = torch.empty(size, plan.max_tokens, plan.width, dtype=torch.float16) if plan.width else None
        lengths = torch.zeros(size, dtype=torch.int64)
        pictures: list[Tensor] = [torch.empty(0)] * size
        for number in shards.unique().tolist():
            here = (shards == number).nonzero().flatten()
            shard = self._shard(number)
            rows = self._samples(shard)[samples[here]]
            chosen = [
                shard.caption(row, u) for row, u in zip(rows.tolist(), phrasings[here].tolist(), strict=True)
            ]
            latents[here] = _latents(shard, rows, mirrored[here])
            if tokens is not None and shard.features is not None:
                tokens[here], lengths[here] = shard.features.unpacked(chosen, plan.max_tokens)
            for place, row, caption, flip in zip(
                here.tolist(), rows.tolist(), chosen, mirrored[here].tolist(), strict=True
            ):
                captions[place] = shard.text(caption)
                if shard.pictures is not None:
                    picture = torch.from_numpy(rgb(shard.pictures.row_bytes(row)))
                    pictures[place] = picture.flip(-1) if flip else picture
        text = None if tokens is None else TextFeatures(tokens, token_mask(lengths, plan.max_tokens))
        return StoredBatch(captions, latents, text, torch.stack(pictures) if plan.pictures else None)

    def _shard(self, number: int) -> Content:
        record = self.manifest.shards[number]
        return open_shard(shards_folder(self.folder) / f"{record.name}.safetensors", record.sha256)

    def _samples(self, shard: Content) -> Int64[Tensor, "m"]:
        """Which samples of a shard are of this side."""
        held_out = shard.draws < self.manifest.below
        return (held_out if self.side == "val" else ~held_out).nonzero().flatten()


def _latents(shard: Content, rows: Int64[Tensor, "b"], mirrored: Tensor) -> Float[Tensor, "b c h w"]:
    latents = shard.latents[rows].float()
    if shard.flipped is not None and mirrored.any():
        latents[mirrored] = shard.flipped[rows[mirrored]].float()
    return latents


@lru_cache(maxsize=4 * WINDOW)  # mapped, not read: what is not used stays on the disk
def open_shard(path: Path, sha256: str) -> Content:
    """A shard whose tensors are read when they are used. sha256: tells it from one made anew; it is not checked here.

    Raises DataError naming a file that is no shard.
    """
    try:
        with safe_open(path, framework="pt") as file:
            return Content.of({name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118
    except (OSError, SafetensorError, KeyError) as error:
        raise DataError(f"{path} is damaged ({' '.join(str(error).split())}); {AGAIN}") from error


def open_shards(folder: Path) -> Shards:
    """The training side of a finished set. Every file must be there and as large as it was.

    Raises DataError naming the first that is not, and for a set that is not finished.
    """
    if not (folder / MANIFEST).is_file() and (folder / PLAN).is_file():
        raise DataError(
            f"{folder} is not finished: it has no {MANIFEST}; run the same `crossflow t2i extract` again"
        )
    manifest = read(folder / MANIFEST, Manifest)
    for record in manifest.shards:
        path = shards_folder(folder) / f"{record.name}.safetensors"
        size = path.stat().st_size if path.is_file() else None
        if size != record.bytes:
            found = "is missing" if size is None else f"has {size} bytes, it was written with {record.bytes}"
            raise DataError(f"{path} {found}; {AGAIN}")
    found = (sum(record.samples for record in manifest.shards), len(manifest.train))
    if found != (manifest.samples, len(manifest.shards)):
        raise DataError(
            f"{folder / MANIFEST} counts {manifest.samples} samples, its shards hold {found[0]}; {AGAIN}"
        )
    return Shards(folder, manifest)


def damaged(folder: Path, name: str, sha256: str) -> str | None:
    """What is wrong with a shard when its whole file is read; None where nothing is."""
    path = shards_folder(folder) / f"{name}.safetensors"
    try:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        return error.strerror or str(error)
    return None if found == sha256 else f"SHA-256 is {found[:12]}, it was {sha256[:12]}"
