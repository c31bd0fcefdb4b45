import importlib.util
import json
import runpy
import sys
from pathlib import Path

import pytest
import torch
from cf_encoders import LogScale, info_nce
from cf_encoders.towers.clip_images import ClipImages
from cf_encoders.towers.frozen import FrozenTower
from cf_encoders.towers.image_target import ImageTarget
from cf_encoders.towers.open_clip_images import OpenClipImages

CLIP = runpy.run_path(str(Path(__file__).with_name("tiny_clip.py")))
LATENT = (2, 3, 5)


@pytest.fixture(scope="module")
def transformers_clip(tmp_path_factory):
    folder = tmp_path_factory.mktemp("transformers")
    return folder, CLIP["write_transformers"](folder)


@pytest.fixture(scope="module")
def open_clip_clip(tmp_path_factory):
    folder = tmp_path_factory.mktemp("open_clip")
    return folder, CLIP["write_open_clip"](folder)


@pytest.fixture(params=["clip", "open-clip"])
def loaded(request, transformers_clip, open_clip_clip):
    """(the loaded features, pixels -> the peer's features)"""
    if request.param == "clip":
        folder, model = transformers_clip
        return ClipImages(folder), lambda pixels: model.visual_projection(model.vision_model(pixels)[1])
    folder, model = open_clip_clip
    return OpenClipImages(folder), model.encode_image


def images(b: int, side: int, generator: torch.Generator) -> torch.Tensor:
    return torch.rand(b, 3, side, side, generator=generator) * 2 - 1


def by_hand(batch: torch.Tensor) -> torch.Tensor:
    mean, std = (torch.tensor(CLIP[each])[:, None, None] for each in ("MEAN", "STD"))
    return ((batch + 1) / 2 - mean) / std


def test_features_are_those_of_the_model_that_was_saved(loaded, generator):
    features, peer = loaded
    batch = images(3, CLIP["SIDE"], generator)
    with torch.no_grad():
        expected = peer(by_hand(batch))
    assert features.width == CLIP["FEATURES"] == expected.shape[1]
    torch.testing.assert_close(features(batch), expected, atol=1e-5, rtol=1e-5)
    assert features(batch).std() > 0.01


def test_nothing_of_it_learns_and_train_leaves_it_in_eval_mode(loaded, generator):
    features, _ = loaded
    tower = FrozenTower(features, LATENT, hidden=8).train()
    assert tower.projection.training
    assert not any(module.training for module in features.modules())
    batch = images(2, 31, generator).requires_grad_()
    info_nce(torch.randn(2, *LATENT, generator=generator), tower(batch), LogScale()()).backward()
    assert batch.grad is None
    assert all(p.grad is None and not p.requires_grad for p in features.parameters())
    assert all(p.grad is not None for p in tower.projection.parameters())


def test_the_head_on_stored_features_is_the_tower_on_images(loaded, generator):
    features, _ = loaded
    tower = FrozenTower(features, LATENT, hidden=8)
    assert isinstance(tower, ImageTarget)
    batch = images(4, 43, generator)
    stored = torch.cat([tower.features(part) for part in batch.split(3)])
    assert stored.shape == (4, CLIP["FEATURES"])
    assert not stored.requires_grad
    torch.testing.assert_close(tower.head(stored), tower(batch), atol=1e-5, rtol=1e-5)
    assert tower(batch).shape == (4, *LATENT)


def test_sixteen_bits_give_nearly_the_same_features_in_float32(transformers_clip, open_clip_clip, generator):
    batch = images(2, CLIP["SIDE"], generator)
    for kind, (folder, _) in ((ClipImages, transformers_clip), (OpenClipImages, open_clip_clip)):
        exact, rough = (kind(folder, dtype=dtype)(batch) for dtype in (torch.float32, torch.bfloat16))
        assert rough.dtype == torch.float32
        assert torch.nn.functional.cosine_similarity(exact, rough).min() > 0.999
        assert not torch.equal(exact, rough)


def test_stored_features_of_different_models_can_be_kept_apart(transformers_clip, open_clip_clip):
    folder, _ = transformers_clip
    one = ClipImages(folder).fingerprint
    assert one == ClipImages(folder).fingerprint
    others = {
        OpenClipImages(open_clip_clip[0]).fingerprint,
        ClipImages(folder, dtype=torch.float16).fingerprint,
    }
    assert len({one, *others}) == 3


def test_the_preprocessing_may_lie_in_the_processors_file(tmp_path, generator):
    folder = tmp_path / "nested"
    CLIP["write_transformers"](folder, "processor_config.json")
    assert ClipImages(folder).preprocess.crop == (CLIP["SIDE"], CLIP["SIDE"])


def test_an_architecture_with_a_weight_file_is_loaded_by_name(open_clip_clip, tmp_path, generator):
    import open_clip

    folder, model = open_clip_clip
    (tmp_path / "tiny-clip-of-the-tests.json").write_text(json.dumps(CLIP["OPEN_CLIP"]))
    open_clip.add_model_config(tmp_path)
    weights = folder / "open_clip_model.safetensors"
    features = OpenClipImages("tiny-clip-of-the-tests", weights)
    batch = images(2, CLIP["SIDE"], generator)
    with torch.no_grad():
        expected = model.encode_image(features.preprocess(batch))
    torch.testing.assert_close(features(batch), expected, atol=1e-5, rtol=1e-5)
    assert (
        features.preprocess.mean == open_clip.OPENAI_DATASET_MEAN
    )  # CLIP's, where the name says nothing else
    with pytest.raises(FileNotFoundError, match="needs a local weight file"):
        OpenClipImages("tiny-clip-of-the-tests")


def test_another_architecture_is_named(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(ValueError, match="'bert', not a CLIPVisionModelWithProjection"):
        ClipImages(tmp_path)


def test_a_folder_says_what_it_lacks(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"config\.json missing"):
        ClipImages(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "clip"}))
    with pytest.raises(
        FileNotFoundError, match=r"preprocessor_config\.json or processor_config\.json missing"
    ):
        ClipImages(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"open_clip_config\.json missing"):
        OpenClipImages(tmp_path)


def test_weights_that_are_missing_are_an_error_and_not_drawn(transformers_clip, tmp_path):
    from safetensors.torch import load_file, save_file

    folder, _ = transformers_clip
    for name in ("config.json", "preprocessor_config.json"):
        (tmp_path / name).write_text((folder / name).read_text())
    state = load_file(folder / "model.safetensors")
    del state["visual_projection.weight"]
    save_file(state, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"lacks 1 weights .* visual_projection\.weight"):
        ClipImages(tmp_path)


def test_a_missing_library_is_named_with_its_install_command(transformers_clip, monkeypatch):
    for kind, library, extra in (
        (lambda: ClipImages(transformers_clip[0]), "transformers", "transformers"),
        (lambda: OpenClipImages("ViT-L-14"), "open_clip", "open-clip"),
    ):
        assert importlib.util.find_spec(library)
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, library, None)
            with pytest.raises(ImportError, match=rf"pip install 'cf-encoders\[{extra}\]'"):
                kind()
