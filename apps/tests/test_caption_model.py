"""From a picture to x_0 and from x_1 to words: distributions, standardisation, losses, and the road end to end."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from cf_apps.caption import prepare as prepare_module
from cf_apps.caption.config import CaptionConfig
from cf_apps.caption.model import SAMPLING_PARTS, rebuild
from cf_apps.caption.prepare import measured
from cf_apps.caption.presets import PRESETS, TEXT_PRESETS
from cf_apps.caption.sample import Captioner
from cf_apps.caption.sources import CaptionSource
from cf_apps.caption.task import CaptionTask, encode_all
from cf_apps.data.captioned import ImageTextArrays
from cf_apps.engine.config import FitConfig
from cf_apps.engine.errors import ConfigError
from cf_apps.engine.fit import fit
from cf_apps.engine.flow import SampleConfig
from cf_apps.engine.optim import trained_parameters
from cf_apps.engine.watching.progress import Silence
from cf_encoders import DiagonalGaussian
from cf_encoders.tokenizer import SPECIALS
from torch import nn

sys.path.insert(0, str(Path(__file__).parent))
from caption_tiny import CAPTIONS, CPU, IMAGE_VE, Straight, dice, model, recipe, text_model

PICTURES = torch.randint(0, 256, (len(CAPTIONS), 3, 16, 16), generator=dice(8), dtype=torch.uint8)
DATA = ImageTextArrays(PICTURES, tuple((caption,) for caption in CAPTIONS), "five")


class Noisy(nn.Module):
    """A codec with a posterior: the mean colour of 2 x 2 squares, its own sigma of 0.3."""

    def latent_shape(self, height, width):
        return 3, height // 2, width // 2

    def encode(self, images):
        return nn.functional.avg_pool2d(images, 2)

    def decode(self, latent):
        return nn.functional.interpolate(latent, scale_factor=2.0)

    def posterior(self, images):
        mean = self.encode(images)
        return DiagonalGaussian(mean, torch.full_like(mean, 2 * torch.tensor(0.3).log().item()))


def task(**changes) -> CaptionTask:
    text = text_model()
    return CaptionTask(model(text=text, **changes), text, DATA, "five", 0)


# ---------------------------------------------------------------------------------- x_0


@pytest.mark.parametrize("sigma", [0.0, 0.4])
def test_x_0_is_the_codecs_latent_with_the_noise_asked_for(sigma):
    it = model(sigma=sigma)
    latent = it.encode(PICTURES)
    assert torch.equal(latent.mean, it.codec.encode(PICTURES.float() / 255))
    draws = torch.stack([it.source(latent).sample(dice(k)) for k in range(600)])
    assert torch.allclose(draws.mean(0), latent.mean, atol=5 * sigma / 600**0.5 + 1e-6)
    assert draws.std(0).mean().item() == pytest.approx(sigma, rel=0.01, abs=1e-5)
    assert torch.equal(it.source(latent).sample(dice(), 0.0), latent.mean)


def test_noise_adds_to_the_codecs_own_posterior():
    it = replace(model(sigma=0.4), codec=Noisy())
    latent = it.encode(PICTURES)
    assert torch.allclose(latent.std, torch.tensor(0.3))
    assert torch.allclose(it.source(latent).std, torch.tensor(0.5))  # sqrt(0.3² + 0.4²)


def test_a_learned_source_reads_the_codecs_latent_and_gets_the_noise_too():
    it = model(codec={"name": "pixels"}, image_ve=IMAGE_VE, sigma=0.8)
    latent = it.encode(PICTURES)
    assert latent.mean.shape == (5, 3, 16, 16)
    expected = it.modules["image_ve"](2 * PICTURES.float() / 255 - 1)
    source = it.source(latent)
    assert torch.allclose(source.mean, expected.mean)
    assert torch.allclose(source.std**2, expected.std**2 + 0.64)
    assert source.mean.shape == (5, 3, 8, 8)


# ---------------------------------------------------------------------------------- x_1


def test_caption_latents_have_mean_0_and_variance_1_in_each_channel_over_the_training_captions():
    text, config = text_model(), recipe().model
    assert config.mean is None
    config = measured(config, text, CaptionSource("five", DATA, DATA, DATA), list(CAPTIONS))
    it = CaptionTask(model(text=text, mean=config.mean, std=config.std), text, DATA, "five", 0)
    x_1 = it.caption_latents(list(CAPTIONS), dice()).double()
    assert torch.allclose(x_1.mean((0, 2, 3)), torch.zeros(3, dtype=torch.float64), atol=1e-5)
    assert torch.allclose(x_1.var((0, 2, 3)), torch.ones(3, dtype=torch.float64), atol=1e-4)
    assert config.codec.mean is not None  # the codec's constants too


def test_x_1_is_the_posteriors_mean_or_a_draw_of_it():
    for target in ("mean", "sample"):
        it = task(target=target)
        q = it.text.posterior(CAPTIONS)
        z = q.mean if target == "mean" else q.mean + q.std * torch.randn(q.mean.shape, generator=dice(4))
        shift, scale = (
            torch.tensor([0.0, 1.0, 2.0])[:, None, None],
            torch.tensor([1.0, 2.0, 3.0])[:, None, None],
        )
        assert torch.allclose(it.caption_latents(list(CAPTIONS), dice(4)), (z - shift) / scale, atol=1e-6)


@pytest.mark.parametrize("kind", ["parallel", "autoregressive"])
def test_writing_undoes_the_standardisation(kind):
    text = text_model(autoencoder__decoder_kind=kind)
    text.decoder.head.bias[: len(SPECIALS)] = -9.0  # untrained, it may say nothing at all
    it = model(text=text)
    z = text.posterior(CAPTIONS).mean
    assert it.write(it.standardised(z)) == text.read(z)
    assert len(set(text.read(z))) > 1


# ---------------------------------------------------------------------------------- the road


@pytest.mark.parametrize("steps", [1, 7])
def test_a_perfect_flow_writes_what_the_decoder_reads_out_of_each_captions_own_latent(steps):
    it = task()
    x_1 = it.caption_latents(list(CAPTIONS), dice())
    it.model.modules["backbone"] = Straight(x_1)
    captioner = Captioner(it.model)
    written = captioner.captions(PICTURES, SampleConfig(1.0, steps, "euler"), dice(2))
    assert written == it.text.read(it.text.posterior(CAPTIONS).mean)


def test_captions_depend_on_the_generator_and_not_on_how_pictures_are_batched():
    captioner = Captioner(model(sigma=2.0))
    how = SampleConfig(1.0, 3, "euler")
    assert captioner.captions(PICTURES, how, dice(1)) == captioner.captions(PICTURES, how, dice(1))
    whole = captioner.captions(PICTURES, replace(how, temperature=0.0), dice(1))
    assert captioner.captions(PICTURES, replace(how, temperature=0.0), dice(5), batch_size=2) == whole


# ---------------------------------------------------------------------------------- training


def test_the_flow_loss_is_that_of_the_straight_path_between_the_two_latents():
    it = task(loss__times="uniform", loss__null_rate=0.0)
    batch, generator = it.batch(0, 4), dice(6)
    losses = it.losses(batch, dice(6), 0.0)
    x_1 = it.caption_latents(batch.captions, dice())  # draws nothing: the mean
    x_0 = batch.latent.mean + 0.5 * torch.randn(x_1.shape, generator=generator)
    torch.rand(4, generator=generator)  # who is null
    v = it.model.backbone
    errors = []
    for seed in range(400):  # t is drawn inside: the mean over it is what can be compared
        t = torch.rand(4, generator=dice(seed))
        s = 1 - (1 - 1e-5) * t
        x_t = s[:, None, None, None] * x_0 + t[:, None, None, None] * x_1
        with torch.no_grad():
            errors.append((v(x_t, t) - (x_1 - (1 - 1e-5) * x_0)).square().mean().item())
    found = [it.losses(batch, dice(100 + k), 0.0).total.item() for k in range(100)]
    assert sum(found) / 100 == pytest.approx(sum(errors) / 400, rel=0.05)
    assert set(losses.terms) == {"flow"}


def test_a_learned_source_brings_its_kl_and_contrast_and_gets_the_flows_gradient():
    it = task(codec={"name": "pixels"}, image_ve=IMAGE_VE, loss__kl_weight=0.5, loss__encoder_weight=0.25)
    batch = it.batch(0, 4)
    losses = it.losses(batch, dice(), 0.0)
    q = it.model.source(batch.latent)
    kl = 0.5 * (q.mean**2 + q.logvar.exp() - 1 - q.logvar).flatten(1).sum(1).mean()
    assert torch.allclose(losses.terms["kl"][1], kl, rtol=1e-5)
    parts = {name: weight * loss for name, (weight, loss) in losses.terms.items()}
    assert torch.allclose(losses.total, sum(parts.values()))
    assert {name: weight for name, (weight, _) in losses.terms.items()} == {
        "flow": 1.0,
        "kl": 0.5,
        "encoder": 0.25,
    }
    losses.terms["flow"][1].backward()
    assert it.modules["image_ve"].mean.weight.grad.abs().sum() > 0


def test_the_decoder_is_saved_with_the_run_and_never_trained(tmp_path):
    it = task()
    before = {name: tensor.clone() for name, tensor in it.modules["decoder"].state_dict().items()}
    assert not any(name.startswith("decoder") for name in trained_parameters(it.modules))
    fit(it, FitConfig(steps=2, batch_size=4, lr=1e-2, weight_decay=0.5), tmp_path / "run")
    after = it.modules["decoder"].state_dict()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    assert "decoder" in SAMPLING_PARTS


def test_a_batch_is_the_same_for_the_same_numbers_and_from_latents_computed_before():
    it = task()
    kept = replace(it, latents=encode_all(it.model, DATA, Silence(), batch_size=2))
    for first in (0, 3, 12):
        a, b, c = it.batch(first, 4), it.batch(first, 4), kept.batch(first, 4)
        assert a.captions == b.captions == c.captions
        assert torch.equal(a.latent.mean, b.latent.mean)
        assert torch.allclose(a.latent.mean, c.latent.mean, atol=2e-3)  # kept in half precision
        assert torch.allclose(a.latent.logvar, c.latent.logvar, atol=2e-2)


def test_a_picture_and_its_caption_stay_together():
    batch = task().batch(0, 20)
    own = dict(zip(CAPTIONS, model().encode(PICTURES).mean, strict=True))
    for caption, latent in zip(batch.captions, batch.latent.mean, strict=True):
        assert torch.allclose(latent, own[caption])


# ---------------------------------------------------------------------------------- configs


@pytest.mark.parametrize("kind", ["parallel", "autoregressive"])
def test_a_description_makes_the_same_modules_again(kind):
    text = text_model(autoencoder__decoder_kind=kind)
    it = model(text=text, image_ve=IMAGE_VE, codec={"name": "pixels"}, beams=3)
    again = rebuild(json.loads(json.dumps(it.describe())), CPU)
    assert again.config == it.config
    shapes = {name: tensor.shape for name, tensor in it.modules.state_dict().items()}
    assert {name: tensor.shape for name, tensor in again.modules.state_dict().items()} == shapes


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_fits_the_text_preset_of_its_name_and_comes_back_from_json(name):
    flow, text = PRESETS[name]().model, TEXT_PRESETS[name]().model
    assert flow.latent == tuple(text.autoencoder.encoder.latent)
    assert CaptionConfig.from_dict(flow.to_dict()) == flow
    assert type(text).from_dict(text.to_dict()) == text


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"target": "median"}, "unknown target 'median'; known: mean, sample"),
        ({"sigma": -1.0}, "sigma must be zero or more, got -1.0"),
        ({"redo": 1.5}, r"redo must lie in \[0, 1\], got 1.5"),
        ({"beams": 0}, "beams must be a whole number, 1 or more, got 0"),
        ({"image_size": 0}, "image_size must be a whole number, 1 or more, got 0"),
        ({"loss__scale_weights": [1.0, 2.0]}, "loss.scale_weights has 2 weights for 1 stages"),
        ({"loss__kl_weight": -1.0}, "kl_weight must be zero or more"),
        (
            {"image_ve": IMAGE_VE | {"latent": [3, 16, 16]}},
            r"image_ve.latent is \(3, 16, 16\), but the backbone flows",
        ),
        (
            {"codec": {"name": "pixels"}},
            r"pixels turns 16 px into \(3, 16, 16\), but the backbone flows \(3, 8, 8\)",
        ),
        ({"image_ve": IMAGE_VE}, r"patch-dct turns 16 px into \(3, 8, 8\), but image_ve reads \(3, 16, 16\)"),
        ({"image_size": 17}, "image_size 17: "),
        ({"mean": None}, "mean and std of the text latents are not known"),
        (
            {"backbone__size": [16, 16], "image_size": 32},
            r"text run's latents are \(3, 8, 8\), but the backbone flows \(3, 16, 16\)",
        ),
    ],
)
def test_parts_that_do_not_fit_are_refused_in_one_line(changes, message):
    with pytest.raises(ConfigError, match=message):
        model(**changes)


def test_latents_that_are_cheap_or_too_many_are_encoded_at_every_step(monkeypatch):
    it, source = task(), CaptionSource("five", DATA, DATA, DATA)
    assert prepare_module._latents(it.model, source, Silence()) is None  # patch-dct
    noisy = replace(it.model, codec=Noisy())
    latents = prepare_module._latents(noisy, source, Silence())
    assert latents is not None
    assert latents.mean.shape == (5, 3, 8, 8)
    monkeypatch.setattr(prepare_module, "FITS_IN_MEMORY", 4 * 5 * 192 - 1)
    assert prepare_module._latents(noisy, source, Silence()) is None
