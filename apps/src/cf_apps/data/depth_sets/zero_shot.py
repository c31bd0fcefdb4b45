"""The five test sets of affine-invariant depth, as Marigold's evaluation stores them (CrossFlow table 8).

    folder/kitti     eigen_test_files_with_gt.txt          16-bit PNG of 1/256 m; 697 lines, 45 of them None
    folder/nyu       filename_list_test.txt                16-bit PNG of millimetres, 480 x 640
    folder/eth3d     eth3d_filename_list.txt               raw float32, 4032 x 6048, infinity where there is no reading
    folder/scannet   scannet_val_sampled_list_800_1.txt    16-bit PNG of millimetres
    folder/diode     diode_val_all_filename_list.txt       .npy of metres, and a .npy mask named third in the list

Each folder holds what the set's archive unpacks to, and its list; a line is `RGB DEPTH [...]`, relative to the folder.
Caps, crops and alignments are cf-eval's protocols; nothing of them is repeated here.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from cf_eval.depth.protocols import DepthProtocol, depth_protocol
from cf_eval.depth.tables import TABLE_8

from cf_apps.data.captioned import DataError
from cf_apps.data.depth_pairs import DepthPair
from cf_apps.data.depth_sets.files import DepthFiles, DepthRecord, complete, paired
from cf_apps.data.depth_sets.kitti import TEST_LIST as KITTI_LIST
from cf_apps.data.depth_sets.kitti import kitti
from cf_apps.data.depth_sets.nyu import COUNTS_PER_METRE as MILLIMETRES
from cf_apps.data.depth_sets.nyu import millimetres
from cf_apps.data.depth_sets.reading import read_float32, read_npy, read_png16, read_split, readings
from cf_apps.data.pictures import read_picture, resized

ETH3D_SIZE = (4032, 6048)


def _nyu(record: DepthRecord, rule: DepthProtocol) -> DepthPair:
    return millimetres(record, (rule.min_depth, rule.max_depth))


def _scannet(record: DepthRecord, rule: DepthProtocol) -> DepthPair:
    """Its colour camera has more pixels than its depth sensor; the picture is brought to the depth map's size."""
    depth = read_png16(record.depth, MILLIMETRES)
    image = resized(read_picture(record.image), *depth.shape)
    return paired(record, image, depth, readings(depth, rule.min_depth, rule.max_depth))


def _eth3d(record: DepthRecord, rule: DepthProtocol, size: tuple[int, int] = ETH3D_SIZE) -> DepthPair:
    depth = read_float32(record.depth, *size)
    valid = readings(depth, rule.min_depth, rule.max_depth)
    return paired(record, read_picture(record.image), torch.where(valid, depth, 0), valid)


def _diode(record: DepthRecord, rule: DepthProtocol) -> DepthPair:
    assert record.mask is not None  # its lists have three fields
    depth, mask = read_npy(record.depth), read_npy(record.mask)
    if mask.shape != depth.shape:
        raise DataError(
            f"{record.mask} is {tuple(mask.shape)}, its depth map {tuple(depth.shape)}; copy both anew"
        )
    return paired(record, read_picture(record.image), depth, mask > 0)


@dataclass(frozen=True)
class _Layout:
    """split: the list's name; fields: how many a line has at least; decode: of one record by a protocol."""

    split: str
    fields: int
    decode: Callable[..., DepthPair]  # (record, rule=protocol)


LAYOUTS: Mapping[str, _Layout] = {
    "nyu": _Layout("filename_list_test.txt", 2, _nyu),
    "eth3d": _Layout("eth3d_filename_list.txt", 2, _eth3d),
    "scannet": _Layout("scannet_val_sampled_list_800_1.txt", 2, _scannet),
    "diode": _Layout("diode_val_all_filename_list.txt", 3, _diode),
}


def zero_shot_test(folder: Path, name: str, size: tuple[int, int]) -> DepthFiles:
    """One of the five sets, from folder/NAME. Raises DataError in one line, ValueError for another name."""
    if name not in TABLE_8:
        raise ValueError(f"unknown zero-shot set {name!r}; known: {', '.join(TABLE_8)}")
    if name == "kitti":
        return kitti(folder / name, KITTI_LIST, size=size, protocol=TABLE_8[name])
    layout, root = LAYOUTS[name], folder / name
    split = root / layout.split
    records = [
        DepthRecord(root / image, root / depth, root / rest[0] if layout.fields == 3 else None)
        for _, (image, depth, *rest) in read_split(split, layout.fields)
    ]
    decode = partial(layout.decode, rule=depth_protocol(TABLE_8[name]))
    return DepthFiles(f"{name} ({layout.split})", complete(records, str(split)), decode, size)


def zero_shot_tests(folder: Path, size: tuple[int, int]) -> dict[str, DepthFiles]:
    """Those of the five sets that `folder` has. Raises DataError when it has none."""
    present = [name for name in TABLE_8 if (folder / name).is_dir()]
    if not present:
        raise DataError(f"{folder} has none of the folders {', '.join(TABLE_8)}; unpack the test sets there")
    return {name: zero_shot_test(folder, name, size) for name in present}
