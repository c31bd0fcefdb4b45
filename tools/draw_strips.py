"""Draw the strips of apps/README.md: held-out pictures of finished runs of captioning, depth and super-resolution.

uv run python tools/draw_strips.py RUN [RUN ...]
"""

import sys
from pathlib import Path

import torch
from cf_apps.caption.evaluate import show as captions
from cf_apps.caption.sample import Captioner
from cf_apps.depth.evaluate import show as depth_maps
from cf_apps.depth.sample import Sampler as DepthSampler
from cf_apps.engine.commands.app import Scoring, run_kind
from cf_apps.engine.run import read_config
from cf_apps.engine.watching.progress import Silence
from cf_apps.engine.watching.render import save_png
from cf_apps.superres.evaluate import held_out
from cf_apps.superres.sample import Sampler as Enlarger
from cf_apps.superres.sheets import held_out_sheet

DOCS = Path(__file__).parents[1] / "docs"
CPU = torch.device("cpu")
ROWS, ACROSS = 3, 5


def main(run: Path) -> None:
    kind = run_kind(read_config(run))
    if kind == "caption":
        captioner = Captioner.from_run(run, CPU)
        strip = captions(captioner, _scoring(captioner), ACROSS)["captions"]
    elif kind == "depth":
        sampler = DepthSampler.from_run(run, CPU)
        strip = depth_maps(sampler, _scoring(sampler), ROWS)["samples"]
    elif kind == "superres":
        enlarger = Enlarger.from_run(run, CPU)
        scoring = _scoring(enlarger)
        data = held_out(scoring, enlarger.model.config.image_size)
        strip = held_out_sheet(enlarger, data, scoring.how, scoring.seed, ROWS)
    else:
        sys.exit(f"{run} is a run of {kind}; strips are of caption, depth and superres")
    save_png(strip, DOCS / f"{kind}.png")
    print(f"wrote {(DOCS / f'{kind}.png').name}")


def _scoring(drawer: Captioner | DepthSampler | Enlarger) -> Scoring:
    return Scoring("shapes", "test", drawer.model.config.sample, 0, Silence())


if __name__ == "__main__":
    for folder in sys.argv[1:]:
        main(Path(folder))
