"""AdamW that decays matrices only, and the clipping of gradients."""

from collections.abc import Collection, Iterable

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from cf_apps.engine.config import FitConfig
from cf_apps.engine.ranks.shards import alike, whole

# what the packages' networks have that decay should not shrink: time-dependent gains and shifts, positions, queries,
# the temperature
SPARED = {"gain", "gains", "shift", "position", "positions", "queries", "log_scale"}


def spared(modules: nn.Module) -> set[str]:
    """Which of SPARED these modules have: a task's `no_decay`. Biases and one-axis gains are spared anyway."""
    return SPARED & {part for name, _ in modules.named_parameters() for part in name.split(".")}


def trained_parameters(modules: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that want a gradient, by dotted name; a tied one once."""
    return {name: p for name, p in modules.named_parameters() if p.requires_grad}


def decays(modules: nn.Module, no_decay: Collection[str] = ()) -> dict[str, bool]:
    """Whether weight decay applies, by parameter name.

    Spared: what has fewer than two axes (norm gains, biases, temperatures, TD-norm's w and b), every
    nn.Embedding, and every parameter with one of `no_decay` between the dots of its name.
    """
    embeddings = {id(p) for m in modules.modules() if isinstance(m, nn.Embedding) for p in m.parameters()}
    parameters = trained_parameters(modules)
    known = {part for name in parameters for part in name.split(".")}
    if unknown := set(no_decay) - known:
        raise ValueError(f"no_decay names no parameter: {sorted(unknown)}; known: {', '.join(sorted(known))}")
    return {
        name: p.ndim >= 2 and id(p) not in embeddings and not set(name.split(".")) & set(no_decay)
        for name, p in parameters.items()
    }


def adamw(modules: nn.Module, config: FitConfig, no_decay: Collection[str] = ()) -> torch.optim.AdamW:
    """AdamW over two groups: the decayed parameters and the spared ones (each twice, where some are sharded)."""
    decayed = decays(modules, no_decay)
    parameters = trained_parameters(modules)
    groups = [
        {"params": some, "weight_decay": config.weight_decay if wanted else 0.0}
        for wanted in (True, False)
        for some in alike([p for name, p in parameters.items() if decayed[name] == wanted])
    ]
    device = next(iter(parameters.values())).device
    return torch.optim.AdamW(
        groups,
        lr=config.lr,
        betas=config.betas,
        fused=device.type in ("cpu", "cuda"),  # one kernel for all parameters; elsewhere not everywhere built
    )


def set_learning_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Use `lr` in every group from the next step on."""
    for group in optimizer.param_groups:
        group["lr"] = lr


def clip_gradients(parameters: Iterable[Tensor], max_norm: float | None) -> Float[Tensor, ""]:
    """Scale all gradients so that their global 2-norm is at most `max_norm`; return the norm before that."""
    kinds = alike([p for p in parameters if p.grad is not None])
    if not kinds:
        return torch.tensor(0.0)
    norms = [whole(get_total_norm([p.grad for p in kind if p.grad is not None])) for kind in kinds]
    norm = norms[0] if len(norms) == 1 else torch.linalg.vector_norm(torch.stack(norms))
    if max_norm is not None:
        for kind in kinds:
            clip_grads_with_norm_(kind, max_norm, norm)
    return norm
