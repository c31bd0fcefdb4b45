"""Where things come from: a library that may not be installed, a folder that may be on a hub."""

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from types import ModuleType


def needs(library: str, extra: str) -> ModuleType:
    """Import the library here, where it is needed. ImportError with the install command when it is missing."""
    try:
        return import_module(library)
    except ImportError as error:
        raise ImportError(f"{library} is missing: pip install 'cf-encoders[{extra}]'") from error


def located(name_or_folder: Path | str, patterns: Sequence[str], revision: str | None = None) -> Path:
    """The local folder of that name, or the files of a hub id (`owner/name`) that fit `patterns`, downloaded once.

    revision: branch, tag or commit on the hub. FileNotFoundError when neither is there, ImportError where the hub
    is needed and huggingface_hub is not installed.
    """
    folder, name = Path(name_or_folder), str(name_or_folder)
    if folder.is_dir():
        if revision is not None:
            raise ValueError(f"{folder} is a local folder and has no revision {revision!r}; leave it out")
        return folder
    if name.count("/") != 1 or name.startswith((".", "/", "~")):
        raise FileNotFoundError(f"there is no folder {name!r}; give one, or a hub id such as owner/name")
    try:
        hub = needs("huggingface_hub", "hub")
    except ImportError as error:
        raise ImportError(f"there is no folder {name!r}, and to look for it on a hub, {error}") from error
    try:
        return Path(hub.snapshot_download(name, revision=revision, allow_patterns=list(patterns)))
    except (OSError, ValueError) as error:  # huggingface_hub's own errors are OSErrors, and name no remedy
        told = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise FileNotFoundError(
            f"there is no folder {name!r}, and the hub did not give it: {told}"
        ) from error
