"""Options of `solve` that make no sense are refused by name, before v is called."""

from collections.abc import Sequence

from cf_flowcore.control import NORMS
from cf_flowcore.tableau import Tableau


def check_method(
    method: str,
    rule: Tableau,
    *,
    steps: int | None,
    grid: Sequence[float] | None,
    first_step: float | None,
    max_step: float | None,
    per_sample: bool,
    norm: str,
    save: str,
) -> None:
    """Fixed methods are told their steps; adaptive ones choose them."""
    if rule.error is None:
        if per_sample:
            raise ValueError(
                f"per_sample=True is for adaptive methods; {method} takes the same steps for all"
            )
        check_fixed(method, steps, grid, first_step, max_step)
        if norm != "rms":
            raise ValueError(f"norm={norm!r} is for adaptive methods; {method} measures no error")
    elif steps is not None:
        raise ValueError(f"{method} chooses its steps: instead of steps={steps} pass rtol, atol or grid=")
    if save == "dense" and rule.order > 5:
        raise ValueError(
            f"{method} takes steps too long for a cubic between them; for dense output take dopri5 or tsit5, or name "
            'the times with grid= and save="grid"'
        )
    check_choice("norm", norm, tuple(NORMS))
    if per_sample and norm != "rms":
        raise ValueError(f"per_sample=True measures each sample alone; leave norm={norm!r} away")
    if per_sample and save == "dense":
        raise ValueError(
            'per_sample=True has steps of many times; instead of save="dense" pass grid= and save="grid"'
        )


def check_fixed(
    method: str,
    steps: int | None,
    grid: Sequence[float] | None,
    first_step: float | None,
    max_step: float | None,
) -> None:
    """A fixed method takes the steps it is given: no default number, no limits on their length."""
    if (steps is None) == (grid is None):
        raise ValueError(f"{method} needs steps= or grid=, one of the two, got steps={steps} and grid={grid}")
    if first_step is not None or max_step is not None:
        raise ValueError(f"first_step and max_step are for adaptive methods; {method} takes steps= or grid=")


def check_choice(name: str, value: str, known: tuple[str, ...]) -> None:
    """Options chosen by name."""
    if value not in known:
        raise ValueError(f"unknown {name} {value!r}; known: {', '.join(known)}")


def check_positive(**lengths: float | None) -> None:
    """Step lengths are positive in either direction of time."""
    for name, value in lengths.items():
        if value is not None and not value > 0.0:
            raise ValueError(f"{name} is a length and must be > 0 in either direction, got {value}")
