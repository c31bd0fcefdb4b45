"""Llama's hidden states (Llama 3, Meta 2024) through transformers: the paper's 8B, 4096 wide, or any other."""

from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from cf_encoders.language_models.fast_tokenizer import FastTokenizer
from cf_encoders.language_models.frozen import FrozenEncoder
from cf_encoders.language_models.model_folder import ModelFolder, known_id
from cf_encoders.located import needs


class LlamaText(FrozenEncoder):
    """Captions -> last hidden states after the final norm: (b, 77, 4096) for 8B   (CrossFlow Table 3c)

    A caption is read as `<bos> caption <eos>`, also when it is cut. Llama's own tokenizer adds the first of the two
    and not the second; here the second is added, because attention is causal and the last token is the only one
    that has read the whole caption. Padding comes after it. Llama has no padding token: `pad_token` names one, and
    without it the tokenizer's own or else <eos> is fed. No token sees it, so no token's features depend on it.

    `path`: a folder or hub id. The output layer is never built. Errors: FileNotFoundError, ValueError for another
    architecture or an unknown token, ImportError.
    """

    def __init__(
        self,
        path: Path | str,
        max_tokens: int = 77,
        *,
        pad_token: str | None = None,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
        batch_size: int = 64,
    ) -> None:
        folder = ModelFolder.find(path, "LlamaModel")
        tokenizer, network = folder.tokenizer(), folder.network(dtype)
        pad_token = pad_token or tokenizer.pad_token or tokenizer.eos_token
        reader = FastTokenizer(
            framed(tokenizer),
            max_tokens,
            pad_id=known_id(tokenizer, pad_token, "pad"),
            eos_id=known_id(tokenizer, tokenizer.eos_token, "eos"),
            limit=network.config.max_position_embeddings,
        )
        width = network.config.hidden_size
        super().__init__(network, reader, width, about=folder.about, device=device, batch_size=batch_size)

    def hidden_states(self, ids: Int[Tensor, "b n"], mask: Bool[Tensor, "b n"]) -> Float[Tensor, "b n d"]:
        return self.network(input_ids=ids, use_cache=False).last_hidden_state


def framed(tokenizer: Any) -> Any:
    """A copy of its backend that reads `<bos> caption <eos>`, whatever its files say."""
    processors = needs("tokenizers.processors", "transformers")
    bos, eos = tokenizer.bos_token, tokenizer.eos_token
    ids = [(token, known_id(tokenizer, token, what)) for token, what in ((bos, "bos"), (eos, "eos"))]
    backend = type(tokenizer.backend_tokenizer).from_str(tokenizer.backend_tokenizer.to_str())
    backend.post_processor = processors.TemplateProcessing(single=[bos, "$A", eos], special_tokens=ids)
    return backend
