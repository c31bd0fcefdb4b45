"""What every member of the workspace has, and what they must have in common."""

import re
import subprocess
import tomllib
from pathlib import Path

import pytest

SEMANTIC_VERSION = re.compile(r"\d+\.\d+\.\d+")
# Put together here, or this file would find itself.
FOREIGN = [rf"(?<![\w.])/{folder}/" for folder in ("work", "root", "home")]
FOREIGN += [
    re.escape(".".join(host)) for host in (("pypi", "org"), ("pythonhosted", "org"), ("npmjs", "org"))
]
FOREIGN_NAMES = re.compile("|".join(FOREIGN))


def pyproject(folder: Path) -> dict:
    return tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))


def test_every_member_has_its_papers_and_its_types(members: list[Path]):
    for folder in members:
        module = folder / "src" / pyproject(folder)["project"]["name"].replace("-", "_")
        for file in ("README.md", "CHANGELOG.md", "LICENSE", "tests"):
            assert (folder / file).exists(), f"{folder.name} lacks {file}"
        assert (module / "py.typed").exists()


def test_every_member_carries_the_licence_of_the_repository(root: Path, members: list[Path]):
    for folder in members:
        assert (folder / "LICENSE").read_bytes() == (root / "LICENSE").read_bytes()


def test_every_changelog_has_a_place_for_the_next_line(members: list[Path]):
    for folder in members:
        assert "\n## Unreleased\n" in (folder / "CHANGELOG.md").read_text(encoding="utf-8"), folder.name


def test_versions_are_semantic_and_python_is_the_same_everywhere(root: Path, members: list[Path]):
    python = pyproject(root)["project"]["requires-python"]
    for folder in members:
        project = pyproject(folder)["project"]
        assert SEMANTIC_VERSION.fullmatch(project["version"])
        assert project["requires-python"] == python


def test_pytest_is_set_up_alike_in_every_member(root: Path, members: list[Path]):
    expected = pyproject(root)["tool"]["pytest"]["ini_options"]
    expected.pop("testpaths")
    for folder in members:
        assert pyproject(folder)["tool"]["pytest"]["ini_options"] == expected, folder.name


def test_no_committed_text_names_a_path_of_its_writers_machine_or_a_package_index(root: Path):
    listed = subprocess.run(["git", "ls-files"], cwd=root, capture_output=True, encoding="utf-8")
    if listed.returncode != 0:
        pytest.skip("not a git checkout: no list of committed files")
    # uv.lock on disk may be uv's own, with addresses; test_lock.py looks at what git holds of it.
    names = [name for name in listed.stdout.splitlines() if name != "uv.lock" and (root / name).is_file()]
    for name in names:
        content = (root / name).read_bytes()
        if b"\0" not in content:  # text
            found = FOREIGN_NAMES.search(content.decode("utf-8", errors="replace"))
            assert not found, f"{name} names {found}"
