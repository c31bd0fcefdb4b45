"""A few files in the real layout of every depth data set, small where the layout allows it."""

from pathlib import Path

import numpy as np
from PIL import Image

KITTI_RAW = (375, 1242)
DRIVES = ("2011_09_26_drive_0002_sync", "2011_09_28_drive_0034_sync", "2011_09_30_drive_0016_sync")


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def write_rgb(path: Path, h: int, w: int, colour: int = 90) -> Path:
    """A picture whose left half is darker: a mirror shows."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.full((h, w, 3), colour, np.uint8)
    pixels[:, w // 2 :] += 100
    Image.fromarray(pixels).save(path, quality=95)
    return path


def write_png16(path: Path, counts: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(counts.astype(np.uint16)).save(path)
    return path


def write_lines(path: Path, lines: list[str]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


def kitti_counts(h: int, w: int) -> np.ndarray:
    """A LiDAR's map: the row's number in 1/256 m on every seventh pixel, 0 between."""
    counts = np.zeros((h, w), np.uint16)
    counts[::2, ::7] = (256 * (2 + np.arange(h)[::2, None] / 8)).astype(np.uint16)
    return counts


def write_kitti(folder: Path, split: str, sides: tuple[str, ...] = ("train", "val", "train")) -> Path:
    """raw/, depth_annotated/(train|val)/ and a list of three pictures and one without ground truth."""
    lines = []
    for number, (drive, side) in enumerate(zip(DRIVES, sides, strict=True)):
        image = f"{drive[:10]}/{drive}/image_02/data/{number:010}.png"
        depth = f"{drive}/proj_depth/groundtruth/image_02/{number:010}.png"
        write_rgb(folder / "raw" / image, *KITTI_RAW)
        write_png16(folder / "depth_annotated" / side / depth, kitti_counts(*KITTI_RAW))
        lines.append(f"{image} {depth} 721.5377")
    lines.insert(1, "2011_09_26/2011_09_26_drive_0009_sync/image_02/data/0000000000.png None 721.5377")
    return write_lines(folder / split, lines)


def write_nyu(folder: Path, split: str, root: str, slash: str = "") -> Path:
    """Two scenes of NYU: depth in millimetres rises by a metre from left to right, one corner without a reading."""
    lines = []
    for number, scene in enumerate(("kitchen_0028b", "bedroom_0004")):
        counts = np.broadcast_to(np.linspace(1000, 2000, 640), (480, 640)).copy()
        counts[:10, :10] = 0
        counts[-1, -1] = 12_000  # beyond the cap of 10 m
        write_rgb(folder / root / scene / f"rgb_{number:05}.jpg", 480, 640)
        write_png16(folder / root / scene / f"sync_depth_{number:05}.png", counts)
        lines.append(f"{slash}{scene}/rgb_{number:05}.jpg {slash}{scene}/sync_depth_{number:05}.png 518.8579")
    return write_lines(folder / split, lines)


def write_virtual_kitti(folder: Path) -> np.ndarray:
    """One frame of each of two variations; returns its counts: centimetres, sky on top, 90 m below the sky."""
    counts = np.full(KITTI_RAW, 1234, np.uint16)
    counts[:60] = 65535
    counts[60:80] = 9000
    for variation in ("clone", "fog"):
        frames = folder / "Scene01" / variation / "frames"
        write_rgb(frames / "rgb" / "Camera_0" / "rgb_00000.jpg", *KITTI_RAW)
        write_png16(frames / "depth" / "Camera_0" / "depth_00000.png", counts)
    return counts


def write_hypersim_prepared(folder: Path) -> Path:
    lines = []
    for scene in ("ai_001_001", "ai_001_002"):
        write_rgb(folder / scene / "rgb_cam_00_fr0000.png", 48, 64)
        write_png16(folder / scene / "depth_plane_cam_00_fr0000.png", np.full((48, 64), 2500))
        lines.append(f"{scene}/rgb_cam_00_fr0000.png {scene}/depth_plane_cam_00_fr0000.png")
    return write_lines(folder / "filename_list_train_filtered.txt", lines)


HYPERSIM_HEADER = (
    "scene_name,camera_name,frame_id,included_in_public_release,exclude_reason,split_partition_name"
)


def write_hypersim_published(folder: Path, distance: np.ndarray) -> Path:
    """One released training frame with its hdf5 file, one that was not released, one of the test split."""
    import h5py

    images = folder / "ai_001_001" / "images"
    write_rgb(images / "scene_cam_00_final_preview" / "frame.0007.tonemap.jpg", *distance.shape)
    geometry = images / "scene_cam_00_geometry_hdf5"
    geometry.mkdir(parents=True)
    with h5py.File(geometry / "frame.0007.depth_meters.hdf5", "w") as file:
        file["dataset"] = distance.astype(np.float16)
    rows = [
        "ai_001_001,cam_00,7,True,,train",
        "ai_001_001,cam_00,8,False,bad,",
        "ai_001_003,cam_00,1,True,,test",
    ]
    return write_lines(folder / "metadata_images_split_scene_v1.csv", [HYPERSIM_HEADER, *rows])


def write_own(folder: Path, names: list[str], h: int = 12, w: int = 16) -> Path:
    """The layout of one's own pairs: depth is 2 m on the left, 4 m on the right, no reading in the first row."""
    for number, name in enumerate(names):
        write_rgb(folder / "image" / f"{name}.png", h, w, colour=10 + 5 * number)
        counts = np.full((h, w), 2000)
        counts[:, w // 2 :] = 4000
        counts[0] = 0
        write_png16(folder / "depth" / f"{name}.png", counts)
    (folder / "depth.json").write_text('{"scale": 0.001}')
    return folder
