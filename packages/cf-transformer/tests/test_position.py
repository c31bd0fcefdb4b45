import torch
import torch.nn.functional as F
from cf_transformer.position import PatchEmbed, pixel_shuffle


def test_pixel_shuffle_reads_row_then_column_then_channel():
    # two cells side by side, r = 2, d = 2: channel = (row in cell * 2 + column in cell) * 2 + d
    left, right = torch.arange(8.0), torch.arange(8.0) + 100
    image = pixel_shuffle(torch.stack([left, right])[None], 2, (1, 2))[0]
    expected = torch.tensor(
        [[0, 1], [2, 3], [100, 101], [102, 103], [4, 5], [6, 7], [104, 105], [106, 107]], dtype=torch.float
    )
    assert torch.equal(image, expected)


def test_pixel_shuffle_is_pytorchs_with_channels_in_another_order(generator):
    r, d, rows, columns = 3, 5, 2, 7
    x = torch.randn(2, rows * columns, r * r * d, generator=generator)
    channel_first = x.unflatten(-1, (r * r, d)).transpose(-1, -2).flatten(-2)
    image = F.pixel_shuffle(channel_first.transpose(1, 2).unflatten(-1, (rows, columns)), r)
    assert torch.equal(pixel_shuffle(x, r, (rows, columns)), image.flatten(2).transpose(1, 2))


def test_pixel_shuffle_by_one_changes_nothing(generator):
    x = torch.randn(2, 6, 5, generator=generator)
    assert torch.equal(pixel_shuffle(x, 1, (2, 3)), x)


def test_a_patch_is_projected_where_it_stands(shaken, generator):
    embed = shaken(PatchEmbed(3, 5, 2, (2, 4)).double())
    x = torch.randn(1, 3, 4, 8, generator=generator, dtype=torch.float64)
    y, column = 1, 2
    cell = x[0, :, 2 * y : 2 * y + 2, 2 * column : 2 * column + 2]
    weight, bias = embed.project.weight, embed.project.bias
    expected = torch.einsum("dcpq,cpq->d", weight, cell) + bias + embed.position.table[y * 4 + column]
    torch.testing.assert_close(embed(x)[0, y * 4 + column], expected)
