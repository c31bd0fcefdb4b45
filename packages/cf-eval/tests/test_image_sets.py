"""KID, Inception Score, precision and recall, CMMD: against torch-fidelity and against plain loops."""

import importlib
import math
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from cf_eval.images.cmmd import CMMD
from cf_eval.images.inception_score import InceptionScore, Splits, inception_score
from cf_eval.images.kid import KID, Subsets, kid_of_subsets
from cf_eval.images.mmd import biased_mmd2, cubic, gaussian, unbiased_mmd2
from cf_eval.images.prdc import PRDC, Neighbourhood, prdc

EXACT = 1e-12


@dataclass
class Pixels:
    """Every value of a picture, 0..1: features that need no network."""

    name: str = "pixels"
    weights: dict[str, str] = field(default_factory=dict)
    rounding: str = "round"

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        return images.double().flatten(1) / 255


def rows(n: int, d: int, seed: int) -> torch.Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + 0.1 * seed


def peer(name: str):
    pytest.importorskip("torch_fidelity")
    return importlib.import_module(f"torch_fidelity.metric_{name}")


def loop_mmd2(x, y, kernel, unbiased: bool) -> float:
    """The definition, one pair at a time."""

    def mean(a, b, same: bool) -> float:
        pairs = [(i, j) for i in range(len(a)) for j in range(len(b)) if not (same and unbiased and i == j)]
        return sum(kernel(a[i], b[j]) for i, j in pairs) / len(pairs)

    return mean(x, x, True) + mean(y, y, True) - 2 * mean(x, y, False)


def test_the_unbiased_mmd_of_uneven_sets_is_its_definition():
    x, y = rows(7, 5, 1), rows(4, 5, 2)
    expected = loop_mmd2(x, y, lambda a, b: (float(a @ b) / 5 + 1) ** 3, unbiased=True)
    assert unbiased_mmd2(x, y, cubic) == pytest.approx(expected, rel=EXACT)


def test_the_biased_mmd_is_its_definition():
    x, y = rows(7, 5, 1), rows(4, 5, 2)
    expected = loop_mmd2(
        x, y, lambda a, b: math.exp(-float((a - b) @ (a - b)) / (2 * 1.5**2)), unbiased=False
    )
    assert biased_mmd2(x, y, gaussian(1.5)) == pytest.approx(expected, rel=EXACT)


def test_blocks_do_not_change_the_mmd(monkeypatch):
    x, y = rows(23, 5, 1), rows(31, 5, 2)
    whole = unbiased_mmd2(x, y, cubic), biased_mmd2(x, y, gaussian(2.0))
    monkeypatch.setattr("cf_eval.images.mmd.BLOCK", 7)
    assert (unbiased_mmd2(x, y, cubic), biased_mmd2(x, y, gaussian(2.0))) == pytest.approx(whole, rel=EXACT)


def test_kid_draws_the_subsets_torch_fidelity_draws():
    generated, real = rows(40, 6, 1), rows(33, 6, 2)
    expected = peer("kid").kid_features_to_metric(
        generated, real, kid_subsets=9, kid_subset_size=20, rng_seed=2020, verbose=False
    )
    mean, std = kid_of_subsets(generated, real, Subsets(9, 20))
    assert mean == pytest.approx(expected["kernel_inception_distance_mean"], rel=1e-10)
    assert std == pytest.approx(expected["kernel_inception_distance_std"], rel=1e-10)


def test_kid_names_its_subsets_or_takes_the_whole_sets():
    kid = KID(Pixels(), Subsets(3, 10, seed=5))
    kid.add_features(real=rows(33, 6, 2))
    kid.add_features(generated=rows(40, 6, 1))
    result = kid.compute()
    expected = kid_of_subsets(rows(40, 6, 1), rows(33, 6, 2), kid.subsets)
    assert tuple(result.values.values()) == expected
    assert "3 subsets of 10, seed 5" in result.protocol
    kid.subsets = None
    whole = unbiased_mmd2(rows(40, 6, 1), rows(33, 6, 2), cubic)
    assert kid.compute().values == {"kernel_distance_full": whole}
    assert kid.compute().protocol.endswith("unbiased, whole sets")
    kid.features.weights = {"inception_sha256": "6726825d"}
    assert kid.compute().values == {"kid_full": whole}


