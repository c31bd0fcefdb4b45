import pytest
import torch
from cf_transformer.kernels import tuned

DTYPES = [torch.float32, torch.float16, torch.bfloat16]
OPS = list(tuned._table)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("op", OPS)
def test_every_kernel_has_tiles_up_to_its_widest_and_not_beyond(op, dtype):
    most = tuned.widest(op, dtype)
    for width in (1, most // 2 + 1, most):
        found = tuned.tile(op, width, dtype)
        assert min(found.rows, found.columns, found.warps, found.stages) >= 1
        assert found.rows.bit_count() == found.columns.bit_count() == found.warps.bit_count() == 1
    with pytest.raises(ValueError, match=f"{op} has tiles for {dtype} up to width {most}, got {most + 1}"):
        tuned.tile(op, most + 1, dtype)


@pytest.mark.parametrize("op", [op for op in OPS if "norm_" in op and not op.startswith("qk")])
def test_the_tile_of_a_norm_holds_all_channels_and_wastes_less_than_half_beyond_64(op):
    for width in (1, 16, 60, 64, 65, 960, 1024, 1152, 4096):
        columns = tuned.tile(op, width, torch.bfloat16).columns
        assert width <= columns < max(2 * width, 65)


def test_a_row_of_the_table_says_whether_it_was_measured():
    assert all(type(row["measured"]) is bool for rows in tuned._table.values() for row in rows)


def test_an_unknown_op_lists_the_known():
    with pytest.raises(ValueError, match="no tiles for op 'softmax'; known: td_norm_forward, "):
        tuned.tile("softmax", 64, torch.float32)


def test_a_precision_without_tiles_has_no_width():
    assert tuned.widest("td_norm_forward", torch.int8) == 0


def test_the_compiler_is_told_to_contract_products_and_sums():
    assert tuned.Tile(2, 64, 4, 1, False).options() == {
        "num_warps": 4,
        "num_stages": 1,
        "enable_fp_fusion": True,
    }
