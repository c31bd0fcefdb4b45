import pytest
import torch
from cf_encoders.captions.accuracy import CaptionAccuracy, caption_accuracy
from cf_encoders.captions.decoder import CaptionDecoder, before_end, hide_some, least_sure
from cf_encoders.captions.decoder_config import CaptionDecoderConfig
from cf_encoders.tokenizer import Vocabulary

ODD = {
    "latent": (3, 6, 9),
    "patch": 3,
    "max_tokens": 7,
    "width": 12,
    "heads": 3,
    "mlp_hidden": 8,
    "vocabulary": 11,
}
MASK = torch.tensor([[True] * 7, [True] * 4 + [False] * 3])


def decoder(**changes) -> CaptionDecoder:
    torch.manual_seed(0)
    return CaptionDecoder(CaptionDecoderConfig(**ODD | changes)).double()


def latent(b: int, generator: torch.Generator) -> torch.Tensor:
    return torch.randn(b, 3, 6, 9, generator=generator, dtype=torch.float64)


def test_without_a_draft_every_position_of_a_hidden_caption_gets_logits(generator):
    model, z = decoder(), latent(2, generator)
    hidden = torch.full((2, 7), 11)
    assert model(z).shape == (2, 7, 11)
    torch.testing.assert_close(model(z), model(z, hidden, torch.ones(2, 7, dtype=torch.bool)))


def test_positions_beyond_the_caption_change_nothing_within_it(generator):
    model, z = decoder(), latent(2, generator)
    draft = torch.randint(11, (2, 7), generator=generator)
    other = torch.where(MASK, draft, (draft + 5) % 11)
    torch.testing.assert_close(model(z, draft, MASK)[MASK], model(z, other, MASK)[MASK])
    shorter = model(z[1:], draft[1:, :4], MASK[1:, :4])
    torch.testing.assert_close(model(z, draft, MASK)[1:, :4], shorter)


def test_without_a_length_head_all_positions_are_looked_at(generator):
    model, z = decoder(predict_length=False), latent(2, generator)
    draft = torch.randint(11, (2, 7), generator=generator)
    torch.testing.assert_close(model(z, draft, MASK), model(z, draft))
    assert model.length_logits(z) is None


def test_each_token_of_the_draft_and_each_patch_of_the_latent_reaches_each_position(generator):
    model, z = decoder(), latent(1, generator)
    draft = torch.randint(4, 11, (1, 7), generator=generator)
    before = model(z, draft)
    for i in range(7):
        changed = draft.clone()
        changed[0, i] = model.hidden
        assert ((model(z, changed) - before).abs().amax(-1) > 1e-9).all()
    for row, column in ((0, 0), (5, 8), (3, 4)):
        moved = z.clone()
        moved[0, :, row, column] += 1
        assert ((model(moved, draft) - before).abs().amax(-1) > 1e-9).all()


def test_gradients_reach_every_parameter_and_the_latent(generator):
    model, z = decoder(), latent(2, generator).requires_grad_()
    ids = torch.randint(4, 11, (2, 7), generator=generator)
    logits, told = model.training_logits(z, ids, MASK, generator)
    (logits[told].square().sum() + model.length_logits(z).square().sum()).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())
    assert (z.grad != 0).all()


def test_a_training_draft_shows_nothing_that_it_asks_for(generator):
    model, z = decoder(), latent(2, generator)
    ids = torch.randint(4, 11, (2, 7), generator=generator)
    logits, told = model.training_logits(z, ids, MASK, torch.Generator().manual_seed(3))
    other = torch.where(told, (ids + 1) % 11, ids)
    again, _ = model.training_logits(z, other, MASK, torch.Generator().manual_seed(3))
    torch.testing.assert_close(logits[told], again[told])


