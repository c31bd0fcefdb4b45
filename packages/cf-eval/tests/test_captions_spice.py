"""The way into and out of the SPICE jar, with a program in Java's place."""

import json
import stat
import sys
from pathlib import Path

import pytest
from cf_eval.captions.spice import Spice

# Scores the i-th caption i / 10, and one that says "none" not at all; leaves what it was asked beside itself.
STUB = """#!{python}
import json, pathlib, sys, time
if "-version" in sys.argv:
    sys.exit(0)
here = pathlib.Path(__file__)
options = sys.argv[sys.argv.index("-jar") + 2:]
rows = json.loads(pathlib.Path(options[0]).read_text())
value = lambda name: pathlib.Path(options[options.index(name) + 1])
asked = [rows, sys.argv[1:], value("-cache").is_dir(), str(pathlib.Path.cwd())]
(here.parent / "asked.json").write_text(json.dumps(asked))
if rows[0]["test"] == "fail":
    print("Exception in thread main", file=sys.stderr)
    sys.exit(4)
if rows[0]["test"] == "sleep":
    time.sleep(30)
scores = [dict(image_id=r["image_id"], scores=dict(All=dict(f=None if r["test"] == "none" else r["image_id"] / 10)))
          for r in reversed(rows)]
value("-out").write_text(json.dumps(scores))
"""


@pytest.fixture
def stub(tmp_path) -> dict[str, Path]:
    java, jar = tmp_path / "java", tmp_path / "spice.jar"
    java.write_text(STUB.replace("{python}", sys.executable))
    java.chmod(java.stat().st_mode | stat.S_IEXEC)
    jar.write_bytes(b"")
    return {"jar": jar, "java": java}


def test_captions_go_in_as_json_and_scores_come_out_in_order(stub, tmp_path):
    scores = Spice(**stub, cache=tmp_path / "cache")(["a cat", "é", "b"], [["c", "d"], ["e"], ["f"]])
    assert scores.per_caption[:, 0].tolist() == [0.0, 0.1, 0.2]
    assert scores.values == {"spice": pytest.approx(0.1)}
    rows, arguments, cached, folder = json.loads((tmp_path / "asked.json").read_text())
    assert rows[:2] == [
        {"image_id": 0, "test": "a cat", "refs": ["c", "d"]},
        {"image_id": 1, "test": "é", "refs": ["e"]},
    ]
    assert {"-subset", "-Xmx8G", "-Duser.language=en"} <= set(arguments)
    assert cached
    assert Path(folder) == tmp_path


def test_a_jar_that_fails_is_quoted_with_what_it_needs(stub):
    with pytest.raises(RuntimeError, match=r"exit code 4\): Exception in thread main; it needs Stanford"):
        Spice(**stub)(["fail"], [["a"]])


def test_a_caption_without_a_score_and_a_jar_that_takes_too_long_are_errors(stub):
    with pytest.raises(RuntimeError, match="no score to 1 captions, the first 'none'"):
        Spice(**stub)(["a", "none"], [["a"], ["b"]])
    with pytest.raises(RuntimeError, match=r"longer than 0\.5 s"):
        Spice(**stub, timeout=0.5)(["sleep"], [["a"]])


def test_without_java_or_jar_nothing_begins(stub, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no SPICE 1\.0 jar"):
        Spice(tmp_path / "nowhere.jar", stub["java"])
    with pytest.raises(RuntimeError, match="no Java at"):
        Spice(stub["jar"], tmp_path / "nowhere")
