"""What the launchers of kernels on packed qkv (b, n, 3, k, e) share."""

from torch import Tensor

from cf_transformer.kernels import launch
from cf_transformer.kernels.tuned import widest


def refusal(qkv: Tensor, op: str) -> str:
    """Why the kernels of `op` cannot take this qkv, in words; empty if they can."""
    if not qkv.numel():
        return f"there is nothing in a shape of {tuple(qkv.shape)}"
    most = widest(op, qkv.dtype)
    if qkv.shape[-1] > most:
        return f"a head has {qkv.shape[-1]} channels, {most} are the most"
    return launch.not_adjacent(qkv=qkv[:, :, 0, 0])


def sizes(qkv: Tensor) -> tuple[int, ...]:
    """Strides over samples, tokens and q-k-v; heads; tokens."""
    return *qkv.stride()[:3], qkv.shape[3], qkv.shape[1]
