"""The rows of a rank: together they are the batch of one process, whatever is drawn."""

import pytest
import torch
from cf_apps.data.captioned import ImageTextArrays
from cf_apps.data.captioned_shapes import CaptionedShapes
from cf_apps.engine.flow import TIMES
from cf_apps.engine.ranks.draws import Draws, by_itself, data_draws, draws_of, own_rows, step_draws
from cf_apps.engine.ranks.world import World
from cf_encoders import DiagonalGaussian

CPU = torch.device("cpu")
B = 7  # on 3 ranks: 3, 2, 2
NUMBERS = (5, 11, 0)


def worlds(size):
    """As the ranks see themselves; nothing here speaks to another."""
    return [World(rank, size, rank, None, CPU) for rank in range(size)]


def ranks(size, draw):
    """draw(generator, rows) of every rank, put together."""
    return torch.cat([draw(step_draws(w, CPU, B, *NUMBERS), w.share(B)) for w in worlds(size)])


def like(rows):
    return torch.empty(len(rows), 2, 3, dtype=torch.float64)


WAYS = {
    "normal": lambda g, rows: draws_of(g).normal(like(rows)),
    "uniform": lambda g, rows: draws_of(g).uniform(len(rows), 4),
    "integers": lambda g, rows: draws_of(g).integers(3, 90, len(rows), 2),
    "is_null": lambda g, rows: draws_of(g).is_null(0.4, like(rows)),
    **{name: lambda g, rows, law=law: draws_of(g).times(law, like(rows)) for name, law in TIMES.items()},
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("size", [2, 3, 7])
def test_the_ranks_rows_are_those_of_one_process(way, size):
    assert torch.equal(ranks(size, WAYS[way]), ranks(1, WAYS[way]))


@pytest.mark.parametrize("size", [2, 3])
def test_what_is_drawn_next_is_alike_too(size):
    def second(generator, rows):
        for way in WAYS.values():
            way(generator, rows)
        return WAYS["normal"](generator, rows)

    assert torch.equal(ranks(size, second), ranks(1, second))


def test_with_one_process_the_generator_is_an_ordinary_one_and_draws_as_ever():
    (alone,) = worlds(1)
    dice, plain = step_draws(alone, CPU, B, *NUMBERS), step_draws(alone, CPU, B, *NUMBERS)
    assert type(dice) is torch.Generator
    x = torch.empty(B, 2)
    assert torch.equal(draws_of(dice).normal(x), torch.randn(B, 2, generator=plain))
    assert torch.equal(draws_of(dice).uniform(B, 3), torch.rand(B, 3, generator=plain))
    assert draws_of(dice).number(90) == int(torch.randint(90, (), generator=plain))


def test_a_posterior_s_sample_is_that_of_one_process():
    mean, logvar = torch.randn(2, B, 3, 2, generator=torch.Generator().manual_seed(1)).unbind()
    whole = DiagonalGaussian(mean, logvar)

    def part(generator, rows):
        own = slice(rows.start, rows.stop)
        return draws_of(generator).sample(DiagonalGaussian(mean[own], logvar[own]))

    one = whole.sample(step_draws(worlds(1)[0], CPU, B, *NUMBERS))
    torch.testing.assert_close(ranks(3, part), one, rtol=0, atol=0)


def test_a_rank_s_own_numbers_are_no_other_rank_s_and_repeat():
    def own(generator, rows):
        return torch.randn(4, generator=generator)

    numbers = ranks(3, own).view(3, 4)
    assert len({tuple(row) for row in numbers.tolist()}) == 3
    assert torch.equal(numbers, ranks(3, own).view(3, 4))


def test_shares_are_neighbours_in_rank_order_and_as_even_as_can_be():
    for size in range(1, 6):
        for rows in range(0, 12):
            shares = worlds(size)[0].shares(rows)
            assert [i for share in shares for i in share] == list(range(rows))
            lengths = [len(share) for share in shares]
            assert max(lengths) - min(lengths) <= 1
            assert lengths == sorted(lengths, reverse=True)


def test_weighted_means_of_rows_and_of_things_make_the_means_of_the_whole():
    values = torch.randn(B, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    parts = [(w, draws_of(step_draws(w, CPU, B, *NUMBERS))) for w in worlds(3)]
    found = [draws.weight * values[w.share(B).start : w.share(B).stop].mean() for w, draws in parts]
    torch.testing.assert_close(torch.stack(found).mean(), values.mean())
    share = torch.tensor(2.0)
    assert all(draws.weight * draws.as_row_mean(share) == pytest.approx(2.0) for _, draws in parts)


def test_a_mean_over_tokens_is_that_of_all_ranks_tokens(monkeypatch):
    counts, rows = [5, 1, 4], B
    means = [torch.tensor(float(k), dtype=torch.float64) for k in (3, 10, -2)]
    monkeypatch.setattr(World, "total", lambda self, x: torch.tensor(float(sum(counts)), dtype=torch.float64))
    found = []
    for world, count, mean in zip(worlds(3), counts, means, strict=True):
        draws = draws_of(step_draws(world, CPU, rows, *NUMBERS))
        found.append(draws.weight * (draws.share_of(torch.tensor(count)) * mean))
    expected = sum(c * m for c, m in zip(counts, means, strict=True)) / sum(counts)
    torch.testing.assert_close(
        torch.stack(found).mean(), expected, rtol=1e-6, atol=1e-6
    )  # the shares are float32


def test_a_wrong_number_of_rows_is_refused():
    dice = step_draws(worlds(3)[1], CPU, B, *NUMBERS)
    with pytest.raises(ValueError, match="holds 2 rows of 7, asked for 3"):
        draws_of(dice).uniform(3)


def test_data_are_drawn_for_a_rank_s_places_as_for_all():
    images = torch.zeros(9, 3, 4, 4, dtype=torch.uint8)
    arrays = ImageTextArrays(images, tuple((f"a{i}", f"b{i}", f"c{i}") for i in range(9)), "nine")
    for data in (arrays, CaptionedShapes(9, 16)):
        places = torch.randperm(9, generator=torch.Generator().manual_seed(3))[:B]
        whole = data.batch(places, data_draws(None, B, 4, 70, 2)).captions
        parts = [
            data.batch(own_rows(places, rows), data_draws(rows, B, 4, 70, 2)).captions
            for rows in worlds(3)[0].shares(B)
        ]
        assert [text for part in parts for text in part] == whole
    assert len({text[0] for text in whole}) >= 1


def test_what_only_the_rank_can_count_is_drawn_by_itself():
    plain = torch.Generator().manual_seed(4)
    assert by_itself(plain) is plain
    parts = [by_itself(data_draws(rows, B, 4, 70, 2)) for rows in worlds(2)[0].shares(B)]
    assert not torch.equal(*(torch.rand(5, generator=dice) for dice in parts))


def test_null_targets_of_a_whole_batch_are_cf_flowcore_s():
    from cf_flowcore import null_targets

    x_1, is_null = torch.arange(B, dtype=torch.float32)[:, None], torch.arange(B) % 2 == 0
    found = Draws(torch.Generator().manual_seed(8)).null_targets(x_1, is_null)
    assert torch.equal(found, null_targets(x_1, is_null, generator=torch.Generator().manual_seed(8)))
    assert not torch.equal(found, x_1)
