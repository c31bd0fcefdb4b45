"""BERT's encoder (Devlin et al. 2018), the part MiniLM is: post-norm layers over words and positions.

Written out here because importing transformers costs more than ten seconds and these are forty lines.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from cf_encoders.layers import attend

# published name -> name here, in the order they are applied
RENAMES = (
    (r"^encoder\.layer\.", "layers."),
    (r"^embeddings\.word_embeddings\.", "words."),
    (r"^embeddings\.position_embeddings\.", "positions."),
    (r"^embeddings\.token_type_embeddings\.", "segments."),
    (r"^embeddings\.LayerNorm\.", "norm."),
    (r"\.attention\.self\.(query|key|value)\.", r".\1."),
    (r"\.attention\.output\.dense\.", ".attended."),
    (r"\.attention\.output\.LayerNorm\.", ".attention_norm."),
    (r"\.intermediate\.dense\.", ".wide."),
    (r"\.output\.dense\.", ".narrow."),
    (r"\.output\.LayerNorm\.", ".feed_forward_norm."),
)
LEFT_OUT = ("pooler.", "embeddings.position_ids")  # the pooled sentence vector is not a token


@dataclass(frozen=True)
class BertSize:
    """The fields of a published BERT config.json that decide the shape of the network."""

    vocab_size: int
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int
    max_position_embeddings: int
    type_vocab_size: int
    layer_norm_eps: float

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "BertSize":
        """The other fields of the file (dropout, file formats) do not matter for a frozen encoder."""
        return cls(**{name: config[name] for name in cls.__dataclass_fields__})


class Bert(nn.Module):
    """Word ids (b, n) and their mask -> last hidden states (b, n, hidden_size). Exact GELU, no dropout."""

    def __init__(self, size: BertSize) -> None:
        super().__init__()
        width = size.hidden_size
        self.words = nn.Embedding(size.vocab_size, width)
        self.positions = nn.Embedding(size.max_position_embeddings, width)
        self.segments = nn.Embedding(size.type_vocab_size, width)
        self.norm = nn.LayerNorm(width, eps=size.layer_norm_eps)
        self.layers = nn.ModuleList(BertLayer(size) for _ in range(size.num_hidden_layers))

    def forward(self, ids: Int[Tensor, "b n"], mask: Bool[Tensor, "b n"]) -> Float[Tensor, "b n d"]:
        x = self.words(ids) + self.positions.weight[: ids.shape[1]] + self.segments.weight[0]
        x = self.norm(x)
        for layer in self.layers:
            x = layer(x, mask)
        return x

    def load_published(self, state: Mapping[str, Tensor]) -> None:
        """Load a state dict with the published names; strict but for the pooler."""
        kept = {name: weight for name, weight in state.items() if not name.startswith(LEFT_OUT)}
        self.load_state_dict({rename(name): weight for name, weight in kept.items()})


class BertLayer(nn.Module):
    """LN(x + attention(x)), then LN(x + feed-forward(x))."""

    def __init__(self, size: BertSize) -> None:
        super().__init__()
        width, eps = size.hidden_size, size.layer_norm_eps
        self.heads = size.num_attention_heads
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.attended, self.attention_norm = nn.Linear(width, width), nn.LayerNorm(width, eps=eps)
        self.wide = nn.Linear(width, size.intermediate_size)
        self.narrow = nn.Linear(size.intermediate_size, width)
        self.feed_forward_norm = nn.LayerNorm(width, eps=eps)

    def forward(self, x: Float[Tensor, "b n d"], mask: Bool[Tensor, "b n"]) -> Float[Tensor, "b n d"]:
        q, k, v = (
            rearrange(linear(x), "b n (k d) -> b k n d", k=self.heads)
            for linear in (self.query, self.key, self.value)
        )
        attended = self.attended(rearrange(attend(q, k, v, mask), "b k n d -> b n (k d)"))
        x = self.attention_norm(x + attended)
        return self.feed_forward_norm(x + self.narrow(F.gelu(self.wide(x))))


def rename(name: str) -> str:
    """`encoder.layer.0.attention.self.query.weight` -> `layers.0.query.weight`"""
    for pattern, ours in RENAMES:
        name = re.sub(pattern, ours, name)
    return name
