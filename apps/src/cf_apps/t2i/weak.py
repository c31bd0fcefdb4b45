"""The worse model of autoguidance: an under-trained checkpoint of the same run (CrossFlow section 5.2, Table 3c)."""

from pathlib import Path
from typing import Any

from torch import Tensor, nn

from cf_apps.engine.commands.app import run_kind, task_run
from cf_apps.engine.errors import ConfigError, RunError
from cf_apps.engine.run import read_config
from cf_apps.engine.saving.checkpoint import load_checkpoint
from cf_apps.engine.saving.export import load_into
from cf_apps.t2i.config import T2IConfig
from cf_apps.t2i.model import Velocity, build_backbone
from cf_apps.t2i.sample import Sampler


def weak_velocity(path: Path, sampler: Sampler) -> Velocity:
    """The velocity of a run folder, or of one checkpoint RUN/checkpoints/step-00001000, on the sampler's device.

    Only its backbone is read: x_0 comes from the sampler's own encoder. So it must be a run whose x_0 and latents mean
    the same: an earlier checkpoint of the sampler's run, best. Raises ConfigError where latents or codecs differ,
    RunError or CheckpointError where there are no weights.
    """
    if sampler.model.config.from_noise:
        raise ConfigError("autoguidance is for models whose source is the text; this one starts from noise")
    tensors, config = _weights(path)
    weak, ours = T2IConfig.from_dict(config["task"]["config"]), sampler.model.config
    if weak.from_noise or (weak.latent, weak.codec) != (ours.latent, ours.codec):
        theirs = "starts from noise" if weak.from_noise else f"flows {weak.latent} of {weak.codec.name}"
        raise ConfigError(
            f"--weak {path} {theirs}, the model flows {ours.latent} of {ours.codec.name}; "
            "give a checkpoint of the same run"
        )
    backbone = build_backbone(weak)
    load_into(nn.ModuleDict({"backbone": backbone}), tensors, str(path))
    return backbone.to(sampler.model.device).eval()


def _weights(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """(averaged weights by name, config.json) of a run folder or of one of its checkpoints."""
    path = path.absolute()
    if path.parent.name != "checkpoints":
        return task_run(path, "t2i")
    run = path.parent.parent
    config = read_config(run)
    if (kind := run_kind(config)) != "t2i":
        raise RunError(f"{run} is a run of `crossflow {kind}`, this is `crossflow t2i`")
    parts, _ = load_checkpoint(path)
    return parts["weights"] | parts["ema"], config
