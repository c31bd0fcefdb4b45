"""What a text-to-image config is made of, by part: parameters and multiply-accumulates, without building it."""

import torch
from cf_encoders import ImageTowerConfig, TextVE, TextVEConfig
from cf_transformer import DiMRConfig, count_macs, count_parameters
from torch import nn

from cf_apps.t2i.config import T2IConfig
from cf_apps.t2i.encoder_terms import encoder_parts
from cf_apps.t2i.model import build_backbone
from cf_apps.t2i.reader import Reader


def outline(config: T2IConfig) -> nn.ModuleDict:
    """The modules that are trained, on the meta device: their shapes and no memory.

    A trained vocabulary is not among them: its size is the data's.
    """
    with torch.device("meta"):
        parts = {"backbone": build_backbone(config), **encoder_parts(config)}
        if config.text_ve is not None:
            parts["text_ve"] = TextVE(config.text_ve)
        if config.reader is not None:
            parts["reader"] = Reader(config.reader)
        return nn.ModuleDict(parts)


def part_parameters(config: T2IConfig) -> dict[str, int]:
    """Number of parameters by part."""
    return {name: count_parameters(part) for name, part in outline(config).items()}


def part_macs(config: T2IConfig) -> dict[str, int]:
    """Multiply-accumulates of one sample's forward pass in training, by part; products only.

    Captions count with all the tokens there is room for. Left out: a reader, the text towers and decoders of the other
    encoder losses, and the heads of a cascade's lower stages.
    """
    found = {"backbone": count_macs(config.backbone, context_length=config.language.max_tokens)}
    if config.text_ve is not None:
        found["text_ve"] = text_ve_macs(config.text_ve, config.language.max_tokens)
    if config.image_tower is not None and config.loss.encoder == "image-text":
        found["image_tower"] = tower_macs(config.image_tower)
    return found


def text_ve_macs(config: TextVEConfig, tokens: int) -> int:
    """Of one caption through a text encoder."""
    if config.kind == "released":
        return _released_macs(config, tokens)
    d, n, (c, h, w) = config.width, tokens, config.latent
    feed_forward = 3 * d * config.mlp_hidden
    layer = (4 * d * d + 2 * n * d + feed_forward) * n
    body = config.token_width * d * n + config.depth * layer
    if config.kind == "paper":  # every token is narrowed, and all of them go through one layer
        return body + d * config.bottleneck * n + config.moments * n * config.bottleneck * c * h * w
    neighbours = config.conv_depth * 2 * config.conv_kernel * d * d * n
    queries = (h // config.patch) * (w // config.patch)
    cross = (2 * d * d + 2 * n * d + feed_forward) * queries + 2 * d * d * n
    heads = config.moments * d * c * config.patch**2 * queries
    return body + neighbours + config.cross_depth * cross + heads


def _released_macs(config: TextVEConfig, tokens: int) -> int:
    """Layers over tokens, then some over their flat whole; the convolutions of 512 px are left out."""
    with torch.device("meta"):
        body = TextVE(config).body
    attention = 2 * tokens**2 * config.width * config.depth
    return attention + sum(
        layer.weight.numel() * (1 if name.startswith(("linear", "adaptor")) else tokens)
        for name, layer in body.named_modules()
        if isinstance(layer, nn.Linear)
    )


def tower_macs(config: ImageTowerConfig) -> int:
    """Two 3 x 3 convolutions a stage, each stage at half the size of the one before, and the head's two layers."""
    (before, h, w), (c, rows, columns), total = config.image, config.latent, 0
    for channels in config.stages:
        h, w = h // 2, w // 2
        total += 9 * (before + channels) * channels * h * w
        before = channels
    return total + config.hidden * (before * h * w + c * rows * columns)


def training_macs(config: T2IConfig) -> int:
    """Of one sample in one training step: the forward pass, and twice that for the gradients by inputs and by weights.

    Of what the backbone computes again, `blocks` adds its forward pass once more; `cheap` repeats no product.
    """
    parts = part_macs(config)
    network = config.network
    again = parts["backbone"] if isinstance(network, DiMRConfig) and network.recompute == "blocks" else 0
    return 3 * sum(parts.values()) + again
