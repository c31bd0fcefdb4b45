"""`import cf_x` loads torch and little else; import-linter sees who imports whom, not when."""

import importlib
import json
import subprocess
import sys

import pytest

PACKAGES = ["cf_flowcore", "cf_encoders", "cf_transformer", "cf_eval"]
HEAVY = {
    "transformers", "diffusers", "open_clip", "datasets", "pyarrow", "pandas", "matplotlib", "PIL", "scipy",
    "torchvision", "torchdiffeq", "beartype", "triton",
}  # fmt: skip
NEW_MODULES = "import json, sys, torch; before = set(sys.modules); import {}; " + (
    "print(json.dumps(sorted(set(sys.modules) - before)))"
)


def loaded_beyond_torch(module: str) -> list[str]:
    command = [sys.executable, "-c", NEW_MODULES.format(module)]
    return json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True, encoding="utf-8").stdout)


@pytest.mark.parametrize("module", [*PACKAGES, "cf_apps", "cf_apps.cli"])
def test_importing_a_package_loads_no_heavy_library(module: str):
    loaded = loaded_beyond_torch(module)
    assert not {name.split(".")[0] for name in loaded} & HEAVY
    assert not any(name.startswith("torch._inductor") for name in loaded)


@pytest.mark.parametrize("module", PACKAGES)
def test_a_package_says_what_it_exports(module: str):
    package = importlib.import_module(module)
    assert len(package.__all__) == len(set(package.__all__))
    assert all(hasattr(package, name) for name in package.__all__)
