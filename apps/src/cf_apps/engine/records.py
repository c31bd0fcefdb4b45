"""Frozen dataclasses to JSON and back: what config.json holds."""

import types
from collections.abc import Mapping
from dataclasses import asdict, fields, is_dataclass
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from cf_apps.engine.errors import ConfigError

T = TypeVar("T")


class Record:
    """A frozen dataclass that goes into config.json and comes back, its parts included."""

    def to_dict(self) -> dict[str, Any]:
        """The record as JSON-ready values."""
        assert is_dataclass(self)
        return asdict(self)

    @classmethod
    def from_dict(cls: type[T], values: Mapping[str, Any]) -> T:
        """The inverse of `to_dict`; an unknown key is a ConfigError that lists the known ones."""
        return from_dict(cls, values)


def from_dict(cls: type[T], values: Mapping[str, Any]) -> T:
    """A dataclass of `values`: parts that are dataclasses are built in turn, lists become tuples.

    A field of several types (`DiMRConfig | DiTConfig`) takes the first whose keys fit; its own defaults fill the rest.
    """
    known = [field.name for field in fields(cls)]  # type: ignore[arg-type]
    if unknown := sorted(set(values) - set(known)):
        raise ConfigError(f"unknown {cls.__name__} keys {unknown}; known: {', '.join(known)}")
    hints = get_type_hints(cls)
    return cls(**{name: _read(hints[name], value) for name, value in values.items()})


def _read(hint: Any, value: Any) -> Any:
    if isinstance(value, list):
        inner = [part for part in get_args(hint) if part is not Ellipsis]
        one_kind = len(inner) == 1 or len(set(inner)) == 1
        return tuple(_read(inner[0] if one_kind else None, part) for part in value)
    if not isinstance(value, Mapping):
        return value
    kinds = [kind for kind in _alternatives(hint) if is_dataclass(kind)]
    if not kinds:
        return dict(value)
    fitting = [kind for kind in kinds if set(value) <= {field.name for field in fields(kind)}]
    return _built((fitting or kinds)[0], value)


def _alternatives(hint: Any) -> tuple[Any, ...]:
    return get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)


def _built(kind: Any, value: Mapping[str, Any]) -> Any:
    own = getattr(kind, "from_dict", None)  # the packages' configs read themselves
    return own(value) if own is not None else from_dict(kind, value)
