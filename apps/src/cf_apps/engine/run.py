"""A run folder: config.json says what was run, with which versions, by which command.

RUN/  config.json  log.jsonl  checkpoints/  model.safetensors
"""

import json
import platform
import shlex
import subprocess
import sys
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from cf_apps.engine.errors import RunError
from cf_apps.engine.files import write_text
from cf_apps.engine.saving.checkpoint import checkpoints, remove_leftovers

PACKAGES = ("cf-apps", "cf-flowcore", "cf-encoders", "cf-transformer", "cf-eval", "torch", "numpy")


def open_run(run: Path, config: dict[str, Any], resume: bool) -> dict[str, Any]:
    """Make the run folder, or find it again, and write config.json; returns the earlier config ({} if new).

    config: JSON-able; 'versions', 'commit' and 'starts' (one command and time a start) are added.
    Raises RunError when `resume` finds no run, or when a new run would overwrite one.
    """
    before = read_config(run) if (run / "config.json").exists() else {}
    strangers = (
        [path.name for path in run.glob("*") if not path.name.endswith(".tmp")] if run.exists() else []
    )
    if resume and not run.exists():
        raise RunError(f"no run folder {run} to resume; check the path or start without --resume")
    if strangers and not before:
        raise RunError(f"{run} is not a run folder (it has no config.json) and not empty; choose another")
    if checkpoints(run) and not resume:
        raise RunError(
            f"{run} holds a run at step {max(checkpoints(run))}; pass --resume or choose another folder"
        )
    try:
        (run / "checkpoints").mkdir(parents=True, exist_ok=True)
        remove_leftovers(run)
        start = {"command": command_line(), "time": datetime.now(UTC).isoformat(timespec="seconds")}
        starts = [*before.get("starts", []), start]
        record = config | {"versions": versions(), "commit": commit(), "starts": starts}
        write_text(run / "config.json", json.dumps(record, indent=1))
    except OSError as error:
        raise RunError(f"cannot write to {run}: {error.strerror or error}; choose another folder") from error
    return before


def free_folder(wanted: Path) -> Path:
    """`wanted`, or the first of wanted-2, wanted-3, ... that does not exist: a demo never overwrites one."""
    number, folder = 1, wanted
    while folder.exists():
        number += 1
        folder = wanted.with_name(f"{wanted.name}-{number}")
    return folder


def read_config(run: Path) -> dict[str, Any]:
    """config.json of a run folder; raises RunError when there is none or it cannot be read."""
    try:
        config = json.loads((run / "config.json").read_text())
        if not isinstance(config, dict):
            raise ValueError("it holds no JSON object")
        return config
    except (FileNotFoundError, NotADirectoryError) as error:
        raise RunError(
            f"{run} is not a run folder (it has no config.json); give the folder that train wrote"
        ) from error
    except (OSError, ValueError) as error:
        raise RunError(f"cannot read {run / 'config.json'}: {error}; restore it or train anew") from error


def command_line() -> str:
    """The command as one would type it again: the program by its name, the arguments quoted where they must be."""
    return shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that a result depends on."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:  # used from a source tree
            continue
    return found


def commit() -> str | None:
    """The git commit this code is at, with '+' when files differ from it; None outside a repository."""
    git = ["git", "-C", str(Path(__file__).parent)]
    try:
        head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, timeout=10)
        changed = subprocess.run(
            [*git, "status", "--porcelain", "-uno"], capture_output=True, text=True, timeout=10
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    if head.returncode != 0:
        return None
    return head.stdout.strip() + ("+" if changed.stdout.strip() else "")
