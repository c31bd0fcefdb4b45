import math
from dataclasses import replace

import pytest
import torch
from cf_encoders import LogScale
from cf_encoders.towers.heads import ProjectionHead
from cf_encoders.towers.image_target import ImageTarget
from cf_encoders.towers.released import ReleasedTower, ReleasedTowerConfig, at_side
from torch import nn

TINY = ReleasedTowerConfig((4, 3, 3), side=12, patch=4, width=32, depth=2, heads=4, hidden=24)


def tiny(**change) -> ReleasedTower:
    """With every weight far from its initial zero or one."""
    torch.manual_seed(0)
    tower = ReleasedTower(replace(TINY, **change))
    with torch.no_grad():
        for parameter in tower.open_clip.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape))
    return tower


def on_meta(latent: tuple[int, int, int]) -> ReleasedTower:
    with torch.device("meta"):
        return ReleasedTower(ReleasedTowerConfig(latent))


@pytest.mark.parametrize(
    ("latent", "head", "tensors"), [((4, 32, 32), 20_987_904, 6), ((4, 64, 64), 21_803_652, 18)]
)
def test_it_has_the_public_towers_parameters_and_tensors(latent, head, tensors):
    tower = on_meta(latent)
    counts = [sum(p.numel() for p in part.parameters()) for part in (tower.open_clip, tower.open_clip_output)]
    assert counts == [315_956_225, head]
    assert len(tower.open_clip.state_dict()) == 307
    assert len(tower.open_clip_output.state_dict()) == tensors


def test_its_trunk_is_timms_with_its_names_values_and_gradients(generator):
    from timm.models.vision_transformer import VisionTransformer

    tower = tiny().double()
    ours = tower.open_clip.visual["trunk"]
    theirs = VisionTransformer(
        img_size=12,
        patch_size=4,
        embed_dim=32,
        depth=2,
        num_heads=4,
        num_classes=0,
        class_token=False,
        global_pool="map",
    ).double()
    theirs.load_state_dict(ours.state_dict())  # strict: names and shapes are timm's
    images = torch.randn(3, 3, 12, 12, generator=generator, dtype=torch.float64)
    found, expected = ours(images), theirs(images)
    torch.testing.assert_close(found, expected, atol=1e-12, rtol=1e-9)
    weights = torch.randn(found.shape, generator=generator, dtype=torch.float64)
    (found * weights).sum().backward()
    (expected * weights).sum().backward()
    for name, parameter in theirs.named_parameters():
        torch.testing.assert_close(ours.get_parameter(name).grad, parameter.grad, atol=1e-10, rtol=1e-7)


def test_at_full_size_its_names_and_shapes_are_timms_siglip_tower():
    from timm import create_model

    with torch.device("meta"):
        theirs = create_model("vit_large_patch16_siglip_256", num_classes=0)
    ours = on_meta((4, 32, 32)).open_clip.visual["trunk"]
    assert {k: v.shape for k, v in ours.state_dict().items()} == {
        k: v.shape for k, v in theirs.state_dict().items()
    }


def test_its_head_is_linear_gelu_norm_linear(generator):
    head = ProjectionHead(5, 7, 3).double()
    layers = nn.Sequential(head.fc1, nn.GELU(), head.norm, head.fc2)
    x = torch.randn(2, 5, generator=generator, dtype=torch.float64)
    torch.testing.assert_close(head(x), layers(x))


def test_a_64_by_64_latent_takes_the_adaptor(generator):
    tower = tiny(latent=(4, 64, 64))
    assert isinstance(tower, ImageTarget)
    assert tower(torch.randn(1, 3, 12, 12, generator=generator)).shape == (1, 4, 64, 64)
    found = ReleasedTower.from_public(tower.to_public(), heads=4)
    assert found.config == replace(tower.config, hidden=4096)


