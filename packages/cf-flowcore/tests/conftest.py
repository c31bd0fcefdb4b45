"""Shapes and types of the public functions are checked while the tests run (not when CF_NO_TYPECHECK=1)."""

import os

import pytest
import torch

if os.environ.get("CF_NO_TYPECHECK") != "1":
    from jaxtyping import install_import_hook

    install_import_hook("cf_flowcore", "beartype.beartype")


@pytest.fixture
def generator() -> torch.Generator:
    """A fixed seed for the tests that draw."""
    return torch.Generator().manual_seed(0)
