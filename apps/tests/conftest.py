"""Annotations are checked in tests, shapes too (jaxtyping + beartype); CF_NO_TYPECHECK=1 turns that off."""

import os
from importlib.util import find_spec
from pathlib import Path

# Called by the hundred thousand, and without shapes. jaxtyping makes such code ten times slower, beartype twice.
GRAMMAR = ["cf_apps.data.shapes_captions", "cf_apps.data.shapes_statements"]


def _modules(package: str) -> list[str]:
    """The names of all files of a package, whose import is still to come."""
    root = Path(find_spec(package).origin).parent
    files = [path.relative_to(root).with_suffix("") for path in root.rglob("*.py") if path.stem != "__init__"]
    return [".".join((package, *file.parts)) for file in files]


if os.environ.get("CF_NO_TYPECHECK") != "1":
    from beartype import BeartypeConf
    from beartype.claw import beartype_packages
    from jaxtyping import install_import_hook

    install_import_hook([name for name in _modules("cf_apps") if name not in GRAMMAR], "beartype.beartype")
    beartype_packages(GRAMMAR, conf=BeartypeConf(claw_is_pep526=False))  # arguments and results only, too
