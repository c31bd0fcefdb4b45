"""By which numbers text to image is judged: an FID and a CLIP score where there are weights, else what stands in."""

from dataclasses import replace

from cf.measures.numbers import COMPOSITION, FRECHET
from cf.reports.printed import printed
from cf.scale import Scale
from cf.spec import Number

FID = Number("fid", "FID", "fid", "{:.2f}", higher_is_better=False)
CLIP = Number("clip", "CLIP score", "clip")
FIDELITY = ("fid", "frechet")
"""Of a claim about FID: by the first that was measured. Lower is better."""
ALIGNMENT = ("clip", "composition")
"""Of a claim about the CLIP score. Higher is better."""


def quality(scale: Scale) -> tuple[Number, ...]:
    """How good pictures look and how well they follow their captions, as far as the scale can tell."""
    looks = (FRECHET,) if scale.inception is None else (FID, replace(FRECHET, printed=None))
    if scale.by_rule:
        return (*looks, COMPOSITION)
    return looks if scale.judges.clip is None else (*looks, CLIP)


def reached(table: str, row: str, column: str, slack: float = 0.0) -> float:
    """What the paper prints, as a limit for ours. slack: half of its last digit, where lower is better."""
    value = printed(table)[row][column]
    if not isinstance(value, int | float):
        raise ValueError(f"{table} prints {value!r} for {column} of {row}, no number")
    return value + slack
