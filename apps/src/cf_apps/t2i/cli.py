"""The commands of `crossflow t2i`."""

from dataclasses import dataclass, field, replace
from json import dumps
from pathlib import Path
from typing import Annotated, Literal

import tyro

from cf_apps.data.shards.writing import Part
from cf_apps.data.sources import EMOJI, SHAPES
from cf_apps.engine.commands.common import TrainOptions, train_here
from cf_apps.engine.commands.find_lr import find_lr_command
from cf_apps.engine.commands.recipe import parse_overrides
from cf_apps.engine.device import describe_device
from cf_apps.engine.errors import ConfigError
from cf_apps.engine.ranks.world import joined
from cf_apps.engine.watching.progress import progress_line
from cf_apps.engine.watching.report import print_table, say
from cf_apps.t2i.app import APP
from cf_apps.t2i.demo import demo
from cf_apps.t2i.drawing.cli import Arithmetic, Interpolate, Sample
from cf_apps.t2i.drawing.options import run_folder
from cf_apps.t2i.dry.report import report, show
from cf_apps.t2i.dry.run import DryRequest, dry_run
from cf_apps.t2i.extract.command import SHARD_SIZE, ExtractRequest, extract
from cf_apps.t2i.import_public import ImportRequest, import_public, kind_of, missing
from cf_apps.t2i.scaling.table import markdown, scaling_rows
from cf_apps.t2i.scoring.cli import Evaluate, Guidance

NOWHERE = Path()  # where --out was not given


@dataclass(frozen=True)
class Demo:
    """Score the shipped model, train the same from scratch, draw and report both."""

    data: Annotated[str, tyro.conf.arg(metavar=f"{SHAPES}|{EMOJI}")] = SHAPES
    """shapes, or emoji (from scratch only)."""
    out: Path = Path("runs/t2i-demo")
    minutes: float = 5.0
    """Training time of the model from scratch."""
    seed: int = 0
    device: str = "auto"

    def run(self) -> None:
        demo(self.data, self.out, self.minutes, self.seed, self.device)


@dataclass(frozen=True)
class Train(TrainOptions):
    """Train a preset into a run folder."""

    out: Path = NOWHERE
    """Run folder to make; a dry run may go without, and then keeps nothing."""
    preset: Annotated[str, tyro.conf.arg(help=f"One of {', '.join(APP.presets)}.")] = APP.default
    data: Annotated[str | None, tyro.conf.arg(help=f"Takes {APP.data}; the preset's own if not given.")] = (
        None
    )
    init: Path | None = None
    """A run to start from, of the same shape, or of half the resolution, which is grown."""
    dry: bool = False
    """Try it out: extract from drawn pictures with random frozen parts, two steps, checkpoint, export, and the cost."""
    layers: int | None = None
    """With --dry: the most blocks of every stage, for a small machine; all if not given."""

    def run(self) -> None:
        if self.dry:
            self._run_dry()
            return
        if self.out == NOWHERE:
            raise ConfigError("no --out; give the run folder to make, for example --out runs/mine")
        if self.layers is not None:
            raise ConfigError("--layers is for --dry; to train fewer blocks set backbone.stages")
        request = self.request()
        if self.init is not None:
            init = str(run_folder(str(self.init)).resolve())
            request = replace(request, overrides={**(request.overrides or {}), "init": init})
        train_here(APP, request, self.device)

    def _run_dry(self) -> None:
        fixed = {
            "--data": self.data, "--init": self.init, "--steps": self.steps, "--max-seconds": self.max_seconds,
            "--lr": self.lr, "--resume": self.resume or None,
        }  # fmt: skip
        if given := [name for name, value in fixed.items() if value is not None]:
            raise ConfigError(
                f"{', '.join(given)} cannot go with --dry: it draws its own pictures and makes two steps"
            )
        out = None if self.out == NOWHERE else self.out
        request = DryRequest(
            self.preset, self.layers, self.batch_size, out, self.seed, parse_overrides(self.set)
        )
        with joined(self.device) as world, dry_run(request, world) as (folder, run):
            if world.main:
                about = {"preset": self.preset, "layers": self.layers, "processes": world.size}
                show(report(folder, run, about | describe_device(world.device)), out)


