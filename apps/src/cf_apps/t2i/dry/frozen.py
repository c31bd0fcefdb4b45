"""Language models and codecs of random weights, in the files that the real ones come in: what a dry run reads.

The sizes are those of the published models. Tokenizers know letters only, so a caption has at least as many tokens here
as with the real one: shards come out as large as they can get.
"""

import string
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from cf_apps.engine.errors import ConfigError
from cf_apps.t2i.config import T2IConfig
from cf_apps.t2i.model import WITHOUT_PATH

LETTERS = string.ascii_lowercase + string.digits + ",.-'"


def random_parts(config: T2IConfig, folder: Path, layers: int | None, seed: int) -> dict[str, str]:
    """Write the frozen parts that the config names without a path; returns the keys to set, with their paths.

    layers: the most blocks of each (an image codec's: of each resolution); None for the real depth.
    Raises ConfigError for a part that no random one is known of, or whose library is not installed.
    """
    wanted = {
        "language": (config.language.name, config.language.path, LANGUAGE_MODELS),
        "codec": (config.codec.name, config.codec.path, CODECS),
    }
    made: dict[str, str] = {}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for part, (name, path, known) in wanted.items():
            if path is not None or name in WITHOUT_PATH:
                continue
            if name not in known:
                raise ConfigError(
                    f"a dry run has no random {part} {name}, only {', '.join(known)}; give --set {part}.path=PATH"
                )
            where = folder / part
            where.mkdir(parents=True)
            try:
                known[name](where, layers)
            except ImportError as error:
                raise ConfigError(f"a random {part} {name} needs a library: {error}") from error
            made[f"{part}.path"] = str(where)
    return made


def _cut(n: int, layers: int | None) -> int:
    return n if layers is None else min(n, layers)


def clip_text(folder: Path, layers: int | None) -> None:
    """The text encoder of CLIP ViT-L/14: 12 layers, 768 wide, 77 tokens."""
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    start, end = ends = ("<|startoftext|>", "<|endoftext|>")
    tokens = [*LETTERS, *(f"{letter}</w>" for letter in LETTERS), *ends]
    vocabulary = {token: i for i, token in enumerate(tokens)}
    CLIPTokenizer(vocab=vocabulary, merges=[]).save_pretrained(folder)
    config = CLIPTextConfig(
        hidden_size=768,
        intermediate_size=3072,
        projection_dim=768,
        num_hidden_layers=_cut(12, layers),
        num_attention_heads=12,
        bos_token_id=vocabulary[start],
        eos_token_id=vocabulary[end],
        pad_token_id=vocabulary[end],
    )
    _save(CLIPTextModel(config), folder)


def t5_encoder(folder: Path, layers: int | None) -> None:
    """The encoder of T5 v1.1 XXL: 24 layers, 4096 wide."""
    from transformers import T5Config, T5EncoderModel, T5Tokenizer

    pieces = ["<pad>", "</s>", "<unk>", "\N{LOWER ONE EIGHTH BLOCK}", *LETTERS]
    T5Tokenizer(vocab=[(piece, -1.0) for piece in pieces]).save_pretrained(folder)
    config = T5Config(
        d_model=4096,
        d_kv=64,
        d_ff=10_240,
        num_layers=_cut(24, layers),
        num_heads=64,
        feed_forward_proj="gated-gelu",
    )
    _save(T5EncoderModel(config), folder)


def llama(folder: Path, layers: int | None) -> None:
    """Llama 3 8B without its output layer: 32 layers, 4096 wide."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaModel, PreTrainedTokenizerFast

    bos, eos = "<|begin_of_text|>", "<|end_of_text|>"
    tokens = [*sorted(pre_tokenizers.ByteLevel.alphabet()), bos, eos]
    backend = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate(tokens)}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    PreTrainedTokenizerFast(tokenizer_object=backend, bos_token=bos, eos_token=eos).save_pretrained(folder)
    config = LlamaConfig(
        vocab_size=128_256,
        hidden_size=4096,
        intermediate_size=14_336,
        num_hidden_layers=_cut(32, layers),
        num_attention_heads=32,
        num_key_value_heads=8,
        bos_token_id=tokens.index(bos),
        eos_token_id=tokens.index(eos),
    )
    _save(LlamaModel(config), folder)


def stable_diffusion_vae(folder: Path, layers: int | None) -> None:
    """The autoencoder of Stable Diffusion: 4 channels, an eighth of each side."""
    import diffusers

    build: Any = getattr(diffusers, "AutoencoderKL")  # noqa: B009 - its own annotations are wrong
    autoencoder = build(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(128, 256, 512, 512),
        layers_per_block=_cut(2, layers),
        latent_channels=4,
        sample_size=512,
    )
    autoencoder.save_pretrained(folder)


def _save(network: Any, folder: Path) -> None:
    """In half precision: half to write, and random weights lose nothing."""
    network.to(torch.bfloat16).save_pretrained(folder)


Make = Callable[[Path, int | None], None]
LANGUAGE_MODELS: dict[str, Make] = {
    "clip": clip_text,
    "t5": t5_encoder,
    "t5-released": t5_encoder,
    "llama": llama,
}
CODECS: dict[str, Make] = {"sd-vae": stable_diffusion_vae, "released-vae": stable_diffusion_vae}
