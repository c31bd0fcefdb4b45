"""CrossFlow's tables at every scale: their trainings build, their options fit, and an interrupted start goes on."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

PAPERS = Path(__file__).parents[1] / "benchmarks" / "papers"
sys.path.insert(0, str(PAPERS))

from cf.claims import NOT_MEASURED, at_least, at_most, better, grows, ordered  # noqa: E402
from cf.command import Options, parse_settings, run  # noqa: E402
from cf.every import every  # noqa: E402
from cf.measures.judged import FIDELITY  # noqa: E402
from cf.scale import Scale, budgets_of, quartered  # noqa: E402
from cf.scales import SCALES  # noqa: E402
from cf.spec import NOT_REPRODUCED, REPRODUCED, UNDECIDED, Number, Row, Table, Training  # noqa: E402
from cf.store import Store  # noqa: E402
from cf.work import collected, todos, work  # noqa: E402
from cf_apps.engine.config import FitConfig  # noqa: E402
from cf_apps.engine.errors import ConfigError  # noqa: E402
from cf_apps.engine.ranks.world import World  # noqa: E402
from cf_apps.t2i.config import T2IConfig  # noqa: E402
from cf_apps.t2i.model import build_backbone  # noqa: E402
from cf_apps.t2i.reader import Reader  # noqa: E402
from cf_apps.t2i.scoring.judges import JudgePaths  # noqa: E402
from cf_encoders import TextVE  # noqa: E402
from cf_transformer.count import count_parameters  # noqa: E402

CPU = torch.device("cpu")
EVERY_RECIPE = [(scale, name) for scale, make in SCALES.items() for name in make().recipes]
DATA = {"paper": {"": "FOLDER"}}


# ------------------------------------------------------------------------------------------------- recipes


@pytest.mark.parametrize(("scale", "name"), EVERY_RECIPE)
def test_every_recipe_builds_a_config_that_comes_back_from_its_json(scale, name):
    ready = SCALES[scale]().recipes[name]()
    model = ready.recipe.model
    assert type(model).from_dict(model.to_dict()) == model
    assert ready.key(0) != ready.key(1)


def parameters(config: T2IConfig) -> int:
    """Of what draws and is not the same in both methods: text encoder or reader, and backbone; costs no memory."""
    with torch.device("meta"):
        parts = [build_backbone(config)]
        parts += [TextVE(config.text_ve)] if config.text_ve is not None else []
        parts += [Reader(config.reader)] if config.reader is not None else []
    return sum(count_parameters(part) for part in parts)


@pytest.mark.parametrize("name", ["tiny", "small"])
def test_crossflow_and_the_baseline_of_a_rung_have_as_many_parameters(name):
    scale = SCALES[name]()
    pairs = [
        tuple(scale.ladder.recipe(kind, rung) for kind in ("t2i", "t2i-noise")) for rung in scale.ladder.rungs
    ]
    sizes = []
    for pair in [*pairs, scale.ladder.compared]:
        ours, baseline = (parameters(scale.recipes[recipe]().recipe.model) for recipe in pair)
        assert baseline == pytest.approx(ours, rel=0.03), pair
        sizes.append(ours)
    rungs = sizes[: len(pairs)]
    assert rungs == sorted(set(rungs))  # a ladder: every rung larger than the one before


@pytest.mark.parametrize("name", SCALES)
def test_every_row_of_every_table_finds_its_training_and_its_measure(name):
    scale = replace(SCALES[name](), data_of=DATA.get(name, {}))
    for table in every(scale).values():
        scale.require(row.training for row in table.rows)
        assert {row.measure for row in table.rows} <= set(scale.measures)
        assert len({row.name for row in table.rows}) == len(table.rows)
        drawn = {row for curves in table.curves for rows in curves.lines.values() for row in rows}
        assert drawn <= {row.name for row in table.rows}


@pytest.mark.parametrize("name", SCALES)
def test_rows_of_one_table_have_one_budget(name):
    scale = SCALES[name]()
    for key in ("table1", "table3a", "table3b", "table3d", "table3e", "table6", "fig3"):
        fits = [scale.ready(row.training).recipe.fit for row in every(scale)[key].rows]
        assert len({(fit.steps, fit.batch_size) for fit in fits}) == 1, key


@pytest.mark.parametrize("steps", [4, 300, 2_000, 300_000, 600_000])
def test_a_quartered_training_keeps_a_checkpoint_at_every_budget(steps):
    fit = quartered(FitConfig(steps=steps))
    assert fit.keep_every % fit.save_every == 0
    assert budgets_of(steps, fit.keep_every) == tuple(steps * part // 4 for part in (1, 2, 3, 4))


# ------------------------------------------------------------------------------------------------- options


def test_a_setting_goes_into_every_training_that_has_the_key_and_a_special_one_wins():
    settings = parse_settings(["t2i-noise:fit.lr=0.5", "fit.lr=0.25", "text_ve.width=48", "codec.path=here"])
    scale = replace(SCALES["tiny"](), settings=settings)
    flow, noise = (scale.ready(Training(name)).recipe for name in ("t2i", "t2i-noise"))
    assert (flow.fit.lr, noise.fit.lr, scale.ready(Training("t2i-noise-L")).recipe.fit.lr) == (0.25, 0.5, 0.5)
    assert (flow.model.text_ve.width, noise.model.text_ve) == (48, None)
    assert flow.model.codec.path == noise.model.codec.path == "here"
    assert scale.ready(Training("caption")).needs.recipe.fit.lr == 0.25


def test_a_table_changes_what_it_compares_after_the_settings():
    scale = replace(SCALES["tiny"](), settings={"strategy": "two-stage"})
    assert scale.ready(Training("t2i")).recipe.model.strategy == "two-stage"
    assert scale.ready(Training("t2i", {"strategy": "joint"})).recipe.model.strategy == "joint"


def test_other_steps_move_the_budgets_of_a_figure():
    scale = replace(SCALES["tiny"](), settings={"fit.steps": 40})
    assert scale.budgets() == (10, 20, 30, 40)
    assert [row.column for row in every(scale)["fig3"].rows[:4]] == ["10", "20", "30", "40"]


@pytest.mark.parametrize("key", ["language.paht", "image_ve.widths", "caption:codec.path"])
def test_a_setting_that_fits_no_training_of_the_table_is_refused(key):
    scale = replace(SCALES["tiny"](), settings={key: 1})
    with pytest.raises(
        ConfigError, match=rf"--set {key} fits no training .*t2i.*keys begin with .*text_ve.*fit"
    ):
        scale.require([Training("t2i")])


def test_a_setting_without_a_value_and_data_for_nobody_are_refused():
    with pytest.raises(ConfigError, match="--set takes KEY=VALUE"):
        parse_settings(["t2i:fit.lr"])
    with pytest.raises(ConfigError, match="--data-of takes NAME=DATA"):
        Options(data_of=["depth"]).sized()
    with pytest.raises(ConfigError, match=r"--data-of depht=.*t2i"):
        Options(data_of=["depht=FOLDER"]).sized().require([Training("t2i")])


def test_the_paper_asks_for_data_by_the_option_that_gives_them(tmp_path, capsys):
    scale = SCALES["paper"]()
    with pytest.raises(
        ConfigError, match="trains t2i on data of yours: pass --data PATH or --data-of t2i=PATH"
    ):
        scale.require([Training("t2i")])
    with pytest.raises(ConfigError, match="pass --data-of depth-nyu=PATH"):
        replace(scale, data="FOLDER").require([Training("depth-nyu")])
    options = Options("paper", out=tmp_path / "out", runs=tmp_path / "runs")
    assert run(lambda scale: {"table1": every(scale)["table1"]}, options) == 1
    assert "--data-of t2i-" in "".join(capsys.readouterr())
    assert not (tmp_path / "runs").exists()


def test_data_of_the_longest_name_that_fits_is_taken():
    given = {"depth": "kitti:A", "depth-nyu": "nyu:B"}
    scale = replace(SCALES["paper"](), data="pictures", data_of=given)
    found = {
        name: scale.ready(Training(name)).recipe.data
        for name in ("depth", "depth-nyu", "depth-affine", "t2i")
    }
    assert found == {"depth": "kitti:A", "depth-nyu": "nyu:B", "depth-affine": "kitti:A", "t2i": "pictures"}
    assert scale.ready(Training("caption")).needs.recipe.data == "pictures"


def test_numbers_by_other_weights_are_other_numbers():
    scale = SCALES["small"]()
    judges = replace(scale, inception=Path("i.pth"), judges=JudgePaths(clip=Path("clip")))
    flow, depth = (scale.ready(Training(name)) for name in ("t2i", "depth"))
    assert scale.stored("guided", flow) == "guided"
    assert judges.stored("guided", flow) == "guided+fid+clip"
    assert judges.stored("depth", depth) == "depth"
    tiny = replace(SCALES["tiny"](), inception=Path("i.pth"))
    assert (
        tiny.stored("guided", tiny.ready(Training("t2i"))) == "guided"
    )  # read back by rule: nothing changes


# ------------------------------------------------------------------------------------------------- claims

CLAIMS = [
    better("better", "a", "b", "clip"),
    ordered("ordered", ["a", "b"], ("fid", "clip")),
    at_most("at most", "a", "clip", 1.0, "what"),
    at_least("at least", "a", "clip", 1.0, "what"),
]


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.words)
def test_a_claim_on_a_number_that_is_not_there_is_not_decidable(claim):
    results = {
        "a": [{"frechet": 1.0}, {"frechet": 1.1}],
        "b": [{"frechet": 2.0, "clip": 1.0}, {"frechet": 2.1}],
    }
    assert claim.judge(results) == (UNDECIDED, NOT_MEASURED)


def test_a_claim_goes_by_the_first_number_that_every_row_has():
    claim = better("better", "a", "b", FIDELITY, higher=False)
    rows = {"a": [{"frechet": 1.0}, {"frechet": 1.1}], "b": [{"frechet": 2.0}, {"frechet": 2.1}]}
    assert claim.judge(rows)[0] == REPRODUCED
    with_fid = {
        name: [{**result, "fid": -result["frechet"]} for result in results] for name, results in rows.items()
    }
    verdict, evidence = claim.judge(with_fid)
    assert verdict == NOT_REPRODUCED
    assert evidence.startswith("fid: ")


def test_at_least_and_at_most_meet_at_the_limit():
    results = {"a": [{"x": 1.0}, {"x": 1.0}], "b": [{"x": 0.9}, {"x": 1.1}]}
    for make in (at_least, at_most):
        assert make("", "a", "x", 1.0, "x").judge(results)[0] == REPRODUCED
        assert make("", "b", "x", 1.0, "x").judge(results)[0] == UNDECIDED
    assert at_least("", "a", "x", 1.1, "x").judge(results)[0] == NOT_REPRODUCED
    assert at_most("", "a", "x", 0.9, "x").judge(results)[0] == NOT_REPRODUCED


@pytest.mark.parametrize("name", ["tiny", "small"])
def test_the_gap_of_figure_3_grows_in_the_sense_of_its_number(name):
    """CrossFlow's number improves from rung to rung, the baseline's stays."""
    scale = SCALES[name]()
    table = every(scale)["fig3"]
    number, better_by = ("composition", 0.1) if scale.by_rule else ("frechet", -0.1)
    rungs, last = scale.ladder.rungs, scale.budgets()[-1]

    def value(row: Row) -> float:
        ours = [rung for rung in rungs if row.name == f"CrossFlow {rung}, {last} steps"]
        return better_by * rungs.index(ours[0]) if ours else 0.0

    results = {row.name: [{number: value(row) + 0.001 * seed} for seed in range(2)] for row in table.rows}
    claim = next(claim for claim in table.claims if claim.words == "CrossFlow gains more from size")
    assert claim.judge(results)[0] == REPRODUCED


def test_a_gap_that_was_not_measured_is_not_decidable():
    table = every(SCALES["tiny"]())["fig3"]
    results = {row.name: [{"parameters": 1.0}] * 2 for row in table.rows}
    assert {claim.judge(results) for claim in table.claims} == {(UNDECIDED, NOT_MEASURED)}
    assert grows("", lambda results: [[0.0, 1.0], [0.0, 1.1]], [0, 1], "gap").judge({})[0] == REPRODUCED


# ------------------------------------------------------------------------------------------------- work


def two_steps(tmp_path: Path) -> tuple[Scale, Store, Table]:
    """A scale whose only training makes two steps of two pictures each."""
    tiny = SCALES["tiny"]()
    scale = replace(
        tiny,
        seeds=1,
        settings={"fit.steps": 2, "fit.batch_size": 2, "fit.warmup_steps": 0},
        measures={"seen": lambda trained: {"ours": {"seed": trained.seed, "run": trained.run.is_dir()}}},
    )
    row = Row("a row", Training("depth"), "seen")
    return (
        scale,
        Store(tmp_path / "measured", tmp_path / "runs"),
        Table("none", [row], [Number("seed", "seed")], []),
    )


def test_work_writes_its_numbers_once_and_takes_the_lock_of_a_killed_worker(tmp_path):
    scale, store, table = two_steps(tmp_path)
    todo, alone = todos([table], scale), World.alone(CPU)
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    lock = tmp_path / "runs" / f"{todo[0].key}.lock"
    lock.parent.mkdir()
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        lock.write_text(str(other.pid))
        assert work(todo, scale, store, alone) == 0  # somebody who lives is at it
        other.communicate(b"\n")
    assert collected(table, scale, store) == {"a row": []}
    lock.write_text(str(dead.pid))
    assert work(todo, scale, store, alone) == 1
    assert not lock.exists()
    (record,) = collected(table, scale, store)["a row"]
    assert (record["numbers"], record["steps"], record["batch"]) == ({"seed": 0, "run": True}, 2, 2)
    before = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*")}
    assert work(todo, scale, store, alone) == 0
    assert before == {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*")}


def test_a_row_whose_column_was_not_measured_has_no_records(tmp_path):
    scale, store, table = two_steps(tmp_path)
    store.write(todos([table], scale)[0].key, "seen", 0, {"columns": {"another": {"seed": 0}}})
    assert collected(table, scale, store) == {"a row": []}
