"""FID of streams of pictures: its value, its name, its reference statistics."""

from dataclasses import dataclass, field

import numpy as np
import pytest
import scipy.linalg
import torch
from cf_eval.frechet import frechet_distance
from cf_eval.images.cmmd import CMMD
from cf_eval.images.fid import FID
from cf_eval.images.weights import file_sha256
from cf_eval.moments import Moments
from cf_eval.result import Result

EXACT = 1e-10
REAL_HASH = {"inception_sha256": "6726825d" + "0" * 56}


@dataclass
class Pixels:
    """Every pixel of the red channel, in float64: features that need no network."""

    name: str = "red pixels"
    weights: dict[str, str] = field(default_factory=dict)
    rounding: str = "round"

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        return images[:, 0].double().flatten(1) / 255


def pictures(n: int, seed: int, high: int = 256, side: int = 3) -> torch.Tensor:
    draw = torch.Generator().manual_seed(seed)
    return torch.randint(0, high, (n, 3, side, side), generator=draw).to(torch.uint8)


def filled(real: torch.Tensor, generated: torch.Tensor, batch: int = 7, **names) -> FID:
    fid = FID(Pixels(**names))
    for images, add in ((real, "real"), (generated, "generated")):
        for part in images.split(batch):
            fid.add_batch(**{add: part})
    return fid


def by_sqrtm(x: np.ndarray, y: np.ndarray) -> float:
    s1, s2 = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    shift = x.mean(0) - y.mean(0)
    return float(shift @ shift + np.trace(s1 + s2 - 2 * np.real(scipy.linalg.sqrtm(s1 @ s2))))


@pytest.mark.parametrize("batch", [1, 7, 60])
def test_the_stream_gives_the_distance_scipy_gives_of_the_whole(batch):
    real, generated = pictures(50, 1), pictures(61, 2, 200)
    expected = by_sqrtm(Pixels()(real).numpy(), Pixels()(generated).numpy())
    result = filled(real, generated, batch).compute()
    assert result.value == pytest.approx(expected, rel=1e-9)
    assert (result.count, result.details["real_count"], result.details["width"]) == (61, 50, 9)


@pytest.mark.parametrize(("n", "m"), [(4, 5), (4, 40), (40, 4), (2, 2)])
def test_few_samples_give_the_same_distance_as_their_covariances(n, m):
    real, generated = pictures(n, 1), pictures(m, 2, 200)
    expected = frechet_distance(Moments.of(Pixels()(real)), Moments.of(Pixels()(generated)))
    assert filled(real, generated).compute().value == pytest.approx(expected, rel=1e-6)


def test_few_samples_are_at_no_distance_from_themselves():
    """1e-14, where a matrix square root of rank-deficient covariances leaves 1e-6."""
    real = pictures(30, 1, side=8)
    assert filled(real, real).compute().value < 1e-13


def test_it_is_called_fid_only_with_fid_s_weights_at_2048_features():
    real = pictures(5, 1, side=4)
    assert filled(real, real).compute().metric == "frechet_distance"
    assert filled(real, real, weights=REAL_HASH).compute().metric == "frechet_distance"
    fid = FID(Pixels(weights=REAL_HASH))
    fid.add_features(real=torch.rand(3, 2048))
    fid.add_features(generated=torch.rand(4, 2048))
    result = fid.compute()
    assert (result.metric, result.details["inception_sha256"]) == ("fid", REAL_HASH["inception_sha256"])
    with pytest.raises(ValueError, match="may be called FID only with"):
        Result("fid", {"fid": 1.0}, "x", 2, {"inception_sha256": "0123"})


def test_reference_statistics_stand_for_the_real_pictures_and_are_named_by_their_hash(tmp_path):
    real, generated = pictures(50, 1), pictures(61, 2, 200)
    fid = filled(real, generated)
    fid.save_reference(tmp_path / "stats.npz")
    other = FID(Pixels())
    other.load_reference(tmp_path / "stats.npz")
    other.add_batch(generated=generated)
    result = other.compute()
    assert result.value == pytest.approx(fid.compute().value, rel=EXACT)
    assert result.details["reference"] == {"file": "stats.npz", "sha256": file_sha256(tmp_path / "stats.npz")}
    assert result.details["real_count"] == 50


