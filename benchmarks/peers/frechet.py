"""The Fréchet distance against the matrix square root of scipy and the eigenvalues of torch-fidelity.

    uv run --no-sync python benchmarks/peers/frechet.py --repeats 3 --out benchmarks/results/frechet.json

2048 features. `full` has more samples than that, as covariances with a known answer (S_2 = A S_1 A, spectrum 1 to
1e-5); `few` 1000 samples of each set, where we take the samples and the others their covariances, as their tools do;
`same` those of one set twice, whose distance is 0. Each way includes what it needs from there on, not the covariances.
CPU time of one thread; the ways take turns within each repeat and the ratio is taken there. Compare ratios.
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from cf_eval.frechet import frechet_distance
from cf_eval.moments import Moments
from record import write_record
from scipy.linalg import sqrtm
from torch import Tensor
from turns import in_turns, median_ms, median_ratio

WIDTH, FEW = 2048, 1000
WAYS = ("cf_eval", "eigenvalues", "sqrtm")


@dataclass(frozen=True)
class Row:
    """One case: the time of each way over ours, and how far each is from the answer."""

    case: str
    width: int
    cf_eval_ms: float
    eigenvalues_ratio: float
    sqrtm_ratio: float
    errors: dict[str, float]


def by_sqrtm(a: Moments, b: Moments) -> float:
    """pytorch-fid and clean-fid."""
    root = sqrtm(a.cov.numpy() @ b.cov.numpy())
    return _distance(a, b, float(np.trace(np.real(root))))


def by_eigenvalues(a: Moments, b: Moments) -> float:
    """torch-fidelity and torchmetrics."""
    values = np.linalg.eigvals(a.cov.numpy() @ b.cov.numpy()).astype(np.complex128)
    return _distance(a, b, float(np.real(np.sqrt(values)).sum()))


def _distance(a: Moments, b: Moments, trace: float) -> float:
    shift = a.mean - b.mean
    return float(shift @ shift + a.cov.trace() + b.cov.trace()) - 2 * trace


def spd(width: int, smallest: float, seed: int) -> Tensor:
    """A positive matrix with eigenvalues from 1 to `smallest`."""
    draw = torch.Generator().manual_seed(seed)
    turn = torch.linalg.qr(torch.randn(width, width, generator=draw, dtype=torch.float64)).Q
    return (turn * torch.logspace(0, np.log10(smallest), width, dtype=torch.float64)) @ turn.T


def full(width: int) -> tuple[Moments, Moments, float]:
    """Covariances S and A S A, and the distance they have."""
    cov, a = spd(width, 1e-5, 1), spd(width, 1e-1, 2)
    other = a @ cov @ a
    other = (other + other.T) / 2
    zero = torch.zeros(width, dtype=torch.float64)
    answer = cov.trace() + other.trace() - 2 * (a @ cov).trace()
    return Moments(2, zero, cov), Moments(2, zero, other), float(answer)


def samples(n: int, width: int, seed: int) -> Tensor:
    """Rectified and correlated, as pooled features are."""
    draw = torch.Generator().manual_seed(seed)
    return (torch.randn(n, 64, generator=draw) @ torch.randn(64, width, generator=draw) / 8 + 0.1).relu()


def measure(
    case: str, ways: dict[str, Callable[[], float]], answer: float, options: argparse.Namespace
) -> Row:
    """All ways in turns."""
    errors = {name: way() - answer for name, way in ways.items()}
    turns = in_turns(dict(ways), options.repeats)
    ratios = {name: median_ratio(turns, name, "cf_eval") for name in WAYS}
    return Row(
        case, options.width, median_ms(turns, "cf_eval"), ratios["eigenvalues"], ratios["sqrtm"], errors
    )


def cases(options: argparse.Namespace) -> list[Row]:
    """The three of the docstring."""

    def ways(
        ours: tuple[Moments | Tensor, Moments | Tensor], theirs: tuple[Moments, Moments]
    ) -> dict[str, Callable[[], float]]:
        return {
            "cf_eval": lambda: frechet_distance(*ours),
            "eigenvalues": lambda: by_eigenvalues(*theirs),
            "sqrtm": lambda: by_sqrtm(*theirs),
        }

    a, b, answer = full(options.width)
    rows = [measure("full", ways((a, b), (a, b)), answer, options)]
    x, y = (samples(options.few, options.width, seed) for seed in (3, 4))
    moments_x, moments_y = Moments.of(x), Moments.of(y)
    few = measure("few", ways((x, y), (moments_x, moments_y)), frechet_distance(x, y), options)
    same = measure("same", ways((x, x), (moments_x, moments_x)), 0.0, options)
    return [*rows, few, same]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--width", type=int, default=WIDTH)
    parser.add_argument("--few", type=int, default=FEW)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = cases(options)
    for row in rows:
        print(
            f"{row.case:5} {row.cf_eval_ms:8.0f} ms   eigenvalues {row.eigenvalues_ratio:5.1f} x   "
            f"sqrtm {row.sqrtm_ratio:5.1f} x   "
            + "   ".join(f"{name} {error:+.1e}" for name, error in row.errors.items())
        )
    settings = {"repeats": options.repeats}
    write_record(options.out, "frechet.py", settings, {"rows": rows}, ("torch", "scipy"))


if __name__ == "__main__":
    main()
