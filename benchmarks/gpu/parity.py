"""The kernels give the same bits every time, and a training with them the same curve as one without."""

import statistics

import torch
from cf_flowcore import CondOT, draw_null, multiscale_loss
from cf_transformer import DiMR, DiMRConfig, StageConfig
from cf_transformer.kernels import using
from cf_transformer.kernels.dispatch import Mode
from gpu.measure import OURS, Bench, Op, Row, results
from torch import Tensor

TIMES = 10
STEPS, DRY_STEPS, BATCH, WINDOW = 200, 3, 16, 20
RATE = 1e-3
TINY = DiMRConfig(
    channels=4,
    size=(32, 32),
    stages=(StageConfig("transformer", 128, 5, 2, n_heads=2), StageConfig("convnext", 64, 3, 1)),
)
DRY = DiMRConfig(
    4, (4, 4), (StageConfig("transformer", 8, 1, 2, 1), StageConfig("convnext", 4, 1, 1)), kernel_size=3
)
RUNS: dict[str, tuple[bool, Mode]] = {
    "fp32, torch": (False, "torch"),
    "bf16, torch": (True, "torch"),
    "bf16, kernels": (True, "triton"),
}


def repeated(op: Op) -> Row:
    """Whether results and gradients of the kernel have the same bits, call after call, on the same inputs."""
    torch.manual_seed(0)
    inputs = op.make(op.b)
    first = results(op.ways[OURS], inputs)
    differ = {"forward": 0, "backward": 0}
    for _ in range(TIMES - 1):
        again = results(op.ways[OURS], inputs)
        for part, a, b in (
            ("forward", first.outputs, again.outputs),
            ("backward", first.gradients, again.gradients),
        ):
            differ[part] += not all(map(torch.equal, a, b))
    return {"times": TIMES, "differed": differ}


def curves(bench: Bench) -> Row:
    """Loss curves of one tiny training: the gap of the kernels beside the gap that bf16 makes by itself.

    A gap is the largest difference of two curves, each averaged over a window, over the first loss.
    """
    dry = bench.clock.dry
    steps = DRY_STEPS if dry else STEPS
    found = {
        name: losses(
            DRY if dry else TINY, autocast, "auto" if dry and mode == "triton" else mode, steps, bench
        )
        for name, (autocast, mode) in RUNS.items()
    }
    smooth = {name: averaged(curve, min(WINDOW, steps)) for name, curve in found.items()}
    exact, rough, kernels = (smooth[name] for name in RUNS)
    return {
        "steps": steps,
        "first": {name: curve[0] for name, curve in found.items()},
        "last": {name: curve[-1] for name, curve in smooth.items()},
        "gap_of_bf16": gap(rough, exact),
        "gap_of_kernels": gap(kernels, rough),
    }


def losses(config: DiMRConfig, autocast: bool, mode: Mode, steps: int, bench: Bench) -> list[float]:
    """Of every step of flow matching from noise to smooth pictures, the same draws whatever the mode."""
    generator = torch.Generator().manual_seed(0)
    model = DiMR(config, generator).to(bench.device)
    optimiser = torch.optim.AdamW(model.parameters(), lr=RATE)
    path, curve = CondOT(), []
    with using(mode):
        for _ in range(steps):
            x_0, x_1, t, is_null = (drawn.to(bench.device) for drawn in draw(config, generator))
            with torch.autocast(bench.device.type, torch.bfloat16, enabled=autocast):
                predictions = model.scales(path.x_t(x_0, x_1, t), t, is_null)
            loss = multiscale_loss([p.float() for p in predictions], path.v(x_0, x_1, t)).mean()
            loss.backward()
            optimiser.step()
            optimiser.zero_grad()
            curve.append(loss.detach())
    return torch.stack(curve).tolist()


def draw(config: DiMRConfig, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """x_0, x_1, t and is_null; x_1 is one plane wave a channel, of random direction."""
    shape = (BATCH, config.channels, *config.size)
    x_0, t = torch.randn(shape, generator=generator), torch.rand(BATCH, generator=generator)
    direction = torch.randn(BATCH, config.channels, 3, 1, 1, generator=generator)
    y, x = (torch.linspace(-1, 1, side) for side in config.size)
    a, b, c = direction.unbind(2)
    return x_0, torch.sin(3 * (a * y[:, None] + b * x) + c), t, draw_null(BATCH, generator=generator)


def averaged(curve: list[float], window: int) -> list[float]:
    """The mean of every `window` neighbours."""
    return [statistics.fmean(curve[i : i + window]) for i in range(len(curve) - window + 1)]


def gap(curve: list[float], other: list[float]) -> float:
    """The largest difference, over the first value of the other."""
    return max(abs(a - b) for a, b in zip(curve, other, strict=True)) / other[0]
