"""Bits per dimension of 8-bit data under a flow of real numbers: dequantisation   (Lipman et al. appendix C)"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from cf_flowcore.draw import Device
from cf_flowcore.likelihood import LogDensity, log_prob, standard_normal
from cf_flowcore.velocity import Velocity

LEVELS = 256
RANGES = {"-1..1": (-1.0, 1.0), "0..1": (0.0, 1.0)}


@dataclass(frozen=True)
class BitsPerDim:
    """(b,) bits per dimension of each sample; lower is better.

    importance_samples   K of eq. 47: a bound that tightens as K grows, if log p is exact
    bits_of_each         (K, b) of every draw of u alone; their mean over K is a less noisy value for K = 1
    probe_std            (b,) standard error, in nats, of one ln p due to Hutchinson's probes (NaN with one probe). With
                         K > 1 this noise makes the bits look better than they are, by about its variance / 2 nats and
                         more: keep it well below 1, or take the exact divergence.
    nfe                  calls of v, over all K
    """

    bits: Float[Tensor, "b"]
    importance_samples: int
    bits_of_each: Float[Tensor, "K b"]
    probe_std: Float[Tensor, "b"]
    nfe: int


def bits_per_dim(
    v: Velocity,
    pixels: UInt8[Tensor, "b *d"],
    *,
    importance_samples: int = 1,
    value_range: str = "-1..1",
    divergence: str = "hutchinson",
    probes: int = 1,
    probe: str = "rademacher",
    generator: torch.Generator | None = None,
    log_p_0: LogDensity = standard_normal,
    t_0: float = 0.0,
    t_1: float = 1.0,
    method: str = "dopri5",
    steps: int | None = None,
    rtol: float = 1e-5,
    atol: float = 1e-5,
) -> BitsPerDim:
    """-log2 p per dimension of bytes, for a flow trained on y = (pixels + u) scaled to `value_range`, u ~ U[0, 1)

        K = 1: the uniform dequantisation of eq. 36-37;   K > 1: ln (1/K sum_k p(y_k)) over K draws of u (eq. 47)

    value_range  "-1..1": y = (pixels + u) / 128 - 1, or "0..1": y = (pixels + u) / 256. It must be the scale that the
                 flow was trained on: y = pixels / 127.5 - 1 is another one.

    Every draw of u has probes of its own. Other options as in `log_prob`.
    """
    if pixels.dtype != torch.uint8:
        raise ValueError(f"pixels must be uint8, 0 to 255, got {pixels.dtype}")
    if importance_samples < 1:
        raise ValueError(f"importance_samples must be at least 1, got {importance_samples}")
    if value_range not in RANGES:
        raise ValueError(f"unknown value_range {value_range!r}; known: {', '.join(RANGES)}")
    low, high = RANGES[value_range]
    found, errors, nfe = [], [], 0
    for _ in range(importance_samples):
        u = _uniform(pixels.shape, generator, pixels.device)
        y = (pixels + u) * ((high - low) / LEVELS) + low
        one = log_prob(
            v,
            y,
            divergence=divergence,
            probes=probes,
            probe=probe,
            generator=generator,
            log_p_0=log_p_0,
            t_0=t_0,
            t_1=t_1,
            method=method,
            steps=steps,
            rtol=rtol,
            atol=atol,
        )
        found.append(one.log_p)
        errors.append(one.probe_std)
        nfe += one.nfe
    each = torch.stack(found)
    log_p = torch.logsumexp(each, 0) - math.log(importance_samples)
    nats_per_bit, offset = pixels[0].numel() * math.log(2.0), math.log2(LEVELS / (high - low))
    return BitsPerDim(
        bits=offset - log_p / nats_per_bit,
        importance_samples=importance_samples,
        bits_of_each=offset - each / nats_per_bit,
        probe_std=torch.stack(errors).mean(0),
        nfe=nfe,
    )


def _uniform(shape: torch.Size, generator: torch.Generator | None, device: Device) -> Float[Tensor, "..."]:
    """[0, 1), drawn where the generator lives."""
    home = device if generator is None else generator.device
    return torch.rand(shape, generator=generator, device=home).to(device)
