"""The commands of `crossflow t2i` that draw what they are told: sample, interpolate, arithmetic."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import torch
import tyro

from cf_apps.engine.errors import ConfigError
from cf_apps.engine.watching.progress import progress_line
from cf_apps.engine.watching.render import image_grid, save_gif, save_png
from cf_apps.engine.watching.report import say
from cf_apps.t2i.drawing.arithmetic import (
    draw_between,
    draw_sum,
    draw_way_to_sum,
    parse_sums,
    walk_frames,
)
from cf_apps.t2i.drawing.options import T2IDrawing
from cf_apps.t2i.drawing.pictures import drawn, wanted, write_pictures
from cf_apps.t2i.drawing.prompts import Prompt, named_prompts, require_short, typed_prompts, unknown_words
from cf_apps.t2i.drawing.sheets import sum_sheet, way_sheet
from cf_apps.t2i.sample import Sampler

Run = Annotated[str, tyro.conf.Positional]
PAGE, MOVING = ".png", ".gif"
USUAL = {PAGE: 9, MOVING: 24}  # pictures of a way
NO_FOLDER = (MOVING, ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")  # who writes so wants a picture


@dataclass(frozen=True)
class Sample:
    """Draw captions with a trained run (or `tiny`, the model that ships with the package)."""

    model: Run
    captions: Annotated[list[str], tyro.conf.Positional]
    prompts: str | None = None
    """A file of captions: a line each, or .jsonl with "prompt"; or geneval."""
    count: Annotated[int, tyro.conf.arg(aliases=["-n"])] = 4
    """Pictures of each caption."""
    out: Path | None = None
    """A .png to draw all into, or a folder: a file each and manifest.jsonl."""
    batch_size: int = 32
    """Drawn at once; changes no picture."""
    draw: Annotated[T2IDrawing, tyro.conf.arg(name="")] = field(default_factory=T2IDrawing)

    def run(self) -> None:
        require_positive("-n", self.count)
        require_positive("--batch-size", self.batch_size)
        out = self._place()
        sampler, how = self.draw.open(self.model)
        texts = readable(sampler, self._prompts())
        pictures = wanted(texts, self.count, self.draw.seed)
        with progress_line("drawing") as line:
            images = drawn(sampler, pictures, how, self.batch_size, line)
            if out.suffix != PAGE:
                listed = write_pictures(out, images, self.draw.record(self.model, how))
                say(f"wrote {len(pictures)} pictures, listed in {listed}")
                return
            page = torch.stack([image for _, image in images])
        under = [picture.caption if picture.number == 0 else "" for picture in pictures]
        say(f"wrote {save_png(image_grid(page, self.count, captions=under), out)}")

    def _place(self) -> Path:
        """Where the pictures go: captions that were typed onto a page, a file's into a folder, if not told."""
        if self.out is None:
            return Path("samples.png" if self.prompts is None else "samples")
        if self.out.suffix.lower() in NO_FOLDER and not self.out.is_dir():
            raise ConfigError(f"--out {self.out} must be a {PAGE}, or a folder for a file each")
        return self.out

    def _prompts(self) -> list[Prompt]:
        if bool(self.captions) == (self.prompts is not None):
            raise ConfigError("give at least one caption, in quotes, or --prompts FILE, one of the two")
        return typed_prompts(self.captions) if self.prompts is None else named_prompts(self.prompts)


@dataclass(frozen=True)
class Interpolate:
    """Draw the way from each caption to the next."""

    model: Run
    captions: Annotated[list[str], tyro.conf.Positional]
    count: Annotated[int | None, tyro.conf.arg(aliases=["-n"])] = None
    """Pictures on each way, ends included; 9 on a page, 24 in a GIF."""
    out: Path = Path("interpolation.png")
    """A .png with a row for each way, or a .gif that goes there and back."""
    draw: Annotated[T2IDrawing, tyro.conf.arg(name="")] = field(default_factory=T2IDrawing)

    def run(self) -> None:
        count = usual_count(self.out) if self.count is None else self.count
        sampler, how = self.draw.open(self.model)
        captions = readable(sampler, typed_prompts(self.captions))
        images = draw_between(sampler, captions, count, how, self.draw.seed)
        if self.out.suffix == MOVING:
            frames = walk_frames(images, count)
            say(f"wrote {save_gif(frames.images, self.out, frames.rests)}")
        else:
            say(f"wrote {save_png(way_sheet(images, captions, count), self.out)}")


@dataclass(frozen=True)
class Arithmetic:
    """Draw sums of captions: crossflow t2i arithmetic RUN "a red circle" + "a square" - "a circle"."""

    model: Run
    terms: Annotated[list[str], tyro.conf.Positional]
    """Further sums after a comma: "a" + "b" , "a" - "c"."""
    count: Annotated[int | None, tyro.conf.arg(aliases=["-n"])] = None
    """Pictures in a GIF, 24 if not given."""
    out: Path = Path("arithmetic.png")
    """A .png with a row for each sum, or a .gif from the first term to the sum and back."""
    draw: Annotated[T2IDrawing, tyro.conf.arg(name="")] = field(default_factory=T2IDrawing)

    def run(self) -> None:
        count = usual_count(self.out) if self.count is None else self.count
        sums = parse_sums(self.terms)
        if self.out.suffix == MOVING and len(sums) > 1:
            raise ConfigError(f"a GIF shows one sum, got {len(sums)}; give --out a .png, or one sum")
        sampler, how = self.draw.open(self.model)
        readable(sampler, typed_prompts([text for plus, minus in sums for text in (*plus, *minus)]))
        if self.out.suffix == MOVING:
            frames = walk_frames(draw_way_to_sum(sampler, *sums[0], count, how, self.draw.seed), count)
            say(f"wrote {save_gif(frames.images, self.out, frames.rests)}")
        else:
            rows = [draw_sum(sampler, plus, minus, how, self.draw.seed) for plus, minus in sums]
            say(f"wrote {save_png(sum_sheet(rows, sums), self.out)}")


def readable(sampler: Sampler, prompts: Sequence[Prompt]) -> list[str]:
    """The captions, once the model can read them whole; words that it never learned are said on stderr."""
    require_short(sampler.model, prompts)
    for line in unknown_words(sampler.model, prompts):
        print(line, file=sys.stderr)
    return [prompt.text for prompt in prompts]


def usual_count(out: Path) -> int:
    """How many pictures a way has. Raises ConfigError for a file that is neither a page nor a GIF."""
    if out.suffix not in USUAL:
        raise ConfigError(f"--out must end in {' or '.join(USUAL)}, got {out}")
    return USUAL[out.suffix]


def require_positive(option: str, value: int) -> None:
    """Raise ConfigError for a count that is none."""
    if value < 1:
        raise ConfigError(f"{option} must be at least 1, got {value}")
