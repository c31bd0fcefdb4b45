"""The public way to encode text: the same function as `released`; and the comparison of encoders on a CPU."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from cf_encoders import TextVE, text_ve_preset

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks" / "peers"))

import encoders
from encoders import Setting
from language_rates import Rate
from public_text_ve import PublicTextVE

SMALL = replace(
    text_ve_preset("released-256-clip"),
    token_width=16,
    width=16,
    heads=2,
    depth=2,
    bottleneck=2,
    latent=(3, 5, 7),
)


def both() -> tuple[TextVE, PublicTextVE]:
    """In float64, without dropout, gains and shifts off their initial values."""
    torch.manual_seed(0)
    released = TextVE(SMALL).double().eval()
    with torch.no_grad():
        for parameter in released.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return released, PublicTextVE(released).eval()


def given(captions: str) -> tuple[torch.Tensor, torch.Tensor]:
    tokens, mask = encoders.features(Setting(3, "fp32", False, captions), 77, 16)
    return tokens.double(), mask


@pytest.mark.parametrize("captions", ["real", "full"])
def test_the_public_way_has_our_posterior_and_our_gradients(captions):
    found = []
    for encoder in both():
        mean, logvar = encoders.moments(encoder, given(captions))
        loss = mean.sin().sum() + logvar.cos().sum()
        gradients = torch.autograd.grad(loss, list(encoder.parameters()))
        names = [name.removeprefix("body.") for name, _ in encoder.named_parameters()]
        found.append({"mean": mean, "logvar": logvar, **dict(zip(names, gradients, strict=True))})
    ours, theirs = found
    assert set(ours) == set(theirs)
    for name, expected in theirs.items():
        torch.testing.assert_close(ours[name], expected, rtol=1e-8, atol=1e-10)


def test_the_public_way_has_the_weights_of_the_public_checkpoint():
    with torch.device("meta"):
        public = PublicTextVE(TextVE(text_ve_preset("released-256-clip")))
    assert len(public.state_dict()) == 232
    assert sum(p.numel() for p in public.parameters()) == 110_156_512


def test_the_public_way_drops_out_in_training():
    public = both()[1].train()
    first, second = (public(*given("real"))[0] for _ in range(2))
    assert not torch.equal(first, second)


def test_other_encoders_have_no_public_way():
    with pytest.raises(ValueError, match="CLIP's tokens and a linear tail"):
        PublicTextVE(TextVE(replace(SMALL, kind="paper")))


def test_real_captions_are_as_long_as_cocos():
    setting = Setting(4000, "fp32", False, "real")
    lengths = encoders.features(setting, 77, 1)[1].sum(dim=1).double()
    assert sum(encoders.COCO_LENGTHS) == 25_014
    assert lengths.mean().item() == pytest.approx(13.77, abs=0.15)
    assert 9 <= lengths.min() < lengths.max() <= 59


def test_ways_that_disagree_are_not_compared():
    released, public = both()
    encoders.check(released, public, given("real"))
    with torch.no_grad():
        public.layers[1].attn.W_V.weight.neg_()
    with pytest.raises(ArithmeticError, match="public way"):
        encoders.check(released, public, given("real"))


def test_the_comparison_writes_how_much_more_time_the_public_way_takes(tmp_path, monkeypatch, capsys):
    others = {"paper-256": {"kind": "paper"}, "compact-256": {"kind": "compact", "patch": 1}}
    small = {"released-256-clip": SMALL} | {name: replace(SMALL, **change) for name, change in others.items()}
    monkeypatch.setattr(encoders, "text_ve_preset", small.__getitem__)
    monkeypatch.setattr(encoders, "language_models", lambda b, repeats: [Rate("clip", b, 2.0, 1.01, 1.0)])
    out = tmp_path / "encoders.json"
    monkeypatch.setattr(sys, "argv", ["encoders.py", "--repeats", "1", "--batch", "3", "--out", str(out)])
    threads = torch.get_num_threads()
    encoders.main()
    torch.set_num_threads(threads)
    content = json.loads(out.read_text())
    assert {"command", "commit", "device", "torch", "repeats"} <= set(content)
    assert [row["encoder"] for row in content["rows"]] == 8 * [encoders.RELEASED] + 2 * ["paper-256"] + 2 * [
        "compact-256"
    ]
    for row in content["rows"]:
        assert row["ratio"] == pytest.approx(row["public_ms"] / row["ms"])
    assert content["language_models"][0]["over_network"] == 1.01
    assert "over transformers" in capsys.readouterr().out
