"""One field sampled along other paths than its own."""

import sys
from pathlib import Path as Folder

import pytest
import torch
from cf_flowcore import CondOT, Cosine, exact_velocity, reschedule, solve

sys.path.insert(0, str(Folder(__file__).parent))
from gaussian_world import PATHS, GaussianWorld

PURE = ["condot to the point", "cosine", "polynomial", "affine"]  # a : b goes all the way from 0 : 1 to 1 : 0


def state(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize("trained", PURE)
@pytest.mark.parametrize("new", [*PURE, "vp", "ve"])
def test_a_rescheduled_field_is_the_field_of_the_new_path(trained, new):
    own, other = GaussianWorld(PATHS[trained]), GaussianWorld(PATHS[new])
    x, t = state(7, 3), torch.linspace(0.1, 0.9, 7, dtype=torch.float64)
    found = reschedule(own.velocity, own.path, other.path)(x, t)
    torch.testing.assert_close(found, other.velocity(x, t), atol=1e-6, rtol=1e-6)


def test_it_works_for_a_source_that_is_not_gaussian():
    """Each source point has its own target, so the flow of any schedule is the same straight line."""
    x_0, x_1 = state(5, 2), 3 + state(5, 2).flip(0)

    def v(x, t):  # the exact field on CondOT, told apart by the batch's rows
        return x_1 - x_0

    path = CondOT(sigma_min=0.0)
    moved = reschedule(v, path, Cosine())
    t = torch.linspace(0.1, 0.9, 5, dtype=torch.float64)
    torch.testing.assert_close(
        moved(Cosine().x_t(x_0, x_1, t), t), Cosine().v(x_0, x_1, t), atol=1e-9, rtol=1e-9
    )


def test_both_schedules_end_at_the_same_sample():
    data, own = 0.5 * state(6, 2), PATHS["condot to the point"]

    def v(x, t):
        return exact_velocity(x, t, data, path=own)

    x_0 = state(9, 2).flip(1)
    direct = solve(v, x_0, t_1=0.98, method="rk4", steps=200).x
    other = PATHS["cosine"]
    a, b, _, _ = own.coefficients(torch.full((1,), 0.98, dtype=torch.float64))
    end = float(other.t_of(a, b))
    moved = solve(reschedule(v, own, other), x_0, t_1=end, method="rk4", steps=200).x
    a_new, b_new, _, _ = other.coefficients(torch.full((1,), end, dtype=torch.float64))
    torch.testing.assert_close(
        moved * torch.hypot(a, b) / torch.hypot(a_new, b_new), direct, atol=1e-4, rtol=1e-4
    )


def test_the_state_keeps_its_dtype():
    world = GaussianWorld(PATHS["cosine"])
    v = reschedule(lambda x, t: world.velocity(x.float(), t).to(x.dtype), world.path, CondOT())
    assert v(state(3, 2).bfloat16(), torch.full((3,), 0.5)).dtype == torch.bfloat16
