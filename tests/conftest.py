"""Where things are, for tests that look at the repository as a whole."""

from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def root() -> Path:
    """The folder of the workspace."""
    return ROOT


@pytest.fixture
def members(root: Path) -> list[Path]:
    """The folders of the packages and of apps."""
    return [*sorted((root / "packages").glob("cf-*")), root / "apps"]
