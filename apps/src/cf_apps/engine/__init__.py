"""The engine: a training loop that never asks which task it runs, and what such a loop needs."""

from cf_apps.engine.config import FitConfig
from cf_apps.engine.device import choose_device, describe_device
from cf_apps.engine.ema import Ema
from cf_apps.engine.errors import CheckpointError, ConfigError, RunError, UserError
from cf_apps.engine.fit import FitResult, fit
from cf_apps.engine.saving.export import export, load_into, load_model
from cf_apps.engine.seeds import endless_order, step_generator
from cf_apps.engine.task import Losses, Task
from cf_apps.engine.watching.log import read_log
from cf_apps.engine.watching.progress import progress_line

__all__ = [
    "CheckpointError",
    "ConfigError",
    "Ema",
    "FitConfig",
    "FitResult",
    "Losses",
    "RunError",
    "Task",
    "UserError",
    "choose_device",
    "describe_device",
    "endless_order",
    "export",
    "fit",
    "load_into",
    "load_model",
    "progress_line",
    "read_log",
    "step_generator",
]
