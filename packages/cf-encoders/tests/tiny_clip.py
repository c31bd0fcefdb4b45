"""A tiny CLIP with random weights, on disk as transformers and as open_clip write it."""

import json
from pathlib import Path

import torch

SIDE, PATCH, FEATURES = 20, 5, 6
MEAN, STD = (0.48, 0.46, 0.41), (0.27, 0.26, 0.28)
VISION = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
TEXT = {"vocab_size": 20, "max_position_embeddings": 8, **VISION}
OPEN_CLIP = {
    "embed_dim": FEATURES,
    "vision_cfg": {"image_size": SIDE, "layers": 2, "width": 16, "head_width": 8, "patch_size": PATCH},
    "text_cfg": {"context_length": 8, "vocab_size": 20, "width": 16, "heads": 2, "layers": 2},
}


def write_transformers(folder: Path, preprocessing: str = "preprocessor_config.json"):
    """A whole CLIP, text half and all; returns the model."""
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel

    torch.manual_seed(0)
    vision = {**VISION, "image_size": SIDE, "patch_size": PATCH, "projection_dim": FEATURES}
    config = CLIPConfig(text_config=TEXT, vision_config=vision, projection_dim=FEATURES)
    model = CLIPModel(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    size = {"height": SIDE, "width": SIDE}
    processor = CLIPImageProcessor(
        size={"shortest_edge": SIDE}, crop_size=size, image_mean=list(MEAN), image_std=list(STD)
    )
    processor.save_pretrained(folder)
    written = folder / "preprocessor_config.json"
    if preprocessing != written.name:
        nested = {"image_processor": json.loads(written.read_text())}
        (folder / preprocessing).write_text(json.dumps(nested))
        written.unlink()
    return model


def write_open_clip(folder: Path, resize_mode: str = "shortest"):
    """`open_clip_config.json` and weights; returns the model."""
    import open_clip
    from safetensors.torch import save_file

    torch.manual_seed(1)
    folder.mkdir(exist_ok=True)
    model = open_clip.model.CLIP(**OPEN_CLIP).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    preprocess = {"mean": MEAN, "std": STD, "interpolation": "bicubic", "resize_mode": resize_mode}
    config = {"model_cfg": OPEN_CLIP, "preprocess_cfg": preprocess}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    state = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    save_file(state, folder / "open_clip_model.safetensors")
    return model
