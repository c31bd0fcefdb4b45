"""What is shared out, what is kept whole, and what is gathered by itself."""

import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from cf_apps.caption.presets import TEXT_PRESETS
from cf_apps.engine import FitConfig
from cf_apps.engine.commands.app import _recompute_key
from cf_apps.engine.errors import ConfigError
from cf_apps.engine.ranks.parallel import Alone, Replicated, blocks, kept_whole, shared
from cf_apps.engine.ranks.shards import alike, is_sharded, local, whole
from cf_apps.engine.ranks.world import World
from torch import nn

sys.path.insert(0, str(Path(__file__).parent))
from t2i_tiny import BASELINE, model, overridden, recipe, t2i_preset

CPU = torch.device("cpu")


@pytest.fixture
def one_rank():
    """A group of this process alone: DDP as it is, without another process."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield World(0, 1, 0, dist.group.WORLD, CPU)
    dist.destroy_process_group()


def test_ddp_averages_gradients_in_the_last_pass_of_a_step_only(one_rank):
    modules = nn.ModuleDict({"net": nn.Linear(3, 2, bias=False), "unused": nn.Linear(1, 1)})
    sharing, averaged, x = Replicated(modules, one_rank), [], torch.ones(5, 3)

    def hook(state, bucket):
        averaged.append(bucket.buffer().numel())
        done = torch.futures.Future()
        done.set_result(bucket.buffer())
        return done

    sharing._ddp.register_comm_hook(None, hook)
    counts = []
    for last in (False, False, True, False, True):
        with sharing.backward_of(last):
            total, _ = sharing.call(lambda: (modules["net"](x).sum(), None))
            total.backward()
        counts.append(len(averaged))
        if last:
            parts = 3 if len(counts) == 3 else 2
            assert torch.equal(modules["net"].weight.grad, torch.full((2, 3), 5.0 * parts))
            modules.zero_grad()
    assert counts == [0, 0, counts[2], counts[2], 2 * counts[2]]
    assert counts[2] > 0
    assert modules["unused"].weight.grad is None  # what no rank used gets no gradient, so no weight decay


def test_the_blocks_of_a_model_are_its_repeated_callable_parts():
    it = model()
    found = blocks(it.modules)
    names = {type(block).__name__ for block in found}
    assert {"TransformerBlock", "ConvNeXtBlock"} <= names
    assert not set(it.modules["backbone"].stages) & set(found)  # read part by part, never called
    assert len(found) == len({id(block) for block in found})
    for block in found:
        assert not any(isinstance(part, nn.ModuleList) for part in block.modules())


def test_scalars_and_a_block_s_gains_are_kept_whole():
    it = model()
    kept = kept_whole(it.modules, blocks(it.modules))
    by_name = {name: p in kept for name, p in it.modules.named_parameters()}
    assert by_name["log_scale.log_scale"]
    assert sum(p.numel() for p in kept) < 0.2 * sum(p.numel() for p in it.modules.parameters())
    for block in blocks(it.modules):
        for part in block.modules():
            if isinstance(part, nn.Linear | nn.Conv2d):
                assert part.weight not in kept
                assert part.bias is None or part.bias in kept


def test_one_process_shares_nothing_and_compiles_blocks_when_asked():
    it = model()
    assert isinstance(shared(it.modules, FitConfig(steps=1), World.alone(CPU)), Alone)
    assert all(block._compiled_call_impl is None for block in blocks(it.modules))
    shared(it.modules, FitConfig(steps=1, compile=True), World.alone(CPU))
    assert all(block._compiled_call_impl is not None for block in blocks(it.modules))


def test_whole_tensors_are_their_own_shards():
    x, y = torch.ones(2), torch.ones(3)
    assert not is_sharded(x)
    assert local(x) is x
    assert whole(x) is x
    assert [len(kind) for kind in alike([x, y])] == [2]
    assert alike([]) == []


def test_recompute_goes_to_the_backbone_wherever_the_config_has_it():
    assert _recompute_key(recipe()) == "backbone.recompute"
    assert (
        _recompute_key(overridden(t2i_preset("tiny-cross-attention"), BASELINE)) == "backbone.dimr.recompute"
    )
    with pytest.raises(ConfigError, match="this one has none"):
        _recompute_key(next(iter(TEXT_PRESETS.values()))())


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"parallel": "zero"}, "parallel must be one of ddp, fsdp, got 'zero'"),
        ({"recompute": "all"}, "recompute must be one of nothing, cheap, blocks"),
        ({"ema_device": "disk"}, "ema_device must be one of same, cpu"),
        ({"prefetch": -1}, "prefetch must be zero or more"),
        ({"keep_every": 0}, "keep_every must be at least 1"),
    ],
)
def test_settings_that_cannot_work_are_refused(changes, words):
    with pytest.raises(ConfigError, match=words):
        FitConfig(steps=1, **changes)
