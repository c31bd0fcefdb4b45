"""The ways to run the whole model: ours several times over, and the public way."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, cast

import torch
from cf_transformer import DiMR, DiMRConfig, TimeLerp
from cf_transformer.config import RecomputeKind
from cf_transformer.kernels.dispatch import Mode
from gpu.captured import Captured
from public_dimr import PublicDiMR
from torch import Tensor, nn


class Network(Protocol):
    """What both models are."""

    def scales(self, x_t: Tensor, t: Tensor, is_null: Tensor) -> Sequence[Tensor]: ...


Field = Callable[[Tensor, Tensor, Tensor], Tensor]
Build = Callable[[DiMRConfig, RecomputeKind, torch.device], nn.Module]


@dataclass(frozen=True)
class ModelWay:
    """One way to run the model.

    build    (config, what is recomputed, device) -> a network; trained under bf16 autocast
    field    (network, one batch of inputs) -> the field that is sampled with
    ladder   what to recompute in the backward pass: the first that fits is measured
    batched  whether guidance makes one call of 2 b rows, or two of b
    trains   whether training steps are measured too
    kernels  the mode of the kernels' dispatch
    """

    build: Build
    field: Callable[[nn.Module, "Batch"], Field]
    ladder: tuple[RecomputeKind, ...]
    batched: bool = True
    trains: bool = True
    kernels: Mode = "auto"


@dataclass(frozen=True)
class Batch:
    """Inputs of a training step and the velocity wanted; every t is another."""

    x_t: Tensor
    t: Tensor
    is_null: Tensor
    v_t: Tensor

    @classmethod
    def draw(cls, config: DiMRConfig, b: int, device: torch.device) -> "Batch":
        """From the default generator."""
        shape = (b, config.channels, *config.size)
        x_t, v_t = (torch.randn(shape, device=device) for _ in range(2))
        return cls(x_t, torch.rand(b, device=device), torch.rand(b, device=device) < 0.1, v_t)

    def split(self, parts: int) -> list["Batch"]:
        """In equal parts."""
        pieces = (tensor.chunk(parts) for tensor in (self.x_t, self.t, self.is_null, self.v_t))
        return [Batch(*piece) for piece in zip(*pieces, strict=True)]

    def twice(self) -> "Batch":
        """Every sample two times, as guidance in one call asks for them."""
        return Batch(*(torch.cat([tensor, tensor]) for tensor in (self.x_t, self.t, self.is_null, self.v_t)))

    @property
    def inputs(self) -> tuple[Tensor, Tensor, Tensor]:
        """What a network is called with."""
        return self.x_t, self.t, self.is_null


def ours(config: DiMRConfig, recompute: RecomputeKind, device: torch.device) -> DiMR:
    """DiMR with the same weights every time, time-dependent from the start (a fresh model is not)."""
    torch.manual_seed(0)
    with torch.device(device):  # around nothing that is timed: it intercepts every call
        model = DiMR(replace(config, recompute=recompute))
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, TimeLerp):
                for leaf in module.parameters():
                    leaf.add_(0.1 * torch.randn_like(leaf))
    return model


def compiled(config: DiMRConfig, recompute: RecomputeKind, device: torch.device) -> DiMR:
    """DiMR whose blocks are compiled: one graph for each kind of block, not one for the whole depth."""
    model = ours(config, recompute, device)
    for block in blocks(model):
        block.compile(dynamic=False)
    return model


def public(config: DiMRConfig, recompute: RecomputeKind, device: torch.device) -> PublicDiMR:
    """The public way through the same weights."""
    model = ours(config, "nothing", device)
    with torch.device(device):
        return PublicDiMR(model, recompute=recompute == "blocks")


def blocks(model: DiMR) -> list[nn.Module]:
    """Of every stage."""
    return [block for stage in model.stages for block in cast("Any", stage).blocks]


def autocast_field(network: nn.Module, batch: Batch) -> Field:
    """fp32 weights, cast in each call."""

    def v(x: Tensor, t: Tensor, is_null: Tensor) -> Tensor:
        with torch.autocast(x.device.type, torch.bfloat16):
            return network(x, t, is_null)

    return v


def bf16_field(network: nn.Module, batch: Batch) -> Field:
    """Weights in bf16, but for those that depend on time; x is cast on the way in and v on the way out."""
    network.to(torch.bfloat16)
    for module in network.modules():
        if isinstance(module, TimeLerp):
            module.float()

    def v(x: Tensor, t: Tensor, is_null: Tensor) -> Tensor:
        return network(x.to(torch.bfloat16), t, is_null).to(x.dtype)

    return v


def captured_field(network: nn.Module, batch: Batch) -> Field:
    """bf16 weights, and the call on both halves of the guidance as one CUDA graph."""
    return Captured(bf16_field(network, batch), *batch.twice().inputs)


OURS, COMPILED, PUBLIC = "DiMR", "DiMR, compiled blocks", "public way"
WAYS = {
    OURS: ModelWay(ours, captured_field, ("nothing", "cheap", "blocks")),
    PUBLIC: ModelWay(public, autocast_field, ("blocks",), batched=False),
    COMPILED: ModelWay(compiled, captured_field, ("nothing", "blocks")),
    "public way, nothing twice": ModelWay(public, autocast_field, ("nothing",), batched=False),
    "DiMR, no graph": ModelWay(ours, bf16_field, ("nothing",), trains=False),
    "DiMR, no kernels": ModelWay(ours, captured_field, ("nothing", "cheap"), kernels="torch"),
    "DiMR, every kernel": ModelWay(ours, captured_field, ("nothing", "cheap"), kernels="triton"),
}
EVERY_BATCH = (OURS, PUBLIC, COMPILED)  # the others at the first batch only
