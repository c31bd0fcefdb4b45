"""What a training run is told: one frozen record, checked when it is made."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import get_args

from cf_transformer.config import RecomputeKind

from cf_apps.engine.checks import require_seed
from cf_apps.engine.errors import ConfigError

SCHEDULES: dict[str, Callable[[float, float], float]] = {
    # name      (progress in [0, 1], factor at the end) -> factor of the learning rate
    "constant": lambda progress, final: 1.0,
    "cosine": lambda progress, final: final + (1 - final) * 0.5 * (1 + math.cos(math.pi * progress)),
}
PRECISIONS = ("auto", "fp32", "bf16")
PARALLEL = ("ddp", "fsdp")
EMA_DEVICES = ("same", "cpu")


@dataclass(frozen=True)
class FitConfig:
    """How to train. Give `steps` (the run repeats bit for bit) or `max_seconds` (it does not), not both.

    Bit for bit means: on the same machine with the same versions and number of threads; on a GPU also with
    torch.use_deterministic_algorithms(True).

    With `max_seconds` the learning-rate schedule follows the elapsed share of the time instead of the
    steps', so how far each step moves the weights depends on the machine and on what else it does.
    Training time counts on across a resume.

    Defaults of betas, weight decay and ema_decay: CrossFlow's public code.
    """

    steps: int | None = None
    """Optimizer steps in all."""
    max_seconds: float | None = None
    """Time budget in seconds instead of `steps`: 'train for five minutes'."""
    batch_size: int = 64
    """Samples an optimizer step, over all processes."""
    accumulate: int = 1
    """Parts a batch is cut into, one after the other, to save memory; must divide `batch_size`. Every process has its
    share of every part."""
    lr: float = 1e-4
    betas: tuple[float, float] = (0.9, 0.9)
    weight_decay: float = 0.03
    warmup_steps: int = 0
    """Steps over which the learning rate grows linearly from lr / warmup_steps to lr."""
    schedule: str = "constant"
    """'constant' or 'cosine'."""
    final_lr_fraction: float = 0.0
    """Where 'cosine' ends, as a fraction of `lr`."""
    clip_norm: float | None = 1.0
    """Largest global gradient norm; None does not clip."""
    ema_decay: float = 0.9999
    ema_ramp: float = 10.0
    """Decay at update n is min(ema_decay, (1 + n) / (ema_ramp + n)); 1 means no ramp."""
    precision: str = "fp32"
    """'fp32', 'bf16', which computes under autocast, or 'auto', which is bf16 where the device has it; weights,
    optimizer and EMA stay fp32."""
    parallel: str = "ddp"
    """With several processes: 'ddp', each holds all weights, or 'fsdp', each holds a share of the weights, of the
    optimizer and of the average."""
    recompute: str | None = None
    """What the backbone computes twice to save memory: 'nothing', 'cheap' or 'blocks'; None leaves that to the model's
    own config."""
    compile: bool = False
    """Compile the repeated blocks of the model (torch.compile)."""
    ema_device: str = "same"
    """'cpu' keeps the average in the host's memory: room on the GPU for one more copy of the weights a step."""
    prefetch: int = 0
    """Batches that a thread makes ahead, while a step computes; 0 makes each when it is needed."""
    log_every: int = 10
    save_every: int = 1000
    """Steps between checkpoints; the end of the run (or an interrupt) always saves one."""
    save_every_seconds: float | None = None
    """Save also when this many seconds have gone by since the last checkpoint."""
    keep_last: int = 2
    """Checkpoints kept; older ones go once a newer one is complete."""
    keep_every: int | None = None
    """Steps: beside the last `keep_last`, the first checkpoint at or after each multiple of this stays for good."""
    skip_steps: int = 0
    """Steps that may be left out because a loss or the gradient is not finite, of any 1,000, before the run stops."""
    evaluate_every: int | None = None
    """Steps between evaluations, where `fit` is given an `evaluate` function."""
    seed: int = 0

    def __post_init__(self) -> None:
        if (self.steps is None) == (self.max_seconds is None):
            raise ConfigError(
                "give steps or max_seconds, one of the two; "
                f"got steps={self.steps}, max_seconds={self.max_seconds}"
            )
        for name in (
            "steps",
            "batch_size",
            "accumulate",
            "log_every",
            "save_every",
            "keep_last",
            "keep_every",
            "evaluate_every",
        ):
            value = getattr(self, name)
            _require(value is None or value >= 1, name, value, "at least 1")
        for name in ("max_seconds", "save_every_seconds", "clip_norm"):
            value = getattr(self, name)
            _require(value is None or 0 < value < math.inf, name, value, "positive (or None)")
        _require(
            self.batch_size % self.accumulate == 0,
            "accumulate",
            self.accumulate,
            f"a divisor of batch_size={self.batch_size}",
        )
        _require(0 < self.lr < math.inf, "lr", self.lr, "positive")
        _require(all(0 <= beta < 1 for beta in self.betas), "betas", self.betas, "two numbers in [0, 1)")
        _require(0 <= self.weight_decay < math.inf, "weight_decay", self.weight_decay, "zero or more")
        _require(self.warmup_steps >= 0, "warmup_steps", self.warmup_steps, "zero or more")
        _require(self.schedule in SCHEDULES, "schedule", self.schedule, f"one of {', '.join(SCHEDULES)}")
        _require(0 <= self.final_lr_fraction <= 1, "final_lr_fraction", self.final_lr_fraction, "in [0, 1]")
        _require(0 <= self.ema_decay < 1, "ema_decay", self.ema_decay, "in [0, 1)")
        _require(self.ema_ramp >= 1, "ema_ramp", self.ema_ramp, "1 (no ramp) or more")
        _require(self.precision in PRECISIONS, "precision", self.precision, f"one of {', '.join(PRECISIONS)}")
        _require(self.parallel in PARALLEL, "parallel", self.parallel, f"one of {', '.join(PARALLEL)}")
        kinds = get_args(RecomputeKind)
        _require(
            self.recompute in (None, *kinds),
            "recompute",
            self.recompute,
            f"one of {', '.join(kinds)} (or None)",
        )
        _require(
            self.ema_device in EMA_DEVICES, "ema_device", self.ema_device, f"one of {', '.join(EMA_DEVICES)}"
        )
        for name in ("prefetch", "skip_steps"):
            _require(getattr(self, name) >= 0, name, getattr(self, name), "zero or more")
        require_seed(self.seed)

    def progress(self, step: int, elapsed: float) -> float:
        """Share of the run that is done, in [0, 1]: step / steps, or elapsed seconds / max_seconds."""
        if self.steps is not None:
            return min(step / self.steps, 1.0)
        assert self.max_seconds is not None
        return min(elapsed / self.max_seconds, 1.0)

    def learning_rate(self, step: int, progress: float) -> float:
        """lr · min(1, (step + 1) / warmup_steps) · schedule(progress), for the step about to be made."""
        warmup = min(1.0, (step + 1) / self.warmup_steps) if self.warmup_steps else 1.0
        return self.lr * warmup * SCHEDULES[self.schedule](progress, self.final_lr_fraction)


def _require(holds: bool, name: str, value: object, remedy: str) -> None:
    if not holds:
        raise ConfigError(f"{name} must be {remedy}, got {value!r}")


# what the presets for two CPU cores share
MINUTES_ON_A_CPU = FitConfig(
    steps=1_000,
    batch_size=64,
    lr=2e-3,
    betas=(0.9, 0.99),
    warmup_steps=100,
    schedule="cosine",
    final_lr_fraction=0.02,
    ema_decay=0.999,
    precision="auto",
    log_every=20,
    save_every=500,
)
