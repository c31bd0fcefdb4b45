"""Scores of prompts that have no true picture: GenEval's six tasks, and the CLIP score (CrossFlow Tables 1, 2 and 7).

Each picture is the one that `crossflow t2i sample --prompts` writes for the same prompt, seed and number.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from jaxtyping import UInt8
from torch import Tensor

from cf_apps.engine.commands.app import Columns
from cf_apps.engine.errors import ConfigError
from cf_apps.engine.flow import SampleConfig
from cf_apps.engine.ranks.spread import merged, own_parts, ranks
from cf_apps.engine.watching.progress import Progress
from cf_apps.engine.watching.render import to_bytes
from cf_apps.t2i.drawing.pictures import Picture, drawn, wanted
from cf_apps.t2i.drawing.prompts import GENEVAL, named_prompts, require_short
from cf_apps.t2i.sample import Sampler
from cf_apps.t2i.scoring.judges import JudgePaths, clip_of, colours_of, detector_of

if TYPE_CHECKING:
    from cf_eval import Result

OFFICIAL = 4  # pictures of each prompt in GenEval's own numbers
CONVENTION = "crossflow"  # of the CLIP score: 1 x max(cos, 0), as the paper prints it


@dataclass(frozen=True)
class PromptScoring:
    """What is scored, and how it is drawn. prompts: `geneval`, or a file. count: pictures of each prompt."""

    prompts: str
    paths: JudgePaths
    how: SampleConfig
    line: Progress
    count: int = OFFICIAL
    seed: int = 0
    batch_size: int = 32


def score_prompts(sampler: Sampler, scoring: PromptScoring) -> Columns:
    """GenEval for its own prompts, the CLIP score for those of a file.

    Raises ConfigError where the weights to judge by are missing, before anything is drawn.
    """
    if scoring.prompts == GENEVAL:
        return {"GenEval": score_geneval(sampler, scoring)}
    if scoring.paths.detector is not None:
        raise ConfigError(
            f"--detector judges GenEval's own prompts: give --prompts {GENEVAL}, not {scoring.prompts}"
        )
    return {"CLIP score": score_clip(sampler, scoring)}


def score_geneval(sampler: Sampler, scoring: PromptScoring) -> dict[str, object]:
    """Accuracy in the six tasks and `overall`, which the detector and the classifier of colours decide with the model.

    The official ones are Mask2Former and CLIP ViT-L/14: with others the number compares to no paper's.
    """
    from cf_eval import GenEval, geneval_prompts

    device = sampler.model.device
    metric = GenEval(detector_of(scoring.paths, device), colours_of(scoring.paths, device))
    prompts = geneval_prompts()
    see(sampler, scoring, lambda picture, image: metric.add(image, prompts[picture.index]))
    return _column(merged(metric).compute())


def score_clip(sampler: Sampler, scoring: PromptScoring) -> dict[str, object]:
    """The mean CLIP score of pictures and their prompts, by the paper's convention."""
    from cf_eval import ClipScore

    metric = ClipScore(clip_of(scoring.paths, sampler.model.device), CONVENTION)
    see(sampler, scoring, lambda picture, image: metric.add_batch(image[None], [picture.caption]))
    return _column(merged(metric).compute())


def see(
    sampler: Sampler, scoring: PromptScoring, judge: Callable[[Picture, UInt8[Tensor, "3 H W"]], object]
) -> None:
    """Draw all pictures and show each to the judge; within `spread_over` each rank's judge sees its own."""
    prompts = named_prompts(scoring.prompts)
    require_short(sampler.model, prompts)
    pictures = wanted([prompt.text for prompt in prompts], scoring.count, scoring.seed)
    with own_parts(len(pictures), scoring.batch_size * ranks()) as parts:  # full batches on every rank
        own = [pictures[place] for part in parts for place in part.places]
        for picture, image in drawn(sampler, own, scoring.how, scoring.batch_size, scoring.line):
            judge(picture, to_bytes(image))


def _column(result: "Result") -> dict[str, object]:
    """For `print_table`, which shows what is flat and writes the rest into the report."""
    return {**result.values, "count": result.count, "measured_as": json.loads(result.to_json())}
