"""Every conversion against a world where all four predictions are known in closed form."""

import sys
from pathlib import Path as Folder

import pytest
import torch
from cf_flowcore import VP, CondOT, as_velocity, convert, solve
from cf_flowcore.convert import KINDS

sys.path.insert(0, str(Folder(__file__).parent))
from gaussian_world import PATHS, GaussianWorld

PAIRS = [(source, target) for source in KINDS for target in KINDS]
EXACT = {"atol": 1e-9, "rtol": 1e-9}


def state(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def times(b: int, low: float = 0.02, high: float = 0.98) -> torch.Tensor:
    return torch.linspace(low, high, b, dtype=torch.float64)


@pytest.mark.parametrize("name", PATHS)
@pytest.mark.parametrize(("source", "target"), PAIRS)
def test_every_prediction_gives_every_other(name, source, target):
    world = GaussianWorld(PATHS[name])
    for shape in (
        (7, 7),
        (5,),
        (4, 1, 3),
        (3, 2, 5, 7),
    ):  # (7, 7): b == d, where plain broadcasting is silently wrong
        x, t = state(*shape), times(shape[0])
        prediction, wanted = (getattr(world, kind)(x, t) for kind in (source, target))
        found = convert(prediction, x, t, path=world.path, source=source, target=target)
        torch.testing.assert_close(found, wanted, **EXACT)


SINGULAR = {  # by nature, at (t = 0, t = t_max): what the prediction does not determine there
    "condot": ({"noise to velocity", "noise to data", "score to velocity", "score to data"}, set()),
    "condot to the point": (
        {"noise to velocity", "noise to data", "score to velocity", "score to data"},
        {"data to velocity", "data to noise", "data to score", "velocity to score", "noise to score"},
    ),
    "cosine": (
        {"noise to velocity", "noise to data", "score to velocity", "score to data"},
        {"data to velocity", "data to noise", "data to score", "velocity to score", "noise to score"},
    ),
    "vp": (set(), set()),
    "ve": (set(), set()),
    "ve to zero": (set(), set()),
}


@pytest.mark.parametrize("name", SINGULAR)
@pytest.mark.parametrize("end", [0, 1])
def test_at_the_ends_all_that_is_defined_is_finite_and_the_rest_is_refused(name, end):
    world = GaussianWorld(PATHS[name])
    t = torch.tensor([0.5, end * world.path.t_max], dtype=torch.float64)
    x = state(2, 3)
    for source, target in PAIRS:
        if source == target:
            continue
        prediction = getattr(world, source)(x, t)
        how = {"path": world.path, "source": source, "target": target}
        if f"{source} to {target}" in SINGULAR[name][end]:
            with pytest.raises(
                ValueError, match=f"at t={end:g} the {source} does not determine the {target}"
            ):
                convert(prediction, x, t, **how)
            assert not convert(prediction, x, t, **how, check=False)[1].isfinite().all()
        else:
            found = convert(prediction, x, t, **how)
            torch.testing.assert_close(found, getattr(world, target)(x, t), atol=1e-6, rtol=1e-6)


def test_on_vp_scores_and_their_velocity_are_finite_at_the_very_end():
    """b = 0 at t = 1 and the velocity of one sample is infinite there, but v = beta / 2 (x + s) is not."""
    x, s, t = state(3, 2), state(3, 2).flip(0), torch.ones(3, dtype=torch.float64)
    v = convert(s, x, t, path=VP(0.1, 20.0), source="score", target="velocity")
    torch.testing.assert_close(v, 0.1 / 2 * (x + s), **EXACT)
    torch.testing.assert_close(convert(v, x, t, path=VP(), source="velocity", target="score"), s, **EXACT)


def test_the_usual_formulas():
    x, v, t = state(4, 3), state(4, 3).flip(0), times(4)
    data = convert(v, x, t, path=CondOT(0.1), source="velocity", target="data")
    b = (1 - 0.9 * t)[:, None]
    torch.testing.assert_close(data, b * v + 0.9 * x, **EXACT)
    noise = convert(v, x, t, path=CondOT(0.1), source="velocity", target="noise")
    torch.testing.assert_close(noise, x - t[:, None] * v, **EXACT)
    beta = VP().beta(t)[:, None]
    score = convert(v, x, t, path=VP(), source="velocity", target="score")
    torch.testing.assert_close(score, 2 * v / beta - x, **EXACT)


@pytest.mark.parametrize("path", [VP(), PATHS["ve"], PATHS["ve to zero"], PATHS["cosine"]])
@pytest.mark.parametrize(("source", "target"), [p for p in PAIRS if p[0] != p[1]])
def test_float32_agrees_with_float64_near_the_end(path, source, target):
    world = GaussianWorld(path)
    t = 1.0 - 2.0 ** -torch.arange(2.0, 14.0)
    x = state(len(t), 3).float()
    prediction = getattr(world, source)(x.double(), t.double())
    how = {"path": path, "source": source, "target": target}
    exact = convert(prediction.float().double(), x.double(), t.double(), **how)
    found = convert(prediction.float(), x, t, **how)
    assert found.dtype == torch.float32
    # a target with 1 / b in it magnifies the prediction's own rounding; beyond that nothing may be lost
    _, b, _, _ = path.coefficients(t.double())
    magnified = (prediction.abs().amax(1) + x.double().abs().amax(1)) / b.clamp(max=1.0) ** 2
    assert ((found.double() - exact).abs().amax(1) <= 4e-6 * magnified * (1 + exact.abs().amax(1))).all()


@pytest.mark.parametrize("other", ["velocity", "data", "noise"])
def test_the_score_of_a_source_that_is_not_gaussian_is_refused(other):
    x, t = state(2, 3), times(2)
    for source, target in ((other, "score"), ("score", other)):
        with pytest.raises(ValueError, match=r"needs x_0 ~ N\(0, I\).*CondOT\(..., gaussian_source=True\)"):
            convert(x, x, t, path=CondOT(), source=source, target=target)
    assert convert(x, x, t, path=CondOT(), source="velocity", target="data").isfinite().all()


def test_an_unknown_kind_is_refused_and_the_known_ones_listed():
    x, t = state(2, 3), times(2)
    with pytest.raises(
        ValueError, match="unknown kind of prediction 'epsilon'; known: velocity, data, noise, score"
    ):
        convert(x, x, t, path=CondOT(), source="epsilon", target="data")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["vp", "cosine"])
def test_a_network_of_any_kind_can_be_solved_and_ends_where_the_velocity_does(kind, name):
    world = GaussianWorld(PATHS[name])
    x_0 = state(6, 2)
    ends = [
        solve(
            as_velocity(getattr(world, k), k, path=world.path),
            x_0,
            t_0=0.01,
            t_1=0.95,
            method="rk4",
            steps=60,
        ).x
        for k in ("velocity", kind)
    ]
    torch.testing.assert_close(ends[0], ends[1], atol=1e-8, rtol=1e-8)


def test_a_bfloat16_prediction_is_converted_in_float32():
    x, t = state(3, 2).float(), times(3).float()
    found = convert(x.bfloat16(), x.bfloat16(), t, path=CondOT(), source="velocity", target="data")
    exact = convert(
        x.bfloat16().float(), x.bfloat16().float(), t, path=CondOT(), source="velocity", target="data"
    )
    assert torch.equal(found, exact.bfloat16())
