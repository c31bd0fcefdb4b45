"""METEOR: our formula against scores of the 1.5 jar from the same statistics, the adapter with a stand-in for Java."""

import json
import shutil
import stat
from pathlib import Path

import numpy as np
import pytest
from cf_eval.captions.meteor import Meteor, meteor_formula, settled

GOLDEN = json.loads((Path(__file__).parent / "data" / "meteor_statistics.json").read_text("utf-8"))
ROWS = GOLDEN["rows"]
# The jar adds in another order.
ROUNDING = 1e-14

# Answers as the jar would: of every row the same statistics, of a row that says "end" nothing more.
STUB = """#!/bin/sh
if [ "$1" = "-version" ]; then exit 0; fi
echo "$@" > "$0.arguments"
while read -r line; do
  echo "$line" >> "$0.lines"
  case "$line" in *end*) exit 7;; *odd*) echo 1.0 2.0;; *) echo "{statistics}";; esac
done
"""


def raw_statistics() -> np.ndarray:
    return np.array([row["statistics"] for row in ROWS])


@pytest.fixture
def stub(tmp_path) -> dict[str, Path]:
    java, jar = tmp_path / "java", tmp_path / "meteor.jar"
    java.write_text(STUB.replace("{statistics}", " ".join(map(str, ROWS[0]["statistics"]))))
    java.chmod(java.stat().st_mode | stat.S_IEXEC)
    jar.write_bytes(b"")
    return {"jar": jar, "java": java}


def test_the_formula_gives_the_scores_of_the_jar():
    scores = meteor_formula(settled(raw_statistics()))[:, 0]
    np.testing.assert_allclose(scores, [row["score"] for row in ROWS], rtol=0, atol=ROUNDING)
    assert 0 < scores.min(initial=1, where=scores > 0) < 0.3
    assert scores.max() == 1.0


def test_the_corpus_value_comes_from_summed_statistics():
    statistics = settled(raw_statistics())
    corpus = meteor_formula(statistics.sum(0, keepdims=True))[0, 0]
    assert corpus == pytest.approx(GOLDEN["corpus_score"], abs=ROUNDING)
    assert corpus != pytest.approx(meteor_formula(statistics).mean(), abs=1e-3)


def test_a_caption_that_matches_as_a_whole_adds_no_chunk():
    before, after = raw_statistics(), settled(raw_statistics())
    whole = [i for i, row in enumerate(ROWS) if row["candidate"] in row["references"] and row["candidate"]]
    assert whole
    assert (before[whole, 20] == 1).all()
    assert (after[whole, 20] == 0).all()
    rest = np.setdiff1d(np.arange(len(ROWS)), whole)
    np.testing.assert_array_equal(after[rest], before[rest])


def test_rows_go_in_and_statistics_come_out(stub):
    with Meteor(**stub) as meteor:
        scores = meteor(["a ||| cat\nsits", "a  dog"], [["one", "two\u2028three"], ["four"]])
    assert scores.names == ("meteor",)
    np.testing.assert_allclose(scores.per_caption[:, 0], ROWS[0]["score"], atol=ROUNDING)
    np.testing.assert_array_equal(scores.statistics[1], ROWS[0]["statistics"])
    lines = Path(f"{stub['java']}.lines").read_text().splitlines()
    assert [line.split(" ||| ") for line in lines] == [
        ["SCORE", "one", "two three", "a cat sits"],
        ["SCORE", "four", "a dog"],
    ]
    arguments = Path(f"{stub['java']}.arguments").read_text().split()
    assert {"-Duser.language=en", "-Duser.country=US", "-norm"} <= set(arguments)


def test_the_process_ends_on_close_and_starts_again_when_needed(stub):
    meteor = Meteor(**stub)
    assert meteor.process.process is None
    meteor(["a"], [["a"]])
    first = meteor.process.process
    assert first is not None
    meteor.close()
    meteor.close()
    assert first.poll() is not None
    assert meteor(["a"], [["a"]]).per_caption.shape == (1, 1)
    meteor.close()


def test_a_process_that_ends_or_answers_something_else_is_an_error(stub):
    with Meteor(**stub) as meteor, pytest.raises(RuntimeError, match=r"ended \(exit code 7\)"):
        meteor(["the end"], [["a"]])
    with Meteor(**stub) as meteor, pytest.raises(RuntimeError, match=r"answered '1.0 2.0'.*23 numbers"):
        meteor(["odd"], [["a"]])


def test_without_java_or_jar_nothing_begins(tmp_path, stub):
    with pytest.raises(FileNotFoundError, match=r"no METEOR 1\.5 jar at"):
        Meteor(tmp_path / "nowhere.jar", stub["java"])
    with pytest.raises(RuntimeError, match="no Java at"):
        Meteor(stub["jar"], tmp_path / "nowhere")
    with pytest.raises(ValueError, match="no captions"):
        Meteor(**stub)([], [])


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("java") is None, reason="NO JAVA: the real METEOR jar was not run")
def test_the_real_jar_gives_the_statistics_of_the_golden_file():
    pytest.importorskip("pycocoevalcap", reason="NO PYCOCOEVALCAP: the real METEOR jar was not run")
    with Meteor() as meteor:
        scores = meteor([row["candidate"] for row in ROWS], [row["references"] for row in ROWS])
    np.testing.assert_array_equal(scores.statistics, settled(raw_statistics()))
    assert scores.values["meteor"] == pytest.approx(GOLDEN["corpus_score"], abs=ROUNDING)
