"""A result can be read, repeated and trusted."""

import json
import math

import pytest
from cf_eval.result import Result


def result(metric: str = "frechet_distance", **changes) -> Result:
    plain = {"values": {"d2": 1.5}, "protocol": "features: pixels", "count": 7, "details": {"width": 3}}
    return Result(metric, **{**plain, **changes})


def test_json_gives_the_same_result_back():
    several = result(values={"a": 0.1, "b": 2.0}, details={"é": [1, {"x": None}]})
    assert Result.from_json(several.to_json()) == several
    assert json.loads(several.to_json())["values"] == {"a": 0.1, "b": 2.0}
    assert "\n" not in several.to_json()


def test_the_only_value_is_the_value_and_several_have_none():
    assert result().value == 1.5
    with pytest.raises(ValueError, match="several values: a, b"):
        _ = result(values={"a": 0.1, "b": 2.0}).value


def test_printed_it_names_metric_number_protocol_and_count():
    assert str(result()) == "frechet_distance: d2 1.5  (features: pixels; n = 7)"


@pytest.mark.parametrize("name", ["FID", "fid", "fid_30k", "FID-30K", "clean FID"])
def test_fid_needs_the_hash_of_its_network(name):
    with pytest.raises(ValueError, match=r"inception_sha256.*frechet_distance"):
        result(name)
    with pytest.raises(ValueError, match="got '0123'"):
        result(name, details={"inception_sha256": "0123"})
    assert result(name, details={"inception_sha256": "6726825d"}).metric == name


def test_words_that_only_contain_the_letters_are_no_fid():
    assert result("fidelity").metric == "fidelity"
    assert result("confidence").metric == "confidence"


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_value_that_is_no_number_is_refused(value):
    with pytest.raises(ValueError, match=r"d2 is .*; look for NaN"):
        result(values={"d2": value})


@pytest.mark.parametrize("missing", [{"metric": ""}, {"protocol": ""}, {"values": {}}, {"count": 0}])
def test_a_result_without_name_protocol_value_or_samples_is_refused(missing):
    with pytest.raises(ValueError, match=r"metric|value|count"):
        result(**missing)
