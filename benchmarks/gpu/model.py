"""The whole model: training step, velocity and guided sampling, ours by several ways and the public way."""

import gc
from collections.abc import Callable, Sequence
from typing import cast

import torch
from cf_flowcore import classifier_free, multiscale_loss, solve
from cf_transformer import DiMR, DiMRConfig, StageConfig, count_macs, count_parameters, preset
from cf_transformer.config import RecomputeKind
from cf_transformer.kernels import Choice, explain, using
from cf_transformer.kernels.dispatch import Mode
from gpu.floors import forward_seconds, training_seconds
from gpu.measure import Bench, Row, check_device, recorded, relative_error
from gpu.ways import EVERY_BATCH, WAYS, Batch, Field, ModelWay, Network, compiled, ours
from torch import nn

STEPS, SCALE = 50, 7.0  # of guided sampling: the public code's
# fewer steps are measured where all would take longer; every Euler step is the same work
SAMPLING_SECONDS = 2.5
BATCHES = (64, 16, 256)
DRY_CONFIG = DiMRConfig(
    4, (8, 8), (StageConfig("transformer", 16, 3, 2, 2), StageConfig("convnext", 8, 1, 1)), kernel_size=3
)
WORST_ERROR = 0.25  # of a bf16 velocity against fp32, through 98 blocks; a mistake makes it about 1


def model_cases(bench: Bench) -> dict[str, Callable[[], Row]]:
    """One case for every way and batch, the most telling first."""
    config = DRY_CONFIG if bench.clock.dry else preset("dimr-951m")
    batches = (2,) if bench.clock.dry else BATCHES
    return {
        f"{name}, batch {b}": lambda name=name, b=b: measure_model(WAYS[name], config, b, bench)
        for b in batches
        for name in WAYS
        if b == batches[0] or name in EVERY_BATCH
    }


def measure_model(way: ModelWay, config: DiMRConfig, b: int, bench: Bench) -> Row:
    """Training step, one velocity and guided sampling; what fails or does not fit says so."""
    row: Row = {"batch": b, "floors": floors(config, b, bench), "failed": {}}
    if way.build is compiled and bench.clock.dry:
        row["failed"]["all"] = "left out of a dry run, in which compiling would take long and show nothing"
        return row
    with using(possible(way.kernels, bench)):
        if way.trains:
            with recorded(row["failed"], "training"):
                row["training"] = training(way, config, b, bench)
        with recorded(row["failed"], "sampling"):
            row |= sampling(way, config, b, bench)
    _clear(bench)
    return row


def possible(mode: Mode, bench: Bench) -> Mode:
    """A dry run has no Triton kernels to insist on."""
    return "auto" if bench.clock.dry else mode


def training(way: ModelWay, config: DiMRConfig, b: int, bench: Bench) -> Row:
    """The first rung that fits: the whole batch by each of the ladder, then in 2, 4, ... parts by the last of it."""
    too_large = []
    for recompute, parts in rungs(way.ladder, b):
        _clear(bench)
        try:
            figures = training_step(
                way.build(config, recompute, bench.device), Batch.draw(config, b, bench.device), parts, bench
            )
        except torch.OutOfMemoryError:
            too_large.append({"recompute": recompute, "parts": parts})
            continue
        row = {"recompute": recompute, "parts": parts, "out_of_memory": too_large, **figures}
        return row | _speed(row, b, 6 * count_macs(config), bench)
    return {"out_of_memory": too_large}


def rungs(ladder: Sequence[RecomputeKind], b: int) -> list[tuple[RecomputeKind, int]]:
    """What to recompute and in how many parts, from the fastest to the smallest."""
    whole: list[tuple[RecomputeKind, int]] = [(recompute, 1) for recompute in ladder]
    return whole + [(ladder[-1], parts) for parts in (2, 4, 8) if b % parts == 0]


