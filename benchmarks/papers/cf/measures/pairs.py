"""The judge of a text-to-image training whose pictures no rule can read: held-out pairs of them and captions.

    frechet   to the true pictures of the same captions, in the mean colours of 4 x 4 cells: palette and layout, no more
    fid       the real one, with Inception's published weights (--inception)
    clip      the CLIP score by the paper's convention (--clip)
    pairs     how many; those whose captions the model cannot read whole are left out

val, half of the held-out pairs, is liked by the FID or what stands in for it; test is the other half. Under torchrun
every rank draws and judges its own share.
"""

from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import torch
from cf_apps.engine.errors import ConfigError
from cf_apps.engine.ranks.spread import merged, own_parts
from cf_apps.engine.watching.progress import Silence
from cf_apps.superres.degrade import to_bytes
from cf_apps.t2i.sample import Sampler
from cf_apps.t2i.scoring.geneval import CONVENTION, PromptScoring, score_geneval
from cf_apps.t2i.scoring.judges import JudgePaths, clip_of
from cf_eval import FID, ClipScore, FrechetDistance, inception_features
from cf_eval.clip_encoders import ClipEncoder
from cf_eval.images.features import Features
from jaxtyping import Float, UInt8
from torch import Tensor

from cf.measures.guidance import Judge, Numbers, guided, parameters, sampler_of
from cf.measures.held_pairs import Pairs, held_pairs
from cf.measures.judged import FIDELITY
from cf.measures.t2i import FEATURES, mean_colours
from cf.measures.walks import walked
from cf.scale import Trained

BATCH = 128
GENEVAL = {
    # of GenEval itself, and ours of the same task
    "overall": "composition",
    "single_object": "single_object",
    "two_object": "two_objects",
    "counting": "counting",
    "colors": "colours",
    "position": "position",
    "color_attr": "attribute_binding",
}


@dataclass(frozen=True)
class Judges:
    """Those that there are weights for."""

    distance: FrechetDistance
    fid: FID | None
    clip: ClipScore | None

    @classmethod
    def of(cls, trained: Trained) -> "Judges":
        """Fresh ones, that have seen nothing."""
        device, scale = trained.device, trained.scale
        fid = None if scale.inception is None else FID(_inception(scale.inception, str(device)))
        clip = (
            None if scale.judges.clip is None else ClipScore(clip_encoder(scale.judges, device), CONVENTION)
        )
        return cls(FrechetDistance(mean_colours, feature_space=FEATURES), fid, clip)

    def see(
        self, drawn: Float[Tensor, "b 3 s s"], true: UInt8[Tensor, "b 3 s s"], captions: list[str]
    ) -> None:
        """drawn: in [0, 1]."""
        self.distance.add_batch(generated=drawn, real=true.float() / 255)
        if self.fid is not None:
            self.fid.add_batch(real=true)
            self.fid.add_batch(generated=to_bytes(drawn))
        if self.clip is not None:
            self.clip.add_batch(to_bytes(drawn), captions)

    def numbers(self) -> Numbers:
        """Of what all ranks have seen. Collective."""
        found = {"frechet": merged(self.distance).compute().value}
        if self.fid is not None:
            found |= merged(self.fid).compute().values
        if self.clip is not None:
            found["clip"] = merged(self.clip).compute().values["clip_score"]
        return found


def geneval(trained: Trained) -> dict[str, Numbers]:
    """What `guided` finds, with GenEval's six tasks at the best scale, by the detector that was given."""
    columns = guided(ON_PAIRS, trained)
    at_best, sampler = columns["indicator"], sampler_of(trained)
    how = replace(sampler.model.config.sample, scale=at_best["scale"])
    scores = score_geneval(
        sampler, PromptScoring("geneval", trained.scale.judges, how, Silence(), seed=trained.seed)
    )
    tasks = {ours: float(str(scores[theirs])) for theirs, ours in GENEVAL.items() if theirs in scores}
    return columns | {"indicator": at_best | tasks}


def walk(trained: Trained) -> dict[str, Numbers]:
    """Between pairs of val captions; the numbers are those of `walks.walk`."""
    sampler = sampler_of(trained)
    return {"walk": walked(sampler, held_pairs(trained, sampler).val.captions, trained.seed)}


@cache
def clip_encoder(paths: JudgePaths, device: torch.device) -> ClipEncoder:
    """Read once for all trainings."""
    return clip_of(paths, device)


@cache
def _inception(path: Path, device: str) -> Features:
    try:
        return inception_features(path, protocol="pytorch-fid", device=device)
    except (OSError, ValueError) as error:
        raise ConfigError(f"--inception {path} cannot be used for an FID: {error}") from error


def _val(sampler: Sampler, scale: float, trained: Trained) -> float:
    """The distance, turned round: more is better."""
    numbers = judged(sampler, held_pairs(trained, sampler).val, scale, trained)
    return -next(numbers[name] for name in FIDELITY if name in numbers)


def _tested(sampler: Sampler, scale: float, trained: Trained) -> Numbers:
    found = judged(sampler, held_pairs(trained, sampler).test, scale, trained)
    return found | {"parameters": parameters(sampler)}


ON_PAIRS = Judge(_val, _tested)


def judged(sampler: Sampler, pairs: Pairs, scale: float, trained: Trained) -> Numbers:
    """Draws every caption and shows the pictures to the judges. Collective within `spread_over`."""
    how = replace(sampler.model.config.sample, scale=scale)
    judges, generator = Judges.of(trained), torch.Generator().manual_seed(1_000 + trained.seed)
    with own_parts(len(pairs), BATCH) as parts:
        for part in parts:
            own = pairs.those(list(part.places))
            judges.see(sampler.draw(own.captions, how, part.of(generator)), own.images, own.captions)
    return judges.numbers() | {"pairs": len(pairs)}
