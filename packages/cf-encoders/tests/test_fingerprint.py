import pytest
import torch
from cf_encoders.language_models.fingerprint import READ_AT_MOST, fingerprint, sampled_bytes
from torch import nn


@pytest.fixture
def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 3), nn.LayerNorm(3))


def test_it_is_the_same_for_the_same_weights_and_settings(network):
    again = nn.Sequential(nn.Linear(5, 3), nn.LayerNorm(3))
    again.load_state_dict(network.state_dict())
    assert fingerprint(again, "a", "b") == fingerprint(network, "a", "b")


def test_each_value_each_dtype_each_name_and_each_setting_counts(network):
    prints = {fingerprint(network, "a", "b"), fingerprint(network, "ab"), fingerprint(network, "b", "a")}
    for tensor in network.state_dict().values():
        for i in range(tensor.numel()):
            kept = tensor.view(-1)[i].item()
            tensor.view(-1)[i] += 1e-6
            prints.add(fingerprint(network, "a", "b"))
            tensor.view(-1)[i] = kept
    prints.add(fingerprint(nn.ModuleDict({"x": network}), "a", "b"))
    prints.add(fingerprint(network.bfloat16(), "a", "b"))
    assert len(prints) == 3 + (15 + 3 + 3 + 3) + 2


@pytest.mark.parametrize("shape", [(1, READ_AT_MOST), (1, READ_AT_MOST + 1), (1_500, 768), (3_001, 1_024)])
def test_of_a_large_tensor_values_of_every_column_are_read(shape):
    """A step that divides the width would see one column only."""
    columns = torch.arange(shape[1], dtype=torch.int32).expand(shape)
    seen = torch.frombuffer(bytearray(sampled_bytes(columns)), dtype=torch.int32)
    assert READ_AT_MOST / 4 < len(seen) <= READ_AT_MOST
    assert len(seen.unique()) == shape[1] or shape[0] == 1
