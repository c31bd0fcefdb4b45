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
    """`captions[i]` is true of `images[i]`."""

    captions: list[Caption]
    images: UInt8[Tensor, "n 3 s s"]

    @property
    def texts(self) -> list[str]:
        return [caption.text for caption in self.captions]


@cache
def held_out(split: Split, per_task: int, image_size: int) -> HeldOut:
    """`per_task` different captions of a split for each of the six tasks, which say where every object stands."""
    found: dict[str, list[tuple[Caption, Tensor]]] = {task: [] for task in TASKS}
    taken: set[str] = set()
    for block in range(1_000):
        scenes = draw_scenes(BLOCK, torch.Generator().manual_seed(SEEDS[split] + 1_000 * block))
        pictures, _ = render(scenes, image_size)
        rng = random.Random(f"{split} {block}")
        for row in range(BLOCK):
            wanted = [task for task, pairs in found.items() if len(pairs) < per_task]
            said = [caption for task in wanted if (caption := describe(scenes, row, rng, task, STATED))]
            fitting = [
                caption for caption in said if split_of(caption.text) == split and caption.text not in taken
            ]
            if fitting:  # a scene serves one task
                caption = fitting[0]
                taken.add(caption.text)
                found[caption.expectation.task].append((caption, pictures[row]))
        if all(len(pairs) == per_task for pairs in found.values()):
            both = [pair for pairs in found.values() for pair in pairs]
            return HeldOut([caption for caption, _ in both], torch.stack([picture for _, picture in both]))
    short = {task: len(pairs) for task, pairs in found.items() if len(pairs) < per_task}
    raise ValueError(f"the grammar has fewer than {per_task} {split} captions for {short}; ask for fewer")
