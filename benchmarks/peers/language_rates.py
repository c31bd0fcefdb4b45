"""Frozen language models from captions to features, against their network alone and transformers' own way."""

import random
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from cf_encoders import MiniLM
from cf_encoders.language_models.clip import ClipText
from cf_encoders.language_models.frozen import FrozenEncoder
from cf_encoders.language_models.minilm import packaged_folder
from torch import Tensor
from turns import in_turns, median_ms, median_ratio

LARGEST_ERROR = 1e-3  # of a feature in fp32: rounding in another order


@dataclass(frozen=True)
class Rate:
    """A frozen language model: captions to features, over its network alone and over transformers' own way."""

    model: str
    b: int
    ms: float
    over_network: float
    over_transformers: float


def captions(b: int) -> list[str]:
    """Of about COCO's length, in words that CLIP and MiniLM know."""
    draw = random.Random(0)
    nouns = ("man", "dog", "table", "street", "bus", "kitchen", "bird", "bench", "pizza", "train")
    pattern = "A {} {} with a {} in front of a {} {}."
    colours = ("red", "small", "wooden", "white", "old", "black")
    return [
        pattern.format(
            draw.choice(colours), draw.choice(nouns), *draw.choices(nouns, k=2), draw.choice(nouns)
        )
        for _ in range(b)
    ]


def random_clip(folder: Path) -> None:
    """CLIP ViT-L/14's text encoder with random weights and CLIP's real vocabulary, as it lies on the hub."""
    import open_clip
    import transformers

    torch.manual_seed(0)
    size = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12}
    transformers.CLIPTextModel(transformers.CLIPTextConfig(**size)).save_pretrained(folder)
    bpe = open_clip.SimpleTokenizer()
    ends = {"<start_of_text>": "<|startoftext|>", "<end_of_text>": "<|endoftext|>"}
    vocabulary = {ends.get(token, token): i for token, i in bpe.encoder.items()}
    merges = sorted(bpe.bpe_ranks, key=bpe.bpe_ranks.__getitem__)
    transformers.CLIPTokenizer(vocab=vocabulary, merges=merges).save_pretrained(folder)


def own_way(folder: Path, bare: Any, tell_mask: bool, n: int) -> Callable[[list[str]], Tensor]:
    """transformers: its tokenizer, padded to the same length, then its model."""
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)

    @torch.no_grad()
    def encode(texts: list[str]) -> Tensor:
        read = tokenizer(texts, padding="max_length", truncation=True, max_length=n, return_tensors="pt")
        given = {"input_ids": read["input_ids"]} | (
            {"attention_mask": read["attention_mask"]} if tell_mask else {}
        )
        return bare(**given).last_hidden_state

    return encode


def rate(name: str, model: FrozenEncoder, own: Callable[[list[str]], Tensor], b: int, repeats: int) -> Rate:
    """Three ways from the same captions, or their ready ids, to the same features; these are compared first."""
    texts = captions(b)
    found = model(texts)
    error = (found.tokens - own(texts))[found.mask].abs().max().item()
    if not error < LARGEST_ERROR:
        raise ArithmeticError(f"{name}'s features are off transformers' own by {error:g}")
    ids = model.tokenizer(texts).clamp(min=0)

    @torch.no_grad()
    def network() -> Tensor:
        return model.hidden_states(ids, found.mask)

    tasks = {"ours": lambda: model(texts), "network": network, "transformers": lambda: own(texts)}
    turns = in_turns(tasks, repeats)
    return Rate(
        name,
        b,
        median_ms(turns, "ours"),
        median_ratio(turns, "ours", "network"),
        median_ratio(turns, "ours", "transformers"),
    )


def language_models(b: int, repeats: int) -> list[Rate]:
    """MiniLM with its real weights, CLIP ViT-L/14's text encoder with random ones."""
    import transformers

    folder = packaged_folder()
    model, bare = MiniLM(folder), transformers.BertModel.from_pretrained(folder, local_files_only=True).eval()
    rates = [rate("minilm", model, own_way(folder, bare, True, model.max_tokens), b, repeats)]
    with tempfile.TemporaryDirectory() as name:
        random_clip(Path(name))
        clip = ClipText(name)
        rates.append(
            rate("clip", clip, own_way(Path(name), clip.network, False, clip.max_tokens), b, repeats)
        )
    return rates


RATE_HEAD = f"{'model':20}{'b':>4}{'ms':>9}{'over its network':>18}{'over transformers':>19}"


def rate_line(row: Rate) -> str:
    """One language model, in columns."""
    return f"{row.model:20}{row.b:4}{row.ms:9.0f}{row.over_network:18.3f}{row.over_transformers:19.3f}"
