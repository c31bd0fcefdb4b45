"""KITTI, Eigen split: raw drives and the depth maps of the KITTI depth benchmark ("improved ground truth").

Split lists as BTS and AdaBins use them, a line a picture: `RGB DEPTH FOCAL`,

    2011_09_26/2011_09_26_drive_0002_sync/image_02/data/0000000069.png
        2011_09_26_drive_0002_sync/proj_depth/groundtruth/image_02/0000000069.png 721.5377

RGB is relative to the raw data, DEPTH to `data_depth_annotated`, as it is unpacked (with `train/` and `val/` above the
drives) or merged. DEPTH is `None` for the 45 of the 697 test pictures that the benchmark has no map of; they are left
out and counted, so 652 remain. Depth is a 16-bit PNG of 1/256 m; 0 is no reading, and most pixels have none.
"""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from cf_eval.depth.crops import kb_crop
from cf_eval.depth.protocols import depth_protocol

from cf_apps.data.captioned import DataError
from cf_apps.data.depth_pairs import DepthPair
from cf_apps.data.depth_sets.files import DepthFiles, DepthRecord, complete, paired
from cf_apps.data.depth_sets.reading import located, read_png16, read_split, readings
from cf_apps.data.pairs import SkippedSamples
from cf_apps.data.pictures import read_picture

COUNTS_PER_METRE = 256.0
TRAIN_LIST, TEST_LIST = "eigen_train_files_with_gt.txt", "eigen_test_files_with_gt.txt"
KB_SIZE = (352, 1216)


def _benchmark_window(pair: DepthPair) -> DepthPair:
    """The 352 x 1216 window at the bottom centre: what nearly all work on KITTI trains and scores on."""
    return DepthPair(kb_crop(pair.image), kb_crop(pair.depth), kb_crop(pair.valid))


FRAMES: Mapping[str, Callable[[DepthPair], DepthPair]] = {"kb": _benchmark_window, "whole": lambda pair: pair}


def kitti(
    folder: Path,
    split_list: str | Path = TRAIN_LIST,
    *,
    size: tuple[int, int] = KB_SIZE,
    frame: str = "kb",
    protocol: str = "kitti_adabins",
) -> DepthFiles:
    """The pictures of a split list, which lies in `folder` unless its path is given.

    Pictures are looked for in folder/raw and folder, depth maps in folder/depth_annotated and folder, and there
    under train/ and val/ too. frame: `kb` or `whole`. protocol: whose caps decide which readings count.
    Garg's and Eigen's crops are left to cf-eval. Raises DataError in one line.
    """
    if frame not in FRAMES:
        raise ValueError(f"unknown frame {frame!r}; known: {', '.join(FRAMES)}")
    split = folder / split_list
    image_roots = [folder / "raw", folder]
    depth_roots = [
        root / part for root in (folder / "depth_annotated", folder) for part in (".", "train", "val")
    ]
    records: list[DepthRecord] = []
    left_out: list[tuple[str, str]] = []
    for number, (image, depth, *_) in read_split(split, 2):
        if depth == "None":
            left_out.append((f"line {number}: {image}", "no ground truth"))
            continue
        group = depth.lstrip("/").split("/")[0]  # the drive
        records.append(DepthRecord(located(image, image_roots), located(depth, depth_roots), group=group))
    if not records:
        raise DataError(f"every line of {split} has None for its depth map; use the published list")
    decode = partial(_decode, caps=_caps(protocol), framed=FRAMES[frame])
    return DepthFiles(
        f"kitti ({split.name})", complete(records, str(split)), decode, size, SkippedSamples(tuple(left_out))
    )


def _decode(
    record: DepthRecord, caps: tuple[float, float], framed: Callable[[DepthPair], DepthPair]
) -> DepthPair:
    image, depth = read_picture(record.image), read_png16(record.depth, COUNTS_PER_METRE)
    for path, (h, w) in ((record.image, image.shape[1:]), (record.depth, depth.shape)):
        if framed is _benchmark_window and (h < KB_SIZE[0] or w < KB_SIZE[1]):
            raise DataError(
                f"{path} is {h} x {w}; KITTI's pictures hold the benchmark's window of 352 x 1216, so copy it anew"
            )
    return framed(paired(record, image, depth, readings(depth, *caps)))


def _caps(protocol: str) -> tuple[float, float]:
    rule = depth_protocol(protocol)
    return rule.min_depth, rule.max_depth
