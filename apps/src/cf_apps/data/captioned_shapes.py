"""captioned_shapes: a procedural world whose every caption can be checked against the picture.

Scenes are drawn in blocks from (seed, block number), so any index can be had without drawing the ones before it, and
rendered once. One caption in seven is held out by a hash of its words: training never sees it, whatever the scene.
"""

import random
import zlib
from dataclasses import dataclass, field
from typing import Literal

import torch
from cf_eval.composition import TASKS
from cf_eval.scene_reader import SceneReader
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from cf_apps.data.captioned import CaptionedBatch
from cf_apps.data.shapes_captions import STATED, Caption, Rates, describe
from cf_apps.data.shapes_render import inside_unit_area, render
from cf_apps.data.shapes_scene import BACKGROUNDS, COLOURS, SHAPES, Scenes, draw_scenes, in_reading_order
from cf_apps.engine.ranks.draws import draws_of

Split = Literal["train", "val", "test"]
BLOCK = 1024
HELD_OUT_FRACTION = 1 / 7  # half of it `val`, to choose a recipe by; half `test`, to report
_TRIES = 64  # captions drawn for a scene before taking one from the other side of the split


def is_held_out(text: str) -> bool:
    """Whether a caption belongs to the held-out side. Depends on its words alone."""
    return split_of(text) != "train"


def split_of(text: str) -> Split:
    """The side a caption is on: train, val or test."""
    place = zlib.crc32(text.encode()) / 2**32 / HELD_OUT_FRACTION
    return "train" if place >= 1 else "val" if place >= 0.5 else "test"


def shapes_reader() -> SceneReader:
    """The rule-based reader of this world's pictures."""
    return SceneReader(COLOURS, BACKGROUNDS, {name: inside_unit_area(name) for name in SHAPES})


@dataclass(frozen=True)
class CaptionedShapes:
    """`size` scenes at image_size² pixels with training captions; deterministic by seed.

    overlap: 0 keeps objects apart, up to 1 lets nearer ones hide others (for depth).
    reading_order: captions speak of objects as one reads, row after row and from the left, else in any order. A picture
    does not show which of its objects somebody will name first.
    """

    size: int = 30_000
    image_size: int = 32
    seed: int = 0
    overlap: float = 0.0
    reading_order: bool = False
    name: str = "captioned_shapes"
    _blocks: dict[int, "_Block"] = field(default_factory=dict, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.size < 1:
            raise ValueError(f"size must be at least 1 scene, got {self.size}")

    def __len__(self) -> int:
        return self.size

    def batch(self, indices: Int64[Tensor, "b"], generator: torch.Generator | None = None) -> CaptionedBatch:
        """Pictures and one training caption each: drawn with the generator, else each scene's own first one."""
        images, captions = [], []
        salt = 0 if generator is None else draws_of(generator).number(2**62)
        for index in indices.tolist():
            if not 0 <= index < self.size:
                raise IndexError(f"scene {index} is outside captioned_shapes of size {self.size}")
            block, row = self._block(index // BLOCK), index % BLOCK
            images.append(block.images[row])
            captions.append(_training_caption(block.scenes, row, random.Random(salt ^ index)).text)
        return CaptionedBatch(torch.stack(images), captions)

    def scenes(self, indices: Int64[Tensor, "b"]) -> tuple[UInt8[Tensor, "b 3 h w"], Float[Tensor, "b h w"]]:
        """Pictures and exact depth maps."""
        rows = [(self._block(i // BLOCK), i % BLOCK) for i in indices.tolist()]
        return torch.stack([b.images[r] for b, r in rows]), torch.stack([b.depth[r] for b, r in rows])

    def truth(self, index: int) -> tuple[Scenes, int]:
        """The block of scenes that holds scene `index`, and its row there: what captions are judged by."""
        return self._block(index // BLOCK).scenes, index % BLOCK

    def _block(self, number: int) -> "_Block":
        if number not in self._blocks:
            scenes = draw_scenes(BLOCK, _block_generator(self.seed, number), overlap=self.overlap)
            if self.reading_order:
                scenes = in_reading_order(scenes)
            images, depth = render(scenes, self.image_size)
            self._blocks[number] = _Block(scenes, images, depth.half())
        return self._blocks[number]


@dataclass(frozen=True)
class _Block:
    scenes: Scenes
    images: UInt8[Tensor, "n 3 h w"]
    depth: Float[Tensor, "n h w"]


def held_out_captions(
    per_task: int, seed: int = 0, split: Split = "test", rates: Rates = STATED, *, reading_order: bool = False
) -> list[Caption]:
    """`per_task` distinct captions of a split for each of the six tasks, none of which training can have seen.

    rates: how much they say; STATED says where every object stands, OPEN says nowhere. reading_order: as of
    CaptionedShapes.

    Raises ValueError when the grammar does not hold that many.
    """
    found: dict[str, dict[str, Caption]] = {task: {} for task in TASKS}
    taken: set[str] = set()  # a text serves one task only
    for number in range(1_000):
        scenes = draw_scenes(BLOCK, _block_generator(-1 - seed, number))
        scenes = in_reading_order(scenes) if reading_order else scenes
        rng = random.Random(f"held out {seed} {number}")
        for row in range(BLOCK):
            for task, captions in found.items():
                caption = describe(scenes, row, rng, task, rates) if len(captions) < per_task else None
                if caption is not None and caption.text not in taken and split_of(caption.text) == split:
                    taken.add(caption.text)
                    captions[caption.text] = caption
        if all(len(captions) == per_task for captions in found.values()):
            return [caption for captions in found.values() for caption in captions.values()]
    short = {task: len(captions) for task, captions in found.items() if len(captions) < per_task}
    raise ValueError(f"the grammar has fewer than {per_task} {split} captions for {short}; ask for fewer")


def _training_caption(scenes: Scenes, row: int, rng: random.Random) -> Caption:
    for _ in range(_TRIES):
        caption = describe(scenes, row, rng)
        if caption is not None and not is_held_out(caption.text):
            return caption
    raise ValueError(f"every phrasing of scene {row} is held out")  # 7^-64: a broken grammar, not bad luck


def _block_generator(seed: int, number: int) -> torch.Generator:
    return torch.Generator().manual_seed((seed * 1_000_003 + number * 2_654_435_761 + 12_345) % 2**63)
