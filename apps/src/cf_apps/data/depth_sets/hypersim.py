"""Hypersim: rendered rooms, either as published or as Marigold's preparation leaves them.

    as published     folder/metadata_images_split_scene_v1.csv
                     folder/ai_001_001/images/scene_cam_00_final_preview/frame.0000.tonemap.jpg
                     folder/ai_001_001/images/scene_cam_00_geometry_hdf5/frame.0000.depth_meters.hdf5
    as prepared      folder/filename_list_train_filtered.txt, a line `RGB DEPTH`
                     folder/ai_001_001/rgb_cam_00_fr0000.png, depth_plane_cam_00_fr0000.png

What is published as depth is the distance from the camera's centre to each point, in metres, NaN where the ray hits
nothing; the focal length is 886.81 pixels for all pictures of 768 x 1024. The preparation has made planar depth
of it and stored that as a 16-bit PNG of millimetres, beside the tone-mapped picture.
"""

import csv
import importlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import ModuleType

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from cf_apps.data.captioned import DataError
from cf_apps.data.depth_pairs import DepthPair
from cf_apps.data.depth_sets.files import DepthFiles, DepthRecord, complete, paired
from cf_apps.data.depth_sets.nyu import NYU_SIZE, millimetres
from cf_apps.data.depth_sets.reading import read_split, readings
from cf_apps.data.pictures import read_picture

FOCAL = 886.81  # pixels, for a picture 1024 pixels wide
WIDTH = 1024
LEAST, MOST = 1e-5, 65.0  # metres, Marigold's: what 16 bits of millimetres hold
PUBLISHED_LIST, PREPARED_LIST = "metadata_images_split_scene_v1.csv", "filename_list_train_filtered.txt"
_COLUMNS = ("scene_name", "camera_name", "frame_id", "included_in_public_release", "split_partition_name")


def hypersim(folder: Path, *, split: str = "train", size: tuple[int, int] = NYU_SIZE) -> DepthFiles:
    """The pictures of one split of whichever of the two layouts `folder` has. Raises DataError in one line.

    split: `train`, `val` or `test` as the published table says; the prepared list is of one split anyway.
    """
    prepared, published = folder / PREPARED_LIST, folder / PUBLISHED_LIST
    if prepared.exists():
        records = [
            DepthRecord(folder / image, folder / depth, group=image.split("/")[0])
            for _, (image, depth, *_) in read_split(prepared, 2)
        ]
        return DepthFiles(
            "hypersim (prepared)",
            complete(records, str(prepared)),
            partial(millimetres, caps=(LEAST, MOST)),
            size,
        )
    if not published.exists():
        raise DataError(f"{folder} has neither {PREPARED_LIST} nor {PUBLISHED_LIST}; put one of them there")
    records = list(_published(folder, published, split))
    if not records:
        raise DataError(
            f"{published} has no released picture of split {split!r}; its splits: train, val, test"
        )
    _h5py(folder)  # now, not at the first batch
    return DepthFiles(f"hypersim ({split})", complete(records, str(published)), decode, size)


def decode(record: DepthRecord) -> DepthPair:
    """One pair as published: the distance becomes planar depth."""
    depth = planar_depth(_read_hdf5(record.depth))
    return paired(record, read_picture(record.image), depth, readings(depth, LEAST, MOST))


def planar_depth(distance: Float[Tensor, "h w"], focal: float | None = None) -> Float[Tensor, "h w"]:
    """z = r f / sqrt(f^2 + x^2 + y^2), with (x, y) each pixel's offset from the centre of the picture, in pixels.

    r: distance from the camera's centre; f: focal length in pixels, Hypersim's scaled to the width if None.
    """
    h, w = distance.shape
    f = FOCAL * w / WIDTH if focal is None else focal
    x = torch.arange(w, dtype=torch.float64) - (w - 1) / 2
    y = torch.arange(h, dtype=torch.float64) - (h - 1) / 2
    shorter = f / (f**2 + x[None] ** 2 + y[:, None] ** 2).sqrt()
    return (distance.double() * shorter).to(distance.dtype)


def _published(folder: Path, table: Path, split: str) -> Iterator[DepthRecord]:
    """The records of a split that were released."""
    with table.open(newline="", encoding="utf-8-sig") as lines:
        rows = csv.DictReader(lines)
        if missing := [column for column in _COLUMNS if column not in (rows.fieldnames or ())]:
            raise DataError(f"{table} has no column {', '.join(missing)}; copy the published table anew")
        for row in rows:
            if any(row[column] is None for column in _COLUMNS):
                raise DataError(
                    f"{table}, line {rows.line_num}: too few fields; copy the published table anew"
                )
            if row["split_partition_name"] != split or row["included_in_public_release"] != "True":
                continue
            images = folder / row["scene_name"] / "images"
            camera, frame = f"scene_{row['camera_name']}", f"frame.{int(row['frame_id']):04}"
            yield DepthRecord(
                images / f"{camera}_final_preview" / f"{frame}.tonemap.jpg",
                images / f"{camera}_geometry_hdf5" / f"{frame}.depth_meters.hdf5",
                group=row["scene_name"],
            )


def _h5py(needed_by: Path) -> ModuleType:
    """The optional package, or DataError saying what to install."""
    try:
        return importlib.import_module("h5py")
    except ImportError as error:
        raise DataError(
            f"{needed_by} holds depth as hdf5, which the package h5py reads: pip install 'cf-apps[hypersim]'"
        ) from error


def _read_hdf5(path: Path) -> Float[Tensor, "h w"]:
    """The array called `dataset` of a Hypersim file."""
    h5py = _h5py(path)
    try:
        with h5py.File(path) as file:
            values = np.asarray(file["dataset"], np.float32)
    except (OSError, KeyError) as error:  # damaged; without that array
        reason = " ".join(str(error).split())
        raise DataError(f"cannot read {path} as Hypersim's hdf5: {reason}; copy it anew") from error
    if values.ndim != 2:
        raise DataError(f"{path} holds an array of shape {values.shape}; a depth map is (h, w)")
    return torch.from_numpy(values)
