"""NYU Depth v2, as BTS and AdaBins train and test on it.

    folder/sync/kitchen_0028b/rgb_00045.jpg, sync_depth_00045.png         24,231 training pictures
    folder/official_splits/test/kitchen/rgb_00045.jpg, sync_depth_...     654 test pictures

Split lists have a line a picture: `RGB DEPTH FOCAL`, the names relative, in the training list with a slash before
them. Depth is a 16-bit PNG of millimetres, 480 x 640 like the picture; 0 is no reading. Pictures have a white rim, in
which training leaves readings as they are; the rows and columns that are scored (45:471, 41:601) are cf-eval's.
"""

from functools import partial
from pathlib import Path

from cf_eval.depth.protocols import depth_protocol

from cf_apps.data.depth_pairs import DepthPair
from cf_apps.data.depth_sets.files import DepthFiles, DepthRecord, complete, paired
from cf_apps.data.depth_sets.reading import located, read_png16, read_split, readings
from cf_apps.data.pictures import read_picture

COUNTS_PER_METRE = 1000.0
TRAIN_LIST, TEST_LIST = "nyudepthv2_train_files_with_gt.txt", "nyudepthv2_test_files_with_gt.txt"
NYU_SIZE = (480, 640)


def nyu(folder: Path, split_list: str | Path = TRAIN_LIST, *, size: tuple[int, int] = NYU_SIZE) -> DepthFiles:
    """The pictures of a split list, which lies in `folder` unless its path is given.

    Files are looked for in folder/sync, folder/official_splits/test and folder. Raises DataError in one line.
    """
    split = folder / split_list
    roots = [folder / "sync", folder / "official_splits" / "test", folder]
    records = [
        DepthRecord(located(image, roots), located(depth, roots), group=image.lstrip("/").split("/")[0])
        for _, (image, depth, *_) in read_split(split, 2)
    ]
    rule = depth_protocol("nyu")
    decode = partial(millimetres, caps=(rule.min_depth, rule.max_depth))
    return DepthFiles(f"nyu ({split.name})", complete(records, str(split)), decode, size)


def millimetres(record: DepthRecord, caps: tuple[float, float]) -> DepthPair:
    """A picture and a 16-bit PNG of millimetres; readings lie strictly between the caps, in metres."""
    depth = read_png16(record.depth, COUNTS_PER_METRE)
    return paired(record, read_picture(record.image), depth, readings(depth, *caps))
