"""The 553 prompts of GenEval and what each demands of its pictures (Ghosh et al. 2023; CrossFlow table 7)."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

# In the order of CrossFlow's table 7, with the number of prompts; four pictures each make the official score.
TAGS: Mapping[str, int] = {
    "single_object": 80,
    "two_object": 99,
    "counting": 80,
    "colors": 94,
    "position": 100,
    "color_attr": 100,
}
COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "black", "white")
RELATIONS = ("left of", "right of", "above", "below")


@dataclass(frozen=True)
class Required:
    """At least `count` objects of a class, all of a colour, all standing in a relation to an earlier requirement.

    position: (relation, index into `GenEvalPrompt.include` of what it relates to).
    """

    label: str
    count: int
    colour: str | None = None
    position: tuple[str, int] | None = None


@dataclass(frozen=True)
class GenEvalPrompt:
    """A prompt, its task, what must be there, and how many of a class are too many."""

    text: str
    tag: str
    include: tuple[Required, ...]
    exclude: tuple[Required, ...] = ()

    def __post_init__(self) -> None:
        if self.tag not in TAGS:
            raise ValueError(f"unknown GenEval task {self.tag!r}; known: {', '.join(TAGS)}")
        for index, required in enumerate(self.include):
            if required.position is None:
                continue
            relation, target = required.position
            if relation not in RELATIONS:
                raise ValueError(f"unknown relation {relation!r}; known: {', '.join(RELATIONS)}")
            if not 0 <= target < index:
                raise ValueError(
                    f"{required.label!r} relates to requirement {target}; it must come before {index}"
                )


@cache
def geneval_prompts() -> tuple[GenEvalPrompt, ...]:
    """The official 553, in file order: the index of a prompt is the name of its folder of pictures."""
    text = files("cf_eval.geneval").joinpath("data/evaluation_metadata.jsonl").read_text(encoding="utf-8")
    return tuple(prompt_from_json(json.loads(line)) for line in text.splitlines() if line)


def prompt_from_json(line: Mapping[str, Any]) -> GenEvalPrompt:
    """A line of an `evaluation_metadata.jsonl`, of GenEval or written like it."""
    return GenEvalPrompt(
        text=line["prompt"],
        tag=line["tag"],
        include=tuple(_required(item) for item in line["include"]),
        exclude=tuple(_required(item) for item in line.get("exclude", ())),
    )


def _required(item: Mapping[str, Any]) -> Required:
    position = item.get("position")
    return Required(
        label=item["class"],
        count=item["count"],
        colour=item.get("color"),
        position=None if position is None else (position[0], position[1]),
    )