def test_kid_refuses_subsets_larger_than_a_set_naming_the_sizes():
    with pytest.raises(ValueError, match="subsets of 1000 cannot be drawn from 40 generated and 33 real"):
        kid_of_subsets(rows(40, 6, 1), rows(33, 6, 2), Subsets())
    with pytest.raises(ValueError, match="at least 2 samples, got 5 of 1"):
        Subsets(5, 1)
    with pytest.raises(ValueError, match="the real set has 0 samples; KID needs at least 2"):
        KID(Pixels()).compute()


@pytest.mark.parametrize(("n", "splits"), [(40, 10), (37, 10), (5, 5), (37, 1)])
def test_the_inception_score_is_torch_fidelity_s(n, splits):
    logits = rows(n, 11, 1)
    expected = peer("isc").isc_features_to_metric(logits, splits=splits, shuffle=True, rng_seed=2020)
    mean, std = inception_score(logits, Splits(splits))
    assert mean == pytest.approx(expected["inception_score_mean"], rel=EXACT)
    assert std == pytest.approx(expected["inception_score_std"], rel=1e-9, abs=EXACT)


def test_constant_predictions_score_1_and_certain_even_ones_the_number_of_classes():
    assert inception_score(torch.ones(20, 7), Splits(4)) == pytest.approx((1, 0), abs=EXACT)
    certain = 1000 * torch.eye(7).repeat(3, 1)  # softmax is exactly one-hot: log 0 must not appear
    assert inception_score(certain, Splits(1)) == pytest.approx((7, 0), rel=EXACT)


def test_more_splits_than_samples_are_refused():
    score = InceptionScore(Pixels())
    with pytest.raises(ValueError, match="the generated set has 0 samples"):
        score.compute()
    score.add_features(rows(9, 4, 1))
    with pytest.raises(ValueError, match="10 splits of 9 samples"):
        score.compute()
    with pytest.raises(ValueError, match="at least 1 split, got 0"):
        Splits(0)


def test_with_ids_the_score_does_not_depend_on_who_saw_what():
    x = rows(41, 5, 1)
    whole = InceptionScore(Pixels())
    whole.add_features(x, list(range(41)))
    shards = []
    for rank in range(3):
        shards.append(InceptionScore(Pixels()))
        ids = [*range(rank, 41, 3)]
        shards[-1].add_features(x[ids], ids)
    shards[2].merge(shards[0])
    shards[2].merge(shards[1])
    assert shards[2].compute() == whole.compute()
    with pytest.raises(ValueError, match="cannot merge 'other' into 'pixels'"):
        whole.merge(InceptionScore(Pixels("other")))


def loop_prdc(real, generated, k: int, inside) -> dict[str, float]:
    def radii(x):
        return [
            sorted(float((a - b).norm()) for j, b in enumerate(x) if j != i)[k - 1] for i, a in enumerate(x)
        ]

    def within(points, centres):
        return np.array(
            [
                [inside(float((p - c).norm()), r) for c, r in zip(centres, radii(centres), strict=True)]
                for p in points
            ]
        )

    y_in_x, x_in_y = within(generated, real), within(real, generated)
    return {
        "precision": y_in_x.any(1).mean(), "recall": x_in_y.any(1).mean(),
        "density": y_in_x.sum() / (k * len(generated)), "coverage": y_in_x.any(0).mean(),
    }  # fmt: skip


@pytest.mark.parametrize(("k", "ties"), [(1, "inside"), (3, "inside"), (2, "outside")])
def test_precision_recall_density_and_coverage_are_their_definitions(k, ties, monkeypatch):
    monkeypatch.setattr("cf_eval.images.prdc.BLOCK", 7)
    real, generated = rows(19, 4, 1), 0.8 * rows(23, 4, 3)
    expected = loop_prdc(
        real, generated, k, {"inside": lambda d, r: d <= r, "outside": lambda d, r: d < r}[ties]
    )
    found = prdc(real, generated, Neighbourhood(k, ties))
    assert found == pytest.approx(expected, rel=EXACT)
    assert len({*found.values()}) == 4  # or a swap of two would pass


