import pytest
import torch
from cf_encoders.language_models.bert import Bert, BertSize, rename

FLOAT64 = 1e-6  # transformers keeps some of its constants in float32


@pytest.mark.parametrize(("b", "n"), [(1, 1), (3, 7)])
def test_it_is_transformers_bert(b, n, generator):
    transformers = pytest.importorskip("transformers", reason="the oracle; a test dependency")
    config = transformers.BertConfig(
        vocab_size=50,
        hidden_size=12,
        num_hidden_layers=2,
        num_attention_heads=3,
        intermediate_size=20,
        max_position_embeddings=9,
        layer_norm_eps=1e-3,
    )
    torch.manual_seed(0)
    theirs = transformers.BertModel(config).double().eval()
    for p in theirs.parameters():
        torch.nn.init.normal_(p, std=0.3)  # the default leaves biases at 0 and gains at 1
    ours = Bert(BertSize.from_config(config.to_dict())).double()
    ours.load_published(theirs.state_dict())
    ids = torch.randint(50, (b, n), generator=generator)
    mask = torch.arange(n)[None] <= n - 1 - torch.arange(b)[:, None]
    expected = theirs(input_ids=ids, attention_mask=mask.long()).last_hidden_state
    torch.testing.assert_close(ours(ids, mask)[mask], expected[mask], atol=FLOAT64, rtol=FLOAT64)


def test_published_names_are_translated():
    assert rename("encoder.layer.3.attention.output.LayerNorm.bias") == "layers.3.attention_norm.bias"
    assert rename("encoder.layer.3.output.LayerNorm.bias") == "layers.3.feed_forward_norm.bias"


def test_a_state_with_a_missing_weight_is_refused():
    size = BertSize(7, 4, 1, 2, 6, 5, 2, 1e-12)
    with pytest.raises(RuntimeError, match="Missing key"):
        Bert(size).load_published({})
