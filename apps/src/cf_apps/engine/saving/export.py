"""A finished model for sampling: RUN/model.safetensors (the averaged weights) beside RUN/config.json."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cf_apps.engine.errors import CheckpointError, RunError
from cf_apps.engine.files import replaced
from cf_apps.engine.run import read_config
from cf_apps.engine.saving.checkpoint import checkpoints, load_checkpoint
from cf_apps.engine.saving.state import load_tensors, named_tensors

MODEL = "model.safetensors"


def export(run: Path, parts: Sequence[str] | None = None, dtype: torch.dtype | None = None) -> Path:
    """Write RUN/model.safetensors from the last checkpoint: averaged parameters, and buffers as they are.

    parts: names of the modules to keep (what sampling needs); None keeps all. dtype: of the floating tensors
    in the file, float16 halves it; None keeps theirs.
    Raises RunError when there is no checkpoint or a part is unknown.
    """
    from safetensors.torch import save_file

    step, tensors = last_averaged(run)
    known = sorted({name.split(".")[0] for name in tensors})
    if unknown := sorted(set(parts or ()) - set(known)):
        raise RunError(f"{run} has no part {', '.join(unknown)}; known: {', '.join(known)}")
    kept = {
        name: tensor.to(dtype) if dtype is not None and tensor.is_floating_point() else tensor
        for name, tensor in tensors.items()
        if parts is None or name.split(".")[0] in parts
    }
    try:
        with replaced(run / MODEL) as temporary:
            save_file(kept, temporary, metadata={"step": str(step)})
    except Exception as error:  # safetensors wraps the system's error in one of its own
        raise RunError(f"cannot write {run / MODEL}: {error}; make room and export again") from error
    return run / MODEL


def load_model(run: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """(tensors by name, config.json) to sample from: model.safetensors, or a checkpoint that is newer.

    Raises RunError when `run` is no run folder or holds no weights, CheckpointError when they are damaged.
    """
    from safetensors import SafetensorError, safe_open

    config, last = read_config(run), max(checkpoints(run), default=-1)
    if not (run / MODEL).exists():
        return last_averaged(run)[1], config
    try:
        with safe_open(run / MODEL, framework="pt") as file:
            if int((file.metadata() or {}).get("step", last)) < last:  # trained on after the export
                return last_averaged(run)[1], config
            return {name: file.get_tensor(name) for name in file.keys()}, config  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{run / MODEL} is damaged ({error}); export it again or copy it anew"
        ) from error


def load_into(modules: nn.ModuleDict, tensors: dict[str, Tensor], origin: str) -> None:
    """Copy a loaded model into modules; raises CheckpointError naming what differs. Converts the dtype.

    Parts of the file that `modules` does not have (an image tower, when sampling) are left alone.
    """
    wanted = {name: tensor for name, tensor in tensors.items() if name.split(".")[0] in modules}
    load_tensors(named_tensors(modules), wanted, origin)


def last_averaged(run: Path) -> tuple[int, dict[str, Tensor]]:
    """(step, weights) of the last checkpoint, the averaged parameters in place of the trained ones."""
    read_config(run)
    found = checkpoints(run)
    if not found:
        raise RunError(f"{run} holds no checkpoint yet; train until the first one is saved")
    step = max(found)
    parts, _ = load_checkpoint(found[step], parts=("weights", "ema"))
    return step, parts["weights"] | parts["ema"]
