"""Errors that a user can repair: the CLI prints the message in one line and exits with 2."""


class UserError(Exception):
    """Something the user can repair; the message names the thing and the remedy, in one line."""


class ConfigError(UserError, ValueError):
    """A setting that cannot work: the message names the setting, its value and what would work."""


class RunError(UserError):
    """A run folder or a training run that cannot go on (not a run, disk full, out of memory, not finite)."""


class CheckpointError(RunError):
    """A checkpoint that is damaged, or that belongs to another model."""
