"""Lipman et al. fig. 4 and 9: five trainings on a checkerboard, their trajectories, and quality against NFE.

    uv run python benchmarks/papers/fm_checkerboard.py --scale tiny --out benchmarks/results/fm_checkerboard

Data: 2-D, eight cells of a 4 x 4 board on [-2, 2]^2, drawn fresh each step. The network predicts velocity, noise or
score itself, with t as a third input. Solver: midpoint, from t = 0 to 1 (diffusion: to 1 - 1e-5).

Measured against the number of evaluations (fig. 4, right, and fig. 9 show this as pictures) and against t on the way
(fig. 4, left):
  distance  total variation between the samples' histogram (16 x 16 bins on the board, one for all outside) and the
            board itself; 0 is perfect, but n true samples have a floor, which is printed
  on board  the share of samples on the board's cells; 1 is perfect, also for samples crowded in the cells' middles
"""

import argparse
import json
import platform
import statistics
import sys
import time
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path as Folder
from typing import Any

import torch
from cf_flowcore import Velocity, solve
from fm_methods import METHODS, Method
from fm_tables import Held, curve_table, verdicts
from fm_training import Plan, train
from torch import Tensor, nn

NFES = (4, 6, 8, 10, 20, 40, 100)
ON_THE_WAY = (0.0, 0.25, 0.5, 0.75, 1.0)
WAY_STEPS = 100


@dataclass(frozen=True)
class Scale:
    """How large: the network, the training, and the sample that is scored."""

    width: int
    depth: int
    batch: int
    steps: int
    samples: int
    lr: float = 2e-3


SCALES = {
    "tiny": Scale(width=128, depth=5, batch=512, steps=3_000, samples=10_000),
    "small": Scale(width=512, depth=5, batch=4_096, steps=20_000, samples=50_000),
    "paper": Scale(width=512, depth=5, batch=5_000, steps=20_000, samples=100_000),
}


def checkerboard(n: int, generator: torch.Generator) -> Tensor:
    """(n, 2) uniform on the cells whose column and row numbers add up to an even one."""
    x = 4 * torch.rand(n, generator=generator) - 2
    row = 2 * torch.randint(2, (n,), generator=generator) + torch.floor(x).long() % 2  # 0..3 from below
    y = row + torch.rand(n, generator=generator) - 2
    return torch.stack([x, y], 1)


def on_board(x: Tensor) -> float:
    """The share of points on the cells."""
    inside = (x.abs() < 2).all(1)
    even = (torch.floor(x).long().sum(1) % 2) == 0
    return (inside & even).float().mean().item()


def distance(x: Tensor) -> float:
    """Total variation to the board, by bins of a quarter: each of the 8 cells has 16 of them."""
    inside = (x.abs() < 2).all(1)
    column, row = ((x[inside] + 2) * 4).long().clamp(0, 15).T
    counts = torch.bincount(16 * column + row, minlength=256).double() / len(x)
    centre = (torch.arange(16) + 0.5) / 4 - 2
    even = (torch.floor(centre)[:, None] + torch.floor(centre)) % 2 == 0
    wanted = even.double().flatten() / 128
    outside = 1 - inside.double().mean()
    return (0.5 * ((counts - wanted).abs().sum() + outside)).item()


class MLP(nn.Module):
    """(x, t) -> R^2: `depth` layers of `width`."""

    def __init__(self, width: int, depth: int) -> None:
        super().__init__()
        sizes = [3, *[width] * depth]
        hidden = [layer for a, b in pairwise(sizes) for layer in (nn.Linear(a, b), nn.SiLU())]
        self.net = nn.Sequential(*hidden, nn.Linear(width, 2))

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return self.net(torch.cat([x, t[:, None]], 1))


@dataclass(frozen=True)
class Result:
    """One training: distance and share on the board, by NFE and by t."""

    method: str
    seed: int
    distance_by_nfe: dict[int, float]
    distance_by_t: dict[float, float]
    by_nfe: dict[int, float]
    by_t: dict[float, float]
    seconds: float


