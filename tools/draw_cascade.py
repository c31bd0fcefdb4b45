"""Draw the picture of a DiMR that the README of cf-transformer shows.

    uv run python tools/draw_cascade.py

Sizes are those of the preset dimr-951m-512, read from it.
"""

from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
from cf_transformer import preset
from matplotlib.axes import Axes
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

OUT = Path(__file__).parents[1] / "packages" / "cf-transformer" / "cascade.png"
INK, SOFT = "#222222", "#888888"
STAGE, JOIN, HEAD, DATA = "#dbe7f5", "#f6e3c5", "#d9ecd9", "#eeeeee"
KINDS = {"transformer": "transformer blocks", "convnext": "ConvNeXt blocks"}
ROW = 2.1  # height from one stage to the next


def box(ax: Axes, x: float, y: float, width: float, height: float, text: str, colour: str) -> None:
    """A rounded box around (x, y) with a few lines of text."""
    corner = (x - width / 2, y - height / 2)
    ax.add_patch(
        FancyBboxPatch(corner, width, height, "round,pad=0.02,rounding_size=0.12", fc=colour, ec=INK, lw=0.8)
    )
    ax.text(x, y, text, ha="center", va="center", fontsize=8.5, color=INK, linespacing=1.45)


def arrow(ax: Axes, start: tuple[float, float], end: tuple[float, float], bend: float = 0.0) -> None:
    """From a point to a point; `bend` curves it."""
    style = f"arc3,rad={bend}"
    ax.add_patch(
        FancyArrowPatch(
            start, end, connectionstyle=style, arrowstyle="-|>", mutation_scale=10, color=INK, lw=0.9
        )
    )


def main() -> None:
    """Draw it."""
    config = preset("dimr-951m-512")
    figure, ax = plt.subplots(figsize=(9.6, 5.0), dpi=150)
    ax.set(xlim=(0, 12.4), ylim=(-1.5, 4.8))
    ax.axis("off")
    box(ax, 1.1, ROW, 1.5, 1.2, f"$x_t$\n{config.channels} x {config.size[0]} x {config.size[1]}", DATA)
    box(ax, 5.0, -1.05, 3.0, 0.55, "indicator token  $g^c$ or $g^{uc}$", DATA)
    arrow(ax, (5.0, -0.74), (5.0, -0.48))
    for i, stage in enumerate(config.stages):
        y, (rows, columns) = ROW * i, config.grid(stage)
        words = (
            f"{stage.n_blocks} {KINDS[stage.kind]}\n"
            f"{stage.d_model} wide, {rows} x {columns} cells of {stage.patch} x {stage.patch}"
        )
        box(ax, 5.0, y, 4.0, 0.9, words, STAGE)
        arrow(ax, (1.9, ROW + 0.35 * (i - 1)), (2.92, y), bend=0.0)
        last = stage is config.stages[-1]
        box(ax, 8.7, y, 2.1, 0.7, "TD-LN, 3 x 3 conv", HEAD)
        arrow(ax, (7.05, y), (7.6, y))
        ax.text(10.0, y, "$v(x_t, t, 1_c)$" if last else "its own velocity,\nin training only", va="center", fontsize=9,
                color=INK if last else SOFT)  # fmt: skip
        if last:
            continue
        maps = stage.n_blocks + 1
        box(ax, 5.0, y + ROW / 2, 4.0, 0.62, f"all {maps} maps: TD-LN, {maps * stage.d_model:,} channels\n"
            "to the next grid, TD-LN, added", JOIN)  # fmt: skip
        arrow(ax, (5.0, y + 0.48), (5.0, y + ROW / 2 - 0.34))
        arrow(ax, (5.0, y + ROW / 2 + 0.34), (5.0, y + ROW - 0.48))
    ax.text(
        11.9, -0.95, "time t enters through the gains of the norms only", ha="right", fontsize=8.5, color=SOFT
    )
    figure.savefig(OUT, bbox_inches="tight", pad_inches=0.05)
    print(f"wrote {OUT.name}")


if __name__ == "__main__":
    main()
