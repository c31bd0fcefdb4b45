"""Held-out captions of captioned shapes together with a true picture of each."""

import random
from dataclasses import dataclass
from functools import cache

import torch
from cf_apps.data.captioned_shapes import Split, split_of
from cf_apps.data.shapes_captions import STATED, Caption, describe
from cf_apps.data.shapes_render import render
from cf_apps.data.shapes_scene import draw_scenes
from cf_eval.composition import TASKS
from jaxtyping import UInt8
from torch import Tensor

BLOCK = 1024
SEEDS = {"val": 77_000_001, "test": 77_000_002}  # of the scenes; training takes others


@dataclass(frozen=True)
class HeldOut:
    """`captions[i]` is true of `images[i]`. others: as many true pictures of further scenes, no captions."""

    captions: list[Caption]
    images: UInt8[Tensor, "n 3 s s"]
    others: UInt8[Tensor, "n 3 s s"]

    @property
    def texts(self) -> list[str]:
        return [caption.text for caption in self.captions]


@cache
def held_out(split: Split, per_task: int, image_size: int) -> HeldOut:
    """`per_task` different captions of a split for each of the six tasks, which say where every object stands."""
    captions: list[Caption] = []
    images, others = [], []
    missing, taken = dict.fromkeys(TASKS, per_task), set()
    for block in range(1_000):
        generator = torch.Generator().manual_seed(SEEDS[split] + 1_000 * block)
        scenes = draw_scenes(BLOCK, generator)
        pictures, _ = render(scenes, image_size)
        rng = random.Random(f"{split} {block}")
        free = []
        for row in range(BLOCK):
            wanted = [task for task, count in missing.items() if count]
            found = [c for task in wanted if (c := describe(scenes, row, rng, task, STATED))]
            fitting = [c for c in found if split_of(c.text) == split and c.text not in taken]
            if fitting:
                caption = fitting[0]
                taken.add(caption.text)
                captions.append(caption)
                images.append(pictures[row])
                missing[caption.expectation.task] -= 1
            else:
                free.append(pictures[row])
        others += free[: len(TASKS) * per_task - len(others)]
        if not any(missing.values()) and len(others) == len(captions):
            order = sorted(range(len(captions)), key=lambda i: TASKS.index(captions[i].expectation.task))
            return HeldOut(
                [captions[i] for i in order], torch.stack([images[i] for i in order]), torch.stack(others)
            )
    raise ValueError(f"the grammar has fewer than {per_task} {split} captions for {missing}; ask for fewer")
