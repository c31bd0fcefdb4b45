"""`crossflow t2i scaling`: the model of `model.py` for a preset on some GPUs, as tables."""

from collections.abc import Sequence
from typing import Any

from cf_transformer import DiMRConfig

from cf_apps.engine.commands.recipe import named
from cf_apps.engine.errors import ConfigError
from cf_apps.t2i.presets import PRESETS
from cf_apps.t2i.scaling.model import (
    Machine,
    activation_bytes,
    network_bytes,
    parameters,
    sample_bytes,
    state_bytes,
    step_flops,
    with_recompute,
)

ROOM = 0.9  # of a GPU's memory: the rest is the allocator's and the libraries'
Row = dict[str, Any]


def scaling_row(preset: str, trained: int, gpus: int, machine: Machine) -> Row:
    """What training a preset of that many parameters takes on so many GPUs, in the fastest way that fits them.

    Raises ConfigError where nothing fits, or the batch cannot be shared.
    """
    recipe = named(PRESETS, preset)
    batch = recipe.fit.batch_size
    if gpus < 1 or batch % gpus:
        raise ConfigError(f"--gpus {gpus} does not divide the batch of {batch}")
    rows = batch // gpus
    for way in _ways(rows):
        config = with_recompute(recipe.model, way["recompute"])
        assert isinstance(config.backbone, DiMRConfig)
        state = sum(state_bytes(trained, gpus if way["parallel"] == "fsdp" else 1).values())
        # autocast keeps a rounded copy of every weight that it used
        kept = activation_bytes(config.backbone, rows // way["accumulate"], "bf16") + 2 * trained
        if state + kept <= ROOM * machine.memory:
            break
    else:
        raise ConfigError(f"{preset} does not fit {gpus} GPUs of {machine.memory / 1e9:.0f} GB in any way")
    sent = network_bytes(trained, gpus, way["parallel"], way["accumulate"])
    flops = step_flops(config) * rows
    slow, fast = (flops / (machine.peak * use) for use in machine.use)
    wire = sent / machine.link(gpus)
    low, high = max(fast, wire), slow + wire  # all of it behind the computation, or none
    data = sample_bytes(config) * rows * min(gpus, machine.node)
    return {
        "preset": preset,
        "GPUs": gpus,
        **way,
        "state GB": state / 1e9,
        "activations GB": kept / 1e9,
        "TFLOP a GPU": flops / 1e12,
        "sent GB": sent / 1e9,
        "sent s": wire,
        "step s": f"{low:.2f} to {high:.2f}",
        "samples/s": f"{batch / high:,.0f} to {batch / low:,.0f}",
        "disk MB/s a node": data / low / 1e6,
    }


def _ways(rows: int) -> list[Row]:
    """From the fastest to the one that needs the least memory."""
    parts = [n for n in (1, 2, 4, 8, 16, 32, 64, 128) if rows % n == 0]
    return [
        {"parallel": parallel, "recompute": recompute, "accumulate": n}
        for recompute, n in [
            ("nothing", 1),
            ("cheap", 1),
            ("nothing", 2),
            ("cheap", 2),
            *(("blocks", n) for n in parts),
        ]
        for parallel in ("ddp", "fsdp")
        if rows % n == 0
    ]


def scaling_rows(presets: Sequence[str], gpus: Sequence[int], machine: Machine | None = None) -> list[Row]:
    """A row for every preset and number of GPUs."""
    machine = machine or Machine()
    counts = {preset: parameters(named(PRESETS, preset).model) for preset in presets}
    return [scaling_row(preset, counts[preset], n, machine) for preset in presets for n in gpus]


def markdown(rows: Sequence[Row]) -> str:
    """The rows as a table of a document."""
    names = list(rows[0])
    lines = [names, ["---"] * len(names), *([_shown(row[name]) for name in names] for row in rows)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.3g}" if value < 100 else f"{value:.0f}"
    return str(value)
