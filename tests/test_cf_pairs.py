"""Text to image where no rule reads the pictures: held-out pairs in two halves, and the numbers of drawn pictures."""

import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks" / "papers"))

from cf.claims import NOT_MEASURED
from cf.every import every
from cf.measures import pairs, sums
from cf.measures.held_pairs import Pairs, held_pairs
from cf.measures.pairs import judged
from cf.measures.sums import arithmetic, closer
from cf.scale import Trained
from cf.scales import SCALES
from cf.spec import UNDECIDED
from cf_apps.engine.flow import SampleConfig
from cf_apps.t2i.scoring.judges import JudgePaths
from cf_eval.clip_encoders import ClipEncoder
from cf_eval.images.protocols import CLIP_MEAN, CLIP_STD

CPU = torch.device("cpu")


def sampler_of(draw, language=None) -> SimpleNamespace:
    language = language or SimpleNamespace(too_long=lambda captions: [])
    config = SimpleNamespace(image_size=32, sample=SampleConfig(scale=1.0))
    model = SimpleNamespace(config=config, language=language, device=CPU)
    return SimpleNamespace(model=model, draw=draw)


def on_emoji(**changes) -> Trained:
    scale = replace(SCALES["small"](), data="emoji", **changes)
    return Trained(Path("run"), 0, CPU, scale)


def test_the_held_out_pairs_fall_into_two_halves_that_stay_put():
    halves = held_pairs(on_emoji(), sampler_of(None))
    few = held_pairs(on_emoji(scored=5, searched=3), sampler_of(None))
    val, test = ({image.numpy().tobytes() for image in half.images} for half in (halves.val, halves.test))
    assert not val & test
    assert min(len(halves.val), len(halves.test)) > 60
    assert (few.val.captions, few.test.captions) == (halves.val.captions[:3], halves.test.captions[:5])


def test_captions_that_the_model_cannot_read_whole_are_left_out():
    language = SimpleNamespace(too_long=lambda captions: [0, 2])
    short = held_pairs(on_emoji(), sampler_of(None, language)).test
    whole = held_pairs(on_emoji(), sampler_of(None)).test
    assert short.captions == [whole.captions[1], *whole.captions[3:]]
    assert torch.equal(short.images[0], whole.images[1])


def test_true_pictures_are_at_distance_zero_and_others_are_not():
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (200, 3, 8, 8), dtype=torch.uint8, generator=generator)
    pairs = Pairs(images, [str(place) for place in range(len(images))])

    def truth(captions, how, generator):
        return images[[int(caption) for caption in captions]].float() / 255

    def darker(captions, how, generator):
        return 0.5 * truth(captions, how, generator)

    assert judged(sampler_of(truth), pairs, 1.0, on_emoji()) == {
        "frechet": pytest.approx(0.0, abs=1e-6),
        "pairs": 200,
    }
    half = images.float().div(255).mul(0.5)
    shift = torch.nn.functional.adaptive_avg_pool2d(half, 4).flatten(1).mean(0)  # of the means, a lower bound
    assert judged(sampler_of(darker), pairs, 1.0, on_emoji())["frechet"] > shift.square().sum().item()


PRIMARY = ("red", "green", "blue")


@pytest.fixture
def clip(monkeypatch) -> JudgePaths:
    """A CLIP that knows three colours: of a picture its mean, of a caption the one that it names."""

    def of_pixels(pixels: torch.Tensor) -> torch.Tensor:
        mean, std = (torch.tensor(values).view(3, 1, 1) for values in (CLIP_MEAN, CLIP_STD))
        return (pixels * std + mean).mean((2, 3))

    def of_texts(texts: list[str]) -> torch.Tensor:
        return torch.tensor([[float(colour in text.split()) for colour in PRIMARY] for text in texts])

    encoder = ClipEncoder("three colours", 8, of_pixels, of_texts)
    for module in (pairs, sums):
        monkeypatch.setattr(module, "clip_encoder", lambda paths, device: encoder)
    return JudgePaths(clip=Path("clip"))


def plain(captions: list[str]) -> torch.Tensor:
    """Pictures all in the colour of their caption."""
    return torch.stack(
        [torch.eye(3)[PRIMARY.index(c.split()[1])].view(3, 1, 1).expand(3, 8, 8) for c in captions]
    )


def test_with_a_clip_there_is_a_score_and_right_pictures_have_more_of_it(clip):
    captions = ["a red heart", "a green book", "a blue car", "a red bird"] * 2
    pairs = Pairs((plain(captions) * 255).to(torch.uint8), captions)
    right, wrong = (
        judged(
            sampler_of(lambda texts, how, generator, by=by: plain(texts[by:] + texts[:by])),
            pairs,
            1.0,
            trained,
        )
        for trained in [on_emoji(judges=clip)]
        for by in (0, 1)
    )
    assert right["clip"] == pytest.approx(1.0, abs=1e-5)
    assert wrong["clip"] == pytest.approx(0.25, abs=1e-5)  # the fourth caption's neighbour is red as well


def test_a_sum_is_right_where_its_picture_is_closer_to_what_the_sum_means(clip):
    wanted, other, trained = (
        ["a red heart", "a blue car"],
        ["a green heart", "a red car"],
        on_emoji(judges=clip),
    )
    assert closer(plain(wanted), wanted, other, trained) == 1.0
    assert closer(plain(other), wanted, other, trained) == 0.0
    assert closer(plain(["a red heart", "a red car"]), wanted, other, trained) == 0.5


def test_without_a_clip_no_sum_has_a_number_and_the_claim_is_not_decidable():
    columns = arithmetic(on_emoji())
    table = every(SCALES["small"]())["fig5"]
    results = {row.name: [columns[row.column]] * 2 for row in table.rows}
    assert [claim.judge(results) for claim in table.claims] == [(UNDECIDED, NOT_MEASURED)]
