import math
from functools import partial

import pytest
import torch
from cf_encoders import LogScale, info_nce, retrieval_accuracy
from cf_encoders.sigmoid_loss import sigmoid_loss


def pairs(b: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    z, target = torch.randn(2, b, 3, 4, 5, generator=generator, dtype=torch.float64)
    return z, target


@pytest.mark.parametrize("b", [1, 2, 7])
def test_info_nce_is_the_papers_sum_written_out(b, generator):
    z, target = pairs(b, generator)
    tau = 0.2
    cos = [
        [torch.cosine_similarity(z[i].flatten(), target[j].flatten(), dim=0).item() for j in range(b)]
        for i in range(b)
    ]
    exp = [[math.exp(c / tau) for c in row] for row in cos]
    rows = -sum(math.log(exp[i][i] / sum(exp[i])) for i in range(b)) / b
    columns = -sum(math.log(exp[i][i] / sum(row[i] for row in exp)) for i in range(b)) / b
    found = info_nce(z, target, torch.tensor(1 / tau).double().log())
    assert found.item() == pytest.approx((rows + columns) / 2, rel=1e-9, abs=1e-12)


def test_autocast_does_not_round_the_cosines(generator):
    z, target = (side.float() for side in pairs(6, generator))
    expected = info_nce(z, target, LogScale(0.01)())
    with torch.autocast("cpu", torch.bfloat16):
        found = info_nce(z, target, LogScale(0.01)())
    # a cosine rounded to bfloat16 and multiplied by 100 is off by tenths
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-6)


def test_info_nce_is_symmetric_and_blind_to_length(generator):
    z, target = pairs(5, generator)
    scale = torch.tensor(2.0).double()
    torch.testing.assert_close(info_nce(z, target, scale), info_nce(target, z, scale))
    torch.testing.assert_close(info_nce(3 * z, 0.1 * target, scale), info_nce(z, target, scale))


def test_its_gradient_is_that_of_finite_differences(generator):
    z, target = torch.randn(2, 3, 2, 2, generator=generator, dtype=torch.float64, requires_grad=True)
    log_scale = torch.tensor(0.7).double().requires_grad_()
    assert torch.autograd.gradcheck(info_nce, (z, target, log_scale))


def test_matched_pairs_lose_less_than_mismatched_and_chance_is_log_b(generator):
    z, _ = pairs(6, generator)
    scale = torch.tensor(3.0).double()
    assert info_nce(z, z, scale) < info_nce(z, z.roll(1, dims=0), scale)
    same = torch.ones(6, 4).double()
    assert info_nce(same, same, scale).item() == pytest.approx(math.log(6))


def test_zero_latents_have_a_finite_loss_and_gradient():
    z = torch.zeros(3, 4, requires_grad=True)
    loss = info_nce(z, torch.eye(3, 4), LogScale()())
    loss.backward()
    assert loss.isfinite()
    assert z.grad.isfinite().all()


@pytest.mark.compile
@pytest.mark.parametrize("loss", [info_nce, partial(sigmoid_loss, bias=torch.tensor(-2.0))])
def test_a_loss_compiles_into_one_graph(loss, generator):
    z, target = (side.float() for side in pairs(5, generator))
    scale = torch.tensor(1.0)
    found = torch.compile(loss, fullgraph=True)(z, target, scale)
    torch.testing.assert_close(found, loss(z, target, scale), atol=1e-5, rtol=1e-5)


def test_temperature_starts_at_007_and_the_scale_never_passes_100():
    scale = LogScale()
    assert scale().exp().item() == pytest.approx(1 / 0.07)
    with torch.no_grad():
        scale.log_scale.fill_(50.0)
    assert scale().exp().item() == pytest.approx(100, rel=1e-5)


def test_a_scale_past_its_limit_still_gets_a_gradient_to_come_back(generator):
    scale = LogScale()
    with torch.no_grad():
        scale.log_scale.fill_(50.0)
    z, target = pairs(4, generator)
    info_nce(z.float(), target.float(), scale()).backward()
    assert scale.log_scale.grad > 0  # unmatched pairs: a smaller scale loses less


def test_found_pairs_sharpen_the_temperature_and_lost_ones_soften_it(generator):
    z, _ = pairs(4, generator)
    for target, sign in ((z, -1), (-z, 1)):
        log_scale = torch.tensor(2.0).double().requires_grad_()
        info_nce(z, target, log_scale).backward()
        assert log_scale.grad.sign() == sign


def test_temperature_below_the_limit_is_refused():
    with pytest.raises(ValueError, match=r"0\.01.*0\.001"):
        LogScale(0.001)


def test_retrieval_accuracy_counts_the_samples_that_find_their_own():
    z = torch.eye(4)
    target = torch.eye(4)[[0, 1, 3, 2]]
    assert retrieval_accuracy(z, target) == 0.5
    assert retrieval_accuracy(z, z) == 1.0
