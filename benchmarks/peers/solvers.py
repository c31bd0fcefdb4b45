"""What a solver costs on top of the field it calls: ours and the peers', as ratios to a bare loop.

    uv run --isolated --no-project --with ./packages/cf-flowcore --with torchdiffeq --with torchode --with torchdyn \\
        --with diffusers python benchmarks/peers/solvers.py --repeats 31 --out benchmarks/results/solvers.json

The field is an MLP 3-64-64-2 trained for a moment (8 Gaussians), batch 256: so cheap that the overhead shows.
`raw` calls the field as often as the solver did, on as many rows each time, with nothing around it; for ln p it is the
field and one vector-Jacobian product. Thread CPU time on one thread; raw,
solve, raw are interleaved and the ratio is taken within each repeat, so a busy machine moves both. `null` is
for a field that does nothing on a state of the size of images, (256, 3072); `large` the ratio for an MLP of five
layers of 512, batch 4096, untrained, for some. Compare ratios.
"""

import argparse
import math
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path

import torch
from cf_flowcore import CondOT, Velocity, flow_matching_loss, log_prob, solve
from cf_flowcore.control import I_CONTROL, PI_CONTROL, StepControl
from counting import Counted, CountOps
from other_solvers import STEPS, Solver, peers
from record import write_record
from torch import Tensor
from turns import cpu_seconds


@dataclass(frozen=True)
class Row:
    """One solver: overhead on the small field, host reads in all, cost per element on the null field."""

    solver: str
    nfe: int
    rows_per_sample: float
    ratio: float
    overhead_us_per_nfe: float
    ops_per_nfe: float
    host_reads: int
    calls_outside: int
    null_ns_per_element_nfe: float
    large_ratio: float | None


def ours(
    method: str, steps: int | None = None, control: StepControl = PI_CONTROL, per_sample: bool = False
) -> Solver:
    """cf_flowcore from 0 to 1."""
    return lambda v, x: solve(v, x, method=method, steps=steps, control=control, per_sample=per_sample).x


def density(method: str, steps: int | None = None) -> Solver:
    """ln p with one probe, from 1 to 0."""
    generator = torch.Generator().manual_seed(0)
    return lambda v, x: log_prob(v, x, method=method, steps=steps, generator=generator).log_p


OURS: dict[str, Solver] = {
    "cf_flowcore euler": ours("euler", STEPS),
    "cf_flowcore midpoint": ours("midpoint", STEPS),
    "cf_flowcore heun": ours("heun", STEPS),
    "cf_flowcore rk4": ours("rk4", STEPS),
    "cf_flowcore dopri5": ours("dopri5"),
    "cf_flowcore dopri5, Shampine, I": ours("dopri5-shampine", control=I_CONTROL),
    "cf_flowcore dopri5, per sample": ours("dopri5", per_sample=True),
    "cf_flowcore tsit5": ours("tsit5"),
    "cf_flowcore dopri8": ours("dopri8"),
}


DENSITIES: dict[str, Solver] = {
    "cf_flowcore ln p, midpoint": density("midpoint", STEPS),
    "cf_flowcore ln p, dopri5": density("dopri5"),
}


LARGE = (
    "cf_flowcore midpoint",
    "cf_flowcore dopri5",
    "cf_flowcore dopri5, per sample",
    "torchdiffeq midpoint",
    "torchdiffeq dopri5",
    "torchode dopri5",
)


def bare_velocity(v: Velocity, x: Tensor, t: Tensor) -> None:
    """What a solver cannot do without."""
    with torch.no_grad():
        v(x, t)


def bare_divergence(v: Velocity, x: Tensor, t: Tensor) -> None:
    """What Hutchinson's ln p cannot do without."""
    x = x.detach().requires_grad_()
    torch.autograd.grad(v(x, t), x, torch.ones_like(x))


def small_field(train_steps: int = 300) -> Velocity:
    """An MLP 3-64-64-2 that carries noise to eight Gaussians on a circle."""
    torch.manual_seed(0)  # a script of its own: the layers draw from the global generator
    g = torch.Generator().manual_seed(0)
    act = torch.nn.SiLU
    net = torch.nn.Sequential(
        torch.nn.Linear(3, 64), act(), torch.nn.Linear(64, 64), act(), torch.nn.Linear(64, 2)
    )
    adam = torch.optim.Adam(net.parameters(), lr=3e-3)

    def v(x: Tensor, t: Tensor) -> Tensor:
        return net(torch.cat([x, t[:, None]], dim=1))

    for _ in range(train_steps):
        angle = torch.randint(8, (256,), generator=g) * (math.pi / 4)
        x_1 = 2 * torch.stack([angle.cos(), angle.sin()], dim=1) + 0.1 * torch.randn(256, 2, generator=g)
        x_0 = torch.randn(256, 2, generator=g)
        flow_matching_loss(v, x_0, x_1, path=CondOT(), generator=g).mean().backward()
        adam.step()
        adam.zero_grad()
    return v


