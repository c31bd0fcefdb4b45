"""How good captions are: against references, and where the scene is known, against the truth."""

import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from cf_eval.captions import CaptionProtocol, score_captions
from cf_eval.captions.meteor import Meteor
from cf_eval.captions.spice import Spice

from cf_apps.caption.sample import Captioner
from cf_apps.caption.sources import open_captions, references
from cf_apps.data.captioned import CaptionedImages
from cf_apps.data.captioned_shapes import CaptionedShapes
from cf_apps.data.shapes_captions import describe
from cf_apps.data.shapes_statements import KINDS, grammatical, judge, names_everything, true_of
from cf_apps.engine.commands.app import Columns, Pictures, Scoring
from cf_apps.engine.errors import ConfigError
from cf_apps.engine.flow import SampleConfig
from cf_apps.engine.ranks.spread import in_order, on_main, own_parts
from cf_apps.engine.watching.progress import Progress
from cf_apps.engine.watching.render import image_grid
from cf_apps.engine.watching.report import say

BATCH = 128
SHOWN, DRAWS, SHOWN_SIDE = 20, 2, 192  # pictures of `show`, captions under each, its least side in pixels


@dataclass(frozen=True)
class JavaTools:
    """What scores that only exist as a jar need: METEOR 1.5, and SPICE 1.0 with Stanford CoreNLP beside it."""

    java: str = "java"
    meteor_jar: Path | None = None
    spice_jar: Path | None = None

    def protocol(self) -> CaptionProtocol:
        """BLEU, CIDEr-D and ROUGE-L, METEOR and SPICE where they can be had; says which are left out, and why.

        Raises ConfigError for a jar that was named and cannot be run.
        """
        metrics = ["bleu", "cider_d", "rouge_l"]
        for name, jar, tool in (("meteor", self.meteor_jar, Meteor), ("spice", self.spice_jar, Spice)):
            try:
                if (
                    name == "spice" and jar is None
                ):  # a package may carry the jar, but not the models it needs
                    raise FileNotFoundError(
                        "no jar was named; its folder must hold Stanford CoreNLP's models"
                    )
                tool(jar, self.java)
            except (RuntimeError, OSError) as error:
                if jar is not None:
                    raise ConfigError(f"{name.upper()}: {error}") from error
                say(f"{name.upper()} skipped: {error}; pass --{name}-jar")
            else:
                metrics.append(name)
        return CaptionProtocol(
            tuple(metrics), java=self.java, meteor_jar=self.meteor_jar, spice_jar=self.spice_jar
        )


@dataclass(frozen=True)
class Captioned:
    """What the model wrote under each picture, and all that is said of it.

    without_flow: what is read out of x_0 itself, where training made that something to read.
    """

    written: list[str]
    references: list[list[str]]
    without_flow: list[str] | None = None


def score(
    captioner: Captioner, scoring: Scoring, protocol: Callable[[], CaptionProtocol] | None = None
) -> Columns:
    """The model's captions of the held-out pictures beside what one would get for another picture's caption.

    After a training with L_mean also beside what the encoder alone says: the decoder reads the mean of x_0.
    For captioned_shapes also beside a further true caption of the same picture: the most that there is to reach, as
    references leave open which of its many captions a picture gets.

    Within `spread_over` the ranks caption their own pictures; words are counted by rank 0 alone, which alone asks for
    the protocol too.
    """
    chosen = None if protocol is None else on_main(protocol)
    data = open_captions(scoring.data, captioner.model.config.image_size).held_out(scoring.split)
    found = captioned(captioner, data, scoring.how, scoring.line, seed=scoring.seed)
    candidates = {"written": found.written}
    if found.without_flow is not None:
        candidates["encoder_alone"] = found.without_flow
    candidates["another_picture's"] = _shifted(found.references)
    if isinstance(data, CaptionedShapes):
        candidates["a_true_one"] = _further_captions(data)

    def table(texts: Sequence[str]) -> dict[str, float]:
        words = words_table(texts, found.references, chosen)
        return words | truth_table(data, texts) if isinstance(data, CaptionedShapes) else words

    return on_main(lambda: {name: table(texts) for name, texts in candidates.items()})


