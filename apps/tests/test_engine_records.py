"""Configs go into config.json and come back, whatever they are made of."""

import json
from dataclasses import dataclass, field

import pytest
from cf_apps.engine.errors import ConfigError
from cf_apps.engine.records import Record
from cf_transformer import DiMRConfig, DiTConfig, StageConfig


@dataclass(frozen=True)
class Inner:
    depth: int = 2
    sizes: tuple[int, ...] = (1, 2)


@dataclass(frozen=True)
class Other:
    width: float = 0.5


@dataclass(frozen=True)
class Outer(Record):
    inner: Inner
    either: Inner | Other | None = None
    parts: tuple[Inner, ...] = ()
    pair: tuple[int, str] = (1, "a")
    backbone: DiMRConfig | DiTConfig | None = None
    free: dict[str, int] = field(default_factory=dict)


STAGES = (StageConfig("transformer", d_model=16, n_blocks=1, patch=2, n_heads=2),)
CASES = [
    Outer(Inner()),
    Outer(Inner(3, ()), Other(0.25), (Inner(1), Inner(4, (9,))), (7, "b"), free={"a": 1}),
    Outer(Inner(), Inner(5)),
    Outer(Inner(), backbone=DiMRConfig(3, (8, 8), STAGES)),
    Outer(Inner(), backbone=DiTConfig(4, (8, 8), patch=2, d_model=32, n_blocks=1, n_heads=2)),
]


@pytest.mark.parametrize("record", CASES)
def test_a_record_comes_back_from_json_as_it_was(record):
    assert Outer.from_dict(json.loads(json.dumps(record.to_dict()))) == record


def test_a_missing_key_takes_its_default():
    assert Outer.from_dict({"inner": {"sizes": [3]}}) == Outer(Inner(2, (3,)))


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"inner": {}, "colour": 1}, r"unknown Outer keys \['colour'\]; known: inner, either"),
        ({"inner": {"dept": 1}}, r"unknown Inner keys \['dept'\]; known: depth, sizes"),
        ({"inner": {}, "parts": [{"dept": 1}]}, r"unknown Inner keys \['dept'\]"),
        ({"inner": {}, "either": {"widht": 1.0}}, r"unknown Inner keys \['widht'\]"),
    ],
)
def test_an_unknown_key_lists_the_known_ones(values, words):
    with pytest.raises(ConfigError, match=words):
        Outer.from_dict(values)
