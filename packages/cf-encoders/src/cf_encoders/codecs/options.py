"""How a codec's network is run: in which precision, where, and how much of the batch or the picture at once."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from cf_encoders.configs import require_positive
from cf_encoders.numerics import widen


@dataclass(frozen=True)
class CodecOptions:
    """None of this changes what a codec computes, but for rounding and, with `tile`, the seams.

    dtype         of the encoder's weights and arithmetic
    decode_dtype  of the decoder's; float32 whatever `dtype` is: in float16 the decoder of SDXL overflows to nan
    device        where the weights are; images and latents are expected there
    batch_size    pictures that go through the network at once, None all; 1 is what diffusers calls slicing
    tile          side in pixels of the overlapping pieces a large picture is cut into, None whole
    """

    dtype: torch.dtype = torch.float32
    decode_dtype: torch.dtype = torch.float32
    device: torch.device | str = "cpu"
    batch_size: int | None = None
    tile: int | None = None

    def __post_init__(self) -> None:
        for name in ("dtype", "decode_dtype"):
            if not getattr(self, name).is_floating_point:
                raise ValueError(
                    f"CodecOptions.{name} must be a floating-point type, got {getattr(self, name)}"
                )
        require_positive(self, *(name for name in ("batch_size", "tile") if getattr(self, name) is not None))

    def freeze(self, codec: nn.Module, encoder: Iterable[nn.Module], decoder: Iterable[nn.Module]) -> None:
        """Put the halves of the codec where and in what precision they run, without gradients of their own."""
        for part in encoder:
            part.to(self.dtype)
        for part in decoder:
            part.to(self.decode_dtype)
        codec.eval().requires_grad_(False).to(self.device)

    def require_whole_pictures(self, codec: str, why: str) -> None:
        """Raise ValueError if tiles are asked of a codec that has none."""
        if self.tile is not None:
            raise ValueError(
                f"{codec} takes pictures whole: {why}; leave tile={self.tile} out, lower batch_size"
            )


DEFAULT = CodecOptions()


def run(
    network: Callable[[Tensor], Tensor],
    x: Float[Tensor, "b *d"],
    weights: nn.Module,
    batch_size: int | None,
) -> Float[Tensor, "b *e"]:
    """network(x), `batch_size` at a time, in the precision of `weights` even under autocast.

    float32 comes back, or float64. Autocast would take a decoder in float32 down to float16 again.
    """
    dtype = next(weights.parameters()).dtype
    with torch.autocast(x.device.type, enabled=False):
        parts = [network(part) for part in x.to(dtype).split(batch_size or max(len(x), 1))]
    return widen(torch.cat(parts))
