"""Golden counts of the public models, taken on the meta device."""

from dataclasses import replace

import pytest
import torch
from cf_transformer import PRESETS, DiMR, DiMRConfig, StageConfig, count_macs, count_parameters, preset
from cf_transformer.cross_attention_dimr import CrossAttentionConfig, CrossAttentionDiMR
from cf_transformer.dit import DiT
from cf_transformer.dit_config import DiTConfig
from cf_transformer.presets import CROSS_ATTENTION_PRESETS, cross_attention_preset, dit_preset
from cf_transformer.td_norm import TimeLerp
from torch.utils.flop_counter import FlopCounterMode

PARAMETERS = {
    "dimr-tiny": 3_024_017,
    "dimr-70m": 69_874_698,
    "dimr-155m": 154_586_250,
    "dimr-305m": 305_498_506,
    "dimr-505m": 504_859_722,
    "dimr-951m": 950_778_890,
    "dimr-70m-512": 72_849_934,
    "dimr-155m-512": 160_616_654,
    "dimr-305m-512": 317_380_814,
    "dimr-505m-512": 523_893_678,
    "dimr-951m-512": 985_439_246,
    "dimr-389m-512": 388_901_534,
    "dimr-xl-2r": 504_085_450,
    "dimr-g-2r": 1_055_199_754,
    "dimr-xl-3r": 524_066_414,
}
STAGES = {
    "dimr-951m": [749_972_486, 200_806_404],
    "dimr-951m-512": [750_021_638, 200_812_548, 34_605_060],
    "dimr-389m-512": [293_822_406, 80_442_724, 14_636_404],
}
GIGA_MACS = {
    "dimr-tiny": 0.3,
    "dimr-70m": 22.3,
    "dimr-155m": 49.0,
    "dimr-305m": 97.1,
    "dimr-505m": 159.6,
    "dimr-951m": 299.3,
    "dimr-70m-512": 28.0,
    "dimr-155m-512": 61.8,
    "dimr-305m-512": 123.8,
    "dimr-505m-512": 203.4,
    "dimr-951m-512": 381.0,
    "dimr-389m-512": 150.9,
    "dimr-xl-2r": 160.2,
    "dimr-g-2r": 331.1,
    "dimr-xl-3r": 206.0,
}
CROSS_ATTENTION_PARAMETERS = {
    "cross-attention-65m": 65_483_018,
    "cross-attention-159m": 158_993_610,
    "cross-attention-308m": 308_329_354,
    "cross-attention-496m": 496_225_418,
    "cross-attention-932m": 932_123_658,
    "cross-attention-1.04b": 1_043_563_530,
}
DIT_GIGA_MACS = {  # at 256 px as DiT's table 4 has them; H at 512 px as the public CrossFlow code does
    "dit-s-2": 6.06,
    "dit-b-2": 23.01,
    "dit-l-2": 80.71,
    "dit-xl-2": 118.64,
    "dit-h-2-512": 821.8,
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


def by_formula(config: DiMRConfig) -> int:
    """Parameters with the released indicator, summed layer by layer from the widths."""
    total = 2
    for i, stage in enumerate(config.stages):
        d, n, cells = stage.d_model, stage.n_blocks, config.grid(stage)[0] * config.grid(stage)[1]
        mlp, skip, norm = 6 * d * d + 5 * d, 2 * d * d + d, 4 * d
        mix = 4 * d * d + d + norm if stage.kind == "transformer" else (config.kernel_size**2 + 1) * d
        embed = config.channels * stage.patch**2 * d + d + cells * d
        pixels = config.channels * (stage.patch**2 if stage is config.stages[-1] else 1)
        total += embed + n * (mix + mlp + norm) + n // 2 * skip + 8 * d + 9 * d * pixels + pixels
        if i:
            low = config.stages[i - 1]
            wide, opened = (low.n_blocks + 1) * low.d_model, (low.patch // stage.patch) ** 2 * d
            total += 8 * wide + wide * opened + opened + 8 * d
    return total


@pytest.mark.parametrize("name", PRESETS)
def test_parameters_are_the_sum_over_the_layers(name):
    assert by_formula(preset(name)) == PARAMETERS[name]


CLASSES = 1001  # ImageNet's and the null class of classifier-free guidance


@pytest.mark.parametrize(("name", "millions"), [("dimr-xl-2r", 505.05), ("dimr-g-2r", 1056.35)])
def test_a_class_conditional_dimr_has_a_table_of_classes_where_ours_has_an_indicator(name, millions):
    without_indicator = count_parameters(released(name)) - 2
    table = CLASSES * preset(name).stages[0].d_model
    assert round((without_indicator + table) / 1e6, 2) == millions


def test_xl_3r_is_524_million_without_its_class_table_of_a_million():
    assert round(count_parameters(released("dimr-xl-3r")) / 1e6, 1) == 524.1
    assert round(CLASSES * 960 / 1e6, 2) == 0.96


def test_the_public_codes_macs_of_xl_3r_have_the_lower_heads_in_them():
    """206.1: it computes them and drops them. The other sizes round to the same digits either way."""
    config = preset("dimr-xl-3r")
    lower = sum(9 * stage.d_model * 4 * (64 // stage.patch) ** 2 for stage in config.stages[:-1])
    assert round((count_macs(config) + lower) / 1e9, 1) == 206.1


def baseline(name: str) -> CrossAttentionDiMR:
    config = cross_attention_preset(name)
    with torch.device("meta"):
        return CrossAttentionDiMR(replace(config, dimr=replace(config.dimr, indicator="released")))


def test_every_other_preset_has_a_golden_count():
    assert set(CROSS_ATTENTION_PARAMETERS) == set(CROSS_ATTENTION_PRESETS)


@pytest.mark.parametrize(("name", "count"), CROSS_ATTENTION_PARAMETERS.items())
def test_a_baseline_has_the_ladders_count_and_one_null_vector_more(name, count):
    assert count_parameters(baseline(name)) == count + 768


def test_a_cross_attention_costs_what_the_ladder_says():
    """2 D^2 + 1536 D + 5 D a block, the norm's gains among them."""
    config = cross_attention_preset("cross-attention-65m")
    with torch.device("meta"):
        plain = DiMR(config.dimr)
        reading = CrossAttentionDiMR(config)
    d, blocks = 512, 13
    added = count_parameters(reading) - count_parameters(plain)
    assert added == blocks * (2 * d * d + 1536 * d + 5 * d) + 768


def test_dit_h_has_the_public_models_count():
    """1,310,720 of it are the positions, which the public model stores and ours computes."""
    with torch.device("meta"):
        model = DiT(dit_preset("dit-h-2-512"))
    assert count_parameters(model) + 1024 * 1280 == 1_068_977_936


def test_dit_xl_is_the_papers_but_for_classes_and_learned_variance():
    """675,129,632 with 256 positions of width 1152, a table of 1001 classes, 8 output channels."""
    with torch.device("meta"):
        model = DiT(dit_preset("dit-xl-2"))
    d = 1152
    classes, variances = (1001 - 2) * d, 4 * 4 * (d + 1)
    assert count_parameters(model) + 256 * d + classes + variances == 675_129_632


@pytest.mark.parametrize(("name", "millions"), [("dit-s-2", 33), ("dit-b-2", 130), ("dit-l-2", 458)])
def test_the_other_dits_have_the_papers_rounded_counts(name, millions):
    with torch.device("meta"):
        model = DiT(dit_preset(name))
    d = model.config.d_model
    theirs = count_parameters(model) + 256 * d + (1001 - 2) * d + 4 * 4 * (d + 1)
    assert abs(theirs / 1e6 - millions) < 0.6


@pytest.mark.parametrize(("name", "giga"), DIT_GIGA_MACS.items())
def test_dit_macs_are_the_published_ones(name, giga):
    assert count_macs(dit_preset(name)) / 1e9 == pytest.approx(giga, rel=1e-3)


@pytest.mark.parametrize("size", [(6, 15), (3, 3)])
def test_dit_macs_are_what_a_forward_pass_multiplies(size):
    dit = DiTConfig(5, size, d_model=12, n_blocks=2, n_heads=3, patch=3, mlp_ratio=1.5, attention="matmul")
    with FlopCounterMode(display=False) as flops:
        DiT(dit)(torch.randn(1, 5, *size), torch.rand(1))
    assert flops.get_total_flops() // 2 == count_macs(dit)


def test_cross_attention_macs_are_what_a_forward_pass_multiplies(config):
    higher = replace(config.stages[2], kind="transformer", n_heads=2)
    reader = CrossAttentionConfig(
        replace(config, attention="matmul", stages=(*config.stages[:2], higher)), context_width=5
    )
    model = CrossAttentionDiMR(reader)
    with FlopCounterMode(display=False) as flops:
        model(torch.randn(1, 3, 6, 18), torch.rand(1), context=torch.randn(1, 7, 5))
    once_per_sample = sum(2 * cascade.project.weight.numel() for cascade in model.dimr.cascades)
    assert flops.get_total_flops() // 2 == count_macs(reader, context_length=7) + once_per_sample
