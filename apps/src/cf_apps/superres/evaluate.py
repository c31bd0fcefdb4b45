"""How good are the enlarged pictures? Beside the truth by PSNR and SSIM; as a set by a Fréchet distance."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from cf_eval import FID, FrechetDistance, PairedQuality, inception_features
from cf_eval.images.features import Features
from jaxtyping import UInt8
from torch import Tensor

from cf_apps.data.captioned import DataError
from cf_apps.data.picture_sets import PictureSet, open_pictures
from cf_apps.engine.commands.app import Columns, Scoring
from cf_apps.engine.errors import ConfigError
from cf_apps.engine.flow import SampleConfig
from cf_apps.engine.ranks.spread import Part, merged, own_parts
from cf_apps.superres.degrade import enlarged, shrunk, to_bytes
from cf_apps.superres.sample import BATCH, Sampler
from cf_apps.superres.sharpness import SHARPNESS, sharpness

LIMIT = 1_024  # held-out pictures that are scored
Enlarge = Callable[[Tensor, Part], Tensor]  # bytes (b, 3, h, w) of a part -> bytes (b, 3, H, W)


@dataclass(frozen=True)
class Other:
    """A further run to score beside ours, and how it draws by itself."""

    sampler: Sampler
    how: SampleConfig


@dataclass(frozen=True)
class Judges:
    """What is measured of one way to enlarge. fid: only with the real Inception weights."""

    fid: FID | None = None
    quality: PairedQuality = field(default_factory=PairedQuality)
    distance: FrechetDistance = field(default_factory=lambda: FrechetDistance(sharpness, SHARPNESS))

    def see(self, pictures: UInt8[Tensor, "b 3 H W"], truth: UInt8[Tensor, "b 3 H W"]) -> None:
        self.quality.add_batch(pictures, truth)
        self.distance.add_batch(generated=pictures, real=truth)
        if self.fid is not None:
            self.fid.add_batch(real=truth)
            self.fid.add_batch(generated=pictures)

    def of_all_ranks(self) -> "Judges":
        """What all ranks have seen, on each. PSNR and SSIM are exact sums; the moments of a distance are merged in
        another order than one process adds them. Collective within `spread_over`."""
        fid = None if self.fid is None else merged(self.fid)
        return Judges(fid, merged(self.quality), merged(self.distance))

    def table(self) -> dict[str, Any]:
        """One column: PSNR in dB and SSIM, means over the pictures; the distance; with weights the FID."""
        quality, distance = self.quality.compute(), self.distance.compute()
        found: dict[str, Any] = {"psnr": quality.values["psnr"], "ssim": quality.values["ssim"]}
        found["frechet_distance_of_sharpness"] = distance.value
        measured = {"quality": json.loads(quality.to_json()), "distance": json.loads(distance.to_json())}
        if self.fid is not None:
            result = self.fid.compute()
            found |= result.values
            measured["fid"] = json.loads(result.to_json())
        return found | {"count": quality.count, "measured_as": measured}


def score(sampler: Sampler, scoring: Scoring) -> Columns:
    """Ours and bicubic."""
    return compare(sampler, scoring, {}, None)


def compare(
    sampler: Sampler, scoring: Scoring, others: Mapping[str, Other], inception: Path | None
) -> Columns:
    """Ours, bicubic, and other runs, all from the same small pictures. inception: weights for a real FID.

    Raises ConfigError for runs of other sizes, DataError where fewer than two pictures are held out.
    """
    config = sampler.model.config
    for name, other in others.items():
        require_same_sizes(name, other.sampler, sampler)
    data = held_out(scoring, config.image_size)
    ways = {
        "ours": _drawn_by(sampler, scoring.how, scoring.seed),
        "bicubic": lambda small, part: to_bytes(enlarged(small, config.factor)),
        **{name: _drawn_by(it.sampler, it.how, scoring.seed) for name, it in others.items()},
    }
    features = None if inception is None else _inception(inception, sampler.model.device)
    judges = {name: Judges(None if features is None else FID(features)) for name in ways}
    count = min(LIMIT, len(data))
    with own_parts(count, BATCH) as parts:
        for part in parts:
            truth = data.batch(torch.tensor(part.places))
            small = shrunk(truth, config.factor)
            for name, enlarge in ways.items():
                judges[name].see(enlarge(small, part), truth)
            scoring.line.show(part.places.stop / count, f"{part.places.stop} of {count} pictures")
    return {name: judge.of_all_ranks().table() for name, judge in judges.items()}


def held_out(scoring: Scoring, image_size: int) -> PictureSet:
    """The pictures of the split that is asked for; DataError where there are fewer than two."""
    found = open_pictures(scoring.data, image_size)
    data = {"val": found.val, "test": found.test}[scoring.split]
    if len(data) < 2:
        raise DataError(
            f"{scoring.data} holds {len(data)} pictures out for {scoring.split}; a distance needs at least 2, so "
            "give more pictures"
        )
    return data


def require_same_sizes(name: str, other: Sampler, ours: Sampler) -> None:
    """Raise ConfigError unless both runs enlarge pictures of one size by one factor."""
    a, b = other.model.config, ours.model.config
    if (a.image_size, a.factor) != (b.image_size, b.factor):
        raise ConfigError(
            f"{name} enlarges {a.image_size // a.factor} px to {a.image_size}, this run "
            f"{b.image_size // b.factor} to {b.image_size}; compare runs of one size"
        )


def _drawn_by(sampler: Sampler, how: SampleConfig, seed: int) -> Enlarge:
    generator = torch.Generator().manual_seed(seed)
    return lambda small, part: sampler.enlarge_all(small, how, part.of(generator))


def _inception(path: Path, device: torch.device) -> Features:
    """Features for a real FID; ConfigError where the weights are not the published ones."""
    try:
        return inception_features(path, protocol="pytorch-fid", device=str(device))
    except (OSError, ValueError) as error:
        raise ConfigError(f"cannot use {path} for an FID: {error}") from error
