"""The depth tables of CrossFlow as two calls: table 5 (metric depth) and table 8 (zero-shot, Marigold's evaluation).

>>> table_8({"nyu": pairs, "diode": pairs})["nyu"].values["abs_rel"]
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from cf_eval.depth.protocols import DepthProtocol, depth_protocol
from cf_eval.depth.score import DepthMetrics, Map
from cf_eval.images.feature_set import Id
from cf_eval.result import Result

TABLE_5 = {"kitti": "kitti_adabins", "nyu": "nyu"}
TABLE_8 = {name: f"{name}_marigold" for name in ("kitti", "nyu", "eth3d", "scannet", "diode")}


@dataclass(frozen=True)
class DepthPair:
    """One test picture: prediction and truth (h, w), the data set's own mask if it has one, and an id."""

    prediction: Map
    truth: Map
    mask: Map | None = None
    id: Id | None = None


def table_5(sets: Mapping[str, Iterable[DepthPair]], *, kitti: str = "kitti_adabins") -> dict[str, Result]:
    """CrossFlow table 5: metric depth on KITTI (Eigen split) and NYUv2; a Result per set that is passed.

    The paper prints abs_rel and delta_1 and does not state its crop on KITTI. `kitti` names a protocol: the default is
    what the table's rows from AdaBins on were made with; kitti_bts and kitti_eigen are the other two in use.
    Depth must be in metres. Sets are read as streams, one picture at a time.
    """
    return _table(sets, {**TABLE_5, "kitti": kitti})


def table_8(sets: Mapping[str, Iterable[DepthPair]]) -> dict[str, Result]:
    """CrossFlow table 8: affine-invariant depth on kitti, nyu, eth3d, scannet, diode as Marigold evaluates it.

    Scale and shift of each prediction are fitted to its truth, so predictions may be in any unit. DIODE needs its own
    mask in every pair; ETH3D's infinite truth is left out.
    """
    return _table(sets, TABLE_8)


def _table(sets: Mapping[str, Iterable[DepthPair]], names: Mapping[str, str]) -> dict[str, Result]:
    protocols = {key: depth_protocol(name) for key, name in names.items()}
    unknown = [name for name in sets if name not in protocols]
    if unknown or not sets:
        raise ValueError(f"unknown depth sets {unknown}; this table has: {', '.join(protocols)}")
    return {name: _score(pairs, protocols[name]) for name, pairs in sets.items()}


def _score(pairs: Iterable[DepthPair], protocol: DepthProtocol) -> Result:
    metrics = DepthMetrics(protocol)
    for pair in pairs:
        ids = None if pair.id is None else [pair.id]
        metrics.add_batch([pair.prediction], [pair.truth], [pair.mask], ids)
    return metrics.compute()
