"""What every velocity network of this package asks of its arguments."""

from torch import Tensor


def require_inputs(x_t: Tensor, t: Tensor, channels: int, size: tuple[int, int]) -> None:
    """Raise ValueError unless x_t is (b, channels, *size) and t is (b,)."""
    expected = (channels, *size)
    if tuple(x_t.shape[1:]) != expected:
        raise ValueError(f"x_t must be (b, {', '.join(map(str, expected))}), got {tuple(x_t.shape)}")
    if tuple(t.shape) != (x_t.shape[0],):
        raise ValueError(f"t must be (b,) = ({x_t.shape[0]},), got {tuple(t.shape)}; use t.expand(b)")
