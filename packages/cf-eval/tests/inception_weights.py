"""Weights of the FID Inception network that were drawn, not trained: what the file holds is nobody's to ship."""

import torch
from cf_eval.images.inception_net import InceptionNet


def drawn_state(seed: int = 0) -> dict[str, torch.Tensor]:
    """A state dict with the published names and shapes, whose activations neither vanish nor explode."""
    draw = torch.Generator().manual_seed(seed)
    with torch.device("meta"):
        expected = InceptionNet().state_dict()
    return {name: _drawn(name, tensor, draw) for name, tensor in expected.items()}


def _drawn(name: str, like: torch.Tensor, draw: torch.Generator) -> torch.Tensor:
    if name.endswith("num_batches_tracked"):
        return torch.tensor(7)
    if name.endswith(("running_var", "bn.weight")):
        return torch.rand(like.shape, generator=draw) + 0.5
    if like.ndim > 1:
        fan_in = like[0].numel()
        return torch.randn(like.shape, generator=draw) * (2 / fan_in) ** 0.5
    return torch.randn(like.shape, generator=draw) * 0.1
