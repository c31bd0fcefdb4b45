"""What the frozen parts of a text-to-image model make of raw pairs: the content of one shard."""

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import torch
from cf_encoders import ImageCodec, LanguageModel
from cf_encoders.language_models.fingerprint import fingerprint as fingerprint_of
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from cf_apps.data.captioned import DataError, unit_hash
from cf_apps.data.pairs import UnusablePair, UsablePair, decoded
from cf_apps.data.picture_files import THREADS
from cf_apps.data.shards.content import Content, Features, Ragged, packed_pictures
from cf_apps.data.streams.raw import RawPair
from cf_apps.engine.codecs import CodecConfig, build_codec
from cf_apps.engine.errors import ConfigError
from cf_apps.t2i.config import T2IConfig
from cf_apps.t2i.model import frozen_language, padding, require_fit, require_paths

STORES_WORDS = "vocab"  # its features are learned, so shards hold the captions alone


@dataclass(frozen=True)
class FrozenParts:
    """The language model and the codec of a config, on their device. language: None where it is trained.

    mirrored: also x_1 of every picture's mirror image. pictures: keep the pictures beside their latents.
    """

    config: T2IConfig
    language: LanguageModel | None
    codec: ImageCodec
    device: torch.device
    mirrored: bool
    pictures: bool

    @classmethod
    def load(cls, config: T2IConfig, device: torch.device, mirrored: bool, pictures: bool) -> "FrozenParts":
        """Raises ConfigError where a part cannot be loaded or does not fit."""
        trained = config.language.name == STORES_WORDS
        require_paths(config)
        codec = build_codec(config.codec, device)
        language = None if trained else frozen_language(config.language, device)
        require_fit(config, language, codec)
        return cls(config, language, codec, device, mirrored, pictures)

    def describe_language(self) -> dict[str, Any]:
        """Its config, what becomes of padding, and a fingerprint of its weights."""
        found = vars(self.config.language)
        if self.language is None:
            return {**found, "padding": None, "fingerprint": None}
        fingerprint = getattr(self.language, "fingerprint", None)  # isinstance would compute it, too
        if fingerprint is None:
            raise ConfigError(
                f"language model {self.config.language.name} is not frozen; its features cannot be kept"
            )
        return {**found, "padding": padding(self.config), "fingerprint": fingerprint}

    def describe_codec(self) -> dict[str, Any]:
        """Its config, and a fingerprint of its weights."""
        return {**vars(self.config.codec), "fingerprint": codec_fingerprint(self.codec, self.config.codec)}

    def content(self, pairs: Iterable[RawPair], batch_size: int, show: Callable[[int], None]) -> "Block":
        """What they make of some pairs, `batch_size` at a time; `show` hears how many so far. Raises DataError."""
        pairs, block, done = iter(pairs), _Growing(), 0
        with ThreadPoolExecutor(THREADS) as threads:
            while some := list(islice(pairs, batch_size)):
                self._add(block, list(zip(some, threads.map(self._decoded, some), strict=True)))
                done += len(some)
                show(done)
        return block.closed()

    def _decoded(self, pair: RawPair) -> UsablePair | str:
        try:
            return decoded(pair, self.config.image_size)
        except UnusablePair as error:
            return str(error)

    @torch.no_grad()
    def _add(self, block: "_Growing", pairs: Sequence[tuple[RawPair, UsablePair | str]]) -> None:
        block.skipped += [(pair.name, found) for pair, found in pairs if isinstance(found, str)]
        usable = [(pair, found) for pair, found in pairs if isinstance(found, UsablePair)]
        if not usable:
            return
        images = torch.stack([torch.from_numpy(found.image) for _, found in usable])
        block.names += [_utf8(pair.name) for pair, _ in usable]
        block.draws += [unit_hash(found.key) for _, found in usable]
        block.counts += [len(pair.captions) for pair, _ in usable]
        captions = [text for pair, _ in usable for text in pair.captions]
        block.captions += [_utf8(text) for text in captions]
        block.latents.append(self._encoded(images))
        if self.mirrored:
            block.flipped.append(self._encoded(images.flip(-1)))
        if self.language is not None:
            block.cut += len(self.language.too_long(captions))
            block.features.append(Features.packed(self.language(captions), padding(self.config)))
        if self.pictures:
            block.pictures.append(packed_pictures(list(images)))

    def _encoded(self, images: UInt8[Tensor, "b 3 s s"]) -> Float[Tensor, "b c h w"]:
        latents = self.codec.encode(images.to(self.device).float() / 255).half().cpu()
        if not latents.isfinite().all():
            raise DataError(
                f"codec {self.config.codec.name} gives latents beyond half precision; check its weights"
            )
        return latents


@dataclass(frozen=True)
class Block:
    """content: of the pairs that could be used, None if there were none. skipped: (name, reason) of the others.

    cut: captions longer than the language model reads.
    """

    content: Content | None
    skipped: list[tuple[str, str]]
    cut: int


@dataclass
class _Growing:
    """A block while it is filled."""

    names: list[bytes] = field(default_factory=list)
    draws: list[float] = field(default_factory=list)
    captions: list[bytes] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)
    latents: list[Tensor] = field(default_factory=list)
    flipped: list[Tensor] = field(default_factory=list)
    features: list[Features] = field(default_factory=list)
    pictures: list[Ragged] = field(default_factory=list)
    skipped: list[tuple[str, str]] = field(default_factory=list)
    cut: int = 0

    def closed(self) -> Block:
        return Block(self._content() if self.names else None, self.skipped, self.cut)

    def _content(self) -> Content:
        return Content(
            names=Ragged.of_bytes(self.names),
            draws=torch.tensor(self.draws, dtype=torch.float64),
            captions=Ragged.of_bytes(self.captions),
            caption_ends=torch.tensor(self.counts).cumsum(0),
            latents=torch.cat(self.latents),
            flipped=torch.cat(self.flipped) if self.flipped else None,
            features=Features.joined(self.features) if self.features else None,
            pictures=Ragged.joined(self.pictures) if self.pictures else None,
        )


def codec_fingerprint(codec: ImageCodec, config: CodecConfig) -> str:
    """Changes whenever the latents would; where its weights lie does not matter."""
    settings = sorted((name, value) for name, value in vars(config).items() if name != "path")
    return fingerprint_of(codec if isinstance(codec, nn.Module) else nn.Module(), repr(settings))


def _utf8(text: str) -> bytes:
    """Half an emoji, as a broken escape brings it, becomes a question mark."""
    return text.encode("utf-8", "replace")
