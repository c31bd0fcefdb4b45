"""The FID network against torch-fidelity's, with the same drawn weights."""

import hashlib
import runpy
from pathlib import Path

import pytest
import torch
from cf_eval.images.inception_net import TAPS, InceptionNet, for_inference, load_inception
from cf_eval.images.protocols import inception_protocol
from cf_eval.images.weights import WeightFile

STATE = runpy.run_path(str(Path(__file__).with_name("inception_weights.py")))["drawn_state"]()
TOLERANCE = 1e-5  # of the largest feature; float32 through 20 layers


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """(path, what the file is)"""
    path = tmp_path_factory.mktemp("inception") / "inception.pth"
    torch.save(STATE, path)
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    return path, WeightFile("drawn weights", sha256[:8], path.stat().st_size)


@pytest.fixture(scope="module")
def images():
    return torch.randint(0, 256, (2, 3, 75, 110), generator=torch.Generator().manual_seed(1)).to(torch.uint8)


@pytest.fixture(scope="module")
def expected(weights, images):
    """torch-fidelity's features at every tap."""
    extractor = pytest.importorskip("torch_fidelity.feature_extractor_inceptionv3")
    peer = extractor.FeatureExtractorInceptionV3("peer", list(TAPS), str(weights[0]))
    with torch.no_grad():
        return dict(zip(TAPS, peer(images), strict=True))


@pytest.mark.parametrize("tap", TAPS)
def test_every_tap_gives_torch_fidelity_s_features(tap, weights, images, expected):
    network, sha256 = load_inception(weights[0], tap, weights[1])
    with torch.no_grad():
        found = network(inception_protocol("torch-fidelity")(images))
    assert sha256.startswith(weights[1].sha256)
    assert found.shape == (2, TAPS[tap])
    assert expected[tap].std() > 1e-3  # else any network would agree
    torch.testing.assert_close(
        found, expected[tap], rtol=0, atol=TOLERANCE * float(expected[tap].abs().max())
    )


def test_folding_the_norms_into_the_convolutions_changes_nothing_but_rounding(weights, images, expected):
    network = for_inference(load_inception(weights[0], expected=weights[1])[0])
    found = network(inception_protocol("torch-fidelity")(images))
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in network.modules())
    torch.testing.assert_close(
        found, expected["2048"], rtol=0, atol=TOLERANCE * float(expected["2048"].max())
    )


def test_it_holds_566_tensors_and_23850960_parameters_under_the_published_names():
    with torch.device("meta"):
        network = InceptionNet()
    assert len(network.state_dict()) == 566
    assert sum(parameter.numel() for parameter in network.parameters()) == 23_850_960
    assert "Mixed_7c.branch3x3dbl_3b.bn.running_var" in network.state_dict()


def test_an_unknown_tap_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match=r"unknown tap '1024'; known: 64, 192, 768, 2048, logits_unbiased"):
        InceptionNet("1024")


def test_the_published_file_is_expected_unless_told_otherwise(weights):
    with pytest.raises(ValueError, match="has 6726825d"):
        load_inception(weights[0])


def test_a_state_dict_of_another_network_is_refused(tmp_path):
    path = tmp_path / "other.pth"
    torch.save({"fc.weight": torch.zeros(1008, 2048)}, path)
    expected = WeightFile("other", hashlib.sha256(path.read_bytes()).hexdigest(), 1)
    with pytest.raises(ValueError, match="no state dict of this Inception network"):
        load_inception(path, expected=expected)
