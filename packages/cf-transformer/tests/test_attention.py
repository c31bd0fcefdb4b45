import torch
from cf_transformer.attention import SelfAttention, matmul_attention


def attention_by_hand(layer: SelfAttention, x: torch.Tensor, n_heads: int) -> torch.Tensor:
    """One query of one head at a time; rows of the fused weight are [q | k | v], each head-major."""
    b, n, d = x.shape
    e = d // n_heads
    q, k, v = (x @ part.T for part in layer.qkv.weight.split(d))
    out = torch.zeros_like(x)
    for i in range(b):
        for head in range(n_heads):
            own = slice(head * e, (head + 1) * e)
            for query in range(n):
                weights = torch.softmax(k[i, :, own] @ q[i, query, own] / e**0.5, dim=0)
                out[i, query, own] = weights @ v[i, :, own]
    return layer.out(out)


def test_both_attentions_are_the_formula_head_by_head(shaken, generator):
    x = torch.randn(2, 5, 6, generator=generator, dtype=torch.float64)
    for kind in ("sdpa", "matmul"):
        layer = shaken(SelfAttention(6, 3, kind).double())
        torch.testing.assert_close(layer(x), attention_by_hand(layer, x, 3), rtol=1e-12, atol=1e-14)


def test_matmul_attention_has_sdpas_gradients(generator):
    q, k, v = (torch.randn(2, 3, 5, 4, generator=generator, dtype=torch.float64) for _ in range(3))
    assert torch.autograd.gradcheck(matmul_attention, [x.requires_grad_() for x in (q, k, v)], fast_mode=True)


def test_attention_does_not_know_the_order_of_tokens(shaken, generator):
    layer = shaken(SelfAttention(6, 2, "sdpa").double())
    x = torch.randn(2, 7, 6, generator=generator, dtype=torch.float64)
    order = torch.randperm(7, generator=generator)
    torch.testing.assert_close(layer(x[:, order]), layer(x)[:, order])
