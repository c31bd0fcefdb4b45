"""Depth data by name: `shapes`, a public set and its folder, or pairs of the user's own."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from cf_eval.depth.alignment import Alignment
from cf_eval.depth.protocols import DepthProtocol, depth_protocol
from cf_eval.depth.tables import TABLE_5, TABLE_8

from cf_apps.data.captioned import DataError, split_by_hash
from cf_apps.data.depth_pairs import DepthPairs, Foreground, Mirrored, ShapesDepth
from cf_apps.data.depth_sets.files import DepthFiles
from cf_apps.data.depth_sets.hypersim import LEAST, MOST, hypersim
from cf_apps.data.depth_sets.kitti import TEST_LIST as KITTI_TEST
from cf_apps.data.depth_sets.kitti import kitti
from cf_apps.data.depth_sets.mixed import Mixed
from cf_apps.data.depth_sets.nyu import TEST_LIST as NYU_TEST
from cf_apps.data.depth_sets.nyu import nyu
from cf_apps.data.depth_sets.own import in_memory, own_arrays, own_folder, three_ways
from cf_apps.data.depth_sets.virtual_kitti import virtual_kitti
from cf_apps.data.depth_sets.zero_shot import zero_shot_tests
from cf_apps.data.pairs import SkippedSamples

SHAPES = "shapes"
TRAIN_SCENES, HELD_OUT_SCENES = 30_000, 512
_VAL_SEED, _TEST_SEED = 1_000_000, 2_000_000  # held-out scenes; training seeds are small
VAL_FRACTION = 0.02  # of the drives or scenes of a public training set
ZERO_SHOT_SHARES = (9, 1)  # Hypersim and Virtual KITTI, Marigold's

OBJECTS = DepthProtocol(0.01, 2.0, mask="given")
"""captioned_shapes: the pixels that show an object; the caps are far outside what the scenes hold."""
OWN = DepthProtocol(1e-3, 1e3, mask="given")
"""Your own pairs: every reading, in metres, no crop."""
ROOMS = DepthProtocol(LEAST, MOST, alignment=Alignment("least_squares_depth"))
"""Hypersim, which no paper scores: to choose by while training for table 8."""


@dataclass(frozen=True)
class Scored:
    """Pairs to be scored, by a protocol of cf-eval."""

    pairs: DepthPairs
    protocol: DepthProtocol


@dataclass(frozen=True)
class DepthSource:
    """A depth data set as training and evaluation see it. val: to choose by; test: to report, set by set."""

    name: str
    train: DepthPairs
    val: Mapping[str, Scored]
    test: Mapping[str, Scored]
    skipped: SkippedSamples = field(default_factory=SkippedSamples)


def open_depth(name: str, size: tuple[int, int], seed: int = 0) -> DepthSource:
    """Open depth data at (h, w) = size; pictures of other proportions are stretched.

        shapes              captioned_shapes, drawn from `seed`
        kitti:FOLDER        KITTI, Eigen split               (CrossFlow table 5)
        nyu:FOLDER          NYU Depth v2                     (table 5)
        zero-shot:FOLDER    hypersim/, vkitti/ and the test sets' folders below FOLDER   (table 8)
        FOLDER, FILE.npz    pairs of one's own, see `own`

    Raises DataError in one line when there is no such thing or nothing in it can be used.
    """
    if name == SHAPES:
        return _shapes(size, seed)
    kind, colon, folder = name.partition(":")
    if colon and kind in PUBLIC:
        return PUBLIC[kind](name, Path(folder), size)
    path = Path(name)
    if path.suffix == ".npz" and path.is_file():
        return _own_arrays(path, size)
    if path.is_dir():
        return _own_folder(path, size)
    known = ", ".join((SHAPES, *(f"{public}:FOLDER" for public in PUBLIC)))
    raise DataError(f"no such depth data: {name}; name {known}, a folder of pairs or a .npz file")


def _shapes(size: tuple[int, int], seed: int) -> DepthSource:
    height, width = size
    if height != width:
        raise DataError(f"captioned_shapes is square, got {height} x {width}; give one size for both sides")

    def held_out(salt: int) -> dict[str, Scored]:
        return {SHAPES: Scored(Foreground(ShapesDepth.drawn(HELD_OUT_SCENES, height, seed + salt)), OBJECTS)}

    train = ShapesDepth.drawn(TRAIN_SCENES, height, seed)
    return DepthSource(SHAPES, train, held_out(_VAL_SEED), held_out(_TEST_SEED))


def _own_folder(path: Path, size: tuple[int, int]) -> DepthSource:
    files = own_folder(path, size)
    train, val, test = three_ways([record.group for record in files.records])
    val_files, test_files = files.subset(val, f"{path} (val)"), files.subset(test, f"{path} (test)")
    return DepthSource(
        str(path.resolve()),
        Mirrored(in_memory(files.subset(train, f"{path} (train)"))),
        {"val": Scored(val_files, OWN)},
        {"test": Scored(test_files, OWN)},
        files.skipped,
    )


def _own_arrays(path: Path, size: tuple[int, int]) -> DepthSource:
    arrays, groups, skipped = own_arrays(path, size)
    train, val, test = three_ways(groups)
    return DepthSource(
        str(path.resolve()),
        Mirrored(arrays.subset(train, f"{path} (train)")),
        {"val": Scored(arrays.subset(val, f"{path} (val)"), OWN)},
        {"test": Scored(arrays.subset(test, f"{path} (test)"), OWN)},
        skipped,
    )


def _table_5(
    name: str, folder: Path, size: tuple[int, int], load: Callable[..., DepthFiles], test_list: str, key: str
) -> DepthSource:
    """Training pictures without those of a few drives or scenes, which are val; the published test list."""
    rule = depth_protocol(TABLE_5[key])
    everything, test = load(folder, size=size), load(folder, test_list, size=size)
    train, val = split_by_hash([record.group for record in everything.records], VAL_FRACTION)
    return DepthSource(
        f"{name.partition(':')[0]}:{folder.resolve()}",
        Mirrored(everything.subset(train, f"{key} (train)")),
        {key: Scored(everything.subset(val, f"{key} (val)"), rule)},
        {key: Scored(test, rule)},
        SkippedSamples(everything.skipped.samples + test.skipped.samples),
    )


def _zero_shot(name: str, folder: Path, size: tuple[int, int]) -> DepthSource:
    rooms, streets = hypersim(folder / "hypersim", size=size), virtual_kitti(folder / "vkitti", size=size)
    tests = zero_shot_tests(folder, size)
    scored = {key: Scored(files, depth_protocol(TABLE_8[key])) for key, files in tests.items()}
    train, val = split_by_hash([record.group for record in rooms.records], VAL_FRACTION)
    mixed = Mixed(
        (rooms.subset(train, "hypersim (train)"), streets), ZERO_SHOT_SHARES, "hypersim and virtual kitti"
    )
    held = Scored(rooms.subset(val, "hypersim (val)"), ROOMS)
    skipped = tuple(sample for files in tests.values() for sample in files.skipped.samples)
    return DepthSource(
        f"{name.partition(':')[0]}:{folder.resolve()}",
        Mirrored(mixed),
        {"hypersim": held},
        scored,
        SkippedSamples(skipped),
    )


PUBLIC: Mapping[str, Callable[[str, Path, tuple[int, int]], DepthSource]] = {
    "kitti": partial(_table_5, load=kitti, test_list=KITTI_TEST, key="kitti"),
    "nyu": partial(_table_5, load=nyu, test_list=NYU_TEST, key="nyu"),
    "zero-shot": _zero_shot,
}
