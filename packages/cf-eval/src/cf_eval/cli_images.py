"""`cf-eval fid`, `fd`, `kid`, `prdc`, `cmmd`: two folders of pictures through one network."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import tyro

from cf_eval.cli_report import Output, Place, one_of, require_writable, tracked
from cf_eval.frechet import frechet_distance
from cf_eval.images.cmmd import CMMD
from cf_eval.images.features import (
    Features,
    clip_features,
    dinov2_features,
    efficientnet_lite0_features,
    inception_features,
)
from cf_eval.images.fid import FID
from cf_eval.images.kid import KID, Subsets
from cf_eval.images.prdc import PRDC, TIES, Neighbourhood
from cf_eval.images.protocols import INCEPTION_PROTOCOLS, inception_protocol
from cf_eval.images.read import picture_files
from cf_eval.images.two_sets import TwoSets
from cf_eval.images.weights import file_sha256
from cf_eval.moments import Moments
from cf_eval.result import Result

LEAST = 2  # samples of a set that has a covariance


@dataclass(frozen=True)
class Sets:
    """The two sets of pictures, and how they are read."""

    real: Annotated[Place, tyro.conf.arg(metavar="REAL")]
    """Folder of real pictures."""
    generated: Annotated[Place, tyro.conf.arg(metavar="GENERATED")]
    """Folder of generated pictures."""
    batch_size: int = 32
    """Pictures the network sees at a time."""

    def files(self, least: int, names: Sequence[str] = ("real", "generated")) -> dict[str, list[Path]]:
        """The pictures of the named sets. Raises ValueError for a set of fewer than `least`."""
        if self.batch_size < 1:
            raise ValueError(f"--batch-size must be at least 1, got {self.batch_size}")
        return {name: pictures(name, getattr(self, name), least) for name in names}


@dataclass(frozen=True)
class Network:
    """The network, and the file or folder its weights are in; nothing is downloaded."""

    features: Annotated[str, one_of(("inception", "efficientnet-lite0", "clip", "clip-cmmd", "dinov2"))] = (
        "efficientnet-lite0"
    )
    weights: Path | None = None
    """File of the weights; of clip, clip-cmmd and dinov2 the folder that save_pretrained wrote."""
    protocol: Annotated[str, one_of(tuple(INCEPTION_PROTOCOLS))] = "pytorch-fid"
    device: str = "cpu"

    def load(self) -> Features:
        """Raises ValueError for an unknown name, without weights, or with other weights than the network's."""
        if self.features not in FEATURES:
            raise ValueError(f"unknown features {self.features!r}; known: {', '.join(FEATURES)}")
        inception_protocol(self.protocol)
        if self.weights is None:
            raise ValueError(f"{self.features} needs its weights; pass --weights PATH")
        return FEATURES[self.features](self.weights, self)


FEATURES: Mapping[str, Callable[[Path, Network], Features]] = {
    "inception": lambda path, of: inception_features(path, of.protocol, device=of.device),
    "efficientnet-lite0": lambda path, of: efficientnet_lite0_features(path, of.device),
    "clip": lambda path, of: clip_features(path, "pil", of.device),
    "clip-cmmd": lambda path, of: clip_features(path, "cmmd", of.device),
    "dinov2": lambda path, of: dinov2_features(path, of.device),
}


@dataclass(frozen=True)
class Fid:
    """FID. REAL may be an npz with mu and sigma; if both are, neither pictures nor weights are needed."""

    sets: Sets
    weights: Path | None = None
    """pt_inception-2015-12-05-6726825d.pth."""
    protocol: Annotated[str, one_of(tuple(INCEPTION_PROTOCOLS))] = "pytorch-fid"
    device: str = "cpu"
    save_real: Path | None = None
    """Write mean and covariance of the real set to this npz."""
    generated_count: int | None = None
    """How many samples GENERATED is of, where it is an npz that does not say."""
    output: Output = field(default_factory=Output)

    def run(self) -> None:
        self.output.check()
        if is_statistics(self.sets.generated):
            self.output.show(of_statistics(self.sets.real, self.sets.generated, self.generated_count))
            return
        network = Network("inception", self.weights, self.protocol, self.device)
        self.output.show(frechet(self.sets, network, self.save_real))


@dataclass(frozen=True)
class Fd:
    """Fréchet distance in the space of any network. REAL may be an npz that --save-real wrote."""

    sets: Sets
    network: Network = field(default_factory=Network)
    save_real: Path | None = None
    """Write mean and covariance of the real set to this npz."""
    output: Output = field(default_factory=Output)

    def run(self) -> None:
        self.output.check()
        self.output.show(frechet(self.sets, self.network, self.save_real))


