"""Randomness as a function of (seed, step): a resumed run needs no stored random state."""

import hashlib
from functools import lru_cache

import torch
from jaxtyping import Int64
from torch import Tensor


def mixed_seed(*numbers: int) -> int:
    """A 63-bit seed from some integers; neighbours such as (0, 1) and (1, 0) get unrelated ones (BLAKE2b)."""
    digest = hashlib.blake2b(",".join(map(str, numbers)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def step_generator(device: torch.device | str, *numbers: int) -> torch.Generator:
    """A generator on `device`, seeded from integers such as (seed, step)."""
    return torch.Generator(device).manual_seed(mixed_seed(*numbers))


def seed_torch(device: torch.device, *numbers: int) -> None:
    """Seed torch's own generators for the CPU and `device`: what dropout draws from, as it takes no other."""
    seed = mixed_seed(*numbers)
    torch.default_generator.manual_seed(seed)  # torch.manual_seed takes 30 times longer
    if device.type == "cuda":
        torch.cuda.manual_seed(seed)


def endless_order(n: int, first: int, size: int, seed: int) -> Int64[Tensor, "size"]:
    """Places first, ..., first + size - 1 of the endless shuffled stream over n samples: indices in [0, n).

    Each epoch (n places in a row) is one permutation, seeded from (seed, epoch), so a batch depends on
    nothing but its own place and resuming in mid-epoch is exact.
    """
    if n < 1:
        raise ValueError(f"cannot order {n} samples; the data set is empty")
    places = torch.arange(first, first + size)
    epochs, within = places.div(n, rounding_mode="floor"), places.remainder(n)
    indices = torch.empty_like(places)
    for epoch in epochs.unique().tolist():
        here = epochs == epoch
        indices[here] = _permutation(n, seed, epoch)[within[here]]
    return indices


@lru_cache(maxsize=2)  # a batch at the end of an epoch needs two
def _permutation(n: int, seed: int, epoch: int) -> Int64[Tensor, "n"]:
    return torch.randperm(n, generator=step_generator("cpu", seed, epoch))
