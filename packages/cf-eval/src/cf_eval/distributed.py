"""What every rank has seen, on every rank: the one place where metrics speak to torch.distributed."""

from typing import Any, TypeVar

import torch.distributed as dist

State = TypeVar("State")
Group = Any  # torch.distributed.ProcessGroup exists only in builds with distributed support


def all_ranks(state: State, group: Group | None = None) -> list[State]:
    """The states of all ranks, in rank order, the same list on every rank; `[state]` where there is one process.

    state: anything that pickles, tensors on the CPU; ranks may hold different amounts, also nothing. All ranks
    of `group` (None: the default group, where one was started) must call it, since it waits for them. With the
    nccl backend set the rank's device first (torch.cuda.set_device). Only ranks one trusts should be in a group:
    the states travel as pickles.
    """
    if not (dist.is_available() and dist.is_initialized()):
        if group is not None:
            raise ValueError(
                "a group was given but torch.distributed is not started; call init_process_group first"
            )
        return [state]
    states: list[Any] = [None] * dist.get_world_size(group)
    dist.all_gather_object(states, state, group=group)
    return states