@dataclass(frozen=True)
class Kid:
    """Kernel distance, called KID with FID's network: the mean over random subsets, or of the whole sets."""

    sets: Sets
    network: Network = field(default_factory=Network)
    subsets: int = 100
    """0 takes the whole sets: no seed moves that value."""
    subset_size: int = 1000
    seed: int = 2020
    output: Output = field(default_factory=Output)

    def run(self) -> None:
        self.output.check()
        subsets = Subsets(self.subsets, self.subset_size, self.seed) if self.subsets else None
        files = self.sets.files(self.subset_size if self.subsets else LEAST)
        self.output.show(fill(KID(self.network.load(), subsets), files, self.sets.batch_size).compute())


@dataclass(frozen=True)
class Prdc:
    """Precision, recall, density and coverage by nearest neighbours."""

    sets: Sets
    network: Network = field(default_factory=Network)
    k: int = 3
    """Whose distance is the radius of a ball."""
    ties: Annotated[str, one_of(tuple(TIES))] = "inside"
    output: Output = field(default_factory=Output)

    def run(self) -> None:
        self.output.check()
        neighbourhood = Neighbourhood(self.k, self.ties)
        files = self.sets.files(self.k + 1)
        metric = PRDC(self.network.load(), neighbourhood)
        self.output.show(fill(metric, files, self.sets.batch_size).compute())


@dataclass(frozen=True)
class Cmmd:
    """CMMD of CLIP embeddings; the paper's are of ViT-L/14@336."""

    sets: Sets
    weights: Path | None = None
    """Folder of a CLIP that save_pretrained wrote."""
    device: str = "cpu"
    output: Output = field(default_factory=Output)

    def run(self) -> None:
        self.output.check()
        files = self.sets.files(LEAST)
        metric = CMMD(Network("clip-cmmd", self.weights, device=self.device).load())
        self.output.show(fill(metric, files, self.sets.batch_size).compute())


def frechet(sets: Sets, network: Network, save_real: Path | None) -> Result:
    """Of two folders, or of statistics and a folder."""
    require_writable(save_real)
    if save_real is not None and save_real.suffix != ".npz":
        raise ValueError(
            f"--save-real writes an npz, by which it is known later; name it {save_real.name}.npz"
        )
    from_file = is_statistics(sets.real)
    if from_file and save_real is not None:
        raise ValueError(f"{sets.real} is the statistics already; leave --save-real out")
    if is_statistics(sets.generated):
        raise ValueError(
            f"{sets.generated} is statistics; give pictures as GENERATED, or use cf-eval fid for two npz"
        )
    files = sets.files(LEAST, ("generated",) if from_file else ("real", "generated"))
    metric = FID(network.load())
    if from_file:
        metric.load_reference(sets.real)
    fill(metric, files, sets.batch_size)
    if save_real is not None:
        metric.save_reference(save_real)
    return metric.compute()


def of_statistics(real: Path, generated: Path, count: int | None) -> Result:
    """Of two npz files. Whose features they are of the files do not say, so it is not called FID."""
    if not is_statistics(real):
        raise ValueError(
            f"{generated} is statistics and {real} is not; give the statistics first, then the pictures"
        )
    stored = Moments.stored_count(generated) if count is None else count
    if stored is None:
        raise ValueError(f"{generated} does not say how many samples it is of; pass --generated-count N")
    known = Moments.stored_count(real)
    # for a distance any n of at least 2 gives the file's covariance back
    a, b = Moments.load(real, None if known else LEAST), Moments.load(generated, stored)
    return Result(
        metric="frechet_distance",
        values={"frechet_distance": frechet_distance(a, b)},
        protocol="mean and covariance of two files, whose features and resize they do not name",
        count=stored,
        details={
            "real_count": known,
            "width": len(a.mean),
            "real": {"file": real.name, "sha256": file_sha256(real)},
            "generated": {"file": generated.name, "sha256": file_sha256(generated)},
        },
    )


def fill(metric: TwoSets[Any], files: Mapping[str, list[Path]], batch_size: int) -> TwoSets[Any]:
    """Stream both sets through the metric's network."""
    for part in tracked(files.get("real", []), "real pictures", batch_size):
        metric.add_batch(real=list(part), batch_size=batch_size)
    for part in tracked(files["generated"], "generated pictures", batch_size):
        metric.add_batch(generated=list(part), batch_size=batch_size)
    return metric


def pictures(name: str, folder: Path, least: int) -> list[Path]:
    """The pictures of a folder. Raises ValueError naming the set when they are fewer than `least`."""
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is no folder of {name} pictures")
    found = picture_files(folder)
    if len(found) < least:
        raise ValueError(f"the {name} set, {folder}, has {len(found)} pictures; this needs at least {least}")
    return found


def is_statistics(path: Path) -> bool:
    """Whether a set is given as an npz with mu and sigma. Raises FileNotFoundError where it is nothing at all."""
    if not path.exists():
        raise FileNotFoundError(
            f"{path} does not exist; give a folder of pictures, or an npz with mu and sigma"
        )
    return path.suffix == ".npz"
