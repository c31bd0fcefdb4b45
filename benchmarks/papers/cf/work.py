"""What has to be done for some tables, and doing it: train once, measure, write down, go on where one stopped.

Under torchrun every rank does all of it together; rank 0 alone reads and writes what is there, and tells the others.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cf_apps.engine.commands.app import train
from cf_apps.engine.commands.recipe import TrainRequest
from cf_apps.engine.device import describe_device
from cf_apps.engine.ranks.spread import spread_over
from cf_apps.engine.ranks.world import World
from cf_apps.engine.run import commit
from cf_apps.engine.saving.checkpoint import checkpoints
from cf_apps.engine.watching.report import say

from cf.scale import Scale, Trained
from cf.spec import Ready, Table
from cf.store import Store

RECIPE = "recipe"  # the name of the only preset of an app that trains a recipe of ours


@dataclass(frozen=True)
class Todo:
    """One training with one seed, and what tables ask of it: name of the measure -> name that it is stored by."""

    name: str
    ready: Ready
    seed: int
    measures: Mapping[str, str]

    @property
    def key(self) -> str:
        return self.ready.key(self.seed)

    def missing(self, store: Store) -> list[str]:
        return [name for name, stored in self.measures.items() if not store.has(self.key, stored, self.seed)]


def todos(tables: Iterable[Table], scale: Scale) -> list[Todo]:
    """Every training of the tables once, seed after seed: after the first seeds every table has a first row."""
    wanted: dict[str, tuple[str, Ready, dict[str, str]]] = {}
    for row in (row for table in tables for row in table.rows):
        ready = scale.ready(row.training)
        _, _, measures = wanted.setdefault(ready.key(0), (scale.name_of(row.training), ready, {}))
        measures[row.measure] = scale.stored(row.measure, ready)
    return [
        Todo(name, ready, seed, measures)
        for seed in range(scale.seeds)
        for name, ready, measures in wanted.values()
    ]


def work(todo: list[Todo], scale: Scale, store: Store, world: World) -> int:
    """Do what is missing and nobody else is at; how many trainings were worked on."""
    done = 0
    for place, each in enumerate(todo, 1):
        if not world.on_main(lambda each=each: each.missing(store)):
            continue
        with _claimed(each.key, store, world) as mine:
            if mine and (missing := world.on_main(lambda each=each: each.missing(store))):
                if world.main:
                    say(f"[{place}/{len(todo)}] {each.name}, seed {each.seed}: {', '.join(missing)}")
                _worked(each, missing, scale, store, world)
                done += 1
    return done


@contextmanager
def _claimed(key: str, store: Store, world: World) -> Iterator[bool]:
    """Whether these ranks may work on it together; rank 0 holds the lock."""
    with ExitStack() as stack:
        yield world.on_main(lambda: stack.enter_context(store.claimed(key)))


def _worked(todo: Todo, missing: list[str], scale: Scale, store: Store, world: World) -> None:
    run, seconds = trained(todo.ready, todo.seed, store, world)
    finished = Trained(run, todo.seed, world.device, replace(scale, data=todo.ready.recipe.data))
    for measure in missing:
        start = time.monotonic()
        with spread_over(world):
            columns = scale.measures[measure](finished)
        record = {
            "training": todo.name,
            "measure": measure,
            "seed": todo.seed,
            "scale": scale.name,
            "steps": todo.ready.recipe.fit.steps,
            "batch": todo.ready.recipe.fit.batch_size,
            "train_seconds": round(seconds, 1),
            "measure_seconds": round(time.monotonic() - start, 1),
            "commit": commit(),
            **describe_device(world.device),
            "columns": {name: dict(numbers) for name, numbers in columns.items()},
        }
        if world.main:
            store.write(todo.key, todo.measures[measure], todo.seed, record)


def trained(ready: Ready, seed: int, store: Store, world: World) -> tuple[Path, float]:
    """The run folder of a training, made now if it is not there, and its training time in seconds."""
    run = store.run(ready.key(seed))
    changes: dict[str, Any] = {}
    if ready.needs is not None:
        first, _ = trained(ready.needs, seed, store, world)
        changes["text"] = str(first.resolve())
    before = world.on_main(lambda: bool(checkpoints(run)))
    app = replace(ready.app, presets={RECIPE: _always(ready.recipe)}, default=RECIPE)
    request = TrainRequest(RECIPE, run, seed=seed, resume=before, overrides=changes)
    result = train(app, request, world.device, RECIPE, world)  # at its end already: exports it again
    return run, result.elapsed


def _always(value: Any) -> Callable[[], Any]:
    return lambda: value


def collected(table: Table, scale: Scale, store: Store) -> Mapping[str, list[dict[str, Any]]]:
    """The records of each row, those of seeds that are there and have the row's column."""
    found = {}
    for row in table.rows:
        ready = scale.ready(row.training)
        measure = scale.stored(row.measure, ready)
        records = [store.read(ready.key(seed), measure, seed) for seed in range(scale.seeds)]
        found[row.name] = [
            {**record, "numbers": record["columns"][row.column]}
            for record in records
            if record is not None and row.column in record["columns"]
        ]
    return found
