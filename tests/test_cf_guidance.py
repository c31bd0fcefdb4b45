"""How guidance is searched and measured: on tiny models of four steps, by made-up judges whose best is known."""

import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from cf_apps.engine.flow import SampleConfig
from cf_apps.engine.ranks.world import World
from cf_apps.t2i.evaluate import read_back
from cf_apps.t2i.sample import Sampler
from safetensors.torch import load_file
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks" / "papers"))

from cf.measures import t2i
from cf.measures.guidance import (
    SWEPT,
    Judge,
    autoguidance,
    best_scale,
    budgets,
    guided,
    quarters,
    sampler_at,
    sampler_of,
    sweep,
    unguided,
)
from cf.measures.held_out import held_out
from cf.measures.held_pairs import held_pairs
from cf.measures.pairs import ON_PAIRS
from cf.measures.t2i import BY_RULE
from cf.scale import GUIDANCE, Trained
from cf.scales import SCALES, judged
from cf.spec import Training
from cf.store import Store
from cf.work import trained as train

CPU = torch.device("cpu")
FOUR_STEPS = {"fit.steps": 4, "fit.batch_size": 2, "fit.warmup_steps": 0}
CAPTIONS = ["a red circle on a white background", "two blue squares on a black background"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Callable[[str], Trained]:
    """A training of four steps of two pictures, a checkpoint after each; every recipe is trained once."""
    folder, found = tmp_path_factory.mktemp("runs"), {}
    scale = replace(SCALES["tiny"](), settings=FOUR_STEPS, test=1, val=1)

    def of(recipe: str) -> Trained:
        if recipe not in found:
            ready = scale.ready(Training(recipe))
            run, _ = train(ready, 0, Store(folder / "measured", folder / "runs"), World.alone(CPU))
            found[recipe] = Trained(run, 0, CPU, replace(scale, data=ready.recipe.data))
        return found[recipe]

    return of


@pytest.fixture
def trained(runs) -> Trained:
    return runs("t2i-XS")


def averaged(trained: Trained, step: int) -> dict[str, Tensor]:
    """The averaged weights as they lie on the disk."""
    return load_file(trained.run / "checkpoints" / f"step-{step:08d}" / "ema.safetensors")


def weights(sampler: Sampler) -> dict[str, Tensor]:
    return dict(sampler.model.modules.named_parameters())


def step_of(sampler: Sampler, trained: Trained) -> int:
    """The checkpoint whose averaged weights the sampler draws with."""
    own = sampler.model.modules["backbone"].state_dict()
    return nearest(own, trained)


def nearest(backbone: dict[str, Tensor], trained: Trained) -> int:
    def distance(step: int) -> float:
        saved = averaged(trained, step)
        return sum((tensor - saved[f"backbone.{name}"]).norm().item() for name, tensor in backbone.items())

    return min((1, 2, 3, 4), key=distance)


@dataclass
class Asked:
    """A judge that likes what it is told to, and remembers what it was shown."""

    taste: Callable[[Sampler, float], float]
    liked: list[tuple[Sampler, float]] = field(default_factory=list)
    reported: list[tuple[Sampler, float]] = field(default_factory=list)

    @property
    def judge(self) -> Judge:
        def likes(sampler: Sampler, scale: float, trained: Trained) -> float:
            self.liked.append((sampler, scale))
            return self.taste(sampler, scale)

        def reports(sampler: Sampler, scale: float, trained: Trained) -> dict[str, float]:
            self.reported.append((sampler, scale))
            return {"number": 10 * scale}

        return Judge(likes, reports)


# ------------------------------------------------------------------------------------------------- samplers


@pytest.mark.parametrize("recipe", ["t2i-XS", "t2i-noise-XS"])
def test_a_sampler_at_a_step_draws_with_the_averaged_weights_of_that_checkpoint(runs, recipe):
    trained = runs(recipe)
    parts = ("backbone", "text_ve" if recipe == "t2i-XS" else "reader")
    for step in (1, 3):
        own, saved = weights(sampler_at(trained, step)), averaged(trained, step)
        names = [name for name in own if name.split(".")[0] in parts]
        assert {name.split(".")[0] for name in names} == set(parts)
        assert all(torch.equal(own[name], saved[name]) for name in names)
        raw = load_file(trained.run / "checkpoints" / f"step-{step:08d}" / "weights.safetensors")
        assert any(not torch.equal(own[name], raw[name]) for name in names)  # the average is not the weights
        assert any(not torch.equal(own[name], averaged(trained, step + 1)[name]) for name in names)


def test_the_last_checkpoint_is_the_end_of_the_run_up_to_its_rounding(trained):
    end, last = weights(sampler_of(trained)), averaged(trained, 4)
    drawing = [name for name in end if name.split(".")[0] in ("backbone", "text_ve")]
    assert all(torch.equal(end[name], last[name].half().float()) for name in drawing)


def test_quarters_are_the_budgets_that_have_a_checkpoint(trained, tmp_path):
    assert quarters(trained) == (1, 2, 3, 4) == trained.scale.budgets()
    run = tmp_path / "run"
    for step in (1, 4):
        (run / "checkpoints" / f"step-{step:08d}").mkdir(parents=True)
        (run / "checkpoints" / f"step-{step:08d}" / "complete.json").touch()
    (run / "config.json").write_text((trained.run / "config.json").read_text())
    assert quarters(replace(trained, run=run)) == (1, 4)


# ------------------------------------------------------------------------------------------------- the search


def test_every_scale_searches_the_same_grid():
    assert {make().guidance for make in SCALES.values()} == {GUIDANCE}
    assert list(GUIDANCE) == sorted(set(GUIDANCE))
    assert GUIDANCE[0] == 1


@pytest.mark.parametrize("best", GUIDANCE)
def test_guided_reports_the_scale_that_val_likes_best_wherever_it_lies(trained, best):
    asked = Asked(lambda sampler, scale: -abs(scale - best))
    found = guided(asked.judge, trained)
    assert found == {"none": {"number": 10.0}, "indicator": {"number": 10 * best, "scale": best}}
    assert [scale for _, scale in asked.liked] == list(GUIDANCE)
    assert [scale for _, scale in asked.reported] == ([1.0] if best == 1 else [1.0, best])


def test_of_scales_that_are_liked_as_much_the_smallest_is_taken(trained):
    asked = Asked(lambda sampler, scale: float(scale in (3.0, 5.0)))
    assert best_scale(asked.judge, sampler_of(trained), trained) == 3.0
    assert guided(Asked(lambda sampler, scale: 0.5).judge, trained)["indicator"]["scale"] == 1.0


def test_no_guidance_is_searched_even_where_the_grid_leaves_it_out(trained):
    narrow = replace(trained, scale=replace(trained.scale, guidance=(2.0, 3.0)))
    asked = Asked(lambda sampler, scale: -scale)
    assert best_scale(asked.judge, sampler_of(narrow), narrow) == 1.0
    assert [scale for _, scale in asked.liked] == [1.0, 2.0, 3.0]


def test_budgets_share_the_scale_that_is_found_at_the_end(trained):
    """At earlier steps another scale would be liked, which nobody asks."""
    asked = Asked(lambda sampler, scale: -abs(scale - (4.0 if step_of(sampler, trained) == 4 else 1.5)))
    found = budgets(asked.judge, trained)
    assert found == {str(step): {"number": 40.0, "scale": 4.0, "step": step} for step in (1, 2, 3, 4)}
    assert [step_of(sampler, trained) for sampler, _ in asked.reported] == [1, 2, 3, 4]
    assert [scale for _, scale in asked.liked] == list(GUIDANCE)


def weak_step(sampler: Sampler, trained: Trained) -> int:
    return 0 if sampler.weak is None else nearest(sampler.weak.state_dict(), trained)


@pytest.mark.parametrize(("step", "scale"), [(1, 1.5), (2, 4.0), (3, 7.0)])
def test_autoguidance_finds_the_checkpoint_and_the_scale_together(trained, step, scale):
    wanted = (step, scale)
    asked = Asked(lambda sampler, scale: float((weak_step(sampler, trained), scale) == wanted))
    found = autoguidance(asked.judge, trained)
    assert found == {"autoguidance": {"number": 10 * scale, "scale": scale, "weak_step": step}}
    assert [(weak_step(sampler, trained), at) for sampler, at in asked.reported] == [wanted]
    seen = [(weak_step(sampler, trained), at) for sampler, at in asked.liked]
    assert seen == [(0, 1.0), *((step, scale) for step in (1, 2, 3) for scale in GUIDANCE[1:])]


def test_autoguidance_that_helps_nowhere_is_none(trained):
    asked = Asked(lambda sampler, scale: 0.0)
    assert autoguidance(asked.judge, trained) == {
        "autoguidance": {"number": 10.0, "scale": 1.0, "weak_step": 0}
    }
    assert asked.reported[0][0].weak is None


# ------------------------------------------------------------------------------------------------- the sweep


def pictures(sampler: Sampler, scale: float, seed: int = 0) -> Tensor:
    how = replace(sampler.model.config.sample, scale=scale)
    return sampler.draw(CAPTIONS, how, torch.Generator().manual_seed(seed))


def by_hand(sampler: Sampler, v: Callable[[Tensor, Tensor], Tensor], seed: int = 0) -> Tensor:
    """Euler's rule from t = 0 to 1, written out."""
    x, steps = (
        sampler.encode(CAPTIONS, torch.Generator().manual_seed(seed)),
        sampler.model.config.sample.steps,
    )
    with torch.no_grad():
        for step in range(steps):
            x = x + v(x, torch.full((len(x),), step / steps)) / steps
    return sampler.decode(x)


def test_the_sweep_draws_each_column_by_its_own_field(trained):
    """0 is the null field, 1 the conditional one, s goes s times from the null or the weak field to it."""
    drawn = Judge(lambda *asked: 0.0, lambda sampler, scale, trained: {"drawn": pictures(sampler, scale)})
    found = sweep(drawn, trained)
    sampler, weak = sampler_of(trained), sampler_at(trained, 1).model.backbone
    yes, no = torch.zeros(2, dtype=torch.bool), torch.ones(2, dtype=torch.bool)
    fields = {
        "conditional": lambda x, t: sampler.model.backbone(x, t, yes),
        "null": lambda x, t: sampler.model.backbone(x, t, no),
        "weak": lambda x, t: weak(x, t, yes),
    }

    def between(scale: float, other: str) -> Tensor:
        def v(x: Tensor, t: Tensor) -> Tensor:
            return fields[other](x, t) + scale * (fields["conditional"](x, t) - fields[other](x, t))

        return by_hand(sampler, v)

    expected = {f"indicator {scale:g}": between(scale, "null") for scale in SWEPT}
    expected |= {f"autoguidance {scale:g}": between(scale, "weak") for scale in SWEPT if scale >= 1}
    assert list(found) == list(expected)
    for name, images in expected.items():
        torch.testing.assert_close(found[name]["drawn"], images, atol=1e-5, rtol=1e-5)
    different = [expected[name] for name in ("indicator 0", "indicator 1", "indicator 5", "autoguidance 5")]
    gaps = [(a - b).abs().max() for place, a in enumerate(different) for b in different[:place]]
    assert min(gaps) > 1e-3  # else the columns could stand for one another


def test_the_sweep_at_one_is_what_is_measured_without_guidance(trained):
    found, (none,) = sweep(BY_RULE, trained), unguided(BY_RULE, trained).values()
    assert found["indicator 1"] == found["autoguidance 1"] == none
    assert guided(BY_RULE, trained)["none"] == none
    assert found["indicator 5"]["frechet"] != none["frechet"]


# ------------------------------------------------------------------------------------------------- the judges


class Recording:
    """A sampler that draws the pictures it is given, and remembers captions, scales and seeds."""

    def __init__(self, images: Callable[[list[str]], Tensor]):
        config = SimpleNamespace(image_size=32, sample=SampleConfig(scale=1.0))
        language = SimpleNamespace(too_long=lambda captions: [])
        self.model = SimpleNamespace(config=config, language=language, device=CPU, modules={})
        self.images, self.asked = images, []

    def draw(self, texts, how, generator, batch_size=128):
        self.asked.append((list(texts), how.scale, generator.initial_seed()))
        return self.images(list(texts))


def test_by_rule_val_chooses_by_composition_and_test_alone_is_reported():
    trained = Trained(Path("run"), 2, CPU, replace(SCALES["tiny"](), data="shapes", val=2, test=3))
    val, test = held_out("val", 2, 32), held_out("test", 3, 32)
    true = dict(zip(val.texts + test.texts, [*val.images, *test.images], strict=True))
    right = Recording(lambda texts: torch.stack([true[text] for text in texts]).float() / 255)
    grey = Recording(lambda texts: torch.full((len(texts), 3, 32, 32), 0.5))
    read = read_back(val.images.float() / 255, val.captions)[1]  # the rule misreads a picture now and then
    assert sum(read) >= 11
    assert BY_RULE.likes(right, 2.0, trained) == pytest.approx(sum(read) / 12)
    assert BY_RULE.likes(grey, 2.0, trained) == 0.0
    assert right.asked == [(val.texts, 2.0, 1_002)]
    reported = BY_RULE.reports(right, 3.0, trained)
    assert right.asked[1:] == [(test.texts, 3.0, 1_002)]
    assert reported["composition"] == 1.0
    assert reported["frechet"] == pytest.approx(0.0, abs=1e-9)
    assert (
        t2i.frechet(torch.full((18, 3, 32, 32), 0.5), test) == BY_RULE.reports(grey, 3.0, trained)["frechet"]
    )


def test_on_pairs_val_likes_the_smaller_distance_and_test_alone_is_reported():
    trained = Trained(Path("run"), 0, CPU, replace(SCALES["small"](), data="emoji", scored=20, searched=10))
    halves = held_pairs(trained, Recording(lambda texts: torch.zeros(0)))

    def truth(half) -> Recording:
        return Recording(lambda texts: half.images.float() / 255)

    val, test = truth(halves.val), truth(halves.test)
    dark = Recording(lambda texts: torch.zeros(len(texts), 3, 32, 32))
    assert ON_PAIRS.likes(val, 2.0, trained) == pytest.approx(0.0, abs=1e-6)
    assert ON_PAIRS.likes(dark, 2.0, trained) < -0.1
    reported = ON_PAIRS.reports(test, 3.0, trained)
    assert reported["frechet"] == pytest.approx(0.0, abs=1e-6)
    assert (val.asked[0][0], test.asked[0][0]) == (halves.val.captions, halves.test.captions)


def test_pictures_that_a_rule_can_read_are_judged_by_it_and_others_on_pairs():
    who = judged(lambda judge, trained: judge)
    shapes, emoji = (
        Trained(Path("run"), 0, CPU, replace(SCALES["small"](), data=data)) for data in ("shapes", "emoji")
    )
    assert who(shapes) is BY_RULE
    assert who(emoji) is ON_PAIRS
