"""The public way to run DiMR: the same model, at the price that its description names; and its comparison on a CPU."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from cf_transformer import DiMR, DiMRConfig, StageConfig, preset

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks" / "peers"))

import model_cpu
from counting import CountOps
from public_dimr import PublicDiMR, TimeVector, seed_time

CONFIG = DiMRConfig(
    channels=3,
    size=(6, 18),
    stages=(
        StageConfig("transformer", 8, 5, patch=6, n_heads=2),
        StageConfig("convnext", 6, 3, patch=3),
        StageConfig("convnext", 4, 1, patch=1),
    ),
    kernel_size=3,
)


def shaken(config: DiMRConfig = CONFIG) -> DiMR:
    """In float64, with every parameter off its initial value."""
    generator = torch.Generator().manual_seed(0)
    model = DiMR(config, generator).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    return model


def inputs(config: DiMRConfig = CONFIG, b: int = 3, dtype: torch.dtype = torch.float64):
    generator = torch.Generator().manual_seed(1)
    x_t = torch.randn(b, config.channels, *config.size, generator=generator, dtype=dtype)
    return x_t, torch.rand(b, generator=generator, dtype=dtype), torch.arange(b) % 2 == 1


@pytest.mark.parametrize(
    "variant", [{}, {"activation": "silu"}, {"indicator": "released"}, {"attention": "matmul"}]
)
def test_the_public_way_gives_our_velocity_at_every_scale(variant):
    model = shaken(replace(CONFIG, **variant))
    for theirs, ours in zip(PublicDiMR(model).scales(*inputs()), model.scales(*inputs()), strict=True):
        torch.testing.assert_close(theirs, ours, rtol=1e-10, atol=1e-10)


def test_the_public_way_gives_our_velocity_in_fp32():
    model = shaken().float()
    given = inputs(dtype=torch.float32)
    torch.testing.assert_close(PublicDiMR(model)(*given), model(*given), rtol=1e-4, atol=1e-4)


def test_one_time_for_all_gives_the_velocity_of_that_time_for_each():
    model = shaken()
    x_t, _, is_null = inputs()
    t = torch.full((3,), 0.3, dtype=torch.float64)
    public = PublicDiMR(model)
    torch.testing.assert_close(public(x_t, t, is_null), model(x_t, t, is_null), rtol=1e-10, atol=1e-10)
    assert {len(v.current) for v in public.modules() if isinstance(v, TimeVector)} == {1}


@pytest.mark.parametrize("recompute", [True, False])
def test_the_public_way_has_our_gradients_recomputed_or_not(recompute):
    model = shaken()
    public = PublicDiMR(model, recompute)
    for network in (model, public):
        sum(v.square().sum() for v in network.scales(*inputs())).backward()
    ours = sorted(
        p.grad.square().sum().item() for p in (model.stages[0].skips[0].weight, model.heads[0].conv.weight)
    )
    theirs = sorted(
        p.grad.square().sum().item() for p in (public.stages[0].skips[0].weight, public.heads[0].conv.weight)
    )
    assert theirs == pytest.approx(ours, rel=1e-9)
    gate, value = model.stages[1].blocks[2].mlp.w_in.weight.grad.chunk(2)
    mlp = public.stages[1].blocks[2].mlp
    torch.testing.assert_close(mlp.w0.weight.grad, gate, rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(mlp.w1.weight.grad, value, rtol=1e-8, atol=1e-10)
    stacked = torch.stack([block.norm2.gain.w.grad for block in public.stages[0].blocks])
    torch.testing.assert_close(stacked, model.stages[0].gains.w.grad[1::2], rtol=1e-8, atol=1e-10)


def test_recomputation_calls_every_block_twice():
    public, calls = PublicDiMR(shaken()), []
    for stage in public.stages:
        for block in stage.blocks:
            block.mlp.register_forward_pre_hook(lambda *_: calls.append(1))
    public(*inputs()).sum().backward()
    assert len(calls) == 2 * (5 + 3 + 1)
    with torch.no_grad():
        public(*inputs())
    assert len(calls) == 3 * (5 + 3 + 1)


def test_time_costs_five_operations_a_vector_and_one_wait():
    public = PublicDiMR(shaken())
    vectors = sum(isinstance(module, TimeVector) for module in public.modules())
    with torch.no_grad(), CountOps() as counted:
        seed_time(public, torch.rand(3, dtype=torch.float64))
    assert vectors == 5 * 2 + 3 + 1 + 3 * 2 + 2 * 4  # norms of blocks, heads, hand-overs
    assert 5 * vectors < counted.ops < 5 * vectors + 12
    assert counted.reads == 1


def test_the_largest_model_has_the_171_vectors_of_the_public_one():
    with torch.device("meta"):
        public = PublicDiMR(DiMR(preset("dimr-951m")))
    assert sum(isinstance(module, TimeVector) for module in public.modules()) == 171
    assert (
        sum(p.numel() for p in public.parameters()) == 950_778_890 + 2 * 1024 - 2
    )  # two vectors, not two scalars


def test_what_the_public_code_cannot_do_is_refused():
    with pytest.raises(ValueError, match="query_key is 'norm'"):
        PublicDiMR(DiMR(replace(CONFIG, query_key="norm")))
    vector = next(m for m in PublicDiMR(shaken()).modules() if isinstance(m, TimeVector))
    with pytest.raises(ValueError, match="seeds the time"):
        vector.value()


# ---------------------------------------------------------------------------------------------------- the CPU


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setitem(model_cpu.SIZES, "tiny", model_cpu.Size(CONFIG, 2))


def test_the_cpu_comparison_writes_ratios_to_our_time(small, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(model_cpu, "memory", lambda name, options: [model_cpu.Memory(name, "DiMR", 1.0, 1.0)])
    out = tmp_path / "cpu.json"
    monkeypatch.setattr(sys, "argv", ["model_cpu.py", "--repeats", "1", "--sizes", "tiny", "--out", str(out)])
    threads = torch.get_num_threads()
    model_cpu.main()
    torch.set_num_threads(threads)
    content = json.loads(out.read_text())
    assert {"command", "commit", "device", "torch", "repeats", "samples"} <= set(content)
    assert [row["ratio"] for row in content["rows"] if row["way"] == "DiMR"] == [1.0, 1.0, 1.0]
    assert [row["way"] for row in content["rows"] if row["task"] == "training step"] == list(model_cpu.WAYS)
    assert "guided step" in capsys.readouterr().out


def test_ways_that_disagree_are_not_compared(small):
    size = model_cpu.SIZES["tiny"]
    ways = model_cpu.networks(size.config)
    model_cpu.check(ways, size)
    with torch.no_grad():
        ways[model_cpu.PUBLIC].upsamples[0].project.weight.neg_()
    with pytest.raises(ArithmeticError, match="public way"):
        model_cpu.check(ways, size)


@pytest.mark.slow
@pytest.mark.skipif(not model_cpu.STATUS.exists(), reason="this system does not tell what is resident")
def test_keeping_every_block_needs_more_memory_than_computing_it_twice(monkeypatch):
    options = type("Options", (), {"autocast": False})
    found = {row.way: row.mib for row in model_cpu.memory("tiny", options)}
    assert found[model_cpu.PUBLIC_ONCE] > 1.5 * found[model_cpu.PUBLIC]
    assert found[model_cpu.OURS] > 1.5 * found[model_cpu.OURS_TWICE]
