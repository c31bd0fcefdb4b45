"""How the ranks share the work of a step: not at all (one process), by DDP, or by FSDP2. All of it is PyTorch's.

DDP and FSDP2 look at calls of `forward` and at nothing else, while a task calls whatever parts of its modules it likes.
So all that a step computes is the forward of one module, `Whole`, which holds the task's.
"""

import warnings
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol, TypeVar, cast, runtime_checkable

import torch
from torch import nn

from cf_apps.engine.config import FitConfig
from cf_apps.engine.ranks.world import World

T = TypeVar("T")
SMALLEST_SHARD = (
    100_000  # parameters of a block that is gathered by itself; smaller ones go with all the rest
)


class Whole(nn.Module):
    """Everything that is trained, and whatever is done with it as its `forward`."""

    def __init__(self, parts: nn.ModuleDict) -> None:
        super().__init__()
        self.parts = parts

    def forward(self, act: Callable[[], T]) -> T:
        """act(), which returns the tensors that backward() will start from at its top level."""
        return act()


@runtime_checkable
class Sharing(Protocol):
    """One of the ways. Gradients come out as means over the ranks."""

    def call(self, act: Callable[[], T]) -> T:
        """act(), within which the modules may be used. Collective."""
        ...

    def backward_of(self, last: bool) -> AbstractContextManager[object]:
        """The context of a pass, forward and backward. last: of its step, so gradients must be whole afterwards."""
        ...

    def finish(self) -> None:
        """After the last backward of a step. Collective."""
        ...

    def leave(self) -> None:
        """After a `call` without backward: put the weights back as they lie between steps."""
        ...


class Alone:
    """One process."""

    def call(self, act: Callable[[], T]) -> T:
        return act()

    def backward_of(self, last: bool) -> AbstractContextManager[object]:
        del last
        return nullcontext()

    def finish(self) -> None:
        return

    def leave(self) -> None:
        return


class Replicated:
    """DDP: every rank holds all weights; gradients are averaged while the backward pass still runs, once a step."""

    def __init__(self, modules: nn.ModuleDict, world: World) -> None:
        from torch.nn.parallel import DistributedDataParallel

        # newer torch has another name for it; older has this one only
        warnings.filterwarnings("ignore", message="`broadcast_buffers` is deprecated", category=FutureWarning)
        warnings.filterwarnings("ignore", message="find_unused_parameters=True was specified")
        self._ddp = DistributedDataParallel(
            Whole(modules),
            process_group=world.group,
            broadcast_buffers=False,  # ranks that see the same make the same of them
            gradient_as_bucket_view=True,  # no second copy of the gradients
            # A stage of training, or a loss of somebody's own task, may leave parts of a model out. No one can tell
            # before the step, and they must get no gradient at all. It costs a walk over the graph: 0.8 ms of a step
            # of 290 ms (t2i, 275 parameters, one CPU thread).
            find_unused_parameters=True,
        )

    def call(self, act: Callable[[], T]) -> T:
        return self._ddp(act)

    def backward_of(self, last: bool) -> AbstractContextManager[object]:
        return nullcontext() if last else self._ddp.no_sync()

    def finish(self) -> None:
        return

    def leave(self) -> None:
        return


class Sharded:
    """FSDP2: every rank holds a share of the weights and gathers each block's for as long as it computes with them.

    Gradients are scattered in every pass, also where a step has several: kept whole until the last they would take the
    room that sharding is to save. What is not sharded, see `kept_whole`, each rank has; those gradients are averaged in
    one call at the end of the step.
    """

    def __init__(self, modules: nn.ModuleDict, world: World) -> None:
        from torch.distributed.device_mesh import DeviceMesh
        from torch.distributed.fsdp import fully_shard

        # no output of a block is written into; wrong gradients would show where several processes are compared with one
        warnings.filterwarnings(
            "ignore", message="FSDP2-wrapped module .* returned a view", category=UserWarning
        )
        self._world = world
        mesh = DeviceMesh.from_group(world.group, world.device.type)  # pyright: ignore[reportArgumentType]
        large = [b for b in blocks(modules) if sum(p.numel() for p in b.parameters()) >= SMALLEST_SHARD]
        kept = kept_whole(modules, large)
        for block in large:
            fully_shard(block, mesh=mesh, ignored_params=kept)
        # an FSDPModule, which is callable as well
        self._whole = cast(Any, fully_shard(Whole(modules), mesh=mesh, ignored_params=kept))
        self._kept = [p for p in modules.parameters() if p in kept and p.requires_grad]

    def call(self, act: Callable[[], T]) -> T:
        return self._whole(act)

    def backward_of(self, last: bool) -> AbstractContextManager[object]:
        del last
        return nullcontext()

    def finish(self) -> None:
        if grads := [p.grad for p in self._kept if p.grad is not None]:
            means = self._world.total(torch.cat([grad.flatten() for grad in grads])) / self._world.size
            for grad, mean in zip(grads, means.split([grad.numel() for grad in grads]), strict=True):
                grad.copy_(mean.view_as(grad))

    def leave(self) -> None:
        self._whole.reshard()


SHARINGS: dict[str, Callable[[nn.ModuleDict, World], Sharing]] = {"ddp": Replicated, "fsdp": Sharded}


def shared(modules: nn.ModuleDict, config: FitConfig, world: World) -> Sharing:
    """Make the modules ready for a training by these ranks; FSDP2 replaces their parameters. Collective."""
    if config.compile:
        for block in blocks(modules):
            block.compile()
    return Alone() if world.size == 1 else SHARINGS[config.parallel](modules, world)


def kept_whole(modules: nn.Module, sharded: Sequence[nn.Module]) -> set[nn.Parameter]:
    """Parameters that every rank keeps whole: a thousandth of the weights.

    Scalars (a temperature), which cannot be sharded. Of the blocks what is not the matrix of a layer of torch.nn: gains
    and shifts that the model around a block may read without calling it.
    """
    scalars = {p for p in modules.parameters() if p.ndim == 0}
    parts = [part for block in sharded for part in block.modules()]
    small = {
        p
        for part in parts
        for p in part.parameters(recurse=False)
        if p.ndim < 2 or not type(part).__module__.startswith("torch.nn")
    }
    return scalars | small


def blocks(modules: nn.Module) -> list[nn.Module]:
    """The repeated parts that are called as functions: members of an nn.ModuleList with a `forward` and parameters.

    Innermost lists only: a block with a list of its own inside is not one.
    """
    found = []
    for owner in modules.modules():
        if not isinstance(owner, nn.ModuleList):
            continue
        for member in owner:
            nested = any(isinstance(part, nn.ModuleList) for part in member.modules())
            callable_ = type(member).forward is not nn.Module.forward
            if callable_ and not nested and any(True for _ in member.parameters()):
                found.append(member)
    return list(dict.fromkeys(found))
