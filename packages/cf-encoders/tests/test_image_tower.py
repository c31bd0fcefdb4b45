import pytest
import torch
from cf_encoders import ImageTower, ImageTowerConfig, LogScale, info_nce, retrieval_accuracy


@pytest.mark.parametrize(("image", "latent"), [((3, 32, 32), (3, 32, 32)), ((5, 8, 24), (4, 3, 7))])
def test_it_maps_images_to_the_latents_shape(image, latent, generator):
    tower = ImageTower(ImageTowerConfig(image, latent, stages=(8, 16), hidden=8))
    assert tower(torch.randn(2, *image, generator=generator)).shape == (2, *latent)


def test_it_sees_where_things_are(generator):
    tower = ImageTower(ImageTowerConfig((3, 16, 16), (1, 4, 4), stages=(8, 8), hidden=8))
    left = torch.zeros(1, 3, 16, 16)
    left[..., :4] = 1.0
    assert (tower(left) - tower(left.flip(-1))).abs().max() > 1e-3


def test_it_learns_to_find_the_pair_of_each_target(generator):
    torch.manual_seed(0)
    tower = ImageTower(ImageTowerConfig((3, 16, 16), (2, 4, 4), stages=(16, 16), hidden=32))
    images = torch.randn(24, 3, 16, 16, generator=generator)
    target = torch.randn(24, 2, 4, 4, generator=generator)
    optimiser = torch.optim.AdamW(tower.parameters(), lr=3e-3)
    for _ in range(60):
        optimiser.zero_grad()
        info_nce(target, tower(images), LogScale()()).backward()
        optimiser.step()
    assert retrieval_accuracy(target, tower(images)) == 1.0


def test_an_image_of_another_size_is_refused():
    tower = ImageTower(ImageTowerConfig((3, 16, 16), (1, 4, 4)))
    with pytest.raises(ValueError, match=r"\(3, 8, 8\), the tower sees \(3, 16, 16\)"):
        tower(torch.zeros(1, 3, 8, 8))