def show(captioner: Captioner, scoring: Scoring, shown: int = SHOWN) -> Pictures:
    """Held-out pictures, spread over the set, with some draws of a caption under each."""
    data = open_captions(scoring.data, captioner.model.config.image_size).held_out(scoring.split)
    some = torch.linspace(0, len(data) - 1, min(shown, len(data))).long()
    images = data.batch(some).images
    generator = torch.Generator().manual_seed(scoring.seed)
    draws = [captioner.captions(images, scoring.how, generator) for _ in range(DRAWS)]
    under = [" / ".join(dict.fromkeys(texts)) for texts in zip(*draws, strict=True)]
    upscale = max(1, -(-SHOWN_SIDE // images.shape[-1]))
    return {"captions": image_grid(images, 5, captions=under, upscale=upscale)}


def captioned(
    captioner: Captioner, data: CaptionedImages, how: SampleConfig, line: Progress, *, seed: int = 0
) -> Captioned:
    """One drawn caption of every picture."""
    generator = torch.Generator().manual_seed(seed)
    count, written, alone = len(data), [], []
    taught = captioner.model.config.image_ve is not None and captioner.model.config.loss.mean_weight > 0
    with own_parts(count, BATCH) as parts:
        for part in parts:
            images = data.batch(torch.tensor(part.places)).images
            written += zip(part.places, captioner.captions(images, how, part.of(generator)), strict=True)
            if taught:
                alone += zip(part.places, captioner.without_flow(images), strict=True)
            line.show(part.places.stop / count, f"{part.places.stop} of {count} pictures")
    said = references(data, torch.arange(count))
    return Captioned(in_order(written), said, in_order(alone) if taught else None)


def words_table(
    written: Sequence[str], said: Sequence[Sequence[str]], protocol: CaptionProtocol | None = None
) -> dict[str, float]:
    """BLEU-1 to 4, ROUGE-L, CIDEr-D, what else the protocol asks for, and how many captions are different ones."""
    scores = score_captions(written, said, protocol)
    return {**scores.result.values, "captions": len(written), "different": len(set(written))}


def truth_table(data: CaptionedShapes, written: Sequence[str]) -> dict[str, float]:
    """Shares of captions that are grammatical, that are wholly true of their picture, and of statements by their kind.

    true: every statement of the caption holds; what is not grammatical states nothing and counts as untrue.
    complete: true, and no object is left out. Of the kinds: the share of all such statements that are true.
    """
    pairs = [(text, *data.truth(index)) for index, text in enumerate(written)]
    verdicts = [verdict for pair in pairs for verdict in judge(*pair)]
    total = Counter(verdict.kind for verdict in verdicts)
    true = Counter(verdict.kind for verdict in verdicts if verdict.true)
    n = len(pairs)
    shares = {
        "grammatical": sum(grammatical(text) for text in written) / n,
        "true": sum(true_of(*pair) for pair in pairs) / n,
        "complete": sum(true_of(*pair) and names_everything(*pair) for pair in pairs) / n,
        "statements": len(verdicts) / n,
    }
    return shares | {f"{kind}_true": true[kind] / total[kind] for kind in KINDS if total[kind]}


def _shifted(said: Sequence[Sequence[str]]) -> list[str]:
    """The first caption of the picture before: what words are worth that look at no picture."""
    return [said[i - 1][0] for i in range(len(said))]


def _further_captions(data: CaptionedShapes) -> list[str]:
    """A true caption of every scene, drawn apart from the references."""
    found = (
        describe(*data.truth(index), random.Random(f"further {data.seed} {index}"))
        for index in range(len(data))
    )
    return [caption.text if caption is not None else "" for caption in found]
