"""Shapes and types are checked in every test, unless CF_NO_TYPECHECK=1 (the checks break torch.compile)."""

import os

import pytest

if os.environ.get("CF_NO_TYPECHECK") != "1":
    from jaxtyping import install_import_hook

    install_import_hook("cf_encoders", "beartype.beartype")

import torch


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)