def run(name: str, method: Method, scale: Scale, seed: int) -> tuple[Result, Tensor]:
    """Train and score one method; also states on the way, for the plot."""
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = MLP(scale.width, scale.depth)
    begin = time.monotonic()

    def show(step: int, loss: Tensor) -> None:
        if step % 100:
            return
        rate = (step + 1) / (time.monotonic() - begin)
        print(
            f"\r{name}, seed {seed}: {step}/{scale.steps}  {rate:.0f} steps/s  loss {loss:.3f} ",
            end="",
            file=sys.stderr,
        )

    train(
        method,
        net,
        lambda g: checkerboard(scale.batch, g),
        Plan(scale.steps, scale.lr),
        generator,
        show,
    )
    seconds = time.monotonic() - begin
    v, x_0 = (
        method.field(net),
        torch.randn(scale.samples, 2, generator=torch.Generator().manual_seed(1_000 + seed)),
    )
    ends = {nfe: sampled(v, x_0, method.t_max, nfe // 2) for nfe in NFES}
    way = solve(v, x_0, t_1=method.t_max, method="midpoint", grid=way_grid(method.t_max), save="grid")
    assert way.trajectory is not None
    states = way.trajectory[[round(t * WAY_STEPS) for t in ON_THE_WAY]]
    way_states = dict(zip(ON_THE_WAY, states, strict=True))
    far, on = ({key: f(x) for key, x in ends.items()} for f in (distance, on_board))
    far_t, on_t = ({key: f(x) for key, x in way_states.items()} for f in (distance, on_board))
    shown = ", ".join(f"{nfe}: {d:.3f}" for nfe, d in far.items())
    print(f"\r{name}, seed {seed}: distance by NFE {shown}  ({seconds:.0f} s)", file=sys.stderr)
    return Result(name, seed, far, far_t, on, on_t, seconds), states


def sampled(v: Velocity, x_0: Tensor, t_max: float, steps: int) -> Tensor:
    """The end of a midpoint solve: two evaluations a step."""
    return solve(v, x_0, t_1=t_max, method="midpoint", steps=steps).x


def way_grid(t_max: float) -> list[float]:
    """Even steps, ending where the path does."""
    return [i / WAY_STEPS for i in range(WAY_STEPS)] + [t_max]


def table(results: list[Result], part: str) -> str:
    """One of the curves of all trainings."""
    return curve_table(
        {name: [getattr(r, part) for r in results if r.method == name] for name in METHODS}, "{:.3f}"
    )


def claims(results: list[Result]) -> Held:
    """The paper's orderings, each true only if it holds for every seed."""
    by = {(r.method, r.seed): r for r in results}
    seeds = sorted({r.seed for r in results})
    others = [name for name in METHODS if name != "FM w/ OT"]

    def closer(a: str, b: str, part: str, key: float) -> bool:
        return all(getattr(by[a, s], part)[key] < getattr(by[b, s], part)[key] for s in seeds)

    return {
        "FM w/ OT is the closest of all at 4, 6, 8 and 10 evaluations": all(
            closer("FM w/ OT", rival, "distance_by_nfe", nfe) for rival in others for nfe in (4, 6, 8, 10)
        ),
        "FM w/ OT is the closest of all on the way, at t = 0.5 and at 0.75": all(
            closer("FM w/ OT", rival, "distance_by_t", t) for rival in others for t in (0.5, 0.75)
        ),
        "FM w/ Diffusion is closer than score matching on the same path, at every number of evaluations from 8": all(
            closer("FM w/ Diffusion", "Score Matching", "distance_by_nfe", nfe) for nfe in NFES if nfe >= 8
        ),
    }


def plot(states: dict[str, Tensor], results: list[Result], file: Folder) -> None:
    """Left: the way of each method. Right: distance against NFE."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    rows, columns = len(states), len(ON_THE_WAY)
    figure, axes = plt.subplots(rows, columns + 2, figsize=(2 * (columns + 2), 2 * rows), squeeze=False)
    for row, (name, way) in enumerate(states.items()):
        for column, (t, state) in enumerate(zip(ON_THE_WAY, way, strict=True)):
            axis = axes[row, column]
            axis.hist2d(*state.T.numpy(), bins=64, range=[[-2.5, 2.5]] * 2, cmap="viridis")
            axis.set_xticks([]), axis.set_yticks([])
            if row == 0:
                axis.set_title(f"t = {t:g}")
            if column == 0:
                axis.set_ylabel(name)
    for axis in axes[:, columns:].flat:
        axis.remove()
    curves = figure.add_subplot(1, columns + 2, (columns + 1, columns + 2))
    for name in states:
        means = [statistics.mean(r.distance_by_nfe[n] for r in results if r.method == name) for n in NFES]
        curves.plot(NFES, means, marker="o", label=name)
    curves.set(
        xscale="log", xlabel="evaluations (midpoint)", ylabel="total variation to the board", xticks=NFES
    )
    curves.set_xticklabels([str(n) for n in NFES])
    curves.legend()
    figure.tight_layout()
    figure.savefig(file, dpi=80)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--scale", choices=SCALES, default="tiny")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Folder, default=Folder("benchmarks/results/fm_checkerboard"))
    options = parser.parse_args()
    scale = SCALES[options.scale]
    results, shown = [], {}
    for name, method in METHODS.items():
        for seed in range(options.seeds):
            result, states = run(name, method, scale, seed)
            results.append(result)
            shown.setdefault(name, states)
    held = claims(results)
    floor = distance(checkerboard(scale.samples, torch.Generator().manual_seed(0)))
    setting: dict[str, Any] = {
        "command": f"benchmarks/papers/fm_checkerboard.py --scale {options.scale} --seeds {options.seeds}",
        "paper": "Lipman et al. 2022, fig. 4 and 9 (pictures; no numbers are printed)",
        "scale": asdict(scale),
        "device": f"CPU, {torch.get_num_threads()} threads, {platform.machine()}",
        "torch": torch.__version__,
    }
    options.out.mkdir(parents=True, exist_ok=True)
    file = options.out / options.scale
    report = {
        **setting,
        "distance_of_true_samples": floor,
        "claims": held,
        "results": [asdict(r) for r in results],
    }
    file.with_suffix(".json").write_text(json.dumps(report, indent=1) + "\n")
    text = (
        f"# Checkerboard, scale `{options.scale}`\n\n`{setting['command']}`, {setting['device']}, "
        f"torch {torch.__version__}. "
        f"{options.seeds} seeds; mean ± standard deviation over them, {scale.samples:,} samples each.\n\n"
        f"Distance to the board (true samples: {floor:.3f}) by evaluations of a midpoint solve:\n\n"
        f"{table(results, 'distance_by_nfe')}\n\n"
        f"Distance by time on the way ({WAY_STEPS} midpoint steps):\n\n"
        f"{table(results, 'distance_by_t')}\n\n"
        f"Share on the board by evaluations:\n\n{table(results, 'by_nfe')}\n\n"
        f"Share on the board by time on the way:\n\n{table(results, 'by_t')}\n\n{verdicts(held)}\n"
    )
    file.with_suffix(".md").write_text(text)
    plot(shown, results, file.with_suffix(".png"))
    print(text)


if __name__ == "__main__":
    main()
