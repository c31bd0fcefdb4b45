"""The documents keep their promises: code runs, links lead somewhere."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
MEMBERS = [*sorted((ROOT / "packages").glob("cf-*")), ROOT / "apps"]
READMES = [ROOT / "README.md", *(folder / "README.md" for folder in MEMBERS)]
DOCUMENTS = [*ROOT.glob("*.md"), *(page for folder in MEMBERS for page in folder.glob("*.md"))]
DOCUMENTS += [*(ROOT / "docs").rglob("*.md"), *(ROOT / "benchmarks").rglob("*.md")]

BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
ANY_BLOCK = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]+)[^)]*\)|(?:src|href)=\"([^\"]+)\"")
HEADING = re.compile(r"^#+ +(.+)$", re.MULTILINE)
ELSEWHERE = ("https://", "http://", "mailto:")


def named(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def blocks_of(page: Path) -> list[str]:
    return BLOCK.findall(page.read_text(encoding="utf-8"))


def links_of(page: Path) -> list[str]:
    prose = ANY_BLOCK.sub("", page.read_text(encoding="utf-8"))
    links = [markdown or html for markdown, html in LINK.findall(prose)]
    return [link for link in links if not link.startswith(ELSEWHERE)]


def slug(heading: str) -> str:
    """The anchor that GitHub gives a heading."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


BLOCKS = [
    pytest.param(code, id=f"{named(page)}-{i}") for page in READMES for i, code in enumerate(blocks_of(page))
]
LINKS = [
    pytest.param(page, link, id=f"{named(page)}-{link}") for page in DOCUMENTS for link in links_of(page)
]


@pytest.mark.parametrize("code", BLOCKS)
def test_a_python_block_of_a_readme_runs_by_itself(
    code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "README.md", "exec"), {"__name__": "__main__"})


@pytest.mark.parametrize("folder", MEMBERS, ids=named)
def test_a_package_readme_shows_code_of_at_most_twelve_lines(folder: Path):
    blocks = blocks_of(folder / "README.md")
    assert blocks or folder.name == "apps"  # apps is a program: its README shows commands
    assert all(len([line for line in block.splitlines() if line.strip()]) <= 12 for block in blocks)


@pytest.mark.parametrize(("page", "link"), LINKS)
def test_a_relative_link_resolves(page: Path, link: str):
    path, _, anchor = link.partition("#")
    target = (page.parent / path).resolve() if path else page
    assert target.exists(), f"{named(page)} links to {link}, which is not there"
    if anchor and target.suffix == ".md":
        headings = HEADING.findall(ANY_BLOCK.sub("", target.read_text(encoding="utf-8")))
        assert anchor in map(slug, headings), f"{named(target)} has no heading #{anchor}"
