"""T5's encoder (Raffel et al. 2020) through transformers: the paper's v1.1-XXL, 4096 wide, or any other."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from cf_encoders.language_models.clean_caption import clean_caption, require_ftfy
from cf_encoders.language_models.fast_tokenizer import FastTokenizer
from cf_encoders.language_models.frozen import FrozenEncoder
from cf_encoders.language_models.model_folder import ModelFolder, known_id


@dataclass(frozen=True)
class T5Variant:
    """How captions are read and features are scaled."""

    cleanings: int
    scale: float


VARIANTS = {
    #                    cleanings  scale
    "plain": T5Variant(          0,   1.0),
    "released": T5Variant(       2,  10.0),
}  # fmt: skip


class T5Text(FrozenEncoder):
    """Captions -> the encoder's last hidden states: (b, 77, 4096) for v1.1-XXL. Padding is masked in its attention.

    variant   "plain": captions and features as they are. "released": what the public CrossFlow weights were trained
              on, captions through `clean_caption` twice and features times 10.

    `path`: a folder or hub id of a whole T5 or of its encoder; the decoder is never built. Float16 is refused,
    because T5's activations overflow in it: use bfloat16. Errors: FileNotFoundError, ValueError for another
    architecture, ImportError.
    """

    def __init__(
        self,
        path: Path | str,
        max_tokens: int = 77,
        *,
        variant: str = "plain",
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
        batch_size: int = 64,
    ) -> None:
        if variant not in VARIANTS:
            raise ValueError(f"unknown T5 variant {variant!r}; known: {', '.join(VARIANTS)}")
        if dtype == torch.float16:
            raise ValueError("T5 overflows in torch.float16; use dtype=torch.bfloat16 or torch.float32")
        chosen = VARIANTS[variant]
        read = reading(chosen.cleanings)
        folder = ModelFolder.find(path, "T5EncoderModel")
        tokenizer, network = folder.tokenizer(), folder.network(dtype)
        reader = FastTokenizer(
            tokenizer.backend_tokenizer,
            max_tokens,
            pad_id=known_id(tokenizer, tokenizer.pad_token, "pad"),
            eos_id=known_id(tokenizer, tokenizer.eos_token, "eos"),
            read=(f"cleaned {chosen.cleanings} times", read),
        )
        about = f"{folder.about}; times {chosen.scale}"
        width = network.config.d_model
        super().__init__(network, reader, width, about=about, device=device, batch_size=batch_size)
        self.variant, self.scale = variant, chosen.scale

    def hidden_states(self, ids: Int[Tensor, "b n"], mask: Bool[Tensor, "b n"]) -> Float[Tensor, "b n d"]:
        return self.network(input_ids=ids, attention_mask=mask.long()).last_hidden_state * self.scale


def reading(cleanings: int) -> Callable[[str], str]:
    """`clean_caption` applied this often. ImportError now, not at the first caption, when it lacks its library."""
    if cleanings:
        require_ftfy()
    return partial(_cleaned, times=cleanings)


def _cleaned(caption: str, times: int) -> str:
    for _ in range(times):
        caption = clean_caption(caption)
    return caption
