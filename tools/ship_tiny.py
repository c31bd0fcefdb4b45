"""Copy a finished run of `crossflow t2i train --preset tiny` into the package, as the model that ships.

    uv run python tools/ship_tiny.py RUN

Takes the averaged weights, the log and the config (command, seed, steps, device, versions, commit) as they are, but
for the folder in the command, which was the training machine's. Draws the strip of the README's first screen with them.
"""

import re
import shutil
import sys
from pathlib import Path

import torch
from cf_apps.engine.watching.render import image_grid, save_png
from cf_apps.t2i.drawing.sheets import SHOWN
from cf_apps.t2i.sample import Sampler

ROOT = Path(__file__).parents[1]
ASSETS = ROOT / "apps" / "src" / "cf_apps" / "assets" / "tiny"
STRIP = ROOT / "docs" / "strip.png"
FILES = ("config.json", "log.jsonl", "model.safetensors")
LIMIT = 8_000_000  # bytes of weights that a wheel should carry


def main(run: Path) -> None:
    size = (run / "model.safetensors").stat().st_size
    if size > LIMIT:
        sys.exit(
            f"{run / 'model.safetensors'} has {size} bytes, the wheel takes {LIMIT}; train a smaller preset"
        )
    ASSETS.mkdir(parents=True, exist_ok=True)
    for name in FILES:
        shutil.copyfile(run / name, ASSETS / name)
    config = ASSETS / "config.json"  # where the run lay on the machine that trained it is nobody's business
    config.write_text(re.sub(r"--out \S+?(?=[\s\"])", "--out runs/tiny", config.read_text()))
    sampler = Sampler.from_run(ASSETS, torch.device("cpu"))
    images = sampler.draw(SHOWN, sampler.model.config.sample, torch.Generator().manual_seed(0))
    save_png(image_grid(images, len(SHOWN), captions=SHOWN), STRIP)
    print(f"wrote {ASSETS.relative_to(ROOT)} and {STRIP.relative_to(ROOT)}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
