"""The depth task's losses and batches, each against its formula written plainly."""

import math
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from cf_apps.data.depth_pairs import DepthArrays, ShapesDepth
from cf_apps.depth.config import DepthConfig
from cf_apps.depth.losses import depth_losses
from cf_apps.depth.model import build, with_fourier
from cf_apps.depth.task import DepthTask
from cf_apps.engine.errors import ConfigError
from cf_apps.engine.flow import TIMES
from cf_apps.engine.seeds import endless_order
from cf_apps.engine.task import Task
from cf_flowcore import draw_null, null_targets

sys.path.insert(0, str(Path(__file__).parent))
from depth_tiny import dice, model, recipe

SIGMA_MIN = 1e-5
FLOAT32 = 1e-4


def batch(n: int = 6) -> tuple[torch.Tensor, torch.Tensor]:
    g = dice(3)
    return torch.rand(n, 3, 16, 16, generator=g) * 2 - 1, torch.rand(n, 1, 16, 16, generator=g) * 2 - 1


def seen(pictures: torch.Tensor) -> torch.Tensor:
    """What the encoder of these tests reads: RGB, then sines and cosines of 8 pi x."""
    angle = 8 * math.pi * pictures
    return torch.cat([pictures, angle.sin(), angle.cos()], 1)


def test_the_encoder_reads_each_channel_and_its_waves():
    pictures, _ = batch()
    torch.testing.assert_close(with_fourier(pictures, (3,)), seen(pictures))
    assert with_fourier(pictures, ()).equal(pictures)
    two = with_fourier(pictures, (0, 2))
    assert two.shape[1] == 15
    torch.testing.assert_close(two[:, 13], (4 * math.pi * pictures[:, 1]).cos())
    # one level of 8 bits moves a wave of 2^5 pi by most of a radian, and the picture by less than a hundredth
    step = with_fourier(pictures + 2 / 255, (5,)) - with_fourier(pictures, (5,))
    assert step[:, 3:].abs().max() > 0.7
    assert step[:, :3].abs().max() < 0.01


def test_the_losses_are_the_paper_s_three_and_add_up():
    made = model(
        loss__null_rate=0.5, loss__times="uniform", loss__kl_weight=3e-3, loss__reconstruction_weight=0.7
    )
    pictures, x_1 = batch()
    losses = depth_losses(made, pictures, x_1, None, dice(1))

    g = dice(1)  # draws in the order of the engine: x_0, who is null and what he gets, t
    posterior = made.image_ve(seen(pictures))
    mean, sigma = posterior.mean, posterior.std
    x_0 = mean + sigma * torch.randn(mean.shape, generator=g)
    is_null = draw_null(len(x_1), 0.5, generator=g)
    target = null_targets(x_1, is_null, generator=g)
    t = TIMES["uniform"](len(x_1), generator=g)
    s = t[:, None, None, None]
    x_t = (1 - (1 - SIGMA_MIN) * s) * x_0 + s * target
    v = target - (1 - SIGMA_MIN) * x_0
    low, full = made.backbone.scales(x_t, t, is_null)
    flow = 0.25 * (low - F.avg_pool2d(v, 8) * 8).square().mean() + (full - v).square().mean()
    kl = 0.5 * (mean**2 + sigma**2 - 1 - 2 * sigma.log()).sum((1, 2, 3)).mean()
    reconstruction = (made.image_ve.decode(x_0)[:, :3] - pictures).square().mean()

    weights = {name: weight for name, (weight, _) in losses.terms.items()}
    assert weights == {"flow": 1.0, "kl": 3e-3, "reconstruction": 0.7}
    for name, expected in (("flow", flow), ("kl", kl), ("reconstruction", reconstruction)):
        torch.testing.assert_close(losses.terms[name][1], expected, rtol=FLOAT32, atol=FLOAT32)
    total = flow + 3e-3 * kl + 0.7 * reconstruction
    torch.testing.assert_close(losses.total, total, rtol=FLOAT32, atol=FLOAT32)


def test_the_flow_loss_teaches_the_encoder():
    made = model(loss__reconstruction_weight=0.0, loss__kl_weight=0.0)
    pictures, x_1 = batch()
    depth_losses(made, pictures, x_1, None, dice()).total.backward()
    gradients = [p.grad for name, p in made.image_ve.named_parameters() if not name.startswith("decoder")]
    assert all(g is not None and bool(g.abs().sum() > 0) for g in gradients)


