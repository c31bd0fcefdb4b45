"""Checks that configs make of themselves."""

import math
from collections.abc import Mapping
from typing import Any

from cf_apps.engine.errors import ConfigError


def require_count(name: str, value: object, least: int) -> None:
    """Raise ConfigError unless value is a whole number, `least` or more."""
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ConfigError(f"{name} must be a whole number, {least} or more, got {value!r}")


def require_seed(value: int) -> None:
    """Raise ConfigError unless torch's generators take it."""
    if not 0 <= value < 2**63:
        raise ConfigError(f"seed must be zero or more and less than 2^63, got {value}")


def require_known(name: str, value: str, known: Mapping[str, Any] | tuple[str, ...]) -> None:
    """Raise ConfigError, listing the known ones, for a name that is none of them."""
    if value not in known:
        raise ConfigError(f"unknown {name} {value!r}; known: {', '.join(known)}")


def require_weight(name: str, value: float) -> None:
    """Raise ConfigError unless value is a finite number, zero or more."""
    if not 0 <= value < math.inf:
        raise ConfigError(f"{name} must be zero or more, got {value}")
