"""Run by test_image_distributed.py as one of several gloo ranks: python image_rank.py RANK RANKS STORE OUT."""

import sys
from dataclasses import dataclass, field

import torch
import torch.distributed as dist
from cf_eval.frechet import FrechetDistance
from cf_eval.images.cmmd import CMMD
from cf_eval.images.fid import FID
from cf_eval.images.inception_score import InceptionScore, Splits
from cf_eval.images.kid import KID, Subsets
from cf_eval.images.paired_quality import PairedQuality
from cf_eval.images.prdc import PRDC

N = 41
# name -> which samples each process of the group sees; the last of a padded split is shown to two of them
SPLITS = {
    "2 ranks, uneven": (range(5), range(5, N)),
    "3 ranks, in turn": tuple(range(r, N, 3) for r in range(3)),
    "3 ranks, one with nothing": (range(17), (), range(17, N)),
    "3 ranks, padded": (range(0, N, 3), range(1, N, 3), (*range(2, N, 3), 0)),
}


@dataclass
class Pixels:
    """Values of the first columns, 0..1."""

    name: str = "pixels"
    weights: dict[str, str] = field(default_factory=dict)
    rounding: str = "round"

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        return images[..., :1].double().flatten(1) / 255


def pictures(seed: int, high: int) -> torch.Tensor:
    draw = torch.Generator().manual_seed(seed)
    return torch.randint(0, high, (N, 3, 12, 11), generator=draw).to(torch.uint8)


def measure(ids, group) -> dict[str, dict[str, float]]:
    """Every metric of the pictures with these ids, together with what the group's other ranks see."""
    ids = list(ids)
    real, generated = pictures(1, 256)[ids], pictures(2, 200)[ids]
    metrics = {
        "fid": FID(Pixels()),
        "kid": KID(Pixels(), Subsets(3, 20)),
        "prdc": PRDC(Pixels()),
        "cmmd": CMMD(Pixels()),
    }
    for metric in metrics.values():
        for start in range(0, len(ids), 4):
            part = slice(start, start + 4)
            metric.add_batch(real=real[part], ids=ids[part])
            metric.add_batch(generated=generated[part], ids=ids[part])
    score = InceptionScore(Pixels(), Splits(4))
    score.add_batch(generated, ids=ids)
    pairs = PairedQuality()
    pairs.add_batch(generated, real, ids=ids)
    whole = {
        name: metric.gathered(group) for name, metric in (metrics | {"score": score, "pairs": pairs}).items()
    }
    results = {name: metric.compute() for name, metric in whole.items()}
    return {name: {**result.values, "count": result.count} for name, result in results.items()}


def frechet(ids, group) -> float:
    """The metric for any features, which knows no ids."""
    metric = FrechetDistance(Pixels(), "pixels")
    ids = list(ids)
    if ids:
        metric.add_batch(real=pictures(1, 256)[ids], generated=pictures(2, 200)[ids])
    return metric.gathered(group).compute().value


def main(rank: int, ranks: int, store: str, out: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=ranks)
    found = {}
    for split, shares in SPLITS.items():
        group = dist.new_group(list(range(len(shares))))  # every process must ask for every group
        if rank < len(shares):
            found[split] = measure(shares[rank], group)
            if "padded" not in split:
                found[split]["frechet"] = {"frechet": frechet(shares[rank], group)}
    torch.save(found, out)
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4])
