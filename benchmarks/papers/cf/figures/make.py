"""Drawing the figures that can be drawn, and their page: nothing is trained here."""

from pathlib import Path
from typing import TYPE_CHECKING

from cf_apps.engine.errors import RunError
from cf_apps.engine.saving.export import MODEL
from cf_apps.engine.watching.render import save_png
from cf_apps.engine.watching.report import say

from cf.figures.every import FIGURES
from cf.figures.figure import Figure
from cf.figures.page import write_page
from cf.figures.stage import Drawn, Stage

if TYPE_CHECKING:
    import PIL.Image

COLOURS = 256


def make(stage: Stage, folder: Path, figures: tuple[Figure, ...] = FIGURES) -> Path:
    """FOLDER/figures/NAME.png of what there is to draw, and FOLDER/figures.html; the page.

    A figure that cannot be drawn any more keeps no old picture. Raises RunError where no training is finished at all.
    """
    if not any(stage.store.runs.glob(f"*/{MODEL}")):
        raise RunError(
            f"no finished training in {stage.store.runs}; make some with benchmarks/papers/cf_bench.py "
            f"--scale {stage.scale.name}, or give their folder by --runs"
        )
    found: dict[str, Drawn] = {}
    for figure in figures:
        found[figure.name] = drawn = figure.draw(stage)
        file = folder / "figures" / f"{figure.name}.png"
        if drawn.picture is None:
            file.unlink(missing_ok=True)
        else:
            save_png(few_colours(drawn.picture), file)
        for sentence in drawn.missing:
            say(f"{figure.name}: left out {sentence}")
    return write_page(figures, found, stage, folder)


def few_colours(picture: "PIL.Image.Image") -> "PIL.Image.Image":
    """At most 256 of them: a third of the bytes. MAXCOVERAGE keeps a rare colour, such as a plot's dots, as it is."""
    from PIL import Image

    return picture.convert("RGB").quantize(
        COLOURS, method=Image.Quantize.MAXCOVERAGE, kmeans=2, dither=Image.Dither.NONE
    )
