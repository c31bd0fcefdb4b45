"""Feature maps say what they are, and are what they say."""

import hashlib
import os
import runpy
from pathlib import Path

import pytest
import torch
from cf_eval.images.efficientnet_lite0 import EfficientNetLite0
from cf_eval.images.features import (
    clip_features,
    dinov2_features,
    efficientnet_lite0_features,
    features_of,
    inception_features,
    open_clip_features,
)
from cf_eval.images.fid import FID
from cf_eval.images.protocols import inception_protocol
from cf_eval.images.resize import half_pixel_bicubic, pil_bicubic_bytes
from cf_eval.images.weights import WeightFile, state_sha256

drawn_state = runpy.run_path(str(Path(__file__).with_name("inception_weights.py")))["drawn_state"]


def pictures(n: int, height: int = 40, width: int = 50) -> torch.Tensor:
    draw = torch.Generator().manual_seed(n)
    return torch.randint(0, 256, (n, 3, height, width), generator=draw).to(torch.uint8)


def saved(state, path) -> WeightFile:
    torch.save(state, path)
    return WeightFile("drawn weights", hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_size)


@pytest.fixture(scope="module")
def inception(tmp_path_factory):
    path = tmp_path_factory.mktemp("inception") / "inception.pth"
    return path, saved(drawn_state(), path)


def test_inception_features_name_network_protocol_resize_and_weights(inception):
    path, expected = inception
    features = inception_features(path, "torchmetrics", tap="64", expected=expected)
    assert features.name == (
        "FID Inception 2015-12-05, 64; protocol torchmetrics: antialias-bilinear 299, (x - 128) / 128, "
        "floats to bytes by truncate"
    )
    assert features.weights == {"inception_sha256": expected.sha256}
    images = pictures(2)
    network = features.network
    torch.testing.assert_close(features(images), network(inception_protocol("torchmetrics")(images)))
    assert features.rounding == "truncate"


def test_a_distance_of_other_weights_is_not_called_fid_and_says_whose_they_are(inception):
    path, expected = inception
    fid = FID(inception_features(path, "pytorch-fid", tap="64", expected=expected))
    fid.add_batch(real=pictures(2))
    fid.add_batch(generated=pictures(3), batch_size=2)
    result = fid.compute()
    assert result.metric == "frechet_distance"
    assert result.details["inception_sha256"] == expected.sha256
    assert "protocol pytorch-fid: half-pixel-bilinear 299" in result.protocol


def test_features_come_in_order_whatever_the_batch(inception):
    path, expected = inception
    features = inception_features(path, "pytorch-fid", tap="64", expected=expected)
    images = [*pictures(2), *pictures(1, 31, 33)]
    whole = features_of(images, features)
    assert whole.shape == (3, 64)
    torch.testing.assert_close(features_of(images, features, batch_size=1), whole, rtol=1e-4, atol=1e-5)


@pytest.mark.compile
def test_compiled_features_are_the_same(inception):
    path, expected = inception
    features = inception_features(path, "pytorch-fid", tap="192", expected=expected)
    images = pictures(2)
    wanted = features(images)
    torch.testing.assert_close(
        features.compiled()(images), wanted, rtol=0, atol=1e-5 * float(wanted.abs().max())
    )


@pytest.mark.skipif(
    "CF_FID_INCEPTION" not in os.environ, reason="CF_FID_INCEPTION names no FID Inception file"
)
def test_the_published_weights_load_and_give_fid():
    fid = FID(inception_features(os.environ["CF_FID_INCEPTION"], "torch-fidelity"))
    fid.add_batch(real=pictures(3))
    fid.add_batch(generated=pictures(4))
    assert fid.compute().metric == "fid"


def test_efficientnet_lite0_is_timm_s(tmp_path):
    timm = pytest.importorskip("timm")
    peer = timm.create_model("tf_efficientnet_lite0", num_classes=1000).eval()
    draw = torch.Generator().manual_seed(0)
    for module in peer.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.copy_(0.1 * torch.randn(module.num_features, generator=draw))
            module.running_var.copy_(0.5 + torch.rand(module.num_features, generator=draw))
    names = list(EfficientNetLite0().state_dict())  # the public file's, in timm's order
    assert len(names) == 296
    state = dict(zip(names, peer.state_dict().values(), strict=True))
    expected = saved(state, tmp_path / "lite0.pth")
    features = efficientnet_lite0_features(tmp_path / "lite0.pth", expected=expected)
    x = torch.randn(2, 3, 65, 98, generator=draw)
    with torch.no_grad():
        found, wanted = features.network(x), peer.forward_head(peer.forward_features(x), pre_logits=True)
    assert wanted.std() > 1e-3
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-5 * float(wanted.abs().max()))
    assert features(pictures(2)).shape == (2, 1280)
    with pytest.raises(ValueError, match=r"efficientnet-lite0-57934424.pth has 57934424"):
        efficientnet_lite0_features(tmp_path / "lite0.pth")


