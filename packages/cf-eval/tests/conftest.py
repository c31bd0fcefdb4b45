"""Shapes and types of the public functions are checked while the tests run (not when CF_NO_TYPECHECK=1)."""

import os

if os.environ.get("CF_NO_TYPECHECK") != "1":
    from jaxtyping import install_import_hook

    install_import_hook("cf_eval", "beartype.beartype")