def test_what_stands_where_there_is_no_reading_is_seen_but_not_learned():
    made = model(loss__null_rate=0.0)
    pictures, x_1 = batch()
    known = torch.zeros_like(x_1)
    known[:, :, :8] = 1

    def flow_and_its_oracle(x_1: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        g = dice(2)
        posterior = made.image_ve(seen(pictures))
        x_0 = posterior.sample(g)
        null_targets(x_1, draw_null(len(x_1), 0.0, generator=g), generator=g)  # nobody, but dice are thrown
        t = TIMES["uniform"](len(x_1), generator=g)
        s = t[:, None, None, None]
        low, full = made.backbone.scales((1 - (1 - SIGMA_MIN) * s) * x_0 + s * x_1, t)
        v = x_1 - (1 - SIGMA_MIN) * x_0
        upper = slice(0, 8)  # all of the first row of 8 x 8 cells is known, nothing of the second
        expected = 0.25 * (low - 8 * F.avg_pool2d(v, 8))[:, :, :1].square().mean()
        expected = expected + (full - v)[:, :, upper].square().mean()
        return depth_losses(made, pictures, x_1, known, dice(2)).terms["flow"][1], expected

    for target in (x_1, torch.where(known.bool(), x_1, -3 * x_1)):
        torch.testing.assert_close(*flow_and_its_oracle(target), rtol=FLOAT32, atol=FLOAT32)


def test_the_encoder_computes_in_float32_under_autocast():
    made = model()
    pictures, x_1 = batch()
    with torch.autocast("cpu", torch.bfloat16):
        posterior = made.encode(pictures)
        losses = depth_losses(made, pictures, x_1, None, dice(1))
    assert posterior.mean.equal(made.image_ve(seen(pictures)).mean)
    plain = depth_losses(made, pictures, x_1, None, dice(1))
    for name in ("kl", "reconstruction"):
        assert losses.terms[name][1].equal(plain.terms[name][1])


def task(data) -> DepthTask:
    return DepthTask(model(), data, "toy", seed=4)


def test_a_batch_is_the_data_in_the_endless_order_scaled():
    data = ShapesDepth.drawn(9, 16, seed=1)
    made = task(data)
    assert isinstance(made, Task)
    batch = made.batch(7, 5)
    drawn = data.batch(endless_order(9, 7, 5, 4))
    torch.testing.assert_close(batch.pictures, drawn.images.float() / 255 * 2 - 1)
    torch.testing.assert_close(made.model.config.scaling.to_depth(batch.x_1), drawn.depth, atol=1e-5, rtol=0)
    assert batch.known is None
    again = made.batch(7, 5)
    assert again.pictures.equal(batch.pictures)


def test_holes_are_filled_for_the_network_and_marked_for_the_loss():
    depth = torch.full((3, 16, 16), 0.5)
    valid = torch.ones(3, 16, 16, dtype=torch.bool)
    valid[:, 3:5, 7] = False
    depth[~valid] = 0
    made = task(DepthArrays(torch.zeros(3, 3, 16, 16, dtype=torch.uint8), depth, valid, "holes"))
    batch = made.batch(0, 2)
    assert batch.known is not None
    assert batch.known.equal(valid[:2, None].float())
    scaled = made.model.config.scaling.to_x_1(torch.full((2, 16, 16), 0.5), valid[:2])
    torch.testing.assert_close(batch.x_1, scaled)


def test_a_run_s_description_builds_the_same_modules():
    made = task(ShapesDepth.drawn(4, 16, 0))
    described = made.describe()
    assert (described["name"], described["data"]) == ("depth", "toy")
    again = build(DepthConfig.from_dict(described["config"]), made.model.device, 0)
    assert again.config == made.model.config
    assert {n: p.shape for n, p in again.modules.named_parameters()} == {
        n: p.shape for n, p in made.modules.named_parameters()
    }


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"backbone__channels": 3}, "backbone.channels is 3; a depth map has 1"),
        ({"image_ve__image": [3, 16, 16]}, r"image_ve.image is \(3, 16, 16\), but .* \(9, 16, 16\)"),
        ({"fourier": [-1]}, r"fourier must be whole numbers, zero or more, got \(-1,\)"),
        ({"image_ve__latent": [1, 8, 8]}, r"image_ve.latent is \(1, 8, 8\), but .* \(1, 16, 16\)"),
        ({"image_ve__decoder": False}, "image_ve.decoder is off"),
        ({"loss__scale_weights": [1.0]}, "1 weights for 2 stages"),
        ({"loss__kl_weight": -1.0}, "kl_weight must be zero or more"),
        ({"loss__reconstruction": 1.0}, "unknown key 'loss.reconstruction'"),
    ],
)
def test_parts_that_do_not_fit_are_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        recipe(**changes)
