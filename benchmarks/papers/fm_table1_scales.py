"""How large fm_table1 is: minutes a training on a CPU, one GPU, or the paper's own CIFAR-10 column."""

from dataclasses import dataclass

from fm_training import Plan
from fm_unet import UNetSize


@dataclass(frozen=True)
class Scale:
    """How large: the pictures, the network, the training, and what is measured on how many."""

    side: int
    size: UNetSize
    plan: Plan
    batch: int
    train_images: int
    test_images: int  # for the distance
    likelihood_images: int
    importance: int
    samples: int
    error_samples: int
    curve_samples: int
    nfe_samples: int
    chunk: int
    nfes: tuple[int, ...] = (4, 8, 16, 32, 64, 100)
    likelihood_tolerance: float = 1e-5
    drawn_by: int | None = (
        None  # evaluations of midpoint for the samples of `distance`; None: dopri5, as the paper
    )
    checkpoints: int = 4
    keep_every: int = 0


SCALES = {
    "tiny": Scale(
        side=14,
        size=UNetSize((16, 32), depth=1, attention=(False, True), head_channels=16),
        plan=Plan(steps=1_000, lr=2e-3, warmup=50),
        batch=48,
        train_images=10_000,
        test_images=2_000,
        likelihood_images=16,
        importance=3,
        samples=384,
        error_samples=16,
        curve_samples=256,
        nfe_samples=16,
        chunk=256,
        nfes=(8, 16, 32, 64),
        likelihood_tolerance=1e-3,
        drawn_by=100,
    ),
    "small": Scale(
        side=32,
        size=UNetSize((64, 128, 128), depth=2, attention=(False, True, True), head_channels=64),
        plan=Plan(steps=4_000, lr=1e-3, warmup=200),
        batch=256,
        train_images=60_000,
        test_images=10_000,
        likelihood_images=512,
        importance=10,
        samples=10_000,
        error_samples=256,
        curve_samples=2_000,
        nfe_samples=512,
        chunk=2_048,
    ),
    "paper": Scale(
        side=32,
        size=UNetSize((256, 512, 512, 512), depth=2, attention=(False, True, False, False)),
        plan=Plan(steps=391_000, lr=5e-4, warmup=45_000, decay="linear"),
        batch=256,
        train_images=50_000,
        test_images=10_000,
        likelihood_images=10_000,
        importance=50,
        samples=50_000,
        error_samples=256,
        curve_samples=10_000,
        nfe_samples=1_000,
        chunk=512,
        checkpoints=10,
        keep_every=2_000,
    ),
}