@pytest.mark.skipif(
    "CF_EFFICIENTNET_LITE0" not in os.environ, reason="CF_EFFICIENTNET_LITE0 names no weight file"
)
def test_the_published_efficientnet_lite0_loads_and_tells_pictures_apart():
    features = efficientnet_lite0_features(os.environ["CF_EFFICIENTNET_LITE0"])
    assert features.weights["efficientnet_lite0_sha256"].startswith("57934424")
    assert features(pictures(2)).std(0).max() > 0.1


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory):
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = transformers.CLIPVisionConfig(**sizes, image_size=28, patch_size=7, projection_dim=12)
    folder = tmp_path_factory.mktemp("clip")
    transformers.CLIPVisionModelWithProjection(config).save_pretrained(folder)
    return folder


@pytest.mark.parametrize(("resize", "resizer"), [("cmmd", half_pixel_bicubic), ("pil", pil_bicubic_bytes)])
def test_clip_features_are_the_projected_embeddings_of_normalised_pictures(clip_folder, resize, resizer):
    from transformers import CLIPVisionModelWithProjection

    features = clip_features(clip_folder, resize)
    images = pictures(2)
    model = CLIPVisionModelWithProjection.from_pretrained(clip_folder).eval()
    mean = torch.tensor([0.48145466, 0.4578275, 0.40821073]).view(3, 1, 1)
    std = torch.tensor([0.26862954, 0.26130258, 0.27577711]).view(3, 1, 1)
    with torch.no_grad():
        expected = model((resizer(images.float(), (28, 28)) / 255 - mean) / std).image_embeds
    torch.testing.assert_close(features(images), expected, rtol=1e-4, atol=1e-5)
    assert features.weights["clip_sha256"] == state_sha256(model.state_dict())
    with pytest.raises(ValueError, match="unknown resize 'tf1'; known: cmmd, pil"):
        clip_features(clip_folder, "tf1")


def test_dinov2_features_are_the_class_token(tmp_path):
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "mlp_ratio": 2}
    model = transformers.Dinov2Model(transformers.Dinov2Config(**sizes, image_size=56, patch_size=14)).eval()
    model.save_pretrained(tmp_path)
    features = dinov2_features(tmp_path)
    images = pictures(2, 56, 56)
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    x = (pil_bicubic_bytes(images.float(), (224, 224)) / 255 - mean) / std
    with torch.no_grad():
        expected = model(x).last_hidden_state[:, 0]
    torch.testing.assert_close(features(images), expected, rtol=1e-4, atol=1e-4)
    assert features.weights["dinov2_sha256"] == state_sha256(model.state_dict())


def test_a_folder_or_file_that_is_not_there_is_named_and_nothing_is_fetched(tmp_path):
    with pytest.raises(FileNotFoundError, match="give one that save_pretrained wrote"):
        clip_features(tmp_path / "no")
    with pytest.raises(FileNotFoundError, match="give one that save_pretrained wrote"):
        dinov2_features(tmp_path / "no")


def test_open_clip_embeddings_are_the_model_s(tmp_path):
    open_clip = pytest.importorskip("open_clip")
    with pytest.raises(FileNotFoundError, match="give the path of the weights of RN50"):
        open_clip_features("RN50", tmp_path / "no.pt")
    (tmp_path / "w.pt").write_bytes(b"x")
    with pytest.raises(ValueError, match="unknown architecture 'RN0'"):
        open_clip_features("RN0", tmp_path / "w.pt")
    torch.manual_seed(0)
    model = open_clip.create_model("ViT-S-32-alt").eval()
    torch.save(model.state_dict(), tmp_path / "w.pt")
    features = open_clip_features("ViT-S-32-alt", tmp_path / "w.pt")
    images = pictures(2)
    with torch.no_grad():
        expected = model.encode_image(features.preparation(images))
    torch.testing.assert_close(features(images), expected, rtol=1e-4, atol=1e-5)
    assert features.preparation.size == 224
    assert features.weights["clip_sha256"] == state_sha256(model.state_dict())