def test_half_of_the_drafts_hide_everything_and_the_others_a_uniform_share(generator):
    mask = torch.arange(10) < torch.randint(1, 11, (20_000, 1), generator=generator)
    mask[:, 0] = True
    hide = hide_some(mask, generator)
    share = hide.sum(1) / mask.sum(1)
    assert not hide[~mask].any()
    assert hide.any(1).all()
    long = mask.sum(1) == 10
    # of ten tokens, ceil(10 u) hides each number from 1 to 10 in a tenth of the other half
    counts = torch.bincount((10 * share[long]).round().long(), minlength=11) / long.sum()
    expected = torch.tensor([0.0, *[0.05] * 9, 0.55])
    torch.testing.assert_close(counts, expected, atol=0.025, rtol=0)


def test_the_least_sure_are_counted_within_the_mask():
    confidence = torch.tensor([[0.9, 0.1, 0.5, 0.3, 0.0], [0.2, 0.8, 0.4, 0.0, 0.0]])
    mask = torch.tensor([[True] * 4 + [False], [True] * 3 + [False] * 2])
    assert least_sure(confidence, mask, torch.tensor([2.0, 1.0])).nonzero().tolist() == [
        [0, 1],
        [0, 3],
        [1, 0],
    ]
    assert torch.equal(least_sure(confidence, mask, mask.sum(1).float()), mask)
    assert not least_sure(confidence, mask, torch.zeros(2)).any()


def test_a_caption_ends_with_its_first_eos():
    ids = torch.tensor([[5, 3, 6, 3], [5, 6, 7, 8], [3, 3, 5, 5]])
    assert before_end(ids).long().tolist() == [[1, 1, 0, 0], [1, 1, 1, 1], [1, 0, 0, 0]]


class Scripted(CaptionDecoder):
    """Says what it is told to, surely or not, and remembers the drafts it was shown."""

    def __init__(self, first: torch.Tensor, sure: torch.Tensor, second: torch.Tensor, length: int) -> None:
        super().__init__(CaptionDecoderConfig(**ODD))
        self.answers, self.length, self.drafts = [(first, sure), (second, torch.ones_like(sure))], length, []

    def forward(self, latent, draft=None, mask=None):
        self.drafts.append((draft, mask))
        ids, sure = self.answers[len(self.drafts) - 1]
        return torch.nn.functional.one_hot(ids, 11) * sure[..., None] * 9

    def length_logits(self, latent):
        return torch.nn.functional.one_hot(torch.full((len(latent),), self.length - 1), 7).float()


FIRST = torch.tensor([[5, 6, 7, 8, 3, 9, 9]])
SURE = torch.tensor([[0.9, 0.2, 0.8, 0.3, 0.7, 0.1, 0.1]])
SECOND = torch.tensor([[10, 9, 10, 4, 10, 10, 10]])


def test_the_second_pass_sees_the_sure_tokens_and_replaces_the_others():
    model = Scripted(FIRST, SURE, SECOND, length=5)
    written = model.write(torch.zeros(1, 3, 6, 9), redo=0.4)
    (blank, mask), (draft, _) = model.drafts
    assert (blank == model.hidden).all()
    assert mask.tolist() == [[True] * 5 + [False] * 2]
    assert draft.tolist() == [[5, 11, 7, 11, 3, 11, 11]]
    assert written.tolist() == [[5, 9, 7, 4, 3, 0, 0]]


def test_one_pass_keeps_the_draft_up_to_the_predicted_length_or_an_earlier_eos():
    assert Scripted(FIRST, SURE, SECOND, 5).write(torch.zeros(1, 3, 6, 9)).tolist() == [[5, 6, 7, 8, 3, 0, 0]]
    assert Scripted(FIRST, SURE, SECOND, 2).write(torch.zeros(1, 3, 6, 9)).tolist() == [[5, 6, 0, 0, 0, 0, 0]]
    assert Scripted(FIRST, SURE, SECOND, 7).write(torch.zeros(1, 3, 6, 9)).tolist() == [[5, 6, 7, 8, 3, 0, 0]]