def test_precision_and_recall_are_torch_fidelity_s():
    real, generated = rows(60, 5, 1), 0.7 * rows(50, 5, 3)
    expected = peer("prc").prc_features_to_metric(
        generated, real, prc_neighborhood=3, prc_batch_size=17, save_cpu_ram=False, verbose=False
    )
    found = prdc(real, generated, Neighbourhood())
    assert found["precision"] == pytest.approx(expected["precision"], rel=1e-6)  # float32 means there
    assert found["recall"] == pytest.approx(expected["recall"], rel=1e-6)


def test_swapping_the_sets_swaps_precision_and_recall():
    real, generated = rows(30, 4, 1), 0.7 * rows(25, 4, 3)
    there, back = prdc(real, generated, Neighbourhood()), prdc(generated, real, Neighbourhood())
    assert (there["precision"], there["recall"]) == (back["recall"], back["precision"])
    assert there["precision"] != there["recall"]


def test_a_set_against_itself_has_precision_and_recall_1():
    far = rows(40, 33, 1) + 1e4  # cancellation must not push a sample out of its own ball
    assert prdc(far, far, Neighbourhood(1))["precision"] == 1
    assert prdc(far, far, Neighbourhood(1))["recall"] == 1


def test_ties_at_the_radius_count_as_told():
    """Whole numbers on a line: with k = 1 every radius is 1, and each generated sample is at distance 1."""
    real, generated = (torch.tensor([[a], [a + 1.0]], dtype=torch.float64) + 1e3 for a in (0, 2))
    assert prdc(real, generated, Neighbourhood(1, "inside"))["precision"] == 0.5
    assert prdc(real, generated, Neighbourhood(1, "outside"))["precision"] == 0


def test_prdc_refuses_sets_without_a_kth_neighbour_and_unknown_ties():
    with pytest.raises(ValueError, match="the real set has 3 samples; with k = 3 it needs at least 4"):
        prdc(rows(3, 2, 1), rows(9, 2, 2), Neighbourhood())
    with pytest.raises(ValueError, match="unknown ties 'both'; known: inside, outside"):
        Neighbourhood(3, "both")
    with pytest.raises(ValueError, match="k must be at least 1, got 0"):
        Neighbourhood(0)
    with pytest.raises(ValueError, match=r"the real set has 0 samples; precision and recall with k = 3"):
        PRDC(Pixels()).compute()


def test_prdc_streams_pictures_and_names_its_rule():
    draw = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (21, 3, 2, 3), generator=draw).to(torch.uint8)
    metric = PRDC(Pixels())
    for part in images.split(5):
        metric.add_batch(real=part)
        metric.add_batch(generated=part.float() / 255, value_range="0..1")
    result = metric.compute()
    assert (result.values["precision"], result.values["recall"], result.count) == (1, 1, 21)
    assert result.protocol == "pixels; k = 3, ties inside"


def test_cmmd_is_1000_times_the_biased_mmd_of_rows_of_length_1():
    real, generated = rows(9, 6, 1), rows(13, 6, 2)
    metric = CMMD(Pixels())
    metric.add_features(real=real)
    metric.add_features(generated=generated)
    x, y = (z / z.norm(dim=1, keepdim=True) for z in (generated, real))
    expected = loop_mmd2(x, y, lambda a, b: math.exp(-float((a - b) @ (a - b)) / 200), unbiased=False)
    result = metric.compute()
    assert result.value == pytest.approx(1000 * expected, rel=1e-9)
    assert result.metric == "gaussian_mmd"
    metric.features.weights = {"clip_sha256": "00"}
    assert metric.compute().metric == "cmmd"


def test_cmmd_of_a_set_with_itself_is_0():
    metric = CMMD(Pixels())
    metric.add_features(real=rows(9, 6, 1))
    metric.add_features(generated=rows(9, 6, 1))
    assert abs(metric.compute().value) < 1e-10
    with pytest.raises(ValueError, match="the generated set has 0 samples; CMMD needs at least 2"):
        CMMD(Pixels()).merge(CMMD(Pixels())) or _empty_generated().compute()


def _empty_generated() -> CMMD:
    metric = CMMD(Pixels())
    metric.add_features(real=rows(9, 6, 1))
    return metric
