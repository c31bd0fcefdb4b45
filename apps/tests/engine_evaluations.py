"""The evaluation of every task on one, two and three ranks; a process of its own.

    python engine_evaluations.py FOLDER

FOLDER/SIZE-RANK.pt: what each rank found, see `measured`.
"""

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import caption_tiny
import depth_tiny
import superres_tiny
import t2i_tiny
import torch
from cf_apps.caption import evaluate as of_captions
from cf_apps.caption import sources
from cf_apps.caption.sample import Captioner
from cf_apps.data.captioned import ImageTextArrays
from cf_apps.data.depth_sets import by_name
from cf_apps.data.depth_sets.by_name import DepthSource
from cf_apps.depth import baselines
from cf_apps.depth import evaluate as of_depth
from cf_apps.engine.commands.app import Scoring
from cf_apps.engine.errors import ConfigError
from cf_apps.engine.flow import SampleConfig
from cf_apps.engine.ranks.spread import own_parts, spread_over
from cf_apps.engine.ranks.world import ALONE, World
from cf_apps.engine.watching.progress import Silence
from cf_apps.superres import evaluate as of_superres
from cf_apps.t2i import evaluate as of_t2i
from cf_apps.t2i.sample import Sampler
from cf_apps.t2i.scoring import geneval, guidance
from cf_apps.t2i.scoring.guidance import INDICATOR, colour_measure, composition_measure, search
from cf_apps.t2i.scoring.judges import JudgePaths
from cf_eval.clip_encoders import ClipEncoder
from engine_ranks import on_ranks

HOW = SampleConfig(scale=2.0, steps=2)
BATCH = 8  # 18 samples are 8, 8 and 2: of the last batch the third rank has no row
WORDS = {"language__max_tokens": 40, "text_ve__max_tokens": 40}


def twice(open_depth: Callable[..., DepthSource]) -> Callable[..., DepthSource]:
    """The test set under two names: ranks that had no row at the end of the first must be in step in the second."""

    def opened(*words: Any) -> DepthSource:
        source = open_depth(*words)
        return replace(source, test=dict.fromkeys("ab", source.test["shapes"]))

    return opened


def small_sets() -> None:
    """As few samples as show something, and small batches, for this process and its children."""
    of_depth.open_depth = twice(by_name.open_depth)
    by_name.HELD_OUT_SCENES, baselines.FITTED_ON, baselines.BATCH = 10, 18, BATCH
    sources.HELD_OUT_SCENES, of_superres.LIMIT = 18, 18
    for module in (of_captions, of_depth, of_superres, of_t2i, guidance):
        module.BATCH = BATCH


def scoring(data: str) -> Scoring:
    return Scoring(data, "test", HOW, 3, Silence())


class Counting(Sampler):
    """Counts the pictures that this process draws."""

    rows = 0

    def draw(self, captions, how, generator, batch_size=128):
        Counting.rows += len(captions)
        return super().draw(captions, how, generator, batch_size)


def pairs() -> ImageTextArrays:
    """Eighteen pictures with captions, in the place of a folder."""
    images = torch.randint(256, (18, 3, 16, 16), generator=t2i_tiny.dice(1), dtype=torch.uint8)
    return ImageTextArrays(images, tuple((t2i_tiny.CAPTIONS[i % 5],) for i in range(18)), "eighteen")


def seeing() -> ClipEncoder:
    """What stands for CLIP: colours of the corners, and the letters of a caption."""
    return ClipEncoder(
        "corners",
        4,
        lambda x: x[:, :, ::3, ::3].flatten(1),
        lambda texts: torch.tensor([[float(ord(letter)) for letter in text[:12]] for text in texts]),
    )


def measured(folder: Path, name: str) -> dict[str, Any]:
    """What this rank knows in the end, and how many pictures it drew for it."""
    Counting.rows = 0
    composed = of_t2i.score_composition(
        Counting(t2i_tiny.model(**WORDS)), HOW, Silence(), per_task=2, per_task_open=1, seed=3
    )
    rows, plain = Counting.rows, t2i_tiny.sampler()
    prompts = folder / "prompts.txt"
    geneval.clip_of = lambda paths, device: seeing()
    asked = geneval.PromptScoring(str(prompts), JudgePaths(), HOW, Silence(), count=3, batch_size=2)
    return {
        "name": name,
        "rows": rows,
        "composition": composed.table(),
        "images": composed.images,
        "pairs": of_t2i.score_pairs(plain, pairs(), HOW, Silence(), seed=3),
        "baseline": of_t2i.score_pairs(Sampler(t2i_tiny.baseline()), pairs(), HOW, Silence(), seed=3),
        "prompts": geneval.score_prompts(plain, asked)["CLIP score"],
        "depth": of_depth.score(depth_tiny.sampler(), scoring("shapes")),
        "superres": of_superres.score(superres_tiny.sampler(source_noise=0.3), scoring("shapes")),
        "captions": of_captions.score(Captioner(caption_tiny.model()), scoring("shapes")),
        "guidance": searched(Sampler(t2i_tiny.model(**WORDS))),
        "refused": refusal(),
    }


def searched(sampler: Sampler) -> dict[str, dict[str, float]]:
    """The search for a scale of guidance, by composition and by colours."""
    return {
        measure.name: search(sampler, {INDICATOR: None}, (0.0, 1.0, 3.0), HOW, measure, Silence()).table()
        for measure in (composition_measure(3, seed=3), colour_measure(pairs(), 18, seed=3))
    }


def refusal() -> str:
    """What every rank says when the one that has the last row cannot go on."""
    try:
        with own_parts(3, 3) as parts:
            if any(2 in part.places for part in parts):
                raise ConfigError("the last row is unusable")
    except ConfigError as error:
        return str(error)
    return ""


def on(world: World, folder: Path) -> None:
    torch.set_num_threads(1)
    with spread_over(world):
        found = measured(folder, f"{world.size}-{world.rank}")
    torch.save(found, folder / f"{found['name']}.pt")


def main(folder: Path) -> None:
    small_sets()
    (folder / "prompts.txt").write_text("".join(f"{text}\n" for text in t2i_tiny.CAPTIONS[:3]))
    on_ranks(1, lambda _: on(ALONE, folder), folder / "meeting-1")
    for size in (2, 3):
        on_ranks(size, lambda world: on(world, folder), folder / f"meeting-{size}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
