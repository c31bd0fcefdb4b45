"""Starting from another run: finetuning at the same shape, or growing to a larger one; and going on with the same."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from cf_encoders import Vocabulary
from cf_encoders.tokenizer import SPECIALS
from torch import Tensor, nn

from cf_apps.engine.codecs import with_constants_of
from cf_apps.engine.commands.app import task_run
from cf_apps.engine.errors import ConfigError
from cf_apps.engine.saving.checkpoint import checkpoints
from cf_apps.engine.saving.export import last_averaged, load_into
from cf_apps.engine.saving.state import named_tensors
from cf_apps.engine.seeds import step_generator
from cf_apps.t2i.config import T2IConfig
from cf_apps.t2i.grow import doublings_between, grown_tensors
from cf_apps.t2i.model import SAMPLING_PARTS, T2IModel


@dataclass(frozen=True)
class Origin:
    """The run that a new one starts from: its averaged weights, its config, and its words where they were learned.

    tensors: None where the run itself goes on, whose checkpoint the engine loads.
    """

    run: Path
    tensors: Mapping[str, Tensor] | None
    config: T2IConfig
    words: list[str] | None

    @classmethod
    def read(cls, run: Path) -> "Origin":
        """A run folder of `crossflow t2i`, imported ones included. Raises RunError, CheckpointError as sampling does.

        The last checkpoint is taken where there is one: it has what only trains the encoder, and in full precision.
        """
        tensors, record = task_run(run, "t2i")
        if checkpoints(run):
            _, tensors = last_averaged(run)
        task = record["task"]
        return cls(run.resolve(), tensors, T2IConfig.from_dict(task["config"]), task["vocabulary"])

    @classmethod
    def resumed(cls, run: Path, task: Mapping[str, Any]) -> "Origin":
        """What a run that goes on measured and learned from its data when it began. task: as `begun` gives it."""
        return cls(run.resolve(), None, T2IConfig.from_dict(task["config"]), task["vocabulary"])

    def adopted(self, config: T2IConfig) -> T2IConfig:
        """The config of the new run with what it takes from the old one: the codec's measured constants, which the
        weights are tied to, and the paths of frozen models where none are given.

        Raises ConfigError where the two models are of different kinds.
        """
        own = self.config
        for what, here, there in (
            ("the source", _source(config), _source(own)),
            ("the language model", config.language.name, own.language.name),
            ("the codec", config.codec.name, own.codec.name),
        ):
            if here != there:
                raise ConfigError(
                    f"init: {what} of {self.run} is {there}, here it is {here}; choose the same"
                )
        codec = replace(config.codec, path=config.codec.path or own.codec.path)
        codec = with_constants_of(codec, own.codec)
        language = replace(config.language, path=config.language.path or own.language.path)
        init = own.init if self.tensors is None else str(self.run)
        return replace(config, codec=codec, language=language, init=init)

    def vocabulary(self) -> Vocabulary | None:
        """The words that the run learned; None where its language model was frozen."""
        return None if self.words is None else Vocabulary(self.words[len(SPECIALS) :])

    def copy_into(self, model: T2IModel, seed: int) -> list[str]:
        """Load the weights, grown where the new model is larger. Returns the parts that start fresh.

        What drawing needs must be there and fit (CheckpointError names what does not). But when a model grows, layers
        of the text encoder that have no smaller twin start fresh, as in the public code. So does what only trains the
        encoder where the run has nothing of that shape.
        """
        try:
            doublings = doublings_between(self.config, model.config)
        except ConfigError as error:
            raise ConfigError(f"init: {self.run}: {error}") from error
        tensors = dict(self.tensors or {})
        strict = [name for name in SAMPLING_PARTS if name in model.modules]
        if doublings:
            generator = step_generator("cpu", seed, doublings)
            tensors = grown_tensors(tensors, self.config, model.config, doublings, generator)
            strict.remove("text_ve")
        load_into(nn.ModuleDict({name: model.modules[name] for name in strict}), tensors, str(self.run))
        loose = nn.ModuleDict({name: part for name, part in model.modules.items() if name not in strict})
        return _load_what_fits(loose, tensors)

    def note(self, fresh: list[str]) -> dict[str, Any]:
        """For the new run's log."""
        return {"event": "started from another run", "run": str(self.run), "fresh": fresh}

    def said(self, fresh: list[str], captions: list[str]) -> list[str]:
        """For people: which parts start fresh, and which words the run never learned."""
        lines = (
            [f"these parts start fresh, {self.run} has none that fit: {', '.join(fresh)}"] if fresh else []
        )
        vocabulary = self.vocabulary()
        unknown = list(vocabulary.unknown(captions)) if vocabulary is not None else []
        if unknown:
            some = ", ".join(unknown[:5])
            lines.append(f"{len(unknown)} words are not among those that {self.run} learned, e.g. {some}")
        return lines


def _source(config: T2IConfig) -> str:
    return "noise" if config.from_noise else "text"


@torch.no_grad()
def _load_what_fits(modules: nn.ModuleDict, tensors: Mapping[str, Tensor]) -> list[str]:
    """Copy the tensors of equal name and shape; returns what was left as drawn: whole parts, or layers of parts."""
    own = named_tensors(modules)
    fitting = {name for name, t in own.items() if name in tensors and tensors[name].shape == t.shape}
    for name in fitting:
        own[name].copy_(tensors[name])
    begun = {name.split(".")[0] for name in fitting}
    fresh = (name for name in own if name not in fitting)
    return list(
        dict.fromkeys(
            name.rpartition(".")[0] if name.split(".")[0] in begun else name.split(".")[0] for name in fresh
        )
    )
