"""GenEval's table: accuracy in six tasks and their mean.

>>> score = GenEval(detector, colours); score.add(picture, geneval_prompts()[0]); score.compute()
"""

import copy
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cf_eval.distributed import Group
from cf_eval.files import replaced
from cf_eval.geneval.colours import ColourClassifier
from cf_eval.geneval.judge import Verdict, judge
from cf_eval.geneval.objects import Detector, FoundObject, GenEvalRules, Picture
from cf_eval.geneval.prompts import TAGS, GenEvalPrompt
from cf_eval.images.feature_set import Id
from cf_eval.result import Result
from cf_eval.samples import Samples, mean


@dataclass(frozen=True)
class JudgedPicture:
    """A line of the table of pictures."""

    prompt: str
    tag: str
    verdict: Verdict


class GenEval:
    """Running accuracy per task; mergeable.

    The official numbers are those of Mask2Former (Swin-S, COCO) and CLIP ViT-L/14 on four pictures for each of the 553
    prompts; with another detector the number is another, which is why the result names it.
    """

    def __init__(
        self, detector: Detector, colours: ColourClassifier, rules: GenEvalRules | None = None
    ) -> None:
        self.detector = detector
        self.colours = colours
        self.rules = GenEvalRules() if rules is None else rules
        self.samples: Samples[JudgedPicture] = Samples()

    def add(self, picture: Picture, prompt: GenEvalPrompt, id: Id | None = None) -> None:
        """Detect, judge and count one uint8 (3, h, w) picture; dropped where its id came before."""
        if self.samples.is_new(id):
            self.samples.append(self._judged(picture, prompt, self.detector(picture)), id)

    def add_batch(
        self, pictures: Sequence[Picture], prompts: Sequence[GenEvalPrompt], ids: Sequence[Id] | None = None
    ) -> None:
        """Add pictures, one for each prompt given."""
        if len(pictures) != len(prompts) or (ids is not None and len(ids) != len(prompts)):
            raise ValueError(
                f"{len(pictures)} pictures for {len(prompts)} prompts; give one for one, and as many ids or none"
            )
        for index, (picture, prompt) in enumerate(zip(pictures, prompts, strict=True)):
            self.add(picture, prompt, None if ids is None else ids[index])

    def merge(self, other: "GenEval") -> None:
        """Take in what another rank or shard has seen, with the same detector, colours and rules."""
        if self.protocol != other.protocol:
            raise ValueError(f"cannot merge GenEval by {other.protocol} into {self.protocol}")
        self.samples.merge(other.samples)

    def gathered(self, group: Group | None = None) -> "GenEval":
        """A new metric that has seen what all ranks of the group have, the same on each. All ranks must call it."""
        whole = copy.copy(self)
        whole.samples = self.samples.gathered(group)
        return whole

    @property
    def protocol(self) -> str:
        """Detector, colour classifier and rules."""
        return f"detector {self.detector.name}; colours {self.colours.name}; {self.rules}"

    def compute(self) -> Result:
        """Accuracy of each task that has pictures, and `overall`, their mean: tasks weigh alike, prompts do not.

        details["missing_tasks"] names those without pictures; with any missing, overall compares to no paper.
        """
        if not self.samples.rows:
            raise ValueError("no pictures were added; call add first")
        verdicts = {
            tag: [float(row.verdict.correct) for row in self.samples.rows if row.tag == tag] for tag in TAGS
        }
        accuracy = {tag: mean(correct) for tag, correct in verdicts.items() if correct}
        prompts = {(row.tag, row.prompt) for row in self.samples.rows}
        return Result(
            metric="geneval",
            values={**accuracy, "overall": mean(accuracy.values())},
            protocol=self.protocol,
            count=len(self.samples),
            details={
                "prompts": len(prompts),
                "missing_tasks": [tag for tag in TAGS if tag not in accuracy],
                "duplicates_dropped": self.samples.dropped,
            },
        )

    def save_table(self, path: str | Path) -> None:
        """Write a JSON line per picture: id, prompt, task, whether it is correct, and the reasons if not."""
        with replaced(path) as partial, partial.open("w", encoding="utf-8") as file:
            for row, id in zip(self.samples.rows, self.samples.ids, strict=True):
                line = {"id": id, "prompt": row.prompt, "tag": row.tag, "correct": row.verdict.correct}
                file.write(json.dumps({**line, "reasons": row.verdict.reasons}, ensure_ascii=False) + "\n")

    def _judged(self, picture: Picture, prompt: GenEvalPrompt, found: Sequence[FoundObject]) -> JudgedPicture:
        verdict = judge(prompt, found, lambda things: self.colours(picture, things), self.rules)
        return JudgedPicture(prompt.text, prompt.tag, verdict)
