"""The committed lock pins everything and names no index."""

import runpy
import subprocess
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

LOCAL_SOURCES = ("editable", "virtual")


@pytest.fixture(scope="module")
def index_agnostic():
    return runpy.run_path(str(Path(__file__).parent.parent / "tools" / "lock.py"))["index_agnostic"]


@pytest.fixture
def committed(root: Path) -> str:
    """What git holds; outside of a repository (a source archive) the file is what was committed."""
    shown = subprocess.run(["git", "show", "HEAD:uv.lock"], cwd=root, capture_output=True, encoding="utf-8")
    return shown.stdout if shown.returncode == 0 else (root / "uv.lock").read_text(encoding="utf-8")


def test_the_committed_lock_holds_no_address(committed: str):
    assert "://" not in committed
    assert "wheels = " not in committed
    assert "sdist = " not in committed


def test_every_source_is_local_or_the_anonymous_registry(committed: str):
    for package in tomllib.loads(committed)["package"]:
        source = package["source"]
        assert source == {"registry": "."} or source.keys() <= set(LOCAL_SOURCES), package["name"]


def test_every_dependency_of_every_locked_package_is_pinned(committed: str):
    packages = tomllib.loads(committed)["package"]
    pinned = {package["name"] for package in packages if package.get("version")}
    assert pinned == {package["name"] for package in packages}
    for package in packages:
        groups = package.get("optional-dependencies", {}) | package.get("dev-dependencies", {})
        for dependencies in (package.get("dependencies", []), *groups.values()):
            assert {dependency["name"] for dependency in dependencies} <= pinned, package["name"]


def test_everything_a_member_asks_for_is_pinned_within_its_range(
    committed: str, root: Path, members: list[Path]
):
    versions: dict[str, list[str]] = {}
    for package in tomllib.loads(committed)["package"]:
        versions.setdefault(package["name"], []).append(package["version"])
    for folder in (root, *members):
        wanted = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))
        project = wanted["project"]
        extras = project.get("optional-dependencies", {}) | wanted.get("dependency-groups", {})
        for line in [*project["dependencies"], *(line for lines in extras.values() for line in lines)]:
            requirement = Requirement(line)
            assert all(requirement.specifier.contains(v) for v in versions[requirement.name]), line


FULL = """\
version = 1

[[package]]
name = "numpy"
version = "2.4.6"
source = { registry = "https://example.org/simple" }
dependencies = [
    { name = "other", version = "1.0", source = { registry = "https://example.org/simple" } },
]
sdist = { url = "https://example.org/numpy.tar.gz", hash = "sha256:0", size = 1 }
wheels = [
    { url = "https://example.org/numpy-1.whl", hash = "sha256:0", size = 1 },
    { url = "https://example.org/numpy-2.whl", hash = "sha256:0", size = 1 },
]

[[package]]
name = "ours"
version = "0.1.0"
source = { editable = "packages/ours" }

[package.optional-dependencies]
extra = [
    { name = "numpy" },
]

[package.metadata]
requires-dist = [{ name = "numpy", specifier = ">=1" }]
provides-extras = ["extra"]

[package.metadata.requires-dev]
test = [
    { name = "numpy", specifier = ">=1" },
]

[[package]]
name = "last"
version = "1.0"
source = { registry = "https://example.org/simple" }
"""

AGNOSTIC = """\
version = 1

[[package]]
name = "numpy"
version = "2.4.6"
source = { registry = "." }
dependencies = [
    { name = "other", version = "1.0", source = { registry = "." } },
]

[[package]]
name = "ours"
version = "0.1.0"
source = { editable = "packages/ours" }

[package.optional-dependencies]
extra = [
    { name = "numpy" },
]

[[package]]
name = "last"
version = "1.0"
source = { registry = "." }
"""


def test_the_filter_keeps_pins_and_edges_and_drops_addresses_and_metadata(index_agnostic):
    assert index_agnostic(FULL) == AGNOSTIC


def test_filtering_twice_changes_nothing(index_agnostic):
    assert index_agnostic(AGNOSTIC) == AGNOSTIC


def test_the_git_filter_writes_the_same_to_stdout(root: Path, index_agnostic):
    command = ["python3", "tools/lock.py", "clean"]
    output = subprocess.run(command, cwd=root, input=FULL.encode(), capture_output=True, check=True).stdout
    assert output.decode() == AGNOSTIC
