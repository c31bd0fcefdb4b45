"""What the engine costs before it is used."""

import subprocess
import sys


def test_importing_the_engine_brings_no_heavy_library():
    code = (
        "import sys, cf_apps.engine, cf_apps.engine.watching.render, cf_apps.engine.watching.curves; "
        "print({'matplotlib', 'PIL', 'rich', 'torch._dynamo', 'datasets'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
