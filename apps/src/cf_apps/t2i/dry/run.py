"""`crossflow t2i train --dry`: a preset's whole road once, with random frozen parts: does it run here, at what cost?

Pictures -> shards -> two optimizer steps -> a checkpoint, read again -> an exported model, opened. The shapes, the
losses and the way of training are the preset's own, and so is the code; what is learned means nothing.
"""

import random
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from cf_transformer import CrossAttentionConfig, DiMRConfig

from cf_apps.data.shapes_captions import describe
from cf_apps.data.shapes_render import render
from cf_apps.data.shapes_scene import draw_scenes
from cf_apps.data.shards.writing import Part
from cf_apps.engine.checks import require_count
from cf_apps.engine.commands.app import Ready, Setting, train
from cf_apps.engine.commands.recipe import Recipe, TrainRequest, named, overridden
from cf_apps.engine.config import FitConfig
from cf_apps.engine.errors import ConfigError, RunError
from cf_apps.engine.files import fingerprint
from cf_apps.engine.ranks.world import World
from cf_apps.engine.saving.export import MODEL
from cf_apps.engine.watching.progress import Silence, progress_line
from cf_apps.t2i.app import APP
from cf_apps.t2i.config import T2IConfig
from cf_apps.t2i.dry.frozen import random_parts
from cf_apps.t2i.dry.stages import Stage, Stages
from cf_apps.t2i.extract.command import ExtractRequest, extract
from cf_apps.t2i.presets import PRESETS
from cf_apps.t2i.sample import Sampler

STEPS = 2  # the first makes the optimizer's moments, the second is like all that follow
ROWS = {"cpu": 2, "cuda": 64}  # of a step, for each process
PICTURES = (8, 64)  # at least and at most


@dataclass(frozen=True)
class DryRequest:
    """What the command line asks for.

    layers: the most blocks of every stage, None for all. out: a new folder that keeps everything; None keeps nothing.
    """

    preset: str
    layers: int | None = None
    batch_size: int | None = None
    out: Path | None = None
    seed: int = 0
    overrides: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class DryRun:
    """What was run: the recipe as asked for, the same as run, which frozen parts were random, and the stages."""

    asked: Recipe[T2IConfig]
    done: Recipe[T2IConfig]
    random: tuple[str, ...]
    parameters: int
    stages: tuple[Stage, ...]


@contextmanager
def dry_run(request: DryRequest, world: World) -> Iterator[tuple[Path, DryRun]]:
    """Take the whole road, and yield the folder it left, which is removed at the end but for request.out. Collective.

    Raises UserError in one line for what cannot work; nothing is left behind then.
    """
    asked = overridden(named(PRESETS, request.preset), request.overrides)
    if request.layers is not None:
        require_count("--layers", request.layers, 1)
    settings = {
        **request.overrides,
        **({} if request.layers is None else cuts(asked.model, request.layers)),
        "fit.log_every": 1,
        "fit.batch_size": _rows(request, asked.fit, world),
    }
    with workplace(request.out, world) as folder:
        stages = Stages(world.device)
        stages.begin("draw pictures and frozen weights")
        found = world.on_main(lambda: _material(folder, asked.model, settings["fit.batch_size"], request))
        settings |= found
        stages.begin("extract")
        _extract(request, folder, settings, world)
        order = TrainRequest(
            request.preset, folder / "run", str(folder / "shards"), STEPS, seed=request.seed, overrides=settings
        )  # fmt: skip
        parameters = _train(order, stages, world)
        stages.begin("read the checkpoint again")
        _read_again(order, world)
        stages.begin("open the exported model")
        Sampler.from_run(order.out, world.device)
        stages.end()
        done = overridden(named(PRESETS, request.preset), settings)
        frozen = tuple(key.removesuffix(".path") for key in found)
        yield folder, DryRun(asked, done, frozen, parameters, tuple(stages.done))


def cuts(config: T2IConfig, layers: int) -> dict[str, Any]:
    """The keys that leave every stage of the backbone, the text encoder and the reader `layers` blocks at the most.

    Stages have odd numbers of blocks: an even one is rounded up. The image tower keeps its own, which are its shape.
    """
    found: dict[str, Any] = {}
    network, key = config.network, "backbone"
    if isinstance(config.backbone, CrossAttentionConfig):
        key = "backbone.dimr"
    if isinstance(network, DiMRConfig):
        found[f"{key}.stages"] = [
            {**stage.to_dict(), "n_blocks": min(stage.n_blocks, layers)} for stage in network.stages
        ]
    else:
        found[f"{key}.n_blocks"] = min(network.n_blocks, layers)
    for part, own in {"text_ve": config.text_ve, "reader": config.reader}.items():
        for name in ("depth", "cross_depth", "conv_depth"):
            if getattr(own, name, 0) > layers:
                found[f"{part}.{name}"] = layers
    return found