@pytest.mark.parametrize("count", [None, 50])
def test_reference_statistics_of_another_tool_need_no_count(tmp_path, count):
    real, generated = pictures(50, 1), pictures(61, 2, 200)
    x = Pixels()(real).numpy()
    np.savez(tmp_path / "peer.npz", mu=x.mean(0).astype(np.float32), sigma=np.cov(x, rowvar=False))
    fid = FID(Pixels())
    fid.load_reference(tmp_path / "peer.npz", count)
    fid.add_batch(generated=generated)
    result = fid.compute()
    assert result.value == pytest.approx(filled(real, generated).compute().value, rel=1e-6)
    assert result.details["real_count"] == count


def test_references_and_real_pictures_exclude_each_other_and_bad_files_are_named(tmp_path):
    fid = filled(pictures(5, 1), pictures(6, 2))
    fid.save_reference(tmp_path / "stats.npz")
    with pytest.raises(ValueError, match="5 real samples were added"):
        fid.load_reference(tmp_path / "stats.npz")
    (tmp_path / "cut.npz").write_bytes((tmp_path / "stats.npz").read_bytes()[:100])
    with pytest.raises(ValueError, match=r"cut\.npz cannot be read as an npz"):
        FID(Pixels()).load_reference(tmp_path / "cut.npz")
    with_reference = FID(Pixels())
    with_reference.load_reference(tmp_path / "stats.npz")
    with pytest.raises(ValueError, match="the generated set has 0 samples"):
        with_reference.compute()
    with_reference.add_batch(real=pictures(5, 1))
    with pytest.raises(ValueError, match="beside a reference"):
        with_reference.compute()


@pytest.mark.parametrize(
    ("n", "m", "named"), [(0, 5, "real set has 0"), (1, 5, "real set has 1"), (5, 1, "generated")]
)
def test_too_few_samples_are_refused_by_name(n, m, named):
    with pytest.raises(ValueError, match=named):
        filled(pictures(n, 1), pictures(m, 2)).compute()


def test_floats_and_bytes_of_the_same_pictures_give_the_same_distance():
    real, generated = pictures(20, 1), pictures(20, 2)
    fid = FID(Pixels())
    fid.add_batch(real=real.float() / 255, value_range="0..1")
    fid.add_batch(generated=generated.float() / 127.5 - 1, value_range="-1..1")
    assert fid.compute().value == filled(real, generated, 20).compute().value


def test_shards_merge_to_the_whole_and_other_features_are_refused():
    real, generated = pictures(50, 1), pictures(61, 2, 200)
    shards = [
        filled(real[:3], generated[:0]),
        filled(real[:0], generated[:60]),
        filled(real[3:], generated[60:]),
    ]
    for shard in shards[1:]:
        shards[0].merge(shard)
    assert shards[0].compute().value == pytest.approx(filled(real, generated).compute().value, rel=1e-12)
    with pytest.raises(ValueError, match="cannot merge FID of 'blue' into FID of 'red pixels'"):
        shards[0].merge(filled(real, generated, name="blue"))
    with pytest.raises(ValueError, match="cannot merge CMMD"):
        shards[0].merge(CMMD(Pixels()))


def test_misuse_of_add_batch_is_named_before_the_network_runs():
    fid = FID(Pixels())
    with pytest.raises(ValueError, match="one at a time"):
        fid.add_batch()
    with pytest.raises(ValueError, match="one at a time"):
        fid.add_batch(real=pictures(2, 1), generated=pictures(2, 1))
    with pytest.raises(ValueError, match="3 ids for 2 images"):
        fid.add_batch(real=pictures(2, 1), ids=[1, 2, 3])
    assert fid.real.count == 0
