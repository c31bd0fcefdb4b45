import math
from dataclasses import replace

import pytest
import torch
from cf_encoders import LogScale, info_nce, retrieval_accuracy
from cf_encoders.towers.image_target import ImageTarget
from cf_encoders.towers.vit import ViTTower, ViTTowerConfig, waves

TINY = ViTTowerConfig((3, 12, 16), (2, 3, 5), patch=4, width=24, depth=2, heads=2, mlp_hidden=32, hidden=16)


@pytest.mark.parametrize(("image", "latent"), [((3, 12, 16), (2, 3, 5)), ((7, 4, 8), (4, 8, 8))])
def test_it_maps_images_or_latents_to_the_latents_shape(image, latent, generator):
    tower = ViTTower(replace(TINY, image=image, latent=latent))
    assert isinstance(tower, ImageTarget)
    assert tower(torch.randn(2, *image, generator=generator)).shape == (2, *latent)


def test_waves_are_sines_and_cosines_of_the_column_then_of_the_row():
    table = waves(3, 5, 8)
    row, column = 2, 3
    expected = [
        wave(place * rate) for place in (column, row) for wave in (math.sin, math.cos) for rate in (1.0, 0.01)
    ]
    torch.testing.assert_close(table[row * 5 + column], torch.tensor(expected))


def test_without_positions_patches_could_change_places_and_with_them_they_cannot(generator):
    tower = ViTTower(TINY)
    images = torch.randn(2, 3, 12, 16, generator=generator)
    swapped = torch.cat([images[..., 8:], images[..., :8]], dim=3)
    assert (tower(images) - tower(swapped)).abs().max() > 1e-4
    with torch.no_grad():
        tower.positions.zero_()
    torch.testing.assert_close(tower(images), tower(swapped), atol=1e-5, rtol=1e-5)


def test_learned_positions_are_trained_and_fixed_ones_are_not(generator):
    images = torch.randn(2, 3, 12, 16, generator=generator)
    for positions, trained in (("learned", True), ("fixed", False)):
        tower = ViTTower(replace(TINY, positions=positions))
        tower(images).square().mean().backward()
        assert (tower.positions.grad is not None) == trained
        assert all(p.grad is not None for name, p in tower.named_parameters() if name != "positions")


def test_it_learns_to_find_the_pair_of_each_target(generator):
    torch.manual_seed(0)
    tower = ViTTower(replace(TINY, image=(3, 8, 8)))
    images = torch.randn(24, 3, 8, 8, generator=generator)
    target = torch.randn(24, 2, 3, 5, generator=generator)
    optimiser = torch.optim.AdamW(tower.parameters(), lr=3e-3)
    for _ in range(60):
        optimiser.zero_grad()
        info_nce(target, tower(images), LogScale()()).backward()
        optimiser.step()
    assert retrieval_accuracy(target, tower(images)) == 1.0


def test_its_config_comes_back_from_a_dict():
    assert ViTTowerConfig.from_dict(TINY.to_dict()) == TINY


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"patch": 5}, "patch 5 must divide"),
        ({"positions": "rotary"}, "'rotary'; known: learned, fixed"),
        ({"width": 22}, "multiple of 4"),
        ({"dropout": 1.0}, r"\[0, 1\), got 1.0"),
    ],
)
def test_what_does_not_fit_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        replace(TINY, **change)


def test_an_image_of_another_size_is_refused():
    with pytest.raises(ValueError, match=r"\(3, 8, 8\), the tower sees \(3, 12, 16\)"):
        ViTTower(TINY)(torch.zeros(1, 3, 8, 8))
