"""The memory and throughput model against what is measured: parameters, tensors kept, bytes sent, operations."""

import gc
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from cf_apps.engine.errors import ConfigError
from cf_apps.t2i.presets import PRESETS
from cf_apps.t2i.scaling.model import (
    Machine,
    network_bytes,
    parameters,
    sample_bytes,
    stage_activation_bytes,
    state_bytes,
)
from cf_apps.t2i.scaling.parts import part_macs, part_parameters
from cf_apps.t2i.scaling.table import markdown, scaling_row, scaling_rows
from cf_transformer import DiMR, DiMRConfig, StageConfig
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

sys.path.insert(0, str(Path(__file__).parent))
from t2i_tiny import baseline, model

PAGE = Path(__file__).resolve().parents[2] / "docs" / "scaling.md"
KEPT = (
    0.08  # of a pair of blocks: its share of gamma(t), of scalars of a norm, and of what the next stage keeps
)
GAMMAS = 24  # vectors of gamma(t) a sample, of two more blocks and their maps; few beside many tokens
PRODUCTS = 0.03  # the two products that a streamed cascade makes once a sample: 2 % of so small a network


class Alive(TorchDispatchMode):
    """Every storage that an operation makes, without keeping it alive."""

    def __init__(self) -> None:
        super().__init__()
        self.made: dict[int, tuple[StorageWeakRef, int]] = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        found = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(found):
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                reference = StorageWeakRef(storage)
                self.made[reference.cdata] = (reference, storage.nbytes())
        return found

    def bytes(self) -> int:
        gc.collect()
        return sum(size for reference, size in self.made.values() if not reference.expired())


def kept(config: DiMRConfig, rows: int, precision: str) -> int:
    """Bytes that live between the forward pass and the backward one."""
    torch.manual_seed(0)
    network = DiMR(config)
    x, t = torch.randn(rows, config.channels, *config.size), torch.rand(rows)
    with Alive() as alive, torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
        outputs = network.scales(x, t)
        found = alive.bytes()
    del outputs
    return found


def deep(transformer: int, convnext: int, recompute: str) -> DiMRConfig:
    stages = (
        StageConfig("transformer", 48, transformer, patch=2, n_heads=2),
        StageConfig("convnext", 32, convnext, patch=1),
    )
    return DiMRConfig(4, (12, 12), stages, recompute=recompute)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("recompute", ["nothing", "cheap", "blocks"])
def test_two_more_blocks_and_their_skip_keep_what_the_model_says(recompute, precision):
    def a_sample(*blocks: int) -> float:
        config = deep(*blocks, recompute)
        return (kept(config, 3, precision) - kept(config, 1, precision)) / 2  # no copies of weights in it

    few, more_first, more_last = a_sample(3, 3), a_sample(5, 3), a_sample(3, 5)
    for stage, measured in ((0, more_first - few), (1, more_last - few)):
        large, small = deep(5, 5, recompute), deep(3, 3, recompute)
        expected = stage_activation_bytes(large, large.stages[stage], precision) - stage_activation_bytes(
            small, small.stages[stage], precision
        )
        gammas = GAMMAS * 4 * large.stages[stage].d_model
        assert measured == pytest.approx(expected, rel=KEPT, abs=gammas)


@pytest.mark.parametrize("build", [model, baseline])
def test_parameters_are_those_of_the_built_modules(build):
    built = build()
    counted = {
        name: sum(p.numel() for p in part.parameters())
        for name, part in built.modules.items()
        if name != "language"
    }
    assert part_parameters(built.config) == counted
    assert parameters(built.config) == sum(counted.values())


def test_state_is_twenty_bytes_a_parameter_shared_by_fsdp():
    assert sum(state_bytes(10).values()) == 200
    assert sum(state_bytes(10, ranks=4).values()) == 50


def test_products_are_those_that_torch_counts():
    built = model()
    config, rows = built.config, 3
    text = config.text_ve
    assert text is not None
    calls = {
        "backbone": lambda part: part(torch.randn(rows, *config.latent), torch.rand(rows)),
        "text_ve": lambda part: part(
            torch.randn(rows, text.max_tokens, text.token_width), torch.ones(rows, text.max_tokens).bool()
        ),
        "image_tower": lambda part: part(torch.randn(rows, *config.latent)),
    }
    expected = part_macs(config)
    assert expected.keys() == calls.keys()
    for name, call in calls.items():
        with FlopCounterMode(display=False) as counter:
            call(built.modules[name])
        assert 2 * rows * expected[name] == pytest.approx(counter.get_total_flops(), rel=PRODUCTS), name


def test_two_ranks_reduce_as_many_bytes_as_the_model_says(tmp_path):
    script = Path(__file__).parent / "t2i_scaling_ranks.py"
    done = subprocess.run([sys.executable, str(script), str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    trained, reduced = map(int, (tmp_path / "found").read_text().split())
    assert reduced == network_bytes(trained, 2, "ddp")  # a ring of two sends 2 (N - 1) / N = 1 times as much


def test_a_sample_of_the_paper_takes_what_was_asked():
    assert sample_bytes(PRESETS["paper-256"]().model) == 2 * (77 * 768 + 4 * 32 * 32) <= 140_000


def test_what_cannot_be_reckoned_is_refused():
    with pytest.raises(ConfigError, match="--gpus 3 does not divide the batch of 1024"):
        scaling_row("paper-256", 10, 3, Machine())
    with pytest.raises(ConfigError, match="does not fit 8 GPUs of 1 GB"):
        scaling_row("paper-256", 10**9, 8, replace(Machine(), memory=1e9))
    with pytest.raises(ConfigError, match="unknown parallel 'tp'; known: ddp, fsdp"):
        network_bytes(1, 2, "tp")


@pytest.mark.skipif(not PAGE.exists(), reason="the page is in the repository, not in the wheel")
def test_the_tables_of_the_page_are_what_the_command_prints():
    assert markdown(scaling_rows(["paper-256", "paper-512"], [8, 64, 512])) in PAGE.read_text(
        encoding="utf-8"
    )
