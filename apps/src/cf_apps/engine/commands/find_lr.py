"""`crossflow TASK find-lr`: the learning-rate finder as a command."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import tyro

from cf_apps.engine.commands.app import App, Setting
from cf_apps.engine.commands.recipe import (
    TrainRequest,
    chosen_data,
    fit_config,
    named,
    overridden,
    parse_overrides,
)
from cf_apps.engine.device import choose_device
from cf_apps.engine.lr_finder import draw_sweep, find_lr
from cf_apps.engine.watching.progress import progress_line
from cf_apps.engine.watching.report import print_table, say


def find_lr_command(app: App[Any, Any]) -> type:
    """`crossflow TASK find-lr`"""

    presets = f"One of {', '.join(app.presets)}."
    sources = f"Takes {app.data}; the preset's own if not given."

    @dataclass(frozen=True)
    class FindLr:
        """Try learning rates from low to high in a short sweep, and suggest one; no run is made."""

        preset: Annotated[str, tyro.conf.arg(help=presets)] = app.default
        data: Annotated[str | None, tyro.conf.arg(help=sources)] = None
        out: Path = Path("lr.png")
        """A plot of the loss over the rate."""
        lowest: float = 1e-7
        highest: float = 1.0
        steps: int = 100
        """Steps of the sweep."""
        batch_size: int | None = None
        seed: int = 0
        device: str = "auto"
        set: Annotated[list[str], tyro.conf.UseAppendAction] = field(default_factory=list)
        """KEY=VALUE of anything in the preset, as for train; may be repeated."""

        def run(self) -> None:
            recipe = overridden(named(app.presets, self.preset), parse_overrides(self.set))
            request = TrainRequest(
                self.preset, self.out, self.data, batch_size=self.batch_size, seed=self.seed
            )
            data, device = chosen_data(request, recipe, app.data), choose_device(self.device)
            with progress_line("preparing") as line:
                task = app.prepare(recipe.model, Setting(data, device, self.seed, line)).task
            config, line = fit_config(request, recipe), progress_line("sweeping")
            sweep = find_lr(task, config, self.lowest, self.highest, self.steps, line)
            print_table(f"{app.name} {self.preset}: total loss by learning rate", sweep.columns())
            say(f"wrote {draw_sweep(sweep, self.out)}")
            say(
                f"suggestion: lr {sweep.suggestion:.1e}, a tenth of {sweep.least:.1e}, at which the loss was least; "
                f"the preset has {recipe.fit.lr:.1e}"
            )

    return FindLr
