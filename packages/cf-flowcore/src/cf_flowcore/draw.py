"""Random numbers from a generator the caller owns, on any device."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

Device = torch.device | str | None


def uniform_numbers(b: int, *, generator: torch.Generator | None, device: Device) -> Float[Tensor, "b"]:
    """b float32 numbers, uniform on [0, 1).

    Drawn where the generator lives and then moved, so a CPU generator gives the same numbers to every device.
    """
    home = device if generator is None else generator.device
    return torch.rand(b, generator=generator, device=home).to(device or home)


def permutation(b: int, *, generator: torch.Generator | None, device: Device) -> Int[Tensor, "b"]:
    """A uniform permutation of 0 .. b-1, drawn where the generator lives."""
    home = device if generator is None else generator.device
    return torch.randperm(b, generator=generator, device=home).to(device or home)
