"""The joint loss is what the paper writes, and its gradients go where they should."""

import math
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from cf_apps.engine.errors import ConfigError
from cf_apps.engine.flow import TIMES
from cf_apps.engine.learned_source import unexplained
from cf_apps.t2i.config import LossConfig
from cf_apps.t2i.losses import t2i_losses
from cf_apps.t2i.presets import t2i_preset
from cf_flowcore import draw_null, null_targets
from cf_transformer import DiMR

sys.path.insert(0, str(Path(__file__).parent))
from t2i_tiny import CAPTIONS, dice, model

SIGMA_MIN = 1e-5
TEMPERATURE = 0.07  # LogScale's at initialisation
FLOAT32 = 1e-4


def pairs(b: int = 5) -> tuple[list[str], torch.Tensor]:
    return list(CAPTIONS[:b]), torch.randn(b, 3, 16, 16, generator=dice(1))


def losses_of(it, b: int = 5, seed: int = 3):
    captions, x_1 = pairs(b)
    return t2i_losses(it, captions, x_1, x_1, dice(seed))


def draws_of(it, b: int = 5, seed: int = 3):
    """(mean, logvar, x_0, is_null, target, t) as the loss draws them: x_0 first, then nulls, targets, times."""
    captions, x_1 = pairs(b)
    generator, loss = dice(seed), it.config.loss
    features = it.language(captions)
    posterior = it.modules["text_ve"](features.tokens, features.mask)
    mean, logvar = posterior.mean, posterior.logvar
    x_0 = mean + torch.exp(logvar / 2) * torch.randn(mean.shape, generator=generator)
    is_null = draw_null(b, loss.null_rate, generator=generator)
    target = null_targets(x_1, is_null, generator=generator)
    t = TIMES[loss.times](b, generator=generator)
    return mean, logvar, x_0, is_null, target, t


def flow_loss(it, x_0, is_null, target, t, weights=(1 / 4, 1.0)) -> torch.Tensor:
    """sum_s w_s mean |u_s - k_s avgpool_k(v)|² of x_t = t x_1 + (1 - (1 - sigma_min) t) x_0   (CrossFlow, DiMR)"""
    s = t.view(-1, 1, 1, 1)
    x_t = s * target + (1 - (1 - SIGMA_MIN) * s) * x_0
    v = target - (1 - SIGMA_MIN) * x_0
    low, high = it.backbone.scales(x_t, t, is_null)
    assert (low.shape[-1], high.shape[-1]) == (2, 16)
    pooled = v.unfold(2, 8, 8).unfold(3, 8, 8).sum((-1, -2)) / 8  # k avgpool_k: the k x k sum over k
    return weights[0] * (low - pooled).square().mean() + weights[1] * (high - v).square().mean()


def contrast(x_0, image_latent) -> torch.Tensor:
    z, z_hat = (F.normalize(x.flatten(1), dim=1) for x in (x_0, image_latent))
    logits = z @ z_hat.T / TEMPERATURE
    return -(logits.log_softmax(1).diagonal().mean() + logits.log_softmax(0).diagonal().mean()) / 2


# ------------------------------------------------------------------------------------------------- values


@pytest.mark.parametrize("times", TIMES)
@pytest.mark.parametrize("kl_form", ["paper", "released"])
def test_the_total_is_the_sum_written_by_hand(times, kl_form):
    it = model(
        loss__times=times,
        loss__kl_form=kl_form,
        loss__kl_weight=0.02,
        loss__null_rate=0.4,
        loss__mean_weight=0.7,
    )
    mean, logvar, x_0, is_null, target, t = draws_of(it)
    penalty = mean**2 if kl_form == "paper" else (0.3 * mean) ** 6
    kl = 0.5 * (penalty + logvar.exp() - 1 - logvar).flatten(1).sum(1).mean()
    encoder = contrast(x_0, it.modules["image_tower"](pairs()[1]))
    flow = flow_loss(it, x_0, is_null, target, t)
    found = losses_of(it)
    channels = [
        (mean[:, c] - x[:, c]).square().mean() / x[:, c].var(correction=0)
        for x in [pairs()[1]]
        for c in range(3)
    ]
    by_hand = {
        "flow": (1.0, flow),
        "encoder": (0.3, encoder),
        "kl": (0.02, kl),
        "mean": (0.7, torch.stack(channels).mean()),
    }
    assert {name: weight for name, (weight, _) in found.terms.items()} == {
        n: w for n, (w, _) in by_hand.items()
    }
    for name, (_, value) in by_hand.items():
        assert found.terms[name][1].item() == pytest.approx(value.item(), rel=FLOAT32), name
    assert found.total.item() == pytest.approx(sum(w * x.item() for w, x in by_hand.values()), rel=FLOAT32)


