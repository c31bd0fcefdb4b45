"""Which device to use, and what it is, for the logs."""

import platform
from pathlib import Path

import torch

from cf_apps.engine.errors import ConfigError


def choose_device(name: str = "auto") -> torch.device:
    """'auto' is the GPU where there is one, else the CPU; other names as torch has them ('cuda:1')."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigError(f"unknown device {name!r}; use auto, cpu, cuda or cuda:N") from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ConfigError(
            f"device {name!r} asked for, {torch.cuda.device_count()} GPUs found; use --device auto or cpu"
        )
    return device


def describe_device(device: torch.device) -> dict[str, str | int]:
    """Device, its model name, CPU threads in use and the torch version."""
    model = torch.cuda.get_device_name(device) if device.type == "cuda" else _cpu_model()
    return {
        "device": str(device),
        "model": model,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:  # not Linux
        return platform.processor() or platform.machine()
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.machine()
