"""Tests run with annotations checked: what conftest.py sets up is in force."""

import os

import pytest
import torch
from beartype.roar import BeartypeCallHintViolation
from cf_apps.data.captioned_shapes import CaptionedShapes, split_of
from cf_apps.data.shapes_statements import parse
from cf_apps.engine.config import FitConfig
from jaxtyping import TypeCheckError

pytestmark = pytest.mark.skipif(
    os.environ.get("CF_NO_TYPECHECK") == "1", reason="annotations are not checked"
)


@pytest.mark.parametrize(
    "call",
    [
        lambda: CaptionedShapes(5, image_size=16).batch(torch.zeros(2, 2, dtype=torch.int64)),  # a shape
        lambda: CaptionedShapes(5, image_size=16).batch(torch.zeros(2)),  # a dtype
        lambda: split_of(3),  # a plain type in a file with shapes
        lambda: FitConfig(steps=3).progress("3", 0.0),  # in one without
        lambda: parse(3),  # in one that beartype watches alone
    ],
    ids=["shape", "dtype", "plain", "no shapes", "grammar"],
)
def test_an_argument_that_its_annotation_rules_out_is_refused(call):
    with pytest.raises((TypeCheckError, BeartypeCallHintViolation)):
        call()
