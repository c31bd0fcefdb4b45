from itertools import product

import pytest
import torch
from cf_encoders.captions.autoregressive import AutoregressiveDecoder
from cf_encoders.captions.decoder_config import CaptionDecoderConfig
from cf_encoders.tokenizer import BOS_ID, EOS_ID, PAD_ID

ODD = {
    "latent": (3, 6, 9),
    "patch": 3,
    "max_tokens": 3,
    "width": 12,
    "heads": 3,
    "mlp_hidden": 8,
    "vocabulary": 6,
}
# every caption of at most three tokens that ends with its first <eos> or fills all three places
CAPTIONS = [
    ids
    for length in (1, 2, 3)
    for ids in product(range(6), repeat=length)
    if EOS_ID not in ids[:-1] and (ids[-1] == EOS_ID or length == 3)
]


def decoder(**changes) -> AutoregressiveDecoder:
    torch.manual_seed(0)
    model = AutoregressiveDecoder(CaptionDecoderConfig(**ODD | changes)).double()
    with torch.no_grad():
        # logits of a new model are nearly even; these make some captions clearly likelier
        model.head.weight *= 4
    return model


def latent(b: int, generator: torch.Generator) -> torch.Tensor:
    return torch.randn(b, 3, 6, 9, generator=generator, dtype=torch.float64)


def padded(ids: tuple[int, ...]) -> list[int]:
    return [*ids, *[PAD_ID] * (3 - len(ids))]


@torch.no_grad()
def log_probabilities(model: AutoregressiveDecoder, z: torch.Tensor) -> torch.Tensor:
    """Of each of CAPTIONS given the latent (c, h, w), by the chain rule."""
    rows = torch.tensor([padded(ids) for ids in CAPTIONS])
    counted = torch.tensor([[i < len(ids) for i in range(3)] for ids in CAPTIONS])
    logits, _ = model.training_logits(z.expand(len(rows), -1, -1, -1), rows, counted)
    return (logits.log_softmax(-1).gather(2, rows[..., None])[..., 0] * counted).sum(1)


def test_no_position_knows_what_follows_it(generator):
    model, z = decoder(max_tokens=7), latent(1, generator)
    ids = torch.randint(6, (1, 7), generator=generator)
    before = model(z, ids)
    for i in range(7):
        changed = ids.clone()
        changed[0, i] = (ids[0, i] + 1) % 6
        moved = (model(z, changed) - before).abs().amax(-1)[0] > 1e-9
        assert moved.tolist() == [False] * i + [True] * (7 - i)


def test_teacher_forcing_starts_with_bos_and_shifts_by_one(generator):
    model, z = decoder(), latent(2, generator)
    ids, mask = torch.tensor([[4, 5, 3], [5, 3, 0]]), torch.tensor([[True] * 3, [True, True, False]])
    logits, told = model.training_logits(z, ids, mask)
    torch.testing.assert_close(logits, model(z, torch.tensor([[BOS_ID, 4, 5], [BOS_ID, 5, 3]])))
    assert torch.equal(told, mask)


def test_the_probabilities_of_all_captions_add_up_to_one(generator):
    model, z = decoder(), latent(1, generator)
    assert log_probabilities(model, z[0]).exp().sum().item() == pytest.approx(1)


def test_greedy_takes_the_likeliest_token_each_time(generator):
    model, z = decoder(max_tokens=7), latent(5, generator)
    for row, written in zip(z, model.write(z), strict=True):
        ids = [BOS_ID]
        while len(ids) < 8 and ids[-1] != EOS_ID:
            ids.append(int(model(row[None], torch.tensor([ids]))[0, -1].argmax()))
        assert written.tolist() == [*ids[1:], *[PAD_ID] * (8 - len(ids))]


def test_enough_beams_find_the_likeliest_of_all_captions(generator):
    model, z = decoder(), latent(6, generator)
    best = [CAPTIONS[int(log_probabilities(model, row).argmax())] for row in z]
    assert model.write(z, beams=36).tolist() == [padded(ids) for ids in best]
    # and greed does not: the search has something to find
    assert model.write(z, beams=1).tolist() != [padded(ids) for ids in best]


def test_captions_are_drawn_as_often_as_the_model_says(generator):
    model, z, n = decoder(), latent(1, generator), 20_000
    drawn = model.sample(z.expand(n, -1, -1, -1), temperature=1.0, generator=generator)
    counts = torch.stack([(drawn == torch.tensor(padded(ids))).all(1).sum() for ids in CAPTIONS])
    assert counts.sum() >= n
    p = log_probabilities(model, z[0]).exp()
    written_alike = torch.tensor([sum(padded(a) == padded(b) for a in CAPTIONS) > 1 for b in CAPTIONS])
    # five standard deviations of a binomial count
    assert ((counts - n * p).abs() < 5 * (n * p * (1 - p)).sqrt() + 1)[~written_alike].all()


def test_temperature_sharpens_and_at_nought_is_greed(generator):
    model, z = decoder(), latent(4, generator)
    assert torch.equal(model.sample(z, 0.0), model.write(z))
    assert torch.equal(model.sample(z, 1e-4, generator), model.write(z))
    one, same = (model.sample(z, 1.0, torch.Generator().manual_seed(7)) for _ in range(2))
    assert torch.equal(one, same)
    with pytest.raises(ValueError, match="temperature must be >= 0, got -1"):
        model.sample(z, -1.0)
    with pytest.raises(ValueError, match="beams must be >= 1, got 0"):
        model.write(z, beams=0)


def test_gradients_reach_every_parameter_and_the_latent(generator):
    model, z = decoder(), latent(2, generator).requires_grad_()
    ids = torch.randint(4, 6, (2, 3), generator=generator)
    logits, _ = model.training_logits(z, ids, torch.ones_like(ids, dtype=torch.bool))
    logits.square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())
    assert (z.grad != 0).all()
