import math

import pytest
import torch
from cf_encoders.contrastive import directions
from cf_encoders.sigmoid_loss import ScaleAndBias, sigmoid_loss


def pairs(b: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    z, target = torch.randn(2, b, 3, 1, 5, generator=generator, dtype=torch.float64)
    return z, target


@pytest.mark.parametrize("b", [1, 2, 7])
def test_it_is_siglips_sum_over_all_pairs_divided_by_b(b, generator):
    z, target = pairs(b, generator)
    tau, bias, total = 0.3, -1.7, 0.0
    for i in range(b):
        for j in range(b):
            cos = torch.cosine_similarity(z[i].flatten(), target[j].flatten(), dim=0).item()
            sign = 1 if i == j else -1
            total += math.log(1 + math.exp(-sign * (cos / tau + bias)))
    log_scale, offset = torch.tensor([-math.log(tau), bias], dtype=torch.float64)
    found = sigmoid_loss(z, target, log_scale, offset)
    assert found.item() == pytest.approx(total / b, rel=1e-12)


def test_it_is_open_clips_siglip_loss_with_the_same_gradients(generator):
    from open_clip.loss import SigLipLoss

    grads = []
    for ours in (True, False):
        z, target = (side.clone().requires_grad_() for side in pairs(6, torch.Generator().manual_seed(3)))
        log_scale, bias = (torch.tensor(x, dtype=torch.float64, requires_grad=True) for x in (1.2, -3.4))
        if ours:
            loss = sigmoid_loss(z, target, log_scale, bias)
        else:
            loss = SigLipLoss()(directions(z), directions(target), log_scale.exp(), bias)
        loss.backward()
        grads.append([loss.detach(), z.grad, target.grad, log_scale.grad, bias.grad])
    torch.testing.assert_close(grads[0], grads[1], atol=1e-13, rtol=1e-12)


def test_autocast_does_not_round_the_cosines(generator):
    z, target = (side.float() for side in pairs(6, generator))
    scale = ScaleAndBias(0.01)
    expected = sigmoid_loss(z, target, *scale())
    with torch.autocast("cpu", torch.bfloat16):
        found = sigmoid_loss(z, target, *scale())
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-6)


def test_it_starts_near_siglips_ten_and_minus_ten_and_learns_both(generator):
    scale = ScaleAndBias()
    log_scale, bias = scale()
    assert log_scale.exp().item() == pytest.approx(10)
    assert bias.item() == -10
    z, _ = (side.float() for side in pairs(5, generator))
    sigmoid_loss(z, -z, log_scale, bias).backward()
    assert scale.log_scale.log_scale.grad > 0  # the true pairs are opposite: a smaller scale loses less
    assert scale.bias.grad < 0  # and a larger bias, since at -10 nothing is believed to match


def test_a_zero_latent_has_a_finite_loss_and_gradient():
    z = torch.zeros(3, 4, requires_grad=True)
    loss = sigmoid_loss(z, torch.eye(3, 4), *ScaleAndBias()())
    loss.backward()
    assert loss.isfinite()
    assert z.grad.isfinite().all()
