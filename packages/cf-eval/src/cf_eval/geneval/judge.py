"""The verdict on one picture: all that the prompt demands, in the official order, with a reason for each failure."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from cf_eval.geneval.objects import Box, FoundObject, GenEvalRules, believed
from cf_eval.geneval.prompts import COLOURS, GenEvalPrompt, Required

# the colours of some objects of one class, in one picture
ColoursOf = Callable[[Sequence[FoundObject]], Sequence[str]]

# a shift below this many pixels has no direction
STILL = 1e-3


@dataclass(frozen=True)
class Verdict:
    """reasons: one for each demand that is not met, worded as GenEval words it; none when correct."""

    reasons: tuple[str, ...]

    @property
    def correct(self) -> bool:
        return not self.reasons


def judge(
    prompt: GenEvalPrompt,
    found: Sequence[FoundObject],
    colours_of: ColoursOf,
    rules: GenEvalRules | None = None,
) -> Verdict:
    """GenEval's rules for one picture.

    Of each required class only the best `count` objects are looked at: all of them must have the colour, and each of
    them must stand in the relation to each of the best objects of the target. A requirement that failed is no target.
    colours_of is called only where the prompt names a colour and enough objects are there.
    """
    rules = GenEvalRules() if rules is None else rules
    objects = believed(found, prompt.tag, rules)
    matched: list[Sequence[FoundObject] | None] = []
    reasons: list[str] = []
    for required in prompt.include:
        best = objects.get(required.label, [])[: required.count]
        failure = _failure(required, best, matched, colours_of, rules)
        matched.append(best if failure is None else None)
        if failure is not None:
            reasons.append(failure)
    return Verdict((*reasons, *_too_many(prompt, objects)))


def _failure(
    required: Required,
    best: Sequence[FoundObject],
    matched: Sequence[Sequence[FoundObject] | None],
    colours_of: ColoursOf,
    rules: GenEvalRules,
) -> str | None:
    """Why a requirement is not met: number, then colour, then place; the first that fails."""
    if len(best) < required.count:
        return f"expected {required.label}>={required.count}, found {len(best)}"
    if required.colour is not None and (wrong := _wrong_colour(required, list(colours_of(best)))):
        return wrong
    if required.position is None:
        return None
    relation, index = required.position
    targets = matched[index]
    if targets is None:
        return f"no target for {required.label} to be {relation}"
    for thing in best:
        for target in targets:
            there = relative_position(thing.box, target.box, rules.position_margin)
            if relation not in there:
                seen = " and ".join(there) or "no relation to"
                return f"expected {required.label} {relation} target, found {seen} target"
    return None


def _wrong_colour(required: Required, colours: list[str]) -> str | None:
    right = colours.count(required.colour or "")
    if right >= required.count:
        return None
    seen = ", ".join(f"{colours.count(c)} {c}" for c in COLOURS if c in colours)
    wanted = f"{required.colour} {required.label}>={required.count}"
    return f"expected {wanted}, found {right} {required.colour}; and {seen}"


def _too_many(prompt: GenEvalPrompt, objects: Mapping[str, Sequence[FoundObject]]) -> list[str]:
    counts = ((limit, len(objects.get(limit.label, []))) for limit in prompt.exclude)
    return [f"expected {limit.label}<{limit.count}, found {n}" for limit, n in counts if n >= limit.count]


def relative_position(box: Box, target: Box, margin: float = 0.1) -> tuple[str, ...]:
    """Where a box lies from a target's: none, one, or two of left of, right of, above, below.

    The offset of the centres is shortened on each axis by `margin` times the sum of the two sizes, then measured in
    units of the offset's length before that: more than half of it on an axis is a relation.
    """
    offset = [(box[i] + box[i + 2] - target[i] - target[i + 2]) / 2 for i in (0, 1)]
    sizes = [abs(box[i + 2] - box[i]) + abs(target[i + 2] - target[i]) for i in (0, 1)]
    clear = [math.copysign(max(abs(o) - margin * s, 0.0), o) for o, s in zip(offset, sizes, strict=True)]
    if max(map(abs, clear)) < STILL:
        return ()
    dx, dy = (c / math.hypot(*offset) for c in clear)
    tests = {"left of": dx < -0.5, "right of": dx > 0.5, "above": dy < -0.5, "below": dy > 0.5}
    return tuple(name for name, holds in tests.items() if holds)
