"""What the caption trainings share: COCO captions split by image, one training loop, and where results come from."""

import gzip
import json
import math
import platform
import random
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Split:
    """Captions of training images and of held-out ones: an image is never in both."""

    train: list[str]
    held_out: list[str]


def coco_split(file: Path, held_out: float = 0.05, seed: int = 0) -> Split:
    """Read a COCO captions JSON, gzipped or not, and hold a share of its images out.

    A caption of a training image that reads the same as a held-out one stays in training: people do repeat
    themselves.
    """
    raw = file.read_bytes()
    annotations = json.loads(gzip.decompress(raw) if file.suffix == ".gz" else raw)["annotations"]
    images = sorted({a["image_id"] for a in annotations})
    random.Random(seed).shuffle(images)
    apart = set(images[: round(held_out * len(images))])
    train = [a["caption"] for a in annotations if a["image_id"] not in apart]
    return Split(train, [a["caption"] for a in annotations if a["image_id"] in apart])


@dataclass(frozen=True)
class Plan:
    """AdamW, linear warm-up, cosine to zero, bfloat16 autocast, gradients clipped to norm 1."""

    steps: int
    batch: int = 128
    lr: float = 2e-3
    warm_up: int = 100
    weight_decay: float = 0.01


def train(
    model: nn.Module, loss: Callable[[int], tuple[Tensor, dict[str, float]]], plan: Plan, label: str
) -> list[dict[str, float]]:
    """Minimise `loss(step)`, which names what it wants logged; the log. The model is left in eval mode.

    No average of weights: the rate ends at zero, and an average would still remember its first hundred steps.
    """
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=plan.lr, betas=(0.9, 0.98), weight_decay=plan.weight_decay
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rate(step, plan))
    log, begin = [], time.monotonic()
    for step in range(plan.steps):
        with torch.autocast("cpu", torch.bfloat16):
            value, shown = loss(step)
        optimizer.zero_grad(set_to_none=True)
        value.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 50 == 0 or step == plan.steps - 1:
            seconds = time.monotonic() - begin
            log.append({"step": step, "seconds": seconds, **shown})
            speed = (step + 1) / seconds
            words = "  ".join(f"{name} {number:.3g}" for name, number in shown.items())
            left = (plan.steps - step - 1) / speed
            print(
                f"{label}: {step}/{plan.steps}  {speed:.2f} steps/s  {left:.0f} s left  {words}",
                file=sys.stderr,
            )
    model.eval()
    return log


def rate(step: int, plan: Plan) -> float:
    """Share of the learning rate at this step."""
    if step < plan.warm_up:
        return (step + 1) / plan.warm_up
    return 0.5 * (1 + math.cos(math.pi * (step - plan.warm_up) / max(1, plan.steps - plan.warm_up)))


def circumstances() -> dict[str, Any]:
    """Commit, device and library of a run."""
    described = ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    commit = subprocess.run(described, capture_output=True, text=True, check=False).stdout.strip()
    return {
        "commit": commit or "unknown",
        "device": f"CPU, {torch.get_num_threads()} threads, {platform.machine()}",
        "torch": torch.__version__,
    }


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def curves(logs: Mapping[str, list[dict[str, float]]], panels: Mapping[str, str], file: Path) -> None:
    """One panel for each logged quantity, one line for each run."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, len(panels), figsize=(5 * len(panels), 3.5), squeeze=False)
    for axis, (quantity, words) in zip(axes.flat, panels.items(), strict=True):
        for name, log in logs.items():
            axis.plot(
                [e["step"] for e in log if quantity in e],
                [e[quantity] for e in log if quantity in e],
                label=name,
            )
        axis.set(xlabel="step", ylabel=words)
        axis.grid(alpha=0.3)
        axis.legend()
    figure.tight_layout()
    figure.savefig(file, dpi=80)
    plt.close(figure)