@dataclass(frozen=True)
class Import:
    """Make a run of a public CrossFlow checkpoint, to draw with."""

    checkpoint: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="CHECKPOINT")]
    """A released .pth file, or nnet.pth or nnet_ema.pth of the public trainer."""
    out: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Run folder to make."""
    language: str | None = None
    """Folder or hub id of its language model: CLIP ViT-L/14 or T5-v1.1-XXL, as the table says."""
    codec: str | None = None
    """Its autoencoder: a diffusers folder, or the public autoencoder_kl.pth."""
    language_model: Literal["clip", "t5-released"] | None = None
    """Taken from the file if not given."""
    fp16: bool = False
    """Half the size."""

    def run(self) -> None:
        request = ImportRequest(
            self.checkpoint, self.out, self.language, self.codec, self.language_model, self.fp16
        )
        result = import_public(request, progress_line("import"))
        print_table(kind_of(result.config), result.table())
        say(f"wrote {result.run}")
        for sentence in missing(result.config):
            say(sentence)


@dataclass(frozen=True)
class Extract:
    """Run the frozen language model and codec once over captioned images, into shards to train from.

    May be started as often as there are processes, by torchrun or with --part, and again after a kill.
    """

    data: str
    """shapes, emoji, a folder or file of pairs, or hub:OWNER/NAME[:SPLIT], which is streamed."""
    out: Path
    """Folder of shards to make, or to go on with; train with --data OUT."""
    preset: Annotated[str, tyro.conf.arg(help=f"One of {', '.join(APP.presets)}.")] = APP.default
    flip: bool = False
    """Mirror images too, as a second latent. Not where captions tell left from right."""
    pictures: bool = False
    """Keep the pictures beside their latents; presets that look at them do so anyway."""
    shard_size: int = SHARD_SIZE
    """Pairs a shard."""
    part: str | None = None
    """I/N: this is process I of N, counted from 0. Taken from torchrun if not given."""
    batch_size: int = 64
    """Pairs encoded at a time."""
    verify: bool = False
    """First read all finished shards, and make those anew that are damaged."""
    seed: int = 0
    """Of built-in sets."""
    device: str = "auto"
    set: Annotated[list[str], tyro.conf.UseAppendAction] = field(default_factory=list)
    """KEY=VALUE of anything in the preset, e.g. codec.path=PATH; may be repeated."""

    def run(self) -> None:
        with joined(self.device) as world:
            part = Part(world.rank, world.size) if self.part is None else Part.parse(self.part)
            request = ExtractRequest(
                self.data, self.out, self.preset, self.flip, self.pictures, self.shard_size, part,
                self.batch_size, self.verify, self.seed, parse_overrides(self.set),
            )  # fmt: skip
            with progress_line("extract") as line:
                done = extract(request, world.device, line)
        for sentence in done.said():
            say(sentence)


@dataclass(frozen=True)
class Scaling:
    """Reckon memory, network and time of training presets on H100s, by the model of docs/scaling.md."""

    preset: list[str] = field(default_factory=lambda: ["paper-256", "paper-512"])
    gpus: list[int] = field(default_factory=lambda: [8, 64, 512])
    json: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """As JSON; else as a table in Markdown."""

    def run(self) -> None:
        rows = scaling_rows(self.preset, self.gpus)
        say(dumps(rows, indent=1) if self.json else markdown(rows))


COMMANDS = {
    "demo": Demo,
    "extract": Extract,
    "train": Train,
    "sample": Sample,
    "evaluate": Evaluate,
    "find-lr": find_lr_command(APP),
    "scaling": Scaling,
    "guidance": Guidance,
    "interpolate": Interpolate,
    "arithmetic": Arithmetic,
    "import": Import,
}