@cache
def large_field() -> Velocity:
    """An MLP of five layers of 512 with its first weights."""
    torch.manual_seed(0)
    sizes = (3, 512, 512, 512, 512, 512)
    layers = [layer for a, b in pairwise(sizes) for layer in (torch.nn.Linear(a, b), torch.nn.SiLU())]
    net = torch.nn.Sequential(*layers, torch.nn.Linear(512, 2))
    return lambda x, t: net(torch.cat([x, t[:, None]], dim=1))


def against_raw(
    solver: Solver,
    v: Velocity,
    x: Tensor,
    bare_call: Callable[[Velocity, Tensor, Tensor], None],
    repeats: int,
) -> tuple[Counted, list[float], list[float]]:
    """What was called; for each repeat the ratio to the bare loop of those calls, and the seconds over it."""
    counted = Counted(v)
    solver(counted, x)
    t = torch.full((len(x),), 0.5)

    def raw() -> None:
        for rows in counted.rows:
            bare_call(v, x[:rows], t[:rows])

    ratios, overheads = [], []
    for _ in range(repeats):
        before, total, after = cpu_seconds(raw), cpu_seconds(lambda: solver(v, x)), cpu_seconds(raw)
        bare = (before + after) / 2
        ratios.append(total / bare)
        overheads.append(total - bare)
    return counted, ratios, overheads


def measure(name: str, solver: Solver, v: Velocity, x: Tensor, options: argparse.Namespace) -> Row:
    """All figures of one solver."""
    bare_call = bare_divergence if name in DENSITIES else bare_velocity
    counted, ratios, overheads = against_raw(solver, v, x, bare_call, options.repeats)
    nfe, t = len(counted.rows), torch.full((len(x),), 0.5)

    with CountOps() as in_field:
        bare_call(v, x, t)
    with CountOps() as in_solve:
        solver(v, x)

    image, k = torch.ones(256, 3072), torch.full((256, 3072), 0.1)
    null = Counted(lambda x, t: k)
    solver(null, image)
    null_seconds = statistics.median(
        cpu_seconds(lambda: solver(null.v, image)) for _ in range(options.null_repeats)
    )
    large = None
    if name in LARGE and options.large_repeats:
        states = torch.randn(4096, 2, generator=torch.Generator().manual_seed(1))
        large = statistics.median(
            against_raw(solver, large_field(), states, bare_velocity, options.large_repeats)[1]
        )
    return Row(
        solver=name,
        nfe=nfe,
        rows_per_sample=sum(counted.rows) / len(x),
        ratio=statistics.median(ratios),
        overhead_us_per_nfe=1e6 * statistics.median(overheads) / nfe,
        ops_per_nfe=in_solve.ops / nfe - in_field.ops,
        host_reads=in_solve.reads,
        calls_outside=counted.outside,
        null_ns_per_element_nfe=1e9 * null_seconds / len(null.rows) / image.numel(),
        large_ratio=large,
    )


def table(rows: list[Row]) -> str:
    """The rows in aligned columns."""
    lines = [
        f"{'solver':34}{'nfe':>5}{'rows':>7}{'ratio':>8}{'us/nfe':>8}{'ops/nfe':>9}{'reads':>7}"
        f"{'outside':>8}{'null ns/el':>12}{'large':>8}"
    ]
    for r in rows:
        lines.append(
            f"{r.solver:34}{r.nfe:5d}{r.rows_per_sample:7.1f}{r.ratio:8.2f}{r.overhead_us_per_nfe:8.1f}"
            f"{r.ops_per_nfe:9.1f}{r.host_reads:7d}{r.calls_outside:8d}{r.null_ns_per_element_nfe:12.2f}"
            + ("       -" if r.large_ratio is None else f"{r.large_ratio:8.3f}")
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=31, help="repeats on the small field")
    parser.add_argument("--null-repeats", type=int, default=7, help="repeats on the null field")
    parser.add_argument(
        "--large-repeats", type=int, default=5, help="repeats on the large field; 0 leaves it out"
    )
    parser.add_argument("--only", default="", help="solvers whose name contains this")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    options = parser.parse_args()

    torch.set_num_threads(1)
    v, x = small_field(), torch.randn(256, 2, generator=torch.Generator().manual_seed(1))
    others, missing = peers()
    known = OURS | DENSITIES | others
    if missing:
        print(f"not installed, so not measured: {', '.join(missing)}")
    chosen = {name: solver for name, solver in known.items() if options.only in name}
    if not chosen:
        parser.error(f"no solver's name contains {options.only!r}; known: {', '.join(known)}")
    rows = [measure(name, s, v, x, options) for name, s in chosen.items()]
    print(table(rows))
    settings = {"repeats": options.repeats, "not_installed": missing}
    write_record(options.out, "solvers.py", settings, {"rows": rows})


if __name__ == "__main__":
    main()
