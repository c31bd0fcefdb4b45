"""Depth, as the commands of every task see it."""

from cf_apps.depth.config import DepthConfig
from cf_apps.depth.evaluate import score, show
from cf_apps.depth.model import NAME, SAMPLING_PARTS
from cf_apps.depth.presets import PRESETS
from cf_apps.depth.sample import Sampler
from cf_apps.depth.task import prepare
from cf_apps.engine.commands.app import App

APP: App[DepthConfig, Sampler] = App(
    name=NAME,
    data="shapes, kitti:FOLDER, nyu:FOLDER, zero-shot:FOLDER, or a folder or .npz of pictures with depth maps",
    presets=PRESETS,
    prepare=prepare,
    parts=SAMPLING_PARTS,
    open=Sampler.from_run,
    score=score,
    show=show,
)
