"""CLIP's text encoder through open_clip: the same token features as `clip.py` from the same weights."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from cf_encoders.language_models.fast_tokenizer import PADDING, require_room
from cf_encoders.language_models.frozen import FrozenEncoder
from cf_encoders.located import needs

HUB, FOLDER = "hf-hub:", "local-dir:"
# open_clip's names; "fp16" and "bf16" keep its LayerNorms and embeddings in float32
PRECISIONS = {
    torch.float64: "fp32",
    torch.float32: "fp32",
    torch.bfloat16: "bf16",
    torch.float16: "fp16",
}


class OpenClipText(FrozenEncoder):
    """Captions -> hidden states after ln_final, before pooling: (b, 77, 768) for ViT-L-14   (CrossFlow sec. 5.1)

    model        an architecture of open_clip with `checkpoint`, its local weight file; or `hf-hub:owner/name`; or a
                 local folder with open_clip_config.json, alone. OpenAI's weights were trained with QuickGELU: their
                 architecture is ViT-L-14-quickgelu.
    max_tokens   None: all positions the model has, 77.

    Padding is filled with the end-of-text token, as transformers does and the public code with it; open_clip itself
    fills with 0. Attention is causal, so no token sees either. Only towers with CLIP's own tokenizer and causal
    attention are taken, ValueError for others. Errors also: FileNotFoundError, ImportError.
    """

    def __init__(
        self,
        model: Path | str,
        checkpoint: Path | str | None = None,
        max_tokens: int | None = None,
        *,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
        batch_size: int = 64,
    ) -> None:
        open_clip = needs("open_clip", "open-clip")
        if dtype not in PRECISIONS:
            raise ValueError(f"open_clip has no {dtype}; known: {', '.join(map(str, PRECISIONS))}")
        name = model_name(open_clip, model, checkpoint)
        tokenizer = open_clip.get_tokenizer(name)
        if not isinstance(tokenizer, open_clip.SimpleTokenizer):
            raise ValueError(f"{name} reads with a {type(tokenizer).__name__}, not with CLIP's own tokenizer")
        tower = TextTower(load(open_clip, name, checkpoint, dtype))
        reader = OpenClipTokenizer(tokenizer, max_tokens or tower.limit, tower.limit)
        super().__init__(tower, reader, tower.width, about=str(tower), device=device, batch_size=batch_size)

    def hidden_states(self, ids: Int[Tensor, "b n"], mask: Bool[Tensor, "b n"]) -> Float[Tensor, "b n d"]:
        return self.network(ids)


class TextTower(nn.Module):
    """The text half of an open_clip model, without what comes after ln_final. The image half can be forgotten."""

    causal: Tensor

    def __init__(self, clip: Any) -> None:
        super().__init__()
        text = clip.text if isinstance(getattr(clip, "text", None), nn.Module) else clip
        mask = getattr(text, "attn_mask", None)
        if mask is None or getattr(text, "cls_emb", None) is not None:
            raise ValueError(
                f"the text tower of this {type(clip).__name__} is not CLIP's: no causal mask, or a class token"
            )
        self.token_embedding, self.transformer, self.ln_final = (
            text.token_embedding,
            text.transformer,
            text.ln_final,
        )
        self.positional_embedding = text.positional_embedding
        self.register_buffer("causal", mask, persistent=False)
        self.limit, self.width = self.positional_embedding.shape

    def forward(self, ids: Int[Tensor, "b n"]) -> Float[Tensor, "b n d"]:
        n, dtype = ids.shape[1], self.transformer.get_cast_dtype()
        x = self.token_embedding(ids).to(dtype) + self.positional_embedding[:n].to(dtype)
        return self.ln_final(self.transformer(x, attn_mask=self.causal[:n, :n]))


class OpenClipTokenizer:
    """open_clip's tokenizer, with PADDING where its end-of-text token has passed."""

    def __init__(self, tokenizer: Any, max_tokens: int, limit: int) -> None:
        require_room(max_tokens, 3, limit)
        self.tokenizer, self.max_tokens = tokenizer, max_tokens
        self.pad_id = tokenizer.eot_token_id

    @property
    def description(self) -> str:
        return f"open_clip {type(self.tokenizer).__name__} of {self.tokenizer.vocab_size}, padded with {self.pad_id}"

    def __call__(self, captions: Sequence[str]) -> Int[Tensor, "b n"]:
        ids = self.tokenizer(list(captions), context_length=self.max_tokens)
        is_end = (ids == self.pad_id).long()
        return ids.masked_fill(is_end.cumsum(dim=1) - is_end > 0, PADDING)

    def too_long(self, captions: Sequence[str]) -> list[int]:
        lengths = (len(self.tokenizer.encode(caption)) + 2 for caption in captions)
        return [i for i, length in enumerate(lengths) if length > self.max_tokens]


def model_name(open_clip: Any, model: Path | str, checkpoint: Path | str | None) -> str:
    """What open_clip calls it; an error for what it would take for something else or would fetch by itself."""
    if Path(model).is_dir() and checkpoint is None:
        if not (Path(model) / "open_clip_config.json").is_file():
            raise FileNotFoundError(f"no open_clip model in {model}: open_clip_config.json missing")
        return f"{FOLDER}{model}"
    name = str(model)
    if name.startswith((HUB, FOLDER)):
        if checkpoint is not None:
            raise ValueError(f"{name} brings its own weights; leave checkpoint={str(checkpoint)!r} out")
        return name
    if name not in open_clip.list_models():
        raise ValueError(
            f"{name!r} is no folder and no open_clip architecture (open_clip.list_models() lists them); "
            f"from the hub it is '{HUB}owner/name'"
        )
    if checkpoint is None or not Path(checkpoint).is_file():
        raise FileNotFoundError(f"architecture {name} needs a local weight file, got checkpoint={checkpoint}")
    return name


def load(open_clip: Any, name: str, checkpoint: Path | str | None, dtype: torch.dtype) -> Any:
    """The whole model on the CPU; ValueError when its weights are missing or another architecture's."""
    source = None if checkpoint is None else str(checkpoint)
    try:
        clip = open_clip.create_model(
            name, pretrained=source, precision=PRECISIONS[dtype], require_pretrained=True
        )
    except RuntimeError as error:
        raise ValueError(
            f"{source or name} does not hold the weights of {name}: {str(error).splitlines()[0]}"
        ) from error
    return clip.double() if dtype == torch.float64 else clip
