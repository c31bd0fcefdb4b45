import pytest
from cf_flowcore.control import I_CONTROL, PI_CONTROL, StepControl, Tolerance


def test_the_i_rule_is_safety_times_error_to_the_minus_one_over_order():
    assert I_CONTROL.after_accepted(0.01, previous=0.5, order=5) == pytest.approx(0.9 * 0.01**-0.2)
    assert I_CONTROL.after_rejected(20.0, order=5) == pytest.approx(0.9 * 20.0**-0.2)


def test_the_pi_rule_is_that_of_hairers_dopri5():
    beta = 0.04
    expected = 0.9 * 0.3 ** -(0.2 - 0.75 * beta) * 0.6**beta
    assert PI_CONTROL.after_accepted(0.3, previous=0.6, order=5) == pytest.approx(expected)


def test_an_error_that_grows_makes_the_pi_rule_more_careful():
    assert PI_CONTROL.after_accepted(0.5, 0.1, 5) < PI_CONTROL.after_accepted(0.5, 0.5, 5)


@pytest.mark.parametrize("control", [PI_CONTROL, I_CONTROL])
def test_steps_grow_tenfold_and_shrink_fivefold_at_most(control):
    assert control.after_accepted(0.0, 1.0, 5) == 10.0
    assert control.after_rejected(1e30, 5) == control.after_rejected(float("inf"), 5) == 0.2
    assert control.after_rejected(1.0001, 5) < 0.9


def test_torchdiffeqs_rule_never_shrinks_after_an_accepted_step():
    assert I_CONTROL.after_accepted(0.999, 1.0, 5) == 1.0
    assert PI_CONTROL.after_accepted(0.999, 1.0, 5) < 1.0


def test_impossible_rules_and_tolerances_are_refused():
    with pytest.raises(ValueError, match="0 < safety"):
        StepControl(integral=1.0, proportional=0.0, safety=1.5)
    for rtol, atol in [(0.0, 0.0), (-1e-3, 1e-3), (float("nan"), 1e-3)]:
        with pytest.raises(ValueError, match="rtol and atol"):
            Tolerance(rtol, atol)
