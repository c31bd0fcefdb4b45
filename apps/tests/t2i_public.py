"""Public CrossFlow checkpoints of random weights and tiny widths, and the frozen models that go with them."""

import json
from pathlib import Path

import torch
from cf_encoders import TextVE, TextVEConfig
from cf_encoders.public_weights import to_public as text_ve_to_public
from cf_transformer import DiMR, DiMRConfig, DiT, DiTConfig, StageConfig
from cf_transformer.public_dit import to_public_dit
from cf_transformer.public_weights import to_public as dimr_to_public
from torch import Tensor, nn

WIDTH = 32  # of the text encoder; its 8 heads must divide 32, 16 and 8
T5_WIDTH = 40
LATENT = (4, 8, 8)
STAGES = (StageConfig("transformer", 32, 3, patch=2, n_heads=16), StageConfig("convnext", 6, 1, patch=1))
DIMR = DiMRConfig(4, (8, 8), STAGES, indicator="released")
DIT = DiTConfig(4, (8, 8), d_model=40, n_blocks=2, n_heads=20, time_scale=1.0)
CLIP_VE = TextVEConfig(
    WIDTH, 77, LATENT, kind="released", width=WIDTH, heads=8, depth=2, bottleneck=4, dropout=0.1
)
T5_VE = TextVEConfig(
    T5_WIDTH, 77, LATENT, kind="released", width=WIDTH, heads=8, depth=1, bottleneck=4, dropout=0.1
)
TOWER = {
    "open_clip.logit_scale": torch.tensor(2.659),
    "open_clip.visual.trunk.norm.bias": torch.zeros(5),
    "open_clip_output.fc1.bias": torch.zeros(7),
}
LETTERS = "abcdefghijklmnopqrstuvwxyz"
SENTENCE_ENDS = ["<|startoftext|>", "<|endoftext|>"]


def shaken(model: nn.Module, seed: int) -> nn.Module:
    """Every parameter away from where it starts: zeros and ones would hide a swap."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return model


def public_state(
    backbone: DiMRConfig | DiTConfig = DIMR, text_ve: TextVEConfig = CLIP_VE
) -> dict[str, Tensor]:
    """A whole public checkpoint: network, text encoder, and some of the image tower."""
    torch.manual_seed(0)
    if isinstance(backbone, DiTConfig):
        network = to_public_dit(shaken(DiT(backbone), 1))
    else:
        network = dimr_to_public(shaken(DiMR(backbone), 1))
    return network | text_ve_to_public(shaken(TextVE(text_ve), 2)) | TOWER


def write_checkpoint(path: Path, state: dict[str, Tensor] | None = None) -> Path:
    torch.save(public_state() if state is None else state, path)
    return path


def write_clip(folder: Path) -> Path:
    """A random CLIP text encoder, WIDTH wide, whose tokens are letters."""
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    folder.mkdir(parents=True)
    tokens = [*LETTERS, *(f"{letter}</w>" for letter in LETTERS), *SENTENCE_ENDS]
    (folder / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate(tokens)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    CLIPTokenizer.from_pretrained(folder).save_pretrained(folder)
    start, end = (tokens.index(token) for token in SENTENCE_ENDS)
    config = CLIPTextConfig(
        vocab_size=len(tokens),
        hidden_size=WIDTH,
        intermediate_size=16,
        projection_dim=8,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=77,
        bos_token_id=start,
        eos_token_id=end,
        pad_token_id=end,
    )
    torch.manual_seed(3)
    shaken(CLIPTextModel(config), 3).save_pretrained(folder)
    return folder


def write_t5(folder: Path) -> Path:
    """A random T5 v1.1 encoder, T5_WIDTH wide, whose tokens are letters."""
    from transformers import T5Config, T5EncoderModel, T5Tokenizer

    space = "\N{LOWER ONE EIGHTH BLOCK}"
    pieces = ["<pad>", "</s>", "<unk>", space, *LETTERS]
    T5Tokenizer(vocab=[(piece, -1.0) for piece in pieces]).save_pretrained(folder)
    config = T5Config(
        vocab_size=len(pieces),
        d_model=T5_WIDTH,
        d_kv=8,
        d_ff=16,
        num_layers=2,
        num_heads=4,
        feed_forward_proj="gated-gelu",
    )
    torch.manual_seed(5)
    shaken(T5EncoderModel(config), 5).save_pretrained(folder)
    return folder


def write_autoencoder(folder: Path) -> Path:
    """A random AutoencoderKL that shrinks by 8, as the public one, with 4 channels everywhere."""
    from diffusers import AutoencoderKL

    torch.manual_seed(4)
    autoencoder = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(4, 4, 4, 4),
        layers_per_block=1,
        norm_num_groups=2,
        latent_channels=4,
    )
    shaken(autoencoder, 4).save_pretrained(folder)
    return folder
