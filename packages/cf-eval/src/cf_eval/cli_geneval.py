"""`cf-eval geneval DETECTIONS`: GenEval's rules for what a detector has found and saved before.

    {"detector": "Mask2Former Swin-S", "colours": "CLIP ViT-L/14", "pictures": [
        {"prompt": 0, "objects": [{"label": "bench", "score": 0.98, "box": [12, 40, 200, 180], "colour": "red"}]},
        ...]}

`prompt` is the index of one of the 553, or its text. `colour` may be missing where the prompt names none. `id` of a
picture is optional: pictures that come twice count once.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import torch
import tyro

from cf_eval.cli_report import Output, Place, require_writable
from cf_eval.geneval.coco_classes import COCO_CLASSES, geneval_name
from cf_eval.geneval.objects import FoundObject, GenEvalRules, Picture
from cf_eval.geneval.prompts import COLOURS, GenEvalPrompt, geneval_prompts
from cf_eval.geneval.score import GenEval


@dataclass(frozen=True)
class GenEvalCommand:
    """Accuracy of GenEval's six tasks from detections that were saved as JSON."""

    detections: Annotated[Place, tyro.conf.arg(metavar="DETECTIONS")]
    """JSON: {"detector", "colours", "pictures": [{"prompt", "objects": [{"label", "score", "box", "colour"}]}]}."""
    rules: GenEvalRules = field(default_factory=GenEvalRules)
    table: Path | None = None
    """JSON lines, one per picture, with the reasons of each failure."""
    output: Output = field(default_factory=Output)

    def run(self) -> None:
        self.output.check()
        require_writable(self.table)
        saved = read_detections(self.detections)
        metric = score(saved, self.rules)
        if self.table is not None:
            metric.save_table(self.table)
        self.output.show(metric.compute())


@dataclass(frozen=True)
class SavedPicture:
    """What was found in one picture, and the colours of what has one. place: its number in the file."""

    place: int
    prompt: GenEvalPrompt
    objects: tuple[FoundObject, ...]
    colours: Mapping[FoundObject, str]
    id: int | str | None


@dataclass(frozen=True)
class SavedDetections:
    """A whole file: what found the objects, what named their colours, and the pictures."""

    detector: str
    colours: str
    pictures: tuple[SavedPicture, ...]


class SavedDetector:
    """Answers with what was found before in the picture at hand."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.at_hand: SavedPicture | None = None

    def __call__(self, picture: Picture) -> Sequence[FoundObject]:
        assert self.at_hand is not None
        return self.at_hand.objects


class SavedColours:
    """Answers with the colours that were named before. ValueError where one is asked for that was not."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.at_hand: SavedPicture | None = None

    def __call__(self, picture: Picture, things: Sequence[FoundObject]) -> list[str]:
        assert self.at_hand is not None
        for thing in things:
            if thing not in self.at_hand.colours:
                raise ValueError(
                    f"picture {self.at_hand.place}: its prompt, {self.at_hand.prompt.text!r}, names a colour and the "
                    f"{thing.label} at {list(thing.box)} has none; save a colour, one of {', '.join(COLOURS)}"
                )
        return [self.at_hand.colours[thing] for thing in things]


def score(saved: SavedDetections, rules: GenEvalRules) -> GenEval:
    """The metric that has seen all pictures of a file."""
    detector, colours = SavedDetector(saved.detector), SavedColours(saved.colours)
    metric = GenEval(detector, colours, rules)
    nothing = torch.zeros(3, 1, 1, dtype=torch.uint8)  # nobody looks at the pictures again
    for picture in saved.pictures:
        detector.at_hand = colours.at_hand = picture
        metric.add(nothing, picture.prompt, picture.id)
    return metric


def read_detections(path: Path) -> SavedDetections:
    """Raises ValueError naming the first picture, object and field that is not as it should be."""
    content = json.loads(path.read_bytes())
    if not isinstance(content, dict):
        raise ValueError(
            f"{path} holds {type(content).__name__}; an object with detector, colours, pictures was expected"
        )
    for name, kind in (("detector", str), ("colours", str), ("pictures", list)):
        if not isinstance(content.get(name), kind) or not content[name]:
            raise ValueError(
                f"{path} has {name!r}: {content.get(name)!r}; a non-empty {kind.__name__} was expected"
            )
    pictures = tuple(_picture(place, row) for place, row in enumerate(content["pictures"]))
    return SavedDetections(content["detector"], content["colours"], pictures)


def _picture(place: int, row: Any) -> SavedPicture:
    where = f"picture {place}"
    if not isinstance(row, dict) or not isinstance(row.get("objects"), list):
        raise ValueError(f"{where} must be an object with prompt and objects, got {row!r}")
    objects: list[FoundObject] = []
    colours: dict[FoundObject, str] = {}
    for index, item in enumerate(row["objects"]):
        thing, colour = _object(f"{where}, object {index}", item)
        objects.append(thing)
        if colour is not None:
            colours[thing] = colour
    return SavedPicture(place, _prompt(where, row.get("prompt")), tuple(objects), colours, row.get("id"))


def _prompt(where: str, given: Any) -> GenEvalPrompt:
    prompts = geneval_prompts()
    if isinstance(given, int) and 0 <= given < len(prompts):
        return prompts[given]
    found = [prompt for prompt in prompts if prompt.text == given]
    if len(found) != 1:
        raise ValueError(
            f"{where}: prompt {given!r} is not one of GenEval's; give its index, 0 to {len(prompts) - 1}, or its text"
        )
    return found[0]


def _object(where: str, item: Any) -> tuple[FoundObject, str | None]:
    if not isinstance(item, dict) or not {"label", "score", "box"} <= set(item):
        raise ValueError(f"{where} must have label, score and box, got {item!r}")
    label, box, colour = geneval_name(str(item["label"])), item["box"], item.get("colour")
    numbers = [item["score"], *box] if isinstance(box, list) else []
    if len(numbers) != 5 or not all(isinstance(number, int | float) for number in numbers):
        raise ValueError(
            f"{where}: a score and a box of left, top, right, bottom were expected, got {item!r}"
        )
    if label not in COCO_CLASSES:
        raise ValueError(
            f"{where}: unknown label {label!r}; known: the 80 of COCO, {', '.join(COCO_CLASSES)}"
        )
    if colour is not None and colour not in COLOURS:
        raise ValueError(f"{where}: unknown colour {colour!r}; known: {', '.join(COLOURS)}")
    score, left, top, right, bottom = map(float, numbers)
    return FoundObject(label, score, (left, top, right, bottom)), colour
