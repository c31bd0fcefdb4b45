"""What a dry run tells: a table of stages, the figures of its parts, and what the whole would take at this rate."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import safe_open

from cf_apps.data.shards.reading import open_shards
from cf_apps.data.shards.records import shards_folder
from cf_apps.engine.errors import RunError
from cf_apps.engine.files import write_text
from cf_apps.engine.saving.checkpoint import checkpoints
from cf_apps.engine.saving.export import MODEL
from cf_apps.engine.watching.log import read_log
from cf_apps.engine.watching.report import print_table, say
from cf_apps.t2i.dry.run import DryRun
from cf_apps.t2i.dry.stages import Stage
from cf_apps.t2i.scaling.model import parameters, sample_bytes, state_bytes
from cf_apps.t2i.scaling.parts import training_macs

KEPT = ("latents", "flipped", "features", "pictures")  # what is large in a shard
Facts = dict[str, Any]


def report(folder: Path, run: DryRun, about: Mapping[str, Any]) -> Facts:
    """Everything that a dry run found out, as JSON: `about` (device, layers, ...), `stages`, `found`, `full run`."""
    steps = read_log(folder / "run")
    seconds = steps[-1]["elapsed"] - (steps[-2]["elapsed"] if len(steps) > 1 else 0.0)
    return {
        **about,
        "random": list(run.random),
        "stages": {
            stage.name: {"seconds": round(stage.seconds, 2), "peak_gb": _gb(stage)} for stage in run.stages
        },
        "found": {
            "trained_parameters": run.parameters,
            "batch_size": run.done.fit.batch_size,
            "losses": [step["losses"] for step in steps],
            "second_step_seconds": round(seconds, 3),
            **_sizes(folder),
            "kb_a_sample": {name: round(size / 1e3, 2) for name, size in shard_bytes(folder).items()},
            "kb_a_sample_at_most": round(sample_bytes(run.asked.model) / 1e3, 2),
        },
        "full_run": _whole(run, seconds),
    }


def _gb(stage: Stage) -> float | None:
    return None if stage.peak is None else round(stage.peak / 1e9, 3)


def _sizes(folder: Path) -> dict[str, float]:
    last = list(checkpoints(folder / "run").values())[-1]
    written = sum(path.stat().st_size for path in last.iterdir())
    return {
        "checkpoint_gb": round(written / 1e9, 3),
        "exported_gb": round((folder / "run" / MODEL).stat().st_size / 1e9, 3),
    }


def shard_bytes(folder: Path) -> dict[str, float]:
    """Bytes of a sample in the shards, by what they are; `all` is the files'."""
    manifest = open_shards(folder / "shards").manifest
    found: dict[str, float] = {"all": manifest.bytes / manifest.samples}
    for path in sorted(shards_folder(folder / "shards").glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118
                if name in KEPT:
                    found[name] = found.get(name, 0.0) + file.get_tensor(name).nbytes / manifest.samples
    return found


def _whole(run: DryRun, seconds: float) -> Facts:
    """What was asked for, had it been run: by this device's rate in the second step, and bytes a parameter."""
    asked, done = run.asked, run.done
    work = training_macs(asked.model) * asked.fit.batch_size
    scale = work / (training_macs(done.model) * done.fit.batch_size)
    trained = parameters(asked.model)
    steps = asked.fit.steps
    return {
        "parameters": trained,
        "batch_size": asked.fit.batch_size,
        "gmacs_a_step": round(work / 1e9, 1),
        "state_gb": round(sum(state_bytes(trained).values()) / 1e9, 2),
        "seconds_a_step_at_this_rate": round(seconds * scale, 2),
        "days_at_this_rate": None if steps is None else round(seconds * scale * steps / 86_400, 2),
    }


def show(facts: Facts, out: Path | None) -> None:
    """Tables on the terminal; with `out`, also OUT/dry.json."""
    say(
        f"random weights: {', '.join(facts['random']) or 'none'}; pictures are drawn shapes; nothing is learned here"
    )
    columns = {
        name: {stage: row[name] for stage, row in facts["stages"].items()} for name in ("seconds", "peak_gb")
    }
    print_table(f"dry run of {facts['preset']} on {facts['model']}", columns)
    found = dict(facts["found"])
    losses, sample = found.pop("losses"), found.pop("kb_a_sample")
    for number, step in enumerate(losses, start=1):
        found[f"loss of step {number}"] = " ".join(f"{name} {value:.4g}" for name, value in step.items())
    found |= {f"kb a sample, {name}": value for name, value in sample.items()}
    print_table("what was run", {"": found})
    print_table("the whole, reckoned from it", {"": facts["full_run"]})
    if out is not None:
        try:
            write_text(out / "dry.json", json.dumps(facts, indent=1))
        except OSError as error:
            raise RunError(f"cannot write {out / 'dry.json'}: {error.strerror or error}") from error
        say(f"wrote {out / 'dry.json'}; the run is {out / 'run'}")
