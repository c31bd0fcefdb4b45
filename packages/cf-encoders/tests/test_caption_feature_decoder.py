import json

import pytest
import torch
from cf_encoders.captions.feature_decoder import FeatureDecoder, FeatureDecoderConfig
from cf_encoders.pretrained import from_pretrained, save_pretrained
from cf_encoders.reconstruction import token_cosine

ODD = {"latent": (3, 6, 9), "patch": 3, "max_tokens": 5, "width": 12, "heads": 3, "mlp_hidden": 8}
CONFIG = FeatureDecoderConfig(token_width=7, **ODD)


def decoder() -> FeatureDecoder:
    torch.manual_seed(0)
    return FeatureDecoder(CONFIG).double()


def test_every_token_reads_the_whole_latent_and_tokens_differ(generator):
    model = decoder()
    z = torch.randn(2, 3, 6, 9, generator=generator, dtype=torch.float64)
    before = model(z)
    assert before.shape == (2, 5, 7)
    assert (before[:, 1:] - before[:, :-1]).abs().amax(-1).min() > 1e-3
    moved = z.clone()
    moved[0, :, 5, 0] += 1
    changed = (model(moved) - before).abs().amax(-1)
    assert (changed[0] > 1e-9).all()
    assert (changed[1] == 0).all()


def test_features_of_a_few_captions_can_be_learned_by_their_latents(generator):
    torch.manual_seed(0)
    model = FeatureDecoder(CONFIG)
    z = torch.randn(6, 3, 6, 9, generator=generator)
    features = torch.randn(6, 5, 7, generator=generator)
    mask = torch.arange(5) < torch.tensor([5, 4, 3, 5, 2, 1])[:, None]
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-2)
    for _ in range(80):
        optimizer.zero_grad()
        (1 - token_cosine(features, model(z), mask)).mean().backward()
        optimizer.step()
    assert token_cosine(features, model(z), mask).min() > 0.95
    assert token_cosine(features, model(z.roll(1, 0)), mask).mean() < 0.6


def test_gradients_reach_every_parameter_and_the_latent(generator):
    model = decoder()
    z = torch.randn(2, 3, 6, 9, generator=generator, dtype=torch.float64).requires_grad_()
    model(z).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())
    assert z.grad is not None
    assert (z.grad != 0).all()


def test_it_survives_its_folder_and_names_what_it_cannot_read(tmp_path):
    model = decoder()
    save_pretrained(model, tmp_path)
    loaded = from_pretrained(tmp_path)
    assert isinstance(loaded, FeatureDecoder)
    z = torch.ones(1, 3, 6, 9).double()
    assert torch.equal(loaded(z), model(z))
    assert FeatureDecoderConfig.from_dict(json.loads(json.dumps(CONFIG.to_dict()))) == CONFIG
    with pytest.raises(ValueError, match="token_width must be a positive integer, got 0"):
        FeatureDecoderConfig(token_width=0, **ODD)
    with pytest.raises(ValueError, match=r"the latent is \(3, 9, 6\), the decoder reads \(3, 6, 9\)"):
        model(torch.ones(1, 3, 9, 6).double())