def test_the_mean_explains_all_of_the_image_none_of_it_or_half():
    x_1 = pairs(4)[1].double() * torch.tensor([1.0, 5.0, 0.2]).view(
        3, 1, 1
    )  # channels of any scale weigh the same
    average = x_1.mean((0, 2, 3), keepdim=True).expand_as(x_1)
    assert unexplained(x_1, x_1) == 0
    assert unexplained(average, x_1).item() == pytest.approx(1.0)
    assert unexplained((x_1 + average) / 2, x_1).item() == pytest.approx(0.25)
    assert math.isfinite(unexplained(average, torch.zeros_like(x_1)).item())  # a constant channel


def test_the_mean_is_not_regressed_unless_asked():
    assert "mean" not in losses_of(model(loss__mean_weight=0.0)).terms
    assert t2i_preset("paper-256").model.loss.mean_weight == 0  # the paper has no such term


def test_the_regression_of_the_mean_fades_in_a_straight_line():
    it, (captions, x_1) = model(loss__mean_weight=2.0, loss__mean_until=0.5), pairs()
    at = {
        done: t2i_losses(it, captions, x_1, x_1, dice(3), done).terms["mean"]
        for done in (0.0, 0.25, 0.5, 1.0)
    }
    assert {done: weight for done, (weight, _) in at.items()} == {0.0: 2.0, 0.25: 1.0, 0.5: 0.0, 1.0: 0.0}
    assert len({value.item() for _, value in at.values()}) == 1  # the log goes on showing it
    assert LossConfig(mean_weight=2.0).mean_weight_at(1.0) == 2.0  # without a share, it stays


@pytest.mark.parametrize("share", [0.0, -0.1, 1.1])
def test_a_fade_that_is_no_share_of_the_run_is_refused(share):
    with pytest.raises(ConfigError, match=r"mean_until must lie in \(0, 1\] or be null, got"):
        LossConfig(mean_until=share)


def test_without_a_tower_the_source_is_contrasted_with_the_image_itself():
    it = model(image_tower=None)
    x_0 = draws_of(it)[2]
    assert losses_of(it).terms["encoder"][1].item() == pytest.approx(
        contrast(x_0, pairs()[1]).item(), rel=FLOAT32
    )


def test_scale_weights_weigh_the_scales():
    it = model(loss__scale_weights=[0.5, 3.0])
    _, _, x_0, is_null, target, t = draws_of(it)
    expected = flow_loss(it, x_0, is_null, target, t, (0.5, 3.0)).item()
    assert losses_of(it).terms["flow"][1].item() == pytest.approx(expected, rel=FLOAT32)


def test_the_temperature_is_learned():
    it = model()
    losses_of(it).total.backward()
    gradient = it.modules["log_scale"].log_scale.grad
    assert gradient is not None
    assert gradient != 0


@pytest.mark.parametrize("b", [2, 3, 5])
@pytest.mark.parametrize("null_rate", [0.0, 0.999])
def test_no_loss_is_ever_nan(b, null_rate):
    found = losses_of(model(loss__null_rate=null_rate), b)
    assert all(math.isfinite(value) for value in found.scalars().values())
    empty_bins = {name for name, value in found.stats.items() if not math.isfinite(value)}
    assert all(name.startswith("flow_t") for name in empty_bins)  # a batch may have no t in a bin
    assert len(empty_bins) < 5


def test_the_bins_of_t_average_to_the_loss_at_full_resolution():
    it = model(loss__times="uniform")
    found = losses_of(it)
    t = draws_of(it)[-1]
    counts = torch.bincount((t * 5).long(), minlength=5)
    bins = torch.stack([found.stats[f"flow_t{k}"] for k in range(5)])
    assert torch.equal(bins.isnan(), counts == 0)
    mean = (bins.nan_to_num() * counts).sum() / counts.sum()
    assert mean.item() == pytest.approx(found.stats["flow_full"].item(), rel=FLOAT32)


def test_equal_seeds_give_equal_losses():
    it = model()
    assert losses_of(it, seed=3).total == losses_of(it, seed=3).total
    assert losses_of(it, seed=3).total != losses_of(it, seed=4).total


# ------------------------------------------------------------------------------------------------- kinds of L_Enc


def encoder_term(it) -> torch.Tensor:
    return losses_of(it).terms["encoder"][1]


def test_text_text_contrasts_the_source_with_a_small_encoder_of_the_same_words():
    it = model(loss__encoder="text-text")
    features = it.language(pairs()[0])
    target = it.modules["text_tower"](features.tokens, features.mask)
    assert encoder_term(it).item() == pytest.approx(contrast(draws_of(it)[2], target).item(), rel=FLOAT32)
    assert it.modules["text_tower"].config.latent == (3, 16, 16)


def test_reconstruction_is_the_squared_distance_of_every_real_token():
    it = model(loss__encoder="reconstruction")
    features, decoded = it.language(pairs()[0]), it.modules["text_decoder"](draws_of(it)[2])
    by_caption = []
    for row, text in enumerate(pairs()[0]):
        words = len(text.split()) + 2  # <bos> and <eos>; the rest is padding
        by_caption.append((features.tokens[row, :words] - decoded[row, :words]).square().mean())
    assert decoded.shape == features.tokens.shape
    assert encoder_term(it).item() == pytest.approx(torch.stack(by_caption).mean().item(), rel=FLOAT32)


