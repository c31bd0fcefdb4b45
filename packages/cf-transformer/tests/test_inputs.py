import pytest
import torch
from cf_transformer.inputs import require_inputs


@pytest.mark.parametrize(
    ("x_shape", "t_shape", "message"),
    [
        ((2, 3, 18, 6), (2,), r"x_t must be \(b, 3, 6, 18\), got \(2, 3, 18, 6\)"),
        ((3, 6, 18), (3,), r"x_t must be \(b, 3, 6, 18\), got \(3, 6, 18\)"),
        ((2, 3, 6, 18), (1,), r"t must be \(b,\) = \(2,\), got \(1,\); use t.expand\(b\)"),
        ((2, 3, 6, 18), (2, 1), r"t must be \(b,\) = \(2,\), got \(2, 1\)"),
    ],
)
def test_a_wrong_shape_is_named_with_its_remedy(x_shape, t_shape, message):
    with pytest.raises(ValueError, match=message):
        require_inputs(torch.zeros(x_shape), torch.zeros(t_shape), 3, (6, 18))


def test_the_right_shapes_pass():
    require_inputs(torch.zeros(2, 3, 6, 18), torch.zeros(2), 3, (6, 18))
