"""The page of figures: it has every figure, its links exist, words are escaped, and what is missing is said."""

import sys
from dataclasses import dataclass, field, replace
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from cf_apps.engine.errors import RunError
from cf_apps.engine.flow import SampleConfig
from cf_eval.composition import TASKS
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks" / "papers"))

from cf.figures import strips
from cf.figures.make import FIGURES, few_colours, make
from cf.figures.scaling import curves
from cf.figures.stage import Drawn, Stage, grid, shown
from cf.figures.strips import NOISE, strip, sweep
from cf.measures.held_out import held_out
from cf.scale import Trained
from cf.scales import SCALES
from cf.spec import Training
from cf.store import Store

T2I = Training("t2i")
PER_TASK = 4


@dataclass
class FlatSampler:
    """Draws every caption as one grey, and remembers what it was asked."""

    grey: float = 0.5
    asked: list = field(default_factory=list)
    model: SimpleNamespace = field(
        default_factory=lambda: SimpleNamespace(config=SimpleNamespace(image_size=32, sample=SampleConfig()))
    )

    def draw(self, texts, how, generator):
        self.asked.append((list(texts), how.scale, generator.initial_seed()))
        return torch.full((len(texts), 3, 32, 32), self.grey)


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    scale = replace(SCALES["tiny"](), test=PER_TASK, val=2)
    return Stage(scale, Store(tmp_path / "measured", tmp_path / "runs"))


@pytest.fixture
def sampler(monkeypatch) -> FlatSampler:
    """In place of every finished run."""
    flat = FlatSampler()
    monkeypatch.setattr(strips, "sampler_of", lambda trained: flat)
    return flat


def finish(stage: Stage, training: Training) -> None:
    """What tells a finished run from others; nothing here reads the weights."""
    run = stage.store.run(stage.scale.ready(training).key(stage.seed))
    run.mkdir(parents=True)
    (run / "model.safetensors").touch()


def measure(stage: Stage, training: Training, name: str, seed: int, columns: dict) -> None:
    ready = stage.scale.ready(training)
    stage.store.write(ready.key(seed), stage.scale.stored(name, ready), seed, {"columns": columns})


# ------------------------------------------------------------------------------------------------- the page


