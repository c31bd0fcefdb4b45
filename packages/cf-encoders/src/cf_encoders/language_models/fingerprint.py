"""Which model made these features? One line that changes whenever the features would."""

import hashlib
import math

import torch
from torch import Tensor, nn

READ_AT_MOST = 2**18  # values of one tensor; all of T5-XXL's encoder is then read in about a second


def fingerprint(network: nn.Module, *settings: str) -> str:
    """sha256 over the settings and over every tensor's name, shape, dtype and values, as 64 hexadecimal digits.

    It looks at the weights as they run and not at the files they came from: the same model from another folder,
    in another file format or on another device has the same fingerprint; after `.half()` it has another. Of a tensor
    with more than 2^18 values, evenly spaced ones are read. Training moves them all; an edit by hand of a few values
    of a large tensor may go unseen.
    """
    digest = hashlib.sha256()
    for text in settings:
        digest.update(f"{len(text)} {text}".encode())
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(sampled_bytes(tensor))
    return digest.hexdigest()


def sampled_bytes(tensor: Tensor) -> bytes:
    """At most 2^18 evenly spaced values, as they lie in memory."""
    flat = tensor.detach().flatten()
    step = max(1, -(-flat.numel() // READ_AT_MOST))
    # a step that shares a factor with the width would never visit some of the columns
    while math.gcd(step, tensor.shape[-1] if tensor.ndim else 1) > 1:
        step += 1
    values = flat[::step].contiguous().cpu()
    return values.view(torch.uint8).numpy().tobytes()
