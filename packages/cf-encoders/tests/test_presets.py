from dataclasses import replace

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
        ("released-256-clip-2-layers", 74_695_648),
        ("released-256-clip-4-layers", 82_575_840),
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


@pytest.mark.parametrize(
    ("language", "width"), [("t5", 4096), ("llama", 4096), ("minilm", 384), ("clip", 768), ("256", 768)]
)
def test_a_preset_reads_the_tokens_of_the_language_model_it_is_named_after(language, width):
    widths = {config.token_width for name, config in TEXT_VES.items() if name.endswith(f"-{language}")}
    assert widths == {width}


def test_the_rows_of_table_3a_differ_in_nothing_but_their_variation():
    learned, plain, noise = (text_ve_preset(f"paper-256{row}") for row in ("", "-encoder", "-encoder-noise"))
    assert replace(plain, variation="learned") == learned
    assert replace(noise, variation="learned", sigma=learned.sigma) == learned
    assert (plain.variation, noise.variation, noise.sigma) == ("none", "noise", 1.0)


def test_an_unknown_preset_lists_the_known():
    with pytest.raises(ValueError, match=r"tinny.*known: .*tiny"):
        text_ve_preset("tinny")