def test_words_do_not_move_towards_their_reconstruction():
    it = model(loss__encoder="reconstruction")
    found = gradients(it, encoder_term(it))["language.embedding.weight"]
    target = it.language(pairs()[0]).tokens.detach()
    decoded, mask = it.modules["text_decoder"](draws_of(it)[2]), it.language(pairs()[0]).mask
    error = (target - decoded).square().mean(-1) * mask
    expected = gradients(it, (error.sum(1) / mask.sum(1)).mean())["language.embedding.weight"]
    assert torch.allclose(found, expected, rtol=1e-3, atol=1e-7)


@pytest.mark.parametrize(
    ("kind", "parts"),
    [
        ("image-text", {"language", "text_ve", "image_tower", "log_scale"}),
        ("text-text", {"language", "text_ve", "text_tower", "log_scale"}),
        ("reconstruction", {"language", "text_ve", "text_decoder"}),
    ],
)
def test_each_kind_teaches_both_of_its_sides_and_has_no_other_parts(kind, parts):
    it = model(loss__encoder=kind)
    assert set(it.modules) == parts | {"backbone"}
    assert taught(gradients(it, encoder_term(it))) == parts


def test_without_a_loss_of_its_own_the_encoder_has_the_flow_and_the_kl():
    it = model(loss__encoder="none", loss__mean_weight=0.0)
    assert set(it.modules) == {"language", "text_ve", "backbone"}
    assert set(losses_of(it).terms) == {"flow", "kl"}


@pytest.mark.parametrize(("variation", "terms"), [("learned", {"kl"}), ("noise", set()), ("none", set())])
def test_only_a_learned_sigma_has_a_kl(variation, terms):
    it = model(text_ve__variation=variation)
    assert set(losses_of(it).terms) == {"flow", "encoder", "mean"} | terms
    assert taught(gradients(it, losses_of(it).total)) >= {"language", "text_ve", "backbone"}


# ------------------------------------------------------------------------------------------------- gradients


def taught(by_name) -> set[str]:
    """The parts that the loss moves."""
    return {name.split(".")[0] for name, g in by_name.items() if g is not None and g.abs().sum() > 0}


def gradients(it, loss) -> dict[str, torch.Tensor | None]:
    it.modules.zero_grad()
    loss.backward()
    return {name: p.grad for name, p in it.modules.named_parameters()}


def test_the_flow_loss_alone_teaches_the_text_encoder_through_x_t_and_through_the_target():
    it = model()
    found = gradients(it, losses_of(it).terms["flow"][1])
    by_part = {name: g for name, g in found.items() if g is not None and g.abs().sum() > 0}
    assert any(name.startswith("text_ve") for name in by_part)
    assert any(name.startswith("language") for name in by_part)
    assert any(name.startswith("backbone") for name in by_part)
    assert not any(name.startswith(("image_tower", "log_scale")) for name in by_part)

    _, _, x_0, is_null, target, t = draws_of(it)
    expected = gradients(it, flow_loss(it, x_0, is_null, target, t))
    for name, gradient in by_part.items():
        assert torch.allclose(gradient, expected[name], rtol=1e-3, atol=1e-5), name


def test_the_contrastive_loss_teaches_both_encoders_and_kl_and_mean_only_the_text_encoder():
    it = model()
    parts = {
        "encoder": {"language", "text_ve", "image_tower", "log_scale"},
        "kl": {"language", "text_ve"},
        "mean": {"language", "text_ve"},
    }
    for name, expected in parts.items():
        assert taught(gradients(it, losses_of(it).terms[name][1])) == expected


# ------------------------------------------------------------------------------------------------- null rows


def test_null_rows_are_led_to_another_sample_and_the_rest_to_their_own(monkeypatch):
    it, seen = model(loss__null_rate=0.5, loss__times="uniform"), []
    scales = DiMR.scales

    def spy(self, x_t, t, is_null=None):
        seen.append((x_t.detach(), t, is_null))
        return scales(self, x_t, t, is_null)

    monkeypatch.setattr(DiMR, "scales", spy)
    losses_of(it)
    ((x_t, t, is_null),) = seen
    x_0 = draws_of(it)[2].detach()
    x_1 = pairs()[1]
    s = t.view(-1, 1, 1, 1)
    led_to = (x_t - (1 - (1 - SIGMA_MIN) * s) * x_0) / s
    nearest = torch.cdist(led_to.flatten(1), x_1.flatten(1)).argmin(1)
    assert 0 < is_null.sum() < 5
    assert torch.equal(nearest != torch.arange(5), is_null)
    assert torch.allclose(led_to, x_1[nearest], atol=1e-3)
