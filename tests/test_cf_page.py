"""CrossFlow's tables: the numbers they print, how claims are judged, and that the page is in step with the results."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS / "papers"))

from cf.claims import at_most, better, grows, ordered, sign  # noqa: E402
from cf.every import NAMES  # noqa: E402
from cf.measures.held_out import held_out  # noqa: E402
from cf.measures.others import aligned  # noqa: E402
from cf.measures.t2i import frechet, mean_colours  # noqa: E402
from cf.measures.walks import unevenness  # noqa: E402
from cf.reports.page import BEGIN, END, inserted, page  # noqa: E402
from cf.reports.printed import everything, printed  # noqa: E402
from cf.reports.report import markdown, searched, summarised, write_reports  # noqa: E402
from cf.scales import SCALES  # noqa: E402
from cf.spec import NOT_REPRODUCED, REPRODUCED, UNDECIDED, Number, Row, Table, Training  # noqa: E402
from cf.store import Store  # noqa: E402
from cf_apps.data.captioned_shapes import split_of  # noqa: E402
from cf_apps.data.depth_sets.by_name import OBJECTS  # noqa: E402
from cf_apps.t2i.evaluate import read_back  # noqa: E402
from cf_eval.depth.protocols import depth_protocol  # noqa: E402
from cf_eval.depth.tables import TABLE_8  # noqa: E402

# ------------------------------------------------------------------------------------------------- the page


def test_the_readme_is_in_step_with_the_results():
    readme = (BENCHMARKS / "README.md").read_text()
    again = inserted(readme, page(BENCHMARKS / "results"))
    assert readme == again, "run `uv run python benchmarks/papers/page.py`"


def test_the_page_has_every_table_of_both_papers_and_no_empty_cell():
    made = page(BENCHMARKS / "results")
    for table in ("Table 1", "Table 2 and 7", "Table 4", "Table 5", "Table 6", "Table 8", "Table 9"):
        assert f"CrossFlow {table}" in made
    assert all(f"CrossFlow Table 3{part}" in made for part in "abcde")
    assert all(f"CrossFlow Fig. {number}" in made for number in (3, 4, 5, 8))
    assert all(name in made for name in ("Tables 1 (left) and 4", "Table 1 (right)", "Flow Matching Table 2"))
    rows = [line.strip("|").split("|") for line in made.splitlines() if line.startswith("|")]
    assert {len(row) for row in rows} == {7, 4}
    assert all(cell.strip() for row in rows for cell in row)


def test_every_link_of_the_page_leads_to_a_file():
    links = [part.split(")")[0] for part in page(BENCHMARKS / "results").split("](")[1:]]
    assert links
    assert all((BENCHMARKS / link).exists() for link in links)


def test_a_readme_without_the_marks_is_refused():
    assert inserted(f"a{BEGIN}old{END}b", "new") == f"a{BEGIN}\n\nnew\n\n{END}b"
    with pytest.raises(ValueError, match="put both marks back"):
        inserted("nothing", "new")


def test_every_script_of_a_table_is_run_by_all():
    scripts = {file.stem.removeprefix("cf_") for file in (BENCHMARKS / "papers").glob("cf_*.py")}
    assert scripts - {"bench", "figures"} == set(NAMES)


def test_printed_numbers_are_read_by_row_and_column():
    assert printed("cf_table3a")["Variational Encoder"] == {"fid": 40.78, "clip": 0.23}
    assert printed("cf_table4")["MIR"]["rouge_l"] is None
    assert {key for key in everything() if key.startswith("cf_table")} >= {
        f"cf_table{n}" for n in (1, 2, 4, 5, 6, 7, 8, 9)
    }


# ------------------------------------------------------------------------------------------------- verdicts


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.1, 0.12, 0.11], 1),
        ([-0.1, -0.12, -0.11], -1),
        ([0.1, -0.01, 0.12], 0),  # a seed disagrees
        ([0.001, 0.3, 0.002], 0),  # the mean 0.101 is within 2 x 0.0995
        ([0.5], 0),  # one seed says nothing
    ],
)
def test_a_difference_counts_where_all_seeds_agree_and_it_stands_out(values, expected):
    assert sign(values) == expected


def test_better_is_paired_by_seed_and_knows_which_way_is_up():
    results = {"a": [{"fid": 1.0}, {"fid": 5.0}], "b": [{"fid": 2.0}, {"fid": 6.1}]}
    assert better("", "a", "b", "fid", higher=False).judge(results)[0] == REPRODUCED
    assert better("", "a", "b", "fid").judge(results)[0] == NOT_REPRODUCED


def test_an_order_is_not_reproduced_once_a_step_is_reversed():
    def rows(*means: float) -> dict:
        return {f"{place}": [{"x": mean}, {"x": mean + 0.01}] for place, mean in enumerate(means)}

    claim = ordered("", ["0", "1", "2"], "x")
    assert claim.judge(rows(1, 2, 3))[0] == REPRODUCED
    assert claim.judge(rows(1, 2, 1))[0] == NOT_REPRODUCED
    assert claim.judge(rows(1, 1, 3))[0] == UNDECIDED


def test_a_gap_that_grows_has_a_rising_line_for_every_seed():
    results = {"a": [{"x": 0.0}], "b": [{"x": 0.0}]}
    rising, flat = [[0.0, 0.1, 0.2], [0.0, 0.12, 0.21]], [[0.0, 0.1, 0.0], [0.1, 0.0, 0.05]]
    assert grows("", lambda _: rising, range(3), "gap").judge(results)[0] == REPRODUCED
    assert grows("", lambda _: flat, range(3), "gap").judge(results)[0] == UNDECIDED


def test_a_limit_is_open_where_seeds_fall_on_both_sides():
    claim = at_most("", "a", "x", 0.5, "x")
    assert claim.judge({"a": [{"x": 0.4}, {"x": 0.5}]})[0] == REPRODUCED
    assert claim.judge({"a": [{"x": 0.4}, {"x": 0.6}]})[0] == UNDECIDED
    assert claim.judge({"a": [{"x": 0.7}, {"x": 0.6}]})[0] == NOT_REPRODUCED


# ------------------------------------------------------------------------------------------------- measures


def test_held_out_captions_are_of_their_split_and_true_of_their_pictures():
    test, val = held_out("test", 3, 32), held_out("val", 3, 32)
    assert len(test.captions) == len(test.images) == 18
    assert {split_of(text) for text in test.texts} == {"test"}
    assert {split_of(text) for text in val.texts} == {"val"}
    assert len({*test.texts, *val.texts}) == 36
    images = test.images.float() / 255
    assert all(read_back(images, test.captions)[1])
    assert not all(read_back(images.flip(0), test.captions)[1])
    assert frechet(images, test) < 1e-9
    # twice as dark: a mean half as large, and a spread
    assert frechet(images / 2, test) > mean_colours(images).mean(0).square().sum() / 4


def test_depth_is_aligned_as_its_protocol_says_and_else_by_least_squares():
    for name in TABLE_8.values():  # ETH3D's is fitted on shrunk maps
        assert aligned(depth_protocol(name)) == depth_protocol(name)
    plain = aligned(OBJECTS)
    assert plain.alignment.kind == "least_squares_depth"
    assert replace(plain, alignment=OBJECTS.alignment) == OBJECTS


def test_a_way_of_even_steps_and_one_that_switches():
    even = torch.linspace(0, 1, 9)[:, None, None, None].expand(9, 3, 4, 4)
    assert unevenness(even) == pytest.approx((1 / 8, 1.0))
    switch = torch.zeros(9, 3, 4, 4)
    switch[5:] = 1
    assert unevenness(switch) == pytest.approx((1.0, 1.0))


# ------------------------------------------------------------------------------------------------- reports

TABLE = Table(
    key="cf_table3a",
    rows=(
        Row("Encoder", Training("t2i"), "unguided", "none"),
        Row("Encoder + noise", Training("t2i-noise"), "unguided", "none"),
    ),
    numbers=(Number("composition", "composition accuracy", "clip"), Number("absent", "nobody has it")),
    claims=(better("noise helps", "Encoder + noise", "Encoder", "composition"),),
)


def kept(store: Store, training: str, seed: int, value: float) -> None:
    scale = SCALES["tiny"]()
    record = {
        "training": training, "measure": "unguided", "seed": seed, "steps": 300, "batch": 48, "train_seconds": 60.0,
        "measure_seconds": 6.0, "commit": "abc", "model": "a CPU", "threads": 1, "torch": "2.15",
        "columns": {"none": {"composition": value}},
    }  # fmt: skip
    store.write(scale.ready(Training(training)).key(seed), "unguided", seed, record)


def test_a_report_has_means_verdicts_and_what_is_missing(tmp_path):
    store, scale = Store(tmp_path / "measured", tmp_path / "runs"), SCALES["tiny"]()
    for seed, (point, noise) in enumerate([(0.1, 0.3), (0.2, 0.38)]):
        kept(store, "t2i", seed, point)
        kept(store, "t2i-noise", seed, noise)
    kept(store, "t2i", 2, 0.15)
    summary = summarised("table3a", TABLE, scale, store)
    assert [row["seeds"] for row in summary["rows"]] == [3, 2]
    assert not summary["complete"]
    assert [it["name"] for it in summary["numbers"]] == ["composition"]
    assert summary["claims"][0]["verdict"] == REPRODUCED
    assert "+0.190" in summary["claims"][0]["evidence"]
    assert summary["minutes"] == pytest.approx(5 * 66 / 60, abs=0.05)
    text = markdown(summary, None)
    assert "| Encoder | 0.150 ± 0.050 | 300 x 48 |" in text
    assert "| Encoder | 66.65 | 0.2 |" in text


def test_a_report_says_which_searches_ended_at_the_end_of_the_grid():
    table = replace(
        TABLE,
        rows=(
            Row("75 steps", Training("t2i"), "budgets", "75"),  # both by the search at the end
            Row("300 steps", Training("t2i"), "budgets", "300"),
            Row("indicator", Training("t2i"), "guided", "indicator"),
            Row("none", Training("t2i"), "guided", "none"),
        ),
    )

    def said(*scales: list[float]) -> str:
        rows = [{"name": row.name, "ours": {}} for row in table.rows]
        for row, found in zip(rows, scales, strict=False):
            row["ours"]["scale"] = found
        return searched(table, rows, (1.0, 1.5, 7.0))

    begin = "The search for a scale of guidance, over 1, 1.5, 7, "
    assert said() == ""
    assert said([1.5], [1.5], [1.0]) == f"{begin}never ended at the last."
    assert said([7.0, 1.5], [7.0, 1.5], [1.0, 1.5]) == f"{begin}ended at the last for 300 steps (1 seed)."
    assert said([1.0], [1.0], [7.0, 7.0]) == f"{begin}ended at the last for indicator (2 seeds)."


def test_reports_of_nothing_say_that_nothing_was_run(tmp_path):
    store = Store(tmp_path / "measured", tmp_path / "runs")
    files = write_reports({"table3a": TABLE}, SCALES["tiny"](), store, tmp_path)
    assert [file.name for file in files] == ["table3a.json", "table3a.md"]
    assert json.loads(files[0].read_text())["claims"][0]["verdict"] == "not run"
    assert "not run" in files[1].read_text()


def test_another_recipe_has_another_key():
    scale = SCALES["tiny"]()
    ready = scale.ready(Training("t2i"))
    other = replace(ready, recipe=replace(ready.recipe, fit=replace(ready.recipe.fit, lr=1e-3)))
    assert ready.key(0) == scale.ready(Training("t2i")).key(0)
    assert (
        len(
            {
                ready.key(0),
                ready.key(1),
                other.key(0),
                scale.ready(Training("t2i", {"strategy": "two-stage"})).key(0),
            }
        )
        == 4
    )