def test_generate_turns_ids_into_words():
    vocabulary = Vocabulary(["a", "red", "circle", "here", "there", "blue", "square"])
    written = Scripted(FIRST, SURE, SECOND, length=5).generate(torch.zeros(1, 3, 6, 9), vocabulary)
    assert written == ["red circle here there"]


def test_what_it_cannot_read_is_refused(generator):
    with pytest.raises(ValueError, match=r"latent is \(3, 6, 6\), the decoder reads \(3, 6, 9\)"):
        decoder()(torch.zeros(1, 3, 6, 6).double())
    with pytest.raises(ValueError, match=r"share of the tokens, in \[0, 1\], got 2"):
        decoder().write(latent(1, generator), redo=2.0)
    with pytest.raises(ValueError, match="patch 4 must divide the latent's height 6 and width 9"):
        CaptionDecoderConfig(**ODD | {"patch": 4})
    with pytest.raises(ValueError, match="vocabulary must be a positive integer, got 0"):
        CaptionDecoderConfig(**ODD | {"vocabulary": 0})
    with pytest.raises(ValueError, match="unknown CaptionDecoderConfig keys"):
        CaptionDecoderConfig.from_dict({**ODD, "layers": 3})


def test_the_config_survives_json():
    config = CaptionDecoderConfig(**ODD)
    assert CaptionDecoderConfig.from_dict({**config.to_dict(), "latent": [3, 6, 9]}) == config


def test_accuracy_counts_real_tokens_whole_captions_and_lengths():
    ids = torch.tensor([[5, 6, 3, 0, 0], [7, 8, 9, 5, 3]])
    mask = ids != 0
    written = torch.tensor([[5, 6, 3, 0, 0, 0], [7, 9, 9, 5, 3, 0]])
    assert caption_accuracy(written, ids, mask) == CaptionAccuracy(7 / 8, 0.5, 1.0)
    longer = torch.tensor([[5, 6, 3, 4, 0, 0], [7, 8, 9, 3, 0, 0]])
    # every token of the first is right, but it does not stop; the second stops early
    assert caption_accuracy(longer, ids, mask) == CaptionAccuracy(6 / 8, 0.0, 0.0)


def test_a_second_pass_makes_captions_agree_with_themselves(generator):
    """Nothing in the latent; of the captions 4 4 is 40 %, 5 6 and 5 7 are 30 % each.

    The likeliest first token is 5, the likeliest second one is 4, and 5 4 is no caption.
    """
    torch.manual_seed(0)
    model = CaptionDecoder(CaptionDecoderConfig(**ODD))
    captions = torch.tensor([[4, 4, 3]] * 4 + [[5, 6, 3]] * 3 + [[5, 7, 3]] * 3)
    mask = torch.ones_like(captions, dtype=torch.bool)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-2)
    z = torch.zeros(40, 3, 6, 9)
    for step in range(50):
        optimizer.param_groups[0]["lr"] = 2e-2 * (1 - step / 50)
        rows = torch.arange(40) % 10
        logits, told = model.training_logits(z, captions[rows], mask[rows], generator)
        length = torch.nn.functional.cross_entropy(model.length_logits(z), torch.full((40,), 2))
        optimizer.zero_grad()
        (torch.nn.functional.cross_entropy(logits[told], captions[rows][told]) + length).backward()
        optimizer.step()
    first = model(z[:1], torch.full((1, 3), model.hidden)).softmax(-1)[0]
    torch.testing.assert_close(first[0, [4, 5]], torch.tensor([0.4, 0.6]), atol=0.05, rtol=0)
    torch.testing.assert_close(first[1, [4, 6, 7]], torch.tensor([0.4, 0.3, 0.3]), atol=0.05, rtol=0)
    assert model.write(z[:1])[0, :3].tolist() == [5, 4, 3]
    # of three tokens, the least sure: the second
    assert model.write(z[:1], redo=0.3)[0, :3].tolist() in ([5, 6, 3], [5, 7, 3])
