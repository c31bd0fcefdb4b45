"""Golden counts of the public models, taken on the meta device."""

from dataclasses import replace

import pytest
import torch
from cf_transformer import PRESETS, DiMR, StageConfig, count_macs, count_parameters, preset
from cf_transformer.td_norm import TimeLerp
from torch.utils.flop_counter import FlopCounterMode

PARAMETERS = {
    "dimr-70m": 69_874_698,
    "dimr-155m": 154_586_250,
    "dimr-305m": 305_498_506,
    "dimr-505m": 504_859_722,
    "dimr-951m": 950_778_890,
    "dimr-951m-512": 985_439_246,
    "dimr-389m-512": 388_901_534,
}
STAGES = {
    "dimr-951m": [749_972_486, 200_806_404],
    "dimr-951m-512": [750_021_638, 200_812_548, 34_605_060],
    "dimr-389m-512": [293_822_406, 80_442_724, 14_636_404],
}
GIGA_MACS = {
    "dimr-70m": 22.3,
    "dimr-155m": 49.0,
    "dimr-305m": 97.1,
    "dimr-505m": 159.6,
    "dimr-951m": 299.3,
    "dimr-951m-512": 381.0,
    "dimr-389m-512": 150.9,
}
TIME_PARAMETERS = {"dimr-951m": 1_157_120, "dimr-951m-512": 1_334_272}


def released(name: str) -> DiMR:
    with torch.device("meta"):
        return DiMR(replace(preset(name), indicator="released"))


def count_of_stage(model: DiMR, s: int) -> int:
    parts = [model.stages[s], model.heads[s], model.cascades[s - 1] if s else model.indicator]
    return sum(map(count_parameters, parts))


def test_every_preset_has_a_golden_count():
    assert set(PARAMETERS) == set(GIGA_MACS) == set(PRESETS)


@pytest.mark.parametrize(("name", "count"), PARAMETERS.items())
def test_parameters_are_those_of_the_public_model(name, count):
    assert count_parameters(released(name)) == count


@pytest.mark.parametrize(("name", "counts"), STAGES.items())
def test_parameters_of_each_stage_are_those_of_the_public_model(name, counts):
    model = released(name)
    assert [count_of_stage(model, s) for s in range(len(counts))] == counts


@pytest.mark.parametrize(("name", "count"), TIME_PARAMETERS.items())
def test_time_costs_a_thousandth_of_the_parameters(name, count):
    model = released(name)
    assert sum(count_parameters(m) for m in model.modules() if isinstance(m, TimeLerp)) == count


def test_one_block_of_each_kind_has_the_published_count():
    model = released("dimr-951m")
    low, high = model.stages
    norm = 4 * 1024  # a TD-RMSNorm; it lives with the stage
    assert count_parameters(low.blocks[0]) + 2 * norm == 10_500_096
    assert count_parameters(high.blocks[0]) + norm // 2 == 1_603_072


def test_the_papers_indicator_adds_two_vectors_for_two_scalars():
    with torch.device("meta"):
        paper = DiMR(preset("dimr-951m"))
    assert count_parameters(paper) == 950_778_890 + 2 * 1024 - 2


@pytest.mark.parametrize(("name", "giga"), GIGA_MACS.items())
def test_macs_are_those_of_the_public_model(name, giga):
    assert round(count_macs(preset(name)) / 1e9, 1) == giga


def test_macs_are_what_a_forward_pass_multiplies(config):
    model = DiMR(replace(config, attention="matmul"))
    with FlopCounterMode(display=False) as flops:
        model(torch.randn(1, 3, 6, 18), torch.rand(1))
    once_per_sample = sum(2 * cascade.project.weight.numel() for cascade in model.cascades)
    assert flops.get_total_flops() // 2 == count_macs(config) + once_per_sample


def test_macs_count_pixels_that_a_patched_last_stage_predicts(config):
    coarse = replace(config, stages=(StageConfig("transformer", 8, 3, patch=3, n_heads=1),))
    with FlopCounterMode(display=False) as flops:
        DiMR(replace(coarse, attention="matmul"))(torch.randn(1, 3, 6, 18), torch.rand(1))
    assert flops.get_total_flops() // 2 == count_macs(coarse)
