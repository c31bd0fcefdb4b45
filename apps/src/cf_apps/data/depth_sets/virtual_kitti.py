"""Virtual KITTI 2: rendered drives with exact depth.

    folder/Scene01/clone/frames/rgb/Camera_0/rgb_00000.jpg
    folder/Scene01/clone/frames/depth/Camera_0/depth_00000.png

Depth is a 16-bit PNG of centimetres; 65535 is the sky. Readings beyond 80 m are left out, as in Marigold's training,
which also takes the KITTI benchmark's window of both (352 x 1216 of 375 x 1242).
"""

from pathlib import Path

from cf_eval.depth.crops import kb_crop

from cf_apps.data.captioned import DataError
from cf_apps.data.depth_pairs import DepthPair
from cf_apps.data.depth_sets.files import DepthFiles, DepthRecord, complete, paired
from cf_apps.data.depth_sets.kitti import KB_SIZE
from cf_apps.data.depth_sets.reading import read_png16, readings
from cf_apps.data.pictures import read_picture

COUNTS_PER_METRE = 100.0
LEAST, MOST = 1e-5, 80.0  # metres, Marigold's


def virtual_kitti(folder: Path, *, size: tuple[int, int] = KB_SIZE) -> DepthFiles:
    """Every picture of every scene, variation and camera under `folder`. Raises DataError in one line."""
    images = sorted(folder.glob("Scene*/*/frames/rgb/Camera_*/rgb_*.jpg"))
    if not images:
        raise DataError(
            f"{folder} holds no Scene*/*/frames/rgb/Camera_*/rgb_*.jpg; unpack vkitti_2.0.3_rgb and _depth there"
        )
    records = [
        DepthRecord(image, _depth_of(image), group=image.relative_to(folder).parts[0]) for image in images
    ]
    return DepthFiles("virtual kitti", complete(records, str(folder)), decode, size)


def decode(record: DepthRecord) -> DepthPair:
    """One pair, cut to the benchmark's window."""
    image, depth = read_picture(record.image), read_png16(record.depth, COUNTS_PER_METRE)
    for path, (h, w) in ((record.image, image.shape[1:]), (record.depth, depth.shape)):
        if h < KB_SIZE[0] or w < KB_SIZE[1]:
            raise DataError(f"{path} is {h} x {w}; Virtual KITTI's pictures are 375 x 1242, so copy it anew")
    pair = paired(record, image, depth, readings(depth, LEAST, MOST))
    return DepthPair(kb_crop(pair.image), kb_crop(pair.depth), kb_crop(pair.valid))


def _depth_of(image: Path) -> Path:
    """.../frames/rgb/Camera_0/rgb_00000.jpg -> .../frames/depth/Camera_0/depth_00000.png"""
    camera, number = image.parent.name, image.stem.removeprefix("rgb_")
    return image.parents[2] / "depth" / camera / f"depth_{number}.png"