class Links(HTMLParser):
    def __init__(self, text: str):
        super().__init__()
        self.ids, self.targets, self.alts, self.said = set(), [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        self.ids.add(found.get("id"))
        self.targets += [found[name] for name in ("href", "src") if name in found]
        self.alts += [found.get("alt")] if tag == "img" else []

    def handle_data(self, data):
        self.said.append(data)


SHARP = 'a "red" <circle> & more'


def made_up(picture: bool) -> Drawn:
    image = Image.new("RGB", (60, 40), (200, 30, 30)) if picture else None
    return Drawn(image, alt=SHARP, notes=[SHARP], missing=[] if picture else [SHARP])


def test_a_page_of_made_up_pictures_has_every_figure_and_no_dead_link(stage, tmp_path):
    finish(stage, T2I)
    (tmp_path / "table3a.md").write_text("numbers")
    figures = tuple(replace(figure, draw=lambda stage: made_up(True)) for figure in FIGURES)
    page = make(stage, tmp_path, figures)
    found = Links(page.read_text())
    assert [alt for alt in found.alts if alt != SHARP] == []
    assert len(found.alts) == len(FIGURES)
    for target in found.targets:
        assert target[1:] in found.ids if target[0] == "#" else (tmp_path / target).exists(), target
    for figure in FIGURES:
        assert f"figures/{figure.name}.png" in found.targets
        assert f"#{figure.name}" in found.targets
        assert {figure.title, figure.sees} <= set(found.said)
    assert "table3a.md" in found.targets
    assert "table3b.md" not in found.targets  # was not written


def test_words_come_back_from_the_page_as_they_were(stage, tmp_path):
    finish(stage, T2I)
    page = make(stage, tmp_path, (replace(FIGURES[0], title=SHARP, draw=lambda stage: made_up(True)),))
    found = Links(page.read_text())
    assert found.alts == [SHARP]
    assert "<circle>" not in page.read_text()
    assert found.said.count(SHARP) == 3  # contents, heading, note


def test_a_figure_that_cannot_be_drawn_says_so_and_keeps_no_old_picture(stage, tmp_path):
    finish(stage, T2I)
    figure = replace(FIGURES[0], draw=lambda stage: made_up(True))
    make(stage, tmp_path, (figure,))
    file = tmp_path / "figures" / f"{figure.name}.png"
    assert file.exists()
    found = Links(make(stage, tmp_path, (replace(figure, draw=lambda stage: made_up(False)),)).read_text())
    assert not file.exists()
    assert found.alts == []
    assert f"Left out: {SHARP}." in "".join(found.said)


def test_without_any_finished_training_there_is_no_page(stage, tmp_path):
    with pytest.raises(RunError, match=r"cf_bench\.py --scale tiny"):
        make(stage, tmp_path)
    assert not (tmp_path / "figures.html").exists()


def test_names_are_files_and_the_papers_numbers_are_found():
    assert len({figure.name for figure in FIGURES}) == len(FIGURES)
    by_name = {figure.name: figure for figure in FIGURES}
    assert by_name["table3a"].says.endswith(
        "FID: Encoder 66.65, Encoder + noise 59.91, Variational Encoder 40.78."
    )


def test_few_colours_keep_a_rare_one():
    noise = torch.randint(
        180, 256, (64, 64, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    noise[10:12, 10:12] = torch.tensor([200, 20, 20], dtype=torch.uint8)
    few = few_colours(Image.fromarray(noise.numpy()))
    assert len(few.getcolors(256)) <= 256
    assert (
        max(abs(a - b) for a, b in zip(few.convert("RGB").getpixel((10, 10)), (200, 20, 20), strict=True)) < 6
    )


# ------------------------------------------------------------------------------------------------- strips


def test_a_strip_shows_the_rows_that_are_there_and_says_which_are_missing(stage, sampler):
    finish(stage, T2I)
    finish(stage, Training("t2i", {"text_ve.variation": "none"}))
    measure(stage, T2I, "unguided", 0, {"none": {"composition": 0.25}})
    measure(stage, T2I, "unguided", 1, {"none": {"composition": 0.5}})
    found = strip(stage, "table3a")
    assert found.missing == ["Encoder + noise: no finished run of t2i (text_ve.variation=noise), seed 0"]
    rows = found.alt.removeprefix("Pictures of 8 captions, in rows: ").split("; ")
    assert rows == ["Encoder", "Variational Encoder (0.375)", "a true picture"]
    (texts, *_), (others, *_) = sampler.asked
    assert texts == others
    assert [(scale, seed) for _, scale, seed in sampler.asked] == [(1.0, NOISE)] * 2
    assert found.picture.width <= 1400


def test_a_strip_without_runs_has_no_picture_and_names_every_row(stage):
    found = strip(stage, "table3e")
    assert found.picture is None
    assert [sentence.split(":")[0] for sentence in found.missing] == [
        "2-stage separate training",
        "Joint training",
        "2-stage w/ joint finetuning",
    ]


def test_a_guided_strip_draws_at_the_scale_that_its_seed_chose(stage, sampler):
    finish(stage, T2I)
    measure(stage, T2I, "guided", 0, {"indicator": {"composition": 0.5, "scale": 3.0}})
    measure(stage, T2I, "guided", 1, {"indicator": {"composition": 0.7, "scale": 1.5}})
    found = strip(stage, "table1")
    assert [scale for _, scale, _ in sampler.asked] == [3.0]
    assert "CrossFlow, scale 3 (0.600)" in found.alt
    finish(stage, Training("t2i-tower"))
    assert "tower, scale not searched yet: none" in strip(stage, "table1").alt
    assert [scale for _, scale, _ in sampler.asked] == [3.0, 3.0, 1.0]


def test_a_sweep_has_a_column_for_each_scale(stage, sampler):
    finish(stage, T2I)
    found = sweep(stage, "indicator")
    assert [scale for _, scale, _ in sampler.asked] == [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 5.0]
    assert found.missing == ()
    assert sweep(replace(stage, seed=1), "indicator").missing == [
        "every picture: no finished run of t2i, seed 1"
    ]


def test_captions_are_taken_from_every_task_with_their_own_pictures(stage, sampler):
    finish(stage, T2I)
    trained: Trained = stage.trained(T2I)
    found = shown(trained, sampler, 8, longest=115)
    held = held_out("test", PER_TASK, 32)
    places = [held.texts.index(text) for text in found.texts]
    assert [held.captions[place].expectation.task for place in places] == [*TASKS, *TASKS[:2]]
    assert torch.equal(found.images, held.images[places])
    assert max(map(len, found.texts)) <= 115


def test_a_grid_enlarges_small_pictures_and_shrinks_large_ones():
    widths = [grid(torch.rand(2, 3, side, side), 2).width for side in (32, 64, 128, 256)]
    assert len(set(widths)) == 1


# ------------------------------------------------------------------------------------------------- curves


def test_curves_show_what_was_measured_and_name_the_rest(stage):
    for seed, best in enumerate((0.4, 0.6)):
        columns = {
            str(step): {"step": step, "parameters": 1.4e6, "composition": best * step / 300}
            for step in (150, 300)
        }
        measure(stage, T2I, "budgets", seed, columns)
    found = curves(stage)
    assert found.picture is not None
    assert found.notes == ["Lines are means, marks are seeds; 2 seeds of each training were measured."]
    assert len(found.missing) == 2 * len(stage.scale.ladder.rungs) - 1
    assert "cross-attention: nothing measured of t2i-noise" in found.missing
    assert not any(sentence.endswith("of t2i") for sentence in found.missing)
