"""CLIP's text encoder (Radford et al. 2021) through transformers: the paper's ViT-L/14, or any other."""

from pathlib import Path

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from cf_encoders.language_models.fast_tokenizer import FastTokenizer
from cf_encoders.language_models.frozen import FrozenEncoder
from cf_encoders.language_models.model_folder import ModelFolder, known_id


class ClipText(FrozenEncoder):
    """Captions -> last hidden states after the final LayerNorm: (b, 77, 768) for ViT-L/14   (CrossFlow sec. 5.1)

    `path`: a folder or hub id of a whole CLIP or of its text encoder. The network is not told the mask, as in the
    public code: attention is causal, so no token sees the padding behind it. A longer caption loses words, never
    its end-of-text token. Errors: FileNotFoundError, ValueError for another architecture, ImportError.
    """

    def __init__(
        self,
        path: Path | str,
        max_tokens: int = 77,
        *,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
        batch_size: int = 64,
    ) -> None:
        folder = ModelFolder.find(path, "CLIPTextModel")
        tokenizer, network = folder.tokenizer(), folder.network(dtype)
        reader = FastTokenizer(
            tokenizer.backend_tokenizer,
            max_tokens,
            pad_id=known_id(tokenizer, tokenizer.pad_token, "pad"),
            eos_id=known_id(tokenizer, tokenizer.eos_token, "eos"),
            limit=network.config.max_position_embeddings,
        )
        width = network.config.hidden_size
        super().__init__(network, reader, width, about=folder.about, device=device, batch_size=batch_size)

    def hidden_states(self, ids: Int[Tensor, "b n"], mask: Bool[Tensor, "b n"]) -> Float[Tensor, "b n d"]:
        return self.network(input_ids=ids).last_hidden_state
