"""How adaptive solves fail, and what they say."""

import pytest
import torch
from cf_flowcore import NonFiniteVelocity, SolveError, StepUnderflow, TooManyEvaluations, solve

X_0 = torch.ones(4, 3, dtype=torch.float64)


def broken_after_half(x, t):
    """NaN in sample 2 once t > 1/2."""
    bad = (t > 0.5)[:, None] & (torch.arange(len(x)) == 2)[:, None]
    return torch.where(bad, torch.nan, -x)


def restless(x, t):
    """Sample 1 oscillates far too fast for the calls allowed."""
    rate = torch.tensor([1.0, 3000.0, 1.0, 1.0], dtype=x.dtype)[:, None]
    return torch.cos(rate * t[:, None]) * rate + 0 * x


def explosive(x, t):
    """x' = x^2 in sample 3 goes to infinity at t = 1/2, the others rest."""
    return torch.where((torch.arange(len(x)) == 3)[:, None], 2 * x**2, 0.0)


def test_a_nan_is_reported_with_its_sample_and_time():
    with pytest.raises(NonFiniteVelocity, match=r"not finite for sample 2 at t=0\.") as error:
        solve(broken_after_half, X_0, max_step=0.1)
    assert error.value.sample == 2
    assert 0.5 < error.value.t <= 0.61


def test_a_nan_at_the_very_first_call_is_reported_too():
    with pytest.raises(NonFiniteVelocity, match="sample 0 at t=0;"):
        solve(lambda x, t: x * torch.nan, X_0)


def test_too_many_evaluations_are_reported_with_the_worst_sample():
    with pytest.raises(TooManyEvaluations, match=r"max_nfe=50.*sample 1") as error:
        solve(restless, X_0, max_nfe=50)
    assert error.value.sample == 1


def test_a_solution_that_goes_to_infinity_ends_there():
    with pytest.raises(SolveError) as error:
        solve(explosive, X_0, max_nfe=500)
    assert error.value.sample == 3
    assert error.value.t == pytest.approx(0.5, abs=0.01)


def test_a_jump_that_no_tolerance_allows_underflows_the_step():
    jump = torch.tensor([0.0, 0.0, 1e12, 0.0], dtype=torch.float64)[:, None]
    with pytest.raises(StepUnderflow, match="sample 2") as error:
        solve(lambda x, t: jump * (t > 0.3)[:, None] + 0 * x, X_0, rtol=1e-15, atol=1e-15)
    assert error.value.t == pytest.approx(0.3)


@pytest.mark.parametrize("field", [broken_after_half, restless], ids=["nan", "max_nfe"])
def test_on_request_the_last_good_state_is_returned_instead(field):
    solution = solve(field, X_0, max_nfe=50, max_step=0.1, on_fail="return", save="grid")
    assert not solution.ok
    assert isinstance(solution.failure, NonFiniteVelocity | TooManyEvaluations)
    assert torch.isfinite(solution.x).all()
    assert 0.0 <= solution.t[-1] < 1.0
    assert solution.nfe <= 50
    assert len(solution.t) == len(solution.trajectory) == solution.accepted + 1


def test_an_estimate_that_overflows_is_a_rejected_step_and_not_a_failure():
    x_0 = torch.full((2, 2), 1e30)  # float32: the square of the error estimate overflows

    def v(x, t):
        return 5 * x * torch.cos(10 * t)[:, None]

    solution = solve(v, x_0, first_step=1.0, rtol=0.0, atol=1e26)
    exact = x_0.double() * torch.exp(torch.sin(torch.tensor(10.0, dtype=torch.float64)) / 2)
    assert solution.rejected > 0
    torch.testing.assert_close(solution.x.double(), exact, rtol=1e-2, atol=0)


def test_a_field_that_is_zero_everywhere_is_crossed_in_a_few_steps():
    solution = solve(lambda x, t: torch.zeros_like(x), X_0)
    assert torch.equal(solution.x, X_0)
    assert solution.nfe < 60


def test_one_hard_sample_shortens_the_steps_of_all():
    easy = solve(lambda x, t: -x, X_0)
    rate = torch.tensor([1.0, 1.0, 1.0, 50.0], dtype=torch.float64)[:, None]
    assert solve(lambda x, t: -rate * x, X_0).nfe > easy.nfe


@pytest.mark.parametrize("per_sample", [False, True])
@pytest.mark.parametrize("method", ["bosh3", "dopri5", "tsit5", "dopri8"])
def test_max_nfe_is_never_passed_whether_the_last_stage_is_handed_on_or_not(method, per_sample):
    for most in range(30, 60):
        solution = solve(
            restless_everywhere, X_0, method=method, max_nfe=most, on_fail="return", per_sample=per_sample
        )
        assert not solution.ok
        assert solution.nfe <= most


def restless_everywhere(x, t):
    """Oscillates far too fast for the calls allowed, whichever rows are left."""
    return 3000 * torch.cos(3000 * t)[:, None] + 0 * x


# ------------------------------------------------------------------------------------------------- whose error


def oscillators(x, t):
    """x'' = -w^2 x, sample i with w = 1, 2, ..., 64 times slower or faster."""
    w = 2.0 ** torch.arange(len(x), dtype=x.dtype)
    return torch.stack([x[:, 1] * w, -x[:, 0] * w], 1)


def test_with_the_max_norm_no_sample_hides_behind_the_others():
    x_0 = torch.tensor([[1.0, 0.0]], dtype=torch.float64).expand(7, 2)
    angle = 2.0 ** torch.arange(7, dtype=torch.float64)
    truth = torch.stack([angle.cos(), -angle.sin()], 1)
    whole, worst = (solve(oscillators, x_0, rtol=1e-6, atol=1e-6, norm=norm) for norm in ("rms", "max"))
    errors = [(s.x - truth).abs().amax() for s in (whole, worst)]
    assert errors[1] < 0.5 * errors[0]
    assert worst.nfe > whole.nfe
    alone = solve(lambda x, t: oscillators(x.expand(7, 2), t)[6:], x_0[:1], rtol=1e-6, atol=1e-6)
    assert abs(alone.nfe - worst.nfe) <= 12  # the worst sample alone decides, but for the first step's length


def test_of_a_batch_of_one_both_norms_are_the_same():
    a, b = (solve(oscillators, X_0[:1, :2], norm=norm) for norm in ("rms", "max"))
    assert torch.equal(a.x, b.x)
    assert a.nfe == b.nfe


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"norm": "l2"}, "unknown norm 'l2'; known: rms, max"),
        ({"norm": "max", "per_sample": True}, "measures each sample alone"),
        ({"norm": "max", "method": "euler", "steps": 2}, "euler measures no error"),
    ],
)
def test_a_norm_that_makes_no_sense_is_refused(options, words):
    with pytest.raises(ValueError, match=words):
        solve(oscillators, X_0[:, :2], **options)
