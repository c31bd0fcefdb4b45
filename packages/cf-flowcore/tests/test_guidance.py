import pytest
import torch
from cf_flowcore import autoguidance, classifier_free, solve, two_fields


class Recorder:
    """v_c = 3 x + t, v_u = x - t, remembering what it was asked."""

    def __init__(self):
        self.calls = []

    def __call__(self, x, t, is_null):
        self.calls.append((len(x), is_null.clone()))
        t = t[:, None]
        return torch.where(is_null[:, None], x - t, 3 * x + t)


X = torch.randn(3, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
T = torch.tensor([0.2, 0.5, 0.7], dtype=torch.float64)
V_C, V_U = 3 * X + T[:, None], X - T[:, None]


@pytest.mark.parametrize("batched", [True, False])
@pytest.mark.parametrize("scale", [-1.0, 0.0, 0.5, 1.0, 2.5, 7.0])
def test_guidance_is_equation_3_of_crossflow(scale, batched):
    guided = classifier_free(Recorder(), scale, batched=batched)(X, T)
    torch.testing.assert_close(guided, scale * V_C + (1 - scale) * V_U)


def test_both_halves_go_through_the_model_in_one_call():
    v = Recorder()
    classifier_free(v, 7.0)(X, T)
    ((rows, is_null),) = v.calls
    assert rows == 6
    assert is_null.tolist() == [False] * 3 + [True] * 3


@pytest.mark.parametrize(("scale", "null"), [(1.0, False), (0.0, True)])
def test_scale_one_and_zero_evaluate_one_half_only(scale, null):
    v = Recorder()
    classifier_free(v, scale)(X, T)
    ((rows, is_null),) = v.calls
    assert rows == 3
    assert is_null.tolist() == [null] * 3


def test_outside_the_interval_only_the_conditional_half_runs():
    v = Recorder()
    guided = classifier_free(v, 4.0, interval=(0.3, 0.6))
    at = [torch.full((3,), t, dtype=torch.float64) for t in (0.2, 0.3, 0.5, 0.6, 0.7)]
    for t in at:
        guided(X, t)
    assert [rows for rows, _ in v.calls] == [3, 6, 6, 6, 3]
    torch.testing.assert_close(guided(X, at[0]), 3 * X + 0.2)


def test_samples_at_different_times_are_guided_each_by_its_own():
    guided = classifier_free(Recorder(), 4.0, interval=(0.3, 0.6))(X, T)
    expected = torch.where(torch.tensor([[False], [True], [False]]), 4 * V_C - 3 * V_U, V_C)
    torch.testing.assert_close(guided, expected)


def test_an_interval_that_is_none_is_refused():
    with pytest.raises(ValueError, match="low < high"):
        classifier_free(Recorder(), 2.0, interval=(0.5, 0.5))


def test_a_guided_solve_counts_one_evaluation_a_step():
    v = Recorder()
    solution = solve(classifier_free(v, 3.0), X, method="euler", steps=5)
    assert solution.nfe == len(v.calls) == 5


@pytest.mark.parametrize("scale", [0.0, 0.5, 1.0, 2.0])
def test_autoguidance_moves_away_from_the_bad_model(scale):
    guided = autoguidance(lambda x, t: 3 * x, lambda x, t: x - 1.0, scale)
    torch.testing.assert_close(guided(X, T), (X - 1.0) + scale * (3 * X - (X - 1.0)))


# ------------------------------------------------------------------------------------------------- variants


@pytest.mark.parametrize("scale", [0.0, 0.5, 1.0, 4.0])
def test_two_fields_are_guided_like_two_halves(scale):
    found = two_fields(lambda x, t: 3 * x + t[:, None], lambda x, t: x - t[:, None], scale)(X, T)
    torch.testing.assert_close(found, scale * V_C + (1 - scale) * V_U)


@pytest.mark.parametrize("options", [{}, {"rescale": 0.7}, {"zero_star": True}, {"interval": (0.3, 0.6)}])
def test_scale_one_is_bit_for_bit_the_conditional_field(options):
    v_c, v_u = (lambda x, t: torch.sin(7 * x)), (lambda x, t: torch.cos(5 * x) / 3)
    assert torch.equal(two_fields(v_c, v_u, 1.0, **options)(X, T), v_c(X, T))
    v = Recorder()
    assert torch.equal(classifier_free(v, 1.0, **options)(X, T), V_C)


def test_the_scale_may_be_a_function_of_t_for_each_sample():
    guided = classifier_free(Recorder(), lambda t: 1 + 4 * t)(X, T)
    scale = (1 + 4 * T)[:, None]
    torch.testing.assert_close(guided, scale * V_C + (1 - scale) * V_U)


def test_rescaling_fully_gives_the_standard_deviation_of_the_conditional_velocity():
    plain = classifier_free(Recorder(), 5.0)(X, T)
    full = classifier_free(Recorder(), 5.0, rescale=1.0)(X, T)
    torch.testing.assert_close(full.std(1), V_C.std(1))
    torch.testing.assert_close(full / plain, (V_C.std(1) / plain.std(1))[:, None].expand(3, 2))
    part = classifier_free(Recorder(), 5.0, rescale=0.7)(X, T)
    torch.testing.assert_close(part, 0.7 * full + 0.3 * plain)


def test_zero_star_guides_from_the_multiple_of_v_u_that_is_nearest_to_v_c():
    found = classifier_free(Recorder(), 3.0, zero_star=True)(X, T)
    for i in range(3):
        best = torch.linalg.lstsq(V_U[i][:, None], V_C[i][:, None]).solution.item()
        torch.testing.assert_close(found[i], 3 * V_C[i] - 2 * best * V_U[i])


def test_zero_star_leaves_a_velocity_of_zero_alone():
    found = two_fields(lambda x, t: x, lambda x, t: torch.zeros_like(x), 3.0, zero_star=True)(X, T)
    torch.testing.assert_close(found, 3 * X)


def test_before_zero_until_nothing_moves():
    found = classifier_free(Recorder(), 3.0, zero_until=0.5)(X, T)
    assert (found[0] == 0).all()
    torch.testing.assert_close(found[1:], (3 * V_C - 2 * V_U)[1:])
    still = classifier_free(Recorder(), 1.0, zero_until=0.5)(X, T)
    assert (still[0] == 0).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [({"rescale": 1.5}, "share from 0 to 1, got 1.5"), ({"zero_until": 1.0}, r"time in \[0, 1\), got 1.0")],
)
def test_options_outside_their_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        classifier_free(Recorder(), 2.0, **options)


@pytest.mark.parametrize("options", [{"rescale": 0.7}, {"zero_star": True}])
def test_states_without_dimensions_are_guided_sample_by_sample(options):
    """(b,) states, each as (b, 1) would be: no number of one sample enters another's."""
    flat, column = X[:, 0], X[:, :1]
    found = two_fields(lambda x, t: 3 * x + 1, lambda x, t: x - 2, 4.0, **options)(flat, T)
    wanted = two_fields(lambda x, t: 3 * x + 1, lambda x, t: x - 2, 4.0, **options)(column, T)
    torch.testing.assert_close(found, wanted[:, 0])
    assert found.isfinite().all()
