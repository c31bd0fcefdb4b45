"""Shape annotations are checked in tests (jaxtyping + beartype); CF_NO_TYPECHECK=1 turns that off."""

import os

if os.environ.get("CF_NO_TYPECHECK") != "1":
    from jaxtyping import install_import_hook

    install_import_hook("cf_apps", "beartype.beartype")
