"""torchcfm as an oracle: the same paths, targets and transport plans.

It brings a large tree of packages, so it is not in the test group; `nox -s peers` installs it in an environment of its
own and runs this file.
"""

import pytest
import torch
from cf_flowcore import CondOT, Cosine, optimal_transport

pytestmark = pytest.mark.peer
CLOSE = {"rtol": 1e-6, "atol": 1e-6}


@pytest.fixture
def batch(generator):
    """x_0, x_1 (7, 2, 3) and t (7,)"""
    x_0, x_1 = torch.randn(2, 7, 2, 3, generator=generator)
    return x_0, x_1, 0.95 * torch.rand(7, generator=generator)


@pytest.mark.parametrize("sigma_min", [0.0, 0.1])
def test_their_target_flow_is_our_condot(batch, sigma_min):
    from torchcfm import TargetConditionalFlowMatcher

    x_0, x_1, t = batch
    theirs, path = TargetConditionalFlowMatcher(sigma=sigma_min), CondOT(sigma_min=sigma_min)
    x_t = theirs.sample_xt(x_0, x_1, t, epsilon=x_0)  # its noise is what the path comes from
    torch.testing.assert_close(path.x_t(x_0, x_1, t), x_t, **CLOSE)
    torch.testing.assert_close(
        path.v(x_0, x_1, t), theirs.compute_conditional_flow(x_0, x_1, t, x_t), **CLOSE
    )


def test_their_plain_flow_between_two_data_sets_is_condot_without_sigma(batch):
    from torchcfm import ConditionalFlowMatcher

    x_0, x_1, t = batch
    theirs, path = ConditionalFlowMatcher(sigma=0.0), CondOT(sigma_min=0.0)
    x_t = theirs.sample_xt(x_0, x_1, t, epsilon=torch.zeros_like(x_0))
    torch.testing.assert_close(path.x_t(x_0, x_1, t), x_t, **CLOSE)
    torch.testing.assert_close(
        path.v(x_0, x_1, t), theirs.compute_conditional_flow(x_0, x_1, t, x_t), **CLOSE
    )


def test_their_trigonometric_flow_is_our_cosine(batch):
    from torchcfm import VariancePreservingConditionalFlowMatcher

    x_0, x_1, t = batch
    theirs, path = VariancePreservingConditionalFlowMatcher(sigma=0.0), Cosine()
    x_t = theirs.sample_xt(x_0, x_1, t, epsilon=torch.zeros_like(x_0))
    torch.testing.assert_close(path.x_t(x_0, x_1, t), x_t, **CLOSE)
    torch.testing.assert_close(
        path.v(x_0, x_1, t), theirs.compute_conditional_flow(x_0, x_1, t, x_t), **CLOSE
    )


def test_their_plan_moves_mass_as_our_permutation_does(batch):
    from torchcfm.optimal_transport import OTPlanSampler

    x_0, x_1, _ = batch
    plan = torch.from_numpy(OTPlanSampler(method="exact").get_map(x_0, x_1))
    assert torch.equal(plan.argmax(dim=1), optimal_transport(x_0, x_1))
    assert (plan.amax(dim=1) * len(plan) - 1).abs().max() < 1e-6  # each row gives all it has to one
