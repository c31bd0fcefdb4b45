import torch
import torch.nn.functional as F
from cf_transformer.head import VelocityHead


def test_a_head_is_a_norm_and_a_convolution_on_the_stages_grid(shaken, generator):
    head = shaken(VelocityHead(3, 5, (2, 7), upscale=1).double())
    x = torch.randn(2, 14, 5, generator=generator, dtype=torch.float64)
    t = torch.rand(2, generator=generator, dtype=torch.float64)
    image = head.norm(x, t).transpose(1, 2).reshape(2, 5, 2, 7)
    torch.testing.assert_close(head(x, t), F.conv2d(image, head.conv.weight, head.conv.bias, padding=1))


def test_a_head_above_a_patch_opens_its_cells_in_row_column_channel_order():
    head = VelocityHead(2, 5, (2, 3), upscale=2)
    head.zero()
    with torch.no_grad():
        head.conv.bias.copy_(torch.arange(8.0))
    v = head(torch.zeros(1, 6, 5), torch.zeros(1))
    cell = torch.tensor([[[0.0, 2.0], [4.0, 6.0]], [[1.0, 3.0], [5.0, 7.0]]])  # (channel, row, column)
    assert torch.equal(v[0], cell.repeat(1, 2, 3))