def test_public_tensors_come_in_and_go_out_unchanged(generator):
    tower = tiny()
    state = {name: tensor.clone() for name, tensor in tower.to_public().items()}
    found = ReleasedTower.from_public(state, heads=4)
    assert found.config == TINY
    assert found.to_public().keys() == state.keys()
    assert all(torch.equal(found.to_public()[name], tensor) for name, tensor in state.items())
    images = torch.randn(2, 3, 12, 12, generator=generator)
    torch.testing.assert_close(found(images), tower.eval()(images))
    with torch.no_grad():
        found.open_clip_output.fc1.weight.zero_()
    assert state["open_clip_output.fc1.weight"].any()  # the file's own tensors are left alone


def test_what_does_not_belong_is_named_and_so_is_what_is_missing():
    state = tiny().to_public()
    state["open_clip.logit_bias"] = torch.zeros(())
    del state["open_clip.visual.trunk.blocks.1.attn.proj.bias"]
    state["open_clip_output.norm.weight"] = torch.ones(25)
    with pytest.raises(ValueError, match="public image tower") as raised:
        ReleasedTower.from_public(state, heads=4)
    for told in (
        "1 missing: open_clip.visual.trunk.blocks.1.attn.proj.bias",
        "1 unexpected: open_clip.logit_bias",
        "open_clip_output.norm.weight is (25,), expected (24,)",
    ):
        assert told in str(raised.value)


@pytest.mark.parametrize(
    "name", ["open_clip.visual.trunk.pos_embed", "open_clip_output.fc2.weight", "open_clip.logit_scale"]
)
def test_a_tensor_that_tells_a_size_is_missed_by_name(name):
    state = tiny().to_public()
    del state[name]
    with pytest.raises(ValueError, match=name):
        ReleasedTower.from_public(state, heads=4)


def test_the_raw_scale_of_a_file_says_at_which_temperature_it_was_trained():
    tower = tiny()
    with torch.no_grad():
        tower.open_clip.logit_scale.fill_(math.log(1 / 0.07))
    # their logits are 2.659 cos; ours are exp(log_scale) cos
    goes_on = LogScale(tower.temperature())
    assert goes_on().exp().item() == pytest.approx(2.659, abs=1e-3)
    assert LogScale()().exp().item() == pytest.approx(14.29, abs=1e-2)
    written = tower.to_public(goes_on())["open_clip.logit_scale"]
    torch.testing.assert_close(written, tower.open_clip.logit_scale.detach())


def test_a_scale_below_zero_has_no_temperature():
    tower = tiny()
    with torch.no_grad():
        tower.open_clip.logit_scale.fill_(-0.5)
    with pytest.raises(ValueError, match=r"-0\.500"):
        tower.temperature()


def test_every_parameter_but_the_scale_learns(generator):
    tower = tiny()
    tower(torch.randn(2, 3, 12, 12, generator=generator)).square().mean().backward()
    without = [name for name, parameter in tower.named_parameters() if parameter.grad is None]
    assert without == ["open_clip.logit_scale"]


def test_larger_images_are_resized_first(generator):
    tower = tiny()
    images = torch.rand(2, 3, 24, 24, generator=generator) * 2 - 1
    torch.testing.assert_close(tower(images), tower(at_side(images, 12)))
    flat = torch.full((1, 3, 24, 24), 0.3)
    torch.testing.assert_close(at_side(flat, 12), torch.full((1, 3, 12, 12), 0.3))
    assert at_side(flat, 24) is flat


def test_images_that_are_not_square_are_refused():
    with pytest.raises(ValueError, match=r"square images .* got \(1, 3, 12, 16\)"):
        tiny()(torch.zeros(1, 3, 12, 16))


def test_it_starts_like_timms_tower():
    torch.manual_seed(0)
    trunk = ReleasedTower(replace(TINY, width=128)).open_clip.visual["trunk"]
    for name, parameter in trunk.named_parameters():
        if name.endswith("bias") and "patch_embed" not in name:
            assert not parameter.any(), name
    assert trunk.blocks[0].attn.qkv.weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert trunk.pos_embed.std().item() == pytest.approx(0.02, rel=0.1)
    assert trunk.attn_pool.latent.std().item() == pytest.approx(128**-0.5, rel=0.3)
