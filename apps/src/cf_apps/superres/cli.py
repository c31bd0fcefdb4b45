"""The commands of `crossflow superres`."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import torch
import tyro

from cf_apps.data.pictures import read_picture
from cf_apps.engine.commands.app import Scoring, run_data
from cf_apps.engine.commands.common import Drawing, Run, commands, sample_config, shared_out
from cf_apps.engine.device import choose_device
from cf_apps.engine.errors import ConfigError
from cf_apps.engine.watching.progress import progress_line
from cf_apps.engine.watching.render import save_png, to_pil
from cf_apps.engine.watching.report import print_table, say
from cf_apps.superres.app import APP
from cf_apps.superres.evaluate import Other, compare
from cf_apps.superres.sample import Sampler
from cf_apps.superres.sheets import comparison


@dataclass(frozen=True)
class Sample:
    """Enlarge pictures of any size; writes each one large, and a sheet beside bicubic with zoomed crops."""

    model: Run
    pictures: Annotated[list[Path], tyro.conf.Positional]
    out: Path = Path("enlarged")
    """Folder to write into."""
    draw: Annotated[Drawing, tyro.conf.arg(name="")] = field(default_factory=Drawing)

    def run(self) -> None:
        if not self.pictures:
            raise ConfigError("give at least one picture")
        sampler = Sampler.from_run(self.model, choose_device(self.draw.device))
        how = self.draw.over(sample_config(self.model))
        for path in self.pictures:  # all of them before work starts, so that a bad one is known at once
            sampler.require_room(read_picture(path), str(path))
        for path, name in zip(self.pictures, distinct_names(self.pictures), strict=True):
            small, generator = read_picture(path), torch.Generator().manual_seed(self.draw.seed)
            with progress_line(name) as line:
                large = sampler.enlarge(
                    small,
                    how,
                    generator,
                    lambda t, share: line.show(t, f"t = {t:.2f}, {share:.0%} of the tiles"),
                )
                line.show(1.0, "")
            stem = self.out / f"{name}_x{sampler.factor}"
            say(f"wrote {save_png(to_pil(large), stem.with_name(f'{stem.name}.png'))}")
            sheet = comparison(small, large, sampler.factor)
            say(f"wrote {save_png(sheet, stem.with_name(f'{stem.name}_beside_bicubic.png'))}")


def distinct_names(paths: Sequence[Path]) -> list[str]:
    """The files' names without their suffixes; a number behind those that were there before."""
    names: list[str] = []
    for path in paths:
        name, number = path.stem, 1
        while name in names:
            number += 1
            name = f"{path.stem}-{number}"
        names.append(name)
    return names


@dataclass(frozen=True)
class Evaluate:
    """Score a run on held-out pictures, beside bicubic and other runs."""

    model: Run
    against: Annotated[list[Path], tyro.conf.UseAppendAction] = field(default_factory=list)
    """A further run to score, such as a baseline; may be repeated."""
    data: str | None = None
    """What to score on; the run's own data if not given."""
    split: Literal["test", "val"] = "test"
    """test to report, val to choose by."""
    inception: Path | None = None
    """pt_inception-2015-12-05-6726825d.pth, for an FID as well."""
    out: Path | None = None
    """A JSON report."""
    draw: Annotated[Drawing, tyro.conf.arg(name="")] = field(default_factory=Drawing)

    def run(self) -> None:
        with shared_out(self.draw.device, "enlarging") as (world, line):
            sampler = Sampler.from_run(self.model, world.device)
            others = {
                name: Other(Sampler.from_run(path, world.device), sample_config(path))
                for path, name in zip(self.against, distinct_names(self.against), strict=True)
            }
            if taken := {"ours", "bicubic"} & set(others):
                raise ConfigError(
                    f"a run cannot be called {', '.join(taken)} in the table; rename its folder"
                )
            data = self.data or run_data(self.model)
            if data is None:
                raise ConfigError(f"{self.model} has no data of its own; pass --data with {APP.data}")
            how = self.draw.over(sample_config(self.model))
            scoring = Scoring(data, self.split, how, self.draw.seed, line)
            columns = compare(sampler, scoring, others, self.inception)
        if world.main:
            print_table(f"{self.model} on {data}, {self.split}", columns, self.out)


COMMANDS = commands(APP) | {"sample": Sample, "evaluate": Evaluate}
