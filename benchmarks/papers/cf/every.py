"""All tables and figures of CrossFlow that are made here."""

from importlib import import_module

from cf.scale import Scale
from cf.spec import Table

NAMES = (
    "table1", "table2", "table3a", "table3b", "table3c", "table3e", "table4", "table5", "table6", "table8", "fig3",
    "fig4", "fig5", "fig8", "table3d",
)  # fmt: skip


def every(scale: Scale) -> dict[str, Table]:
    """By the name of the script, without cf_; the dearest last."""
    return {name: import_module(f"cf_{name}").table(scale) for name in NAMES}
