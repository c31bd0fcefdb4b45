import pytest
import torch
from cf_encoders import TextVE, text_ve_preset
from cf_encoders.presets import TEXT_VES
from cf_encoders.towers.convolutional import ProjectionHead


def count(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("released-256-clip", 110_156_512),
        ("released-256-t5", 165_197_440),
        ("released-512-clip", 97_482_344),
        ("released-512-t5", 142_430_728),
    ],
)
def test_the_released_encoders_have_the_public_codes_parameter_counts(name, parameters):
    with torch.device("meta"):
        assert count(TextVE(text_ve_preset(name))) == parameters


def test_the_public_codes_contrastive_head_at_256_px():
    with torch.device("meta"):
        assert count(ProjectionHead(1024, 4096, 4096)) == 20_987_904


@pytest.mark.parametrize("name", TEXT_VES)
def test_every_preset_builds_a_posterior_of_its_latents_shape(name):
    config = text_ve_preset(name)
    with torch.device("meta"):
        tokens = torch.empty(2, config.max_tokens, config.token_width)
        mask = torch.ones(2, config.max_tokens, dtype=torch.bool)
        assert TextVE(config)(tokens, mask).mean.shape == (2, *config.latent)


def test_an_unknown_preset_lists_the_known():
    with pytest.raises(ValueError, match=r"tinny.*known: .*tiny"):
        text_ve_preset("tinny")