def training_step(network: nn.Module, batch: Batch, parts: int, bench: Bench) -> Row:
    """Forward, backward and AdamW under bf16 autocast; the gradient adds up over equal parts."""
    cuda = bench.device.type == "cuda"
    network.train()
    optimiser = torch.optim.AdamW(
        network.parameters(), lr=1e-5, betas=(0.9, 0.9), weight_decay=0.03, fused=cuda
    )
    pieces = batch.split(parts)

    def step() -> None:
        for piece in pieces:
            with torch.autocast(bench.device.type, torch.bfloat16):
                predictions = cast("Network", network).scales(*piece.inputs)
            loss = multiscale_loss([p.float() for p in predictions], piece.v_t).mean() / parts
            loss.backward()
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)

    before = explain()
    _reset_peak(bench)
    figures = bench.clock.whole(step)
    return {"parameters": count_parameters(network), **figures, **_peak(bench), "kernels": chosen(before)}


def chosen(before: Sequence[Choice]) -> dict[str, str]:
    """What each op that ran since `before` was taken ran on, and why."""
    new = (choice for choice in explain() if all(choice is not old for old in before))
    return {choice.op: f"{choice.backend}, {choice.why}" for choice in new}


@torch.no_grad()
def sampling(way: ModelWay, config: DiMRConfig, b: int, bench: Bench) -> Row:
    """The guided velocity, and Euler steps by it."""
    _clear(bench)
    batch, macs = Batch.draw(config, b, bench.device), count_macs(config)
    network = way.build(config, way.ladder[-1], bench.device).eval()
    before = explain()
    _reset_peak(bench)
    field = way.field(network, batch)
    guided = classifier_free(field, SCALE, batched=way.batched)
    velocity = bench.clock.whole(lambda: guided(batch.x_t, batch.t))
    steps = max(1, min(STEPS, int(SAMPLING_SECONDS / velocity["s"]))) if velocity else 2
    solved = bench.clock.whole(lambda: solve(guided, batch.x_t, method="euler", steps=steps), warmup=0)
    sampled: Row = {"steps": STEPS, "steps_measured": steps, **_peak(bench), "kernels": chosen(before)}
    if solved:
        whole = {"s": solved["s"] * STEPS / steps, "repeats": solved["repeats"]}
        sampled |= {**whole, **_speed(whole, b, 2 * STEPS * 2 * macs, bench)}
    sampled["error"] = velocity_error(field, batch.twice() if way.batched else batch, config)
    return {"guided": {**velocity, **_speed(velocity, 2 * b, 2 * macs, bench)}, "sampling": sampled}


def velocity_error(field: Field, batch: Batch, config: DiMRConfig) -> float:
    """Of the field on two samples, against ours in fp32 and plain torch; ArithmeticError where it is no rounding."""
    with using("torch"):
        exact = ours(config, "nothing", batch.x_t.device).eval()(*(tensor[:2] for tensor in batch.inputs))
    error = relative_error(field(*batch.inputs)[:2], exact)
    if not error < WORST_ERROR:
        raise ArithmeticError(f"the velocity is off by {error:g} of its size")
    return error


def _speed(figures: Row, images: int, flops_per_image: float, bench: Bench) -> Row:
    """Images a second, and the model's flops a second over what a large product reaches here (MFU)."""
    if "s" not in figures:
        return {}
    rate = images / figures["s"]
    mfu = None if bench.rates is None else rate * flops_per_image / bench.rates.matmul
    return {"images_per_s": rate, "mfu": mfu}


def floors(config: DiMRConfig, b: int, bench: Bench) -> dict[str, float]:
    """Seconds that a training step and a guided velocity take at least, on the card's own rates."""
    if bench.rates is None:
        return {}
    with torch.device("meta"):
        parameters = count_parameters(DiMR(config))
    return {
        "training_s": training_seconds(config, b, parameters, bench.rates),
        "guided_s": forward_seconds(config, 2 * b, bench.rates),
    }


def _reset_peak(bench: Bench) -> None:
    if bench.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(bench.device)


def _peak(bench: Bench) -> Row:
    return (
        {"peak_bytes": torch.cuda.max_memory_allocated(bench.device)} if bench.device.type == "cuda" else {}
    )


def _clear(bench: Bench) -> None:
    """Forget compiled code and hand back memory; a broken device is noticed here."""
    if bench.device.type == "cuda":
        torch.compiler.reset()
        gc.collect()
        check_device("between two measurements")
        torch.cuda.empty_cache()
