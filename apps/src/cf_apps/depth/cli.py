"""The commands of `crossflow depth`."""

import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import torch
import tyro

from cf_apps.data.captioned import DataError
from cf_apps.data.pictures import read_picture
from cf_apps.depth.app import APP
from cf_apps.depth.photos import Wanted, write_depth
from cf_apps.engine.commands.common import Drawing, Run, commands, sample_config
from cf_apps.engine.device import choose_device
from cf_apps.engine.errors import ConfigError
from cf_apps.engine.watching.progress import progress_line
from cf_apps.engine.watching.report import say


@dataclass(frozen=True)
class Sample:
    """Depth of photos: in colours beside the picture, as a 16-bit PNG, as a point cloud."""

    model: Run
    pictures: Annotated[list[Path], tyro.conf.Positional]
    out: Path = Path("depth")
    """Folder for NAME.png, NAME_depth16.png, NAME.ply and depth.json."""
    draws: int = 1
    """Depth maps of each picture, from as many x_0; each pixel's median is kept."""
    focal: float | None = None
    """Focal length of the point cloud in pixels of the picture; a view 60 degrees wide if not given."""
    draw: Annotated[Drawing, tyro.conf.arg(name="")] = field(default_factory=Drawing)

    def run(self) -> None:
        if not self.pictures:
            raise ConfigError("give at least one picture")
        sampler = APP.open(self.model, choose_device(self.draw.device))
        wanted = Wanted(self.draw.over(sample_config(self.model)), self.draws, self.focal)
        generator = torch.Generator().manual_seed(self.draw.seed)
        refused: list[str] = []
        taken: Counter[str] = Counter()
        with progress_line("measuring") as line:
            for place, path in enumerate(self.pictures, start=1):
                try:
                    picture = read_picture(path)
                except DataError as error:  # the others are measured all the same
                    refused.append(str(error))
                    continue
                taken[path.stem] += 1
                name = path.stem if taken[path.stem] == 1 else f"{path.stem}-{taken[path.stem]}"
                written = write_depth(sampler, picture, name, wanted, generator, self.out)
                line.show(place / len(self.pictures), f"{place} of {len(self.pictures)} pictures")
                say(f"wrote {', '.join(str(file) for file in written)}")
        for sentence in refused[1:]:
            print(f"error: {sentence}", file=sys.stderr)
        if refused:
            raise DataError(refused[0])


COMMANDS = commands(APP) | {"sample": Sample}
