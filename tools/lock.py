"""Keep `uv.lock` free of any index: what it pins is ours, where that comes from is the user's.

uv writes the address of the index and of every file into its lock. We commit only names, versions and
the edges between them. `uv sync` then takes the versions as preferences and finds the files in whatever index
the user has set up; the set it resolves to is the same. (`--locked` and `--frozen` therefore do not apply.)

    python tools/lock.py clean < uv.lock     # the git clean filter: full lock in, index-agnostic lock out
    python tools/lock.py setup               # tell this clone's git to use that filter

`nox -s lock` resolves, then rewrites the file in place.
"""

import re
import subprocess
import sys
from pathlib import Path

LOCK = Path(__file__).resolve().parent.parent / "uv.lock"
GIT = ["git", "-C", str(LOCK.parent)]

REGISTRY = re.compile(r'registry = "[^"]*"')
FILES = re.compile(r"^sdist = \{.*?\}\n|^wheels = \[\n.*?^\]\n", re.MULTILINE | re.DOTALL)
# Without its copy of our requirements uv takes the lock as preferences instead of the last word,
# so it asks the user's index again for the files we left out.
METADATA = re.compile(r"^\[package\.metadata[^\]]*\]\n(?:(?!\[).*\n)*", re.MULTILINE)
BLANK_LINES = re.compile(r"\n{3,}")


def index_agnostic(lock: str) -> str:
    """The text of a uv.lock without index, file addresses and hashes. Applying it twice changes nothing."""
    lock = REGISTRY.sub('registry = "."', lock)
    lock = FILES.sub("", lock)
    lock = METADATA.sub("", lock)
    return BLANK_LINES.sub("\n\n", lock).rstrip("\n") + "\n"


def clean() -> None:
    """stdin -> stdout, in bytes: a text stream would change the line ends on Windows."""
    text = sys.stdin.buffer.read().decode()
    sys.stdout.buffer.write(index_agnostic(text.replace("\r\n", "\n")).encode())


def rewrite() -> None:
    """Make the lock on disk index-agnostic."""
    LOCK.write_text(index_agnostic(LOCK.read_text(encoding="utf-8")), encoding="utf-8", newline="\n")


def setup() -> None:
    """Register the clean filter of .gitattributes; without it a synced tree shows uv.lock as changed."""
    subprocess.run([*GIT, "config", "filter.uvlock.clean", "python3 tools/lock.py clean"], check=True)
    # git compares sizes before it filters, so it takes a lock that uv has just filled for a changed one
    # until it is told to look; what is then staged is the filtered text, most often no change at all.
    subprocess.run([*GIT, "add", LOCK.name], check=True)


COMMANDS = {"clean": clean, "rewrite": rewrite, "setup": setup}

if __name__ == "__main__":
    name = sys.argv[1] if len(sys.argv) == 2 else ""
    if name not in COMMANDS:
        sys.exit(f"usage: python tools/lock.py {{{' | '.join(COMMANDS)}}}; got {sys.argv[1:]}")
    COMMANDS[name]()
