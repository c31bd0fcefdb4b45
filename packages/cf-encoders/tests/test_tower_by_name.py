import runpy
from pathlib import Path

import pytest
import torch
from cf_encoders.pretrained import from_pretrained, save_pretrained
from cf_encoders.towers.by_name import FROZEN, IMAGE_TOWERS, image_tower
from cf_encoders.towers.frozen import FrozenTower
from cf_encoders.towers.image_target import ImageTarget
from cf_encoders.towers.released import ReleasedTower, ReleasedTowerConfig
from cf_encoders.towers.text import TextTower, TextTowerConfig

CLIP = runpy.run_path(str(Path(__file__).with_name("tiny_clip.py")))


@pytest.mark.parametrize("name", ["conv", "vit"])
def test_trained_towers_take_the_image_they_are_told(name, generator):
    tower = image_tower(name, (5, 8, 16), (2, 3, 5))
    assert isinstance(tower, ImageTarget)
    assert tower.latent == (2, 3, 5)
    assert tower(torch.randn(2, 5, 8, 16, generator=generator)).shape == (2, 2, 3, 5)


def test_the_released_tower_has_the_size_of_the_public_one():
    with torch.device("meta"):
        tower = image_tower("released", (3, 256, 256), (4, 32, 32))
    assert sum(p.numel() for p in tower.parameters()) == 315_956_225 + 20_987_904


@pytest.mark.parametrize(
    ("name", "write"), [("clip", "write_transformers"), ("open-clip", "write_open_clip")]
)
def test_frozen_towers_come_from_a_folder(name, write, tmp_path, generator):
    CLIP[write](tmp_path)
    tower = image_tower(name, (3, 24, 24), (2, 3, 5), tmp_path)
    assert isinstance(tower, FrozenTower)
    assert isinstance(tower.frozen, FROZEN[name])
    assert tower(torch.zeros(2, 3, 24, 24)).shape == (2, 2, 3, 5)


def test_what_is_not_there_or_lacks_its_path_is_said():
    with pytest.raises(ValueError, match=r"'siglip'; known: conv, vit, released, clip, open-clip"):
        image_tower("siglip", (3, 8, 8), (2, 3, 5))
    with pytest.raises(ValueError, match="clip needs the path"):
        image_tower("clip", (3, 8, 8), (2, 3, 5))
    with pytest.raises(ValueError, match="vit is drawn afresh"):
        image_tower("vit", (3, 8, 8), (2, 3, 5), "somewhere")
    assert len(IMAGE_TOWERS) == 5


@pytest.mark.parametrize(
    "make",
    [
        lambda: image_tower("conv", (5, 8, 16), (2, 3, 5)),
        lambda: image_tower("vit", (5, 8, 16), (2, 3, 5)),
        lambda: ReleasedTower(ReleasedTowerConfig((4, 3, 3), 12, 4, 32, 1, 4, 8)),
        lambda: TextTower(TextTowerConfig(9, (2, 3, 5))),
    ],
)
def test_trained_towers_are_stored_and_found_again(make, tmp_path):
    tower = make()
    save_pretrained(tower, tmp_path)
    found = from_pretrained(tmp_path)
    assert type(found) is type(tower)
    assert found.config == tower.config
    torch.testing.assert_close(found.state_dict(), tower.state_dict(), atol=0, rtol=0)
