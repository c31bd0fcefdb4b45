"""A model in transformers' format: config.json, weights and tokenizer files in one folder, local or on the hub."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn

from cf_encoders.located import located, needs

# class that is loaded -> `model_type`s in config.json that hold its weights
MODEL_TYPES = {
    "CLIPTextModel": ("clip", "clip_text_model"),
    "T5EncoderModel": ("t5",),
    "LlamaModel": ("llama",),
}
WEIGHTS = ("*.safetensors", "*.bin")
TOKENIZERS = ("tokenizer.json", "vocab.json", "spiece.model", "tokenizer.model")
FETCHED = ("*.json", "*.txt", "*.model")
# where the folder was, and with what it was written: says nothing of what it computes
PASSING = ("_name_or_path", "transformers_version", "dtype", "torch_dtype", "use_cache", "architectures")


@dataclass(frozen=True)
class ModelFolder:
    """A folder that was found to hold a model of the wanted class, its tokenizer and its weights."""

    path: Path
    wanted: str
    config: dict[str, Any]

    @classmethod
    def find(cls, path: Path | str, wanted: str) -> "ModelFolder":
        """`path`: a local folder, or a hub id such as openai/clip-vit-large-patch14, which is downloaded once.

        FileNotFoundError names what is missing, ValueError the architecture that is there instead of `wanted`.
        """
        folder = local_folder(path)
        if not (folder / "config.json").is_file():
            raise FileNotFoundError(f"no {wanted} in {folder}: config.json missing")
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        if config.get("model_type") not in MODEL_TYPES[wanted]:
            held = (config.get("architectures") or [f"model of type {config.get('model_type')!r}"])[0]
            raise ValueError(f"{folder} holds a {held}, not a {wanted}")
        missing = [
            what
            for what, names in ((" or ".join(WEIGHTS), WEIGHTS), (" or ".join(TOKENIZERS), TOKENIZERS))
            if not any(any(folder.glob(name)) for name in names)
        ]
        if missing:
            raise FileNotFoundError(f"no {wanted} in {folder}: {', and '.join(missing)} missing")
        return cls(folder, wanted, config)

    @property
    def about(self) -> str:
        """What config.json says of the computation, in one line."""
        kept = {key: value for key, value in self.config.items() if key not in PASSING}
        return f"{self.wanted} {json.dumps(kept, sort_keys=True)}"

    def network(self, dtype: torch.dtype) -> Any:
        """The network with its weights in `dtype`, on the CPU. ValueError when the files lack some of them."""
        transformers = needs("transformers", "transformers")
        network_class = getattr(transformers, self.wanted)
        with _quiet(transformers):
            network, report = network_class.from_pretrained(
                self.path, dtype=dtype, output_loading_info=True, local_files_only=True
            )
        # transformers draws what it does not find, and only prints that it did
        if report["missing_keys"]:
            some = ", ".join(sorted(report["missing_keys"])[:5])
            raise ValueError(
                f"{self.path} lacks {len(report['missing_keys'])} weights of {self.wanted}: {some}"
            )
        assert isinstance(network, nn.Module)
        return network

    def tokenizer(self) -> Any:
        """transformers' fast tokenizer of the folder. ValueError when it has none that can be read."""
        transformers = needs("transformers", "transformers")
        try:
            tokenizer = transformers.AutoTokenizer.from_pretrained(self.path, local_files_only=True)
        except Exception as error:  # each tokenizer class has its own
            raise ValueError(
                f"{self.path} has no tokenizer that transformers can read: {str(error).splitlines()[0]} "
                "(a folder without tokenizer.json may need `pip install sentencepiece protobuf`)"
            ) from error
        if not tokenizer.is_fast:
            raise ValueError(f"{self.path} has a slow {type(tokenizer).__name__}; it needs a tokenizer.json")
        return tokenizer


def known_id(tokenizer: Any, token: str | None, what: str) -> int:
    """The token's id; ValueError when the tokenizer does not have it."""
    vocabulary = tokenizer.get_vocab()
    if token not in vocabulary:
        raise ValueError(f"the tokenizer of {tokenizer.name_or_path} has no {what} token {token!r}")
    return vocabulary[token]


def local_folder(path: Path | str) -> Path:
    """A folder as it is; a hub id (`owner/name`) as the folder it was downloaded to."""
    folder = located(path, [*FETCHED, WEIGHTS[0]])
    if not any(folder.glob(WEIGHTS[0])) and not Path(path).is_dir():  # an upload from before safetensors
        folder = located(path, [*FETCHED, WEIGHTS[1]])
    return folder


@contextmanager
def _quiet(transformers: ModuleType) -> Iterator[None]:
    """Without the table of weights that a whole CLIP or T5 has beside its text encoder."""
    before = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity_error()
    try:
        yield
    finally:
        transformers.logging.set_verbosity(before)
