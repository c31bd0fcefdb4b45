"""Frozen dataclass configs from plain dicts (config.json), with unknown keys as errors."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, TypeVar

Config = TypeVar("Config")


def config_from_dict(cls: type[Config], values: Mapping[str, Any]) -> Config:
    """`cls(**values)`, JSON's lists as tuples. A key `cls` does not have is an error that lists its keys."""
    known = [field.name for field in fields(cls)]  # pyright: ignore[reportArgumentType]
    unknown = sorted(set(values) - set(known))
    if unknown:
        raise ValueError(f"unknown {cls.__name__} keys {unknown}; known: {', '.join(known)}")
    return cls(**{key: tuple(value) if isinstance(value, list) else value for key, value in values.items()})


def require_positive(config: object, *names: str) -> None:
    """Raise ValueError naming the first of these fields that is not a positive integer."""
    for name in names:
        value = getattr(config, name)
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ValueError(f"{type(config).__name__}.{name} must be a positive integer, got {value!r}")


def require_shape(config: object, name: str) -> None:
    """Raise ValueError unless the field is (c, h, w) of positive integers."""
    value = getattr(config, name)
    if len(value) != 3 or not all(isinstance(size, int) and size > 0 for size in value):
        raise ValueError(
            f"{type(config).__name__}.{name} must be (c, h, w), positive integers, got {value!r}"
        )
