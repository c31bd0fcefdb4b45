"""`crossflow show RUN`: tables, pictures and a page that stands alone, of whole, young and damaged runs."""

import base64
import io
import json
import os
import shutil
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from cf_apps.cli import run as crossflow
from cf_apps.engine import fit
from cf_apps.engine.watching.show.command import write_report
from cf_apps.engine.watching.show.page import page
from cf_apps.engine.watching.show.summary import read_summary
from cf_apps.engine.watching.show.tables import DETAIL, _duration, overview, shown, tables
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent))
from command_line import refused
from engine_toy import Toy, config

VOID = {"meta", "img"}


class Reader(HTMLParser):
    """A page's text by tag, its pictures, and whether every tag is closed by its own."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open, self.cells, self.sources, self.texts = [], [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.sources += [value for name, value in attrs if name in ("src", "href", "action", "srcset")]
        if tag not in VOID:
            self.open.append(tag)
        if tag in ("td", "th"):
            self.cells.append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] in ("td", "th"):
            self.cells[-1] += data
        self.texts.append(data)


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    run = tmp_path_factory.mktemp("runs") / "toy"
    notes = [{"event": "skipped samples", "samples": [["<b>a.png</b>", "truncated & small"]]}]
    scores = iter([3.0, 1.5, 2.0])
    fit(
        Toy(),
        config(6, evaluate_every=2),
        run,
        evaluate=lambda step: {"error": next(scores), "ok": True},
        notes=notes,
    )
    return run


@pytest.fixture
def run(trained, tmp_path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "toy"))


def table(found, title):
    (table,) = [table for table in found if table.title == title]
    return table


def changed(run: Path, **parts) -> None:
    record = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps(record | parts))


def write_log(run: Path, *lines: str) -> None:
    (run / "log.jsonl").write_text("".join(line + "\n" for line in lines))


# ------------------------------------------------------------------------------------------------- tables


def test_the_losses_table_has_the_last_value_and_the_best_with_its_step(run):
    values = {2: 3.0, 4: 0.123456, 6: float("nan"), 8: 1.0}
    write_log(run, *(json.dumps({"step": step, "losses": {"flow": value}}) for step, value in values.items()))
    assert table(tables(read_summary(run)), "losses").rows == [["flow", "1", "0.1235", "4"]]


def test_evaluations_have_a_row_each_and_a_score_that_came_later_a_gap(run):
    assert table(tables(read_summary(run)), "evaluations").rows == [
        ["2", "3", "yes"],
        ["4", "1.5", "yes"],
        ["6", "2", "yes"],
    ]
    write_log(
        run, '{"step": 5, "evaluation": {"a": 1}}', '{"step": 1000, "evaluation": {"a_b": 0.25, "a": 2}}'
    )
    found = table(tables(read_summary(run)), "evaluations")
    assert (list(found.head), found.rows) == (["step", "a", "a b"], [["5", "1", "–"], ["1,000", "2", "0.25"]])


def test_the_overview_says_what_how_far_how_fast_and_from_where(run):
    write_log(
        run,
        *(
            json.dumps({"step": step, "losses": {"fit": 1.0}, "samples_per_second": rate, "elapsed": 3700.0})
            for step, rate in ((1, 10.0), (2, 40.0), (3, 20.0))
        ),
        '{"step": 3, "event": "loss spike"}',
        '{"step": 3, "event": "loss spike"}',  # the same one again, after a resume
        '{"step": 4, "event": "loss spike"}',
    )
    (run / "bad_batches.jsonl").write_text("{}")
    starts = [{"command": "crossflow t2i train --preset 'tiny' --out x", "time": "2026-01-02T03:04:05+00:00"}]
    changed(run, starts=starts, commit="abc+", task={"name": "toy", "data": "shapes"})
    said = dict(overview(read_summary(run)))
    assert said["step"] == "6 of 6 (100%)"  # the last checkpoint's
    assert said["samples a second"] == "20 last, 20 in the median"
    assert said["trained for"] == "1 h 01 min"
    assert said["events"] == "2 × loss spike"
    assert said["checkpoints"] == "5, 6"
    assert (said["task"], said["preset"], said["data"], said["commit"]) == ("toy", "tiny", "shapes", "abc+")
    assert said["bad batches"] == str(run / "bad_batches.jsonl")
    assert said["device"].startswith("cpu, ")


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("crossflow t2i train --preset=tiny", "tiny"),
        ("crossflow t2i train", None),
        ("crossflow 'torn --preset a", None),
    ],
)
def test_the_preset_is_known_where_the_command_named_it(run, command, expected):
    changed(run, starts=[{"command": command, "time": ""}])
    assert dict(overview(read_summary(run))).get("preset") == expected


def test_a_budget_of_time_has_no_share_of_steps(run):
    changed(run, fit={"steps": None, "max_seconds": 300.0})
    assert dict(overview(read_summary(run)))["step"] == "6 in a budget of 5 min 00 s"


def test_durations_are_said_in_their_two_largest_units():
    seconds = [0.2, 7, 760, 3_600, 7_500, 86_399.6, 273_600]
    assert [_duration(float(s)) for s in seconds] == [
        "0 s", "7 s", "12 min 40 s", "1 h 00 min", "2 h 05 min", "1 d 00 h", "3 d 04 h",
    ]  # fmt: skip


def test_events_tell_short_details_first_and_are_cut_where_they_are_long(run):
    write_log(
        run, json.dumps({"step": 7, "event": "step left out", "batches": list(range(999)), "loss": "flow"})
    )
    ((step, event, words),) = table(tables(read_summary(run)), "events").rows
    assert (step, event, len(words)) == ("7", "step left out", DETAIL)
    assert words.startswith("loss flow; batches [0, 1, 2")
    assert words.endswith("…")


def test_numbers_are_shown_with_four_digits_and_words_as_they_are():
    values = [0.123456, 123456.0, 7, True, None, "ok", [1, 2]]
    assert [shown(value) for value in values] == ["0.1235", "1.235e+05", "7", "yes", "–", "ok", "[1, 2]"]


def test_a_demos_scores_are_told_column_by_column(run):
    scores = {"flow": {"frechet": 1.25, "by_t": {"0": 1}}, "data": {"frechet": 0.0, "kept": 3}}
    (run / "report.json").write_text(json.dumps({"scores": scores}))
    found = table(tables(read_summary(run)), "scores, from report.json")
    assert (list(found.head), found.rows) == (
        ["", "flow", "data"],
        [["frechet", "1.25", "0"], ["kept", "–", "3"]],
    )
    (run / "report.json").write_text("[1, ")
    assert "scores, from report.json" not in [table.title for table in tables(read_summary(run))]


# ------------------------------------------------------------------------------------------------- the page


def test_the_page_stands_alone_and_holds_the_pictures_whole(run, tmp_path):
    Image.new("RGB", (3, 5)).save(run / "samples.png")
    written = write_report(read_summary(run), tmp_path / "new" / "out")
    assert [path.name for path in written] == ["loss.png", "health.png", "scores.png", "report.html"]
    report = Reader(written[-1].read_text(encoding="utf-8"))
    start = "data:image/png;base64,"
    assert all(source.startswith(start) for source in report.sources)
    inside = [base64.b64decode(source.removeprefix(start)) for source in report.sources]
    assert inside == [path.read_bytes() for path in (*written[:3], run / "samples.png")]
    assert Image.open(io.BytesIO(inside[-1])).size == (3, 5)
    assert "http" not in "".join(report.texts)


def test_the_page_has_every_word_of_the_tables_and_escapes_what_people_wrote(run):
    summary = read_summary(run)
    found = tables(summary)
    text = page(summary, found, {})
    words = [word for table in found for row in (table.head, *table.rows) for word in row]
    assert Reader(text).cells == words
    assert any("<b>a.png</b>" in word and "truncated & small" in word for word in words)
    assert "<b>" not in text


def test_a_picture_too_large_for_the_page_and_those_it_drew_before_are_not_taken_up(run, monkeypatch):
    monkeypatch.setattr("cf_apps.engine.watching.show.command.LARGEST", 1000)
    write_log(run)  # nothing to draw
    Image.effect_noise((90, 90), 50).save(run / "large.png")
    for name in ("loss.png", "health.png", "sample.png"):
        Image.new("RGB", (3, 5)).save(run / name)
    (report,) = write_report(read_summary(run), run)
    assert len(Reader(report.read_text(encoding="utf-8")).sources) == 1


# ------------------------------------------------------------------------------------------------- the command


def test_show_prints_the_tables_and_writes_into_the_run(run, capsys):
    assert crossflow(["show", str(run)]) == 0
    said = capsys.readouterr().out
    for words in ("6 of 6 (100%)", "best", "evaluations", "skipped samples", "commands", "cf-flowcore"):
        assert words in said
    for name in ("loss.png", "health.png", "scores.png", "report.html"):
        assert f"wrote {run / name}" in said.replace("\n", "")
        assert (run / name).exists()


def test_show_works_while_the_run_goes_on(run, capsys):
    first, *_ = (run / "log.jsonl").read_text().splitlines()
    (run / "log.jsonl").write_text(first + '\n{"step": 7, "losses": {"fi')  # being written
    shutil.rmtree(run / "checkpoints")
    assert crossflow(["show", str(run)]) == 0
    said = capsys.readouterr().out
    assert "1 damaged lines left out" in said
    assert "none yet" in said


@pytest.mark.parametrize(
    "log",
    [
        None,
        b"",
        b"\n\n",
        b"\xff\xfe\x00garbage\n[1, 2]\n7\nnull\n{}\n",
        b'{"step": "x", "losses": {}}\n{"step": 1, "losses": [3]}\n{"step": 2, "losses": {"a": null}, "stats": 3}\n',
        b'{"step": 3, "losses": {}, "stats": {}}\n{"step": 4, "evaluation": {}}\n{"step": 5, "event": "x"}\n',
        b'{"step": 6, "losses": {"a": NaN, "b": {}}, "stats": {"a_t0": Infinity}, "lr": null, "elapsed": "x"}\n',
    ],
)
def test_an_empty_missing_or_damaged_log_is_shown_as_far_as_it_goes(run, capsys, log):
    if log is None:
        (run / "log.jsonl").unlink()
    else:
        (run / "log.jsonl").write_bytes(log)
    assert crossflow(["show", str(run)]) == 0
    Reader((run / "report.html").read_text(encoding="utf-8"))
    assert "toy" in capsys.readouterr().out


def test_a_config_of_odd_parts_is_shown_as_far_as_it_goes(run):
    (run / "config.json").write_text(
        '{"task": null, "fit": [1], "device": 3, "versions": "v", "starts": {"a": 1}}'
    )
    write_log(run)
    assert dict(overview(read_summary(run)))["step"] == "6"
    write_report(read_summary(run), run)


def test_what_is_no_run_is_refused_in_one_line(run, tmp_path, capsys):
    refused(capsys, ["show", str(tmp_path)], str(tmp_path), "not a run folder")
    (run / "config.json").write_text('{"task": ')
    refused(capsys, ["show", str(run)], "cannot read", "config.json")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_run_that_cannot_be_written_to_names_the_way_out(run, capsys):
    run.chmod(0o500)
    refused(capsys, ["show", str(run)], "cannot write", "--out")


def test_an_out_that_is_a_file_is_named(run, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    refused(
        capsys, ["show", str(run), "--out", str(tmp_path / "file")], "cannot write", "choose another --out"
    )
