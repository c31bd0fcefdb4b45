"""Named recipes: a model, how to train it, and on what."""

from collections.abc import Callable
from dataclasses import replace

from cf_encoders import ImageVEConfig, image_ve_preset, kl_weight
from cf_eval.depth.protocols import depth_protocol
from cf_eval.depth.tables import TABLE_5
from cf_transformer import DiMRConfig, StageConfig
from cf_transformer import preset as dimr_preset

from cf_apps.data.depth_sets.kitti import KB_SIZE
from cf_apps.data.depth_sets.nyu import NYU_SIZE
from cf_apps.depth.config import DepthConfig, DepthLoss
from cf_apps.depth.scaling import AFFINE, ScalingConfig
from cf_apps.engine.commands.recipe import Recipe
from cf_apps.engine.config import MINUTES_ON_A_CPU, FitConfig
from cf_apps.engine.flow import SampleConfig


def tiny() -> Recipe[DepthConfig]:
    """Depth is in shading of a few per cent there, which the encoder finds through its sines and cosines.

    The last stage sees every pixel: with cells of 2 x 2 errors at edges were twice those inside.
    """
    size, fourier = (32, 32), (3, 5)
    stages = (
        StageConfig("transformer", d_model=96, n_blocks=3, patch=4, n_heads=3),
        StageConfig("convnext", d_model=32, n_blocks=2, patch=1),
    )
    backbone = DiMRConfig(
        1, size, stages, activation="silu", attention="matmul", kernel_size=5, init="scaled"
    )
    model = DepthConfig(
        ImageVEConfig((3 * (1 + 2 * len(fourier)), *size), (1, *size), widths=(16, 24), sigma=0.2),
        backbone,
        fourier,
        ScalingConfig("linear", 0.15, 1.0),
        DepthLoss(
            null_rate=0.0,
            times="early",
            scale_weights=_even(stages),
            reconstruction_weight=0.5,
            kl_weight=2e-5,
        ),
        SampleConfig(scale=1.0, steps=10, temperature=0.0),
    )
    fit = replace(MINUTES_ON_A_CPU, steps=4_000, batch_size=16, lr=4e-3)
    return Recipe("captioned shapes at 32 px, small enough for a CPU", model, fit, data="shapes")


def small() -> Recipe[DepthConfig]:
    """192 x 256 pixels, 38M parameters: one GPU and a folder of some thousand pairs, in about an hour."""
    size = (192, 256)
    stages = (
        StageConfig("transformer", d_model=512, n_blocks=9, patch=16, n_heads=8),
        StageConfig("convnext", d_model=256, n_blocks=5, patch=8),
        StageConfig("convnext", d_model=128, n_blocks=3, patch=4),
    )
    model = DepthConfig(
        ImageVEConfig((3, *size), (1, *size), widths=(32, 64, 96, 128)),
        DiMRConfig(1, size, stages),
        (),
        ScalingConfig("log"),
        DepthLoss(kl_weight=kl_weight((1, *size)), scale_weights=_even(stages)),
        SampleConfig(scale=1.0, steps=20),
    )
    fit = FitConfig(
        steps=20_000,
        batch_size=32,
        lr=3e-4,
        betas=(0.9, 0.99),
        warmup_steps=1_000,
        schedule="cosine",
        final_lr_fraction=0.01,
        ema_decay=0.999,
        precision="auto",
        log_every=50,
        save_every=2_000,
    )
    return Recipe("your own pairs at 192 x 256 px, on one GPU", model, fit)


def paper_kitti() -> Recipe[DepthConfig]:
    """CrossFlow sec. 5.3, table 5: 23,488 pictures, 50 epochs of batches of 64, 1e-4 -> 1e-8."""
    rule = depth_protocol(TABLE_5["kitti"])
    return _table_5("KITTI, Eigen split", KB_SIZE, rule.min_depth, rule.max_depth, steps=50 * 23_488 // 64)


def paper_nyu() -> Recipe[DepthConfig]:
    """CrossFlow sec. 5.3, table 5: 24,231 pictures, 50 epochs of batches of 64, 1e-4 -> 1e-8."""
    rule = depth_protocol(TABLE_5["nyu"])
    return _table_5("NYU Depth v2", NYU_SIZE, rule.min_depth, rule.max_depth, steps=50 * 24_231 // 64)


def paper_zero_shot() -> Recipe[DepthConfig]:
    """CrossFlow sec. 5.3, table 8: Hypersim and Virtual KITTI, 150k steps of 512, lr 1e-4 after 5k of warm-up."""
    fit = FitConfig(
        steps=150_000,
        batch_size=512,
        lr=1e-4,
        warmup_steps=5_000,
        precision="auto",
        log_every=50,
        save_every=5_000,
    )
    about = "the paper's zero-shot recipe; needs GPUs and --data zero-shot:FOLDER"
    return Recipe(about, _paper(NYU_SIZE, ScalingConfig(AFFINE)), fit)


def _table_5(what: str, size: tuple[int, int], near: float, far: float, steps: int) -> Recipe[DepthConfig]:
    fit = FitConfig(
        steps=steps,
        batch_size=64,
        lr=1e-4,
        schedule="cosine",
        final_lr_fraction=1e-4,
        precision="auto",
        log_every=50,
        save_every=1_000,
    )
    about = f"the paper's recipe for {what}; needs GPUs and the data"
    return Recipe(about, _paper(size, ScalingConfig("linear", near, far)), fit)


def _paper(size: tuple[int, int], scaling: ScalingConfig) -> DepthConfig:
    """DiMR-XL/3R on pixels, with the encoder beside it the paper's 527M. What the paper does not state, the sizes
    and the patches, is chosen here: the pictures as they are, cells of 16, 8 and 4 pixels.
    """
    backbone = dimr_preset("dimr-xl-3r")
    stages = tuple(
        replace(stage, patch=patch) for stage, patch in zip(backbone.stages, (16, 8, 4), strict=True)
    )
    return DepthConfig(
        replace(image_ve_preset("depth-paper"), image=(3, *size), latent=(1, *size)),
        replace(backbone, channels=1, size=size, stages=stages),
        (),
        scaling,
        DepthLoss(kl_weight=kl_weight((1, *size)), scale_weights=_even(stages)),
        SampleConfig(scale=1.0, steps=20),
    )


def _even(stages: tuple[StageConfig, ...]) -> tuple[float, ...]:
    """1 / k^2 for the stages below the last, whose targets are sums over k x k pixels divided by k.

    On smooth depth such a target is k times larger than the last stage's, whose head is at full resolution.
    """
    return (*(1 / stage.patch**2 for stage in stages[:-1]), 1.0)


PRESETS: dict[str, Callable[[], Recipe[DepthConfig]]] = {
    "tiny": tiny,
    "small": small,
    "paper-kitti": paper_kitti,
    "paper-nyu": paper_nyu,
    "paper-zero-shot": paper_zero_shot,
}