@contextmanager
def workplace(out: Path | None, world: World) -> Iterator[Path]:
    """A folder to work in, the same for all processes: `out`, emptied if the block fails, or one that goes at its end.

    Raises ConfigError where `out` has something in it, RunError where it cannot be made. Collective.
    """
    folder = Path(world.on_main(lambda: _made(out)))
    kept = False
    try:
        yield folder
        world.wait()  # another process may still read
        kept = out is not None
    finally:
        if world.main and not kept:
            shutil.rmtree(folder, ignore_errors=True)


def _made(out: Path | None) -> str:
    if out is None:
        return tempfile.mkdtemp(prefix="crossflow-dry-")
    try:
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise ConfigError(f"--out {out}: a dry run makes a folder of its own, and this is not empty")
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"cannot make {out}: {error.strerror or error}; choose another --out") from error
    return str(out.resolve())


def _rows(request: DryRequest, fit: FitConfig, world: World) -> int:
    """What was asked for; else few rows, and in no more parts than the recipe's."""
    if request.batch_size is not None:
        return request.batch_size
    if "fit.batch_size" in request.overrides:
        return fit.batch_size
    return ROWS.get(world.device.type, ROWS["cuda"]) * world.size * fit.accumulate


def _material(folder: Path, config: T2IConfig, rows: int, request: DryRequest) -> dict[str, str]:
    """Pictures with captions, and what stands in for the frozen parts; the keys that say where these are."""
    least, most = PICTURES
    try:
        draw_pictures(
            folder / "pictures", min(max(STEPS * rows, least), most), config.image_size, request.seed
        )
        return random_parts(config, folder / "frozen", request.layers, request.seed)
    except OSError as error:
        raise RunError(f"cannot write to {folder}: {error.strerror or error}; make room") from error


def draw_pictures(folder: Path, n: int, image_size: int, seed: int) -> None:
    """Scenes of captioned shapes as PNG, each with a caption in a .txt beside it."""
    from PIL import Image

    folder.mkdir(parents=True)
    scenes, dice = draw_scenes(n, torch.Generator().manual_seed(seed)), random.Random(seed)
    for row, picture in enumerate(render(scenes, image_size)[0]):
        caption = describe(scenes, row, dice)
        assert caption is not None  # without a wanted task some sentence always fits
        Image.fromarray(picture.permute(1, 2, 0).contiguous().numpy()).save(folder / f"{row:04}.png")
        (folder / f"{row:04}.txt").write_text(caption.text, encoding="utf-8")


def _extract(request: DryRequest, folder: Path, settings: Mapping[str, Any], world: World) -> None:
    """Two shards, made by all processes."""
    pictures = len(list((folder / "pictures").glob("*.png")))
    asked = ExtractRequest(
        str(folder / "pictures"), folder / "shards", request.preset, shard_size=(pictures + 1) // 2,
        part=Part(world.rank, world.size), batch_size=8, seed=request.seed, overrides=settings,
    )  # fmt: skip
    with progress_line("dry run: extract") if world.main else Silence() as line:
        extract(asked, world.device, line)
    world.wait()


def _train(order: TrainRequest, stages: Stages, world: World) -> int:
    """Train as `t2i train` does, stage by stage; returns the number of trained parameters."""
    parameters = 0

    def prepare(config: T2IConfig, setting: Setting) -> Ready:
        nonlocal parameters
        stages.begin("build the model")
        ready = APP.prepare(config, setting)
        parameters = sum(p.numel() for p in ready.task.modules.parameters() if p.requires_grad)
        stages.begin("two steps, checkpoint, export")
        return ready

    train(replace(APP, prepare=prepare), order, world.device, "dry run", world)
    return parameters


def _read_again(order: TrainRequest, world: World) -> None:
    """Resume at the end of the run: nothing is trained, and the same model has to come out."""
    model = order.out / MODEL
    before = world.on_main(lambda: fingerprint(model))
    world.on_main(model.unlink)
    train(APP, replace(order, resume=True), world.device, "dry run, again", world)
    if world.on_main(lambda: fingerprint(model)) != before:
        raise RunError(
            f"the checkpoint in {order.out} does not give the model that was exported; please report it"
        )
