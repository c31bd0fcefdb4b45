"""One rank of test_global_batch: python global_batch_rank.py FOLDER RANK SIZE_OF_RANK_0 SIZE_OF_RANK_1 ..."""

import sys
from pathlib import Path

import torch
import torch.distributed as dist
from cf_flowcore import null_targets


def main(folder: Path, rank: int, b: list[int]) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=len(b))
    x_1 = 10.0 * rank + torch.arange(b[rank])[:, None].expand(b[rank], 2)
    generator = torch.Generator().manual_seed(rank)  # as in training: every rank has draws of its own
    everyone = torch.ones(b[rank], dtype=torch.bool)
    found: dict[str, object] = {}
    try:
        found["all"] = torch.stack([null_targets(x_1, everyone, generator=generator) for _ in range(40)])
        found["none"] = null_targets(x_1, ~everyone, generator=generator)
        half = torch.arange(b[rank]) % 2 == 0
        found["half"] = null_targets(x_1, half, generator=generator)
        if b[rank] > 1:
            found["here"] = null_targets(x_1, half, generator=generator, across_ranks=False)
    except ValueError as error:
        found["error"] = str(error)
    torch.save(found, folder / f"{rank}.pt")
    dist.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), [int(n) for n in sys.argv[3:]])
