"""What a comparison leaves behind: one JSON file that says what was run, with its tables."""

import json
import sys
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks" / "peers"))
from record import commit, write_record


@dataclass(frozen=True)
class Row:
    way: str
    ms: float


def test_a_record_says_what_was_run_and_on_what(tmp_path):
    out = tmp_path / "new" / "solvers.json"
    write_record(
        out, "solvers.py --only euler", {"repeats": 3}, {"rows": [Row("ours", 1.5), Row("theirs", 3.0)]}
    )
    found = json.loads(out.read_text())
    assert found["command"] == "benchmarks/peers/solvers.py --only euler"
    assert found["commit"] == commit() != ""
    assert found["device"].startswith("CPU, one thread, ")
    assert (found["torch"], found["repeats"]) == (version("torch"), 3)
    assert found["rows"] == [{"way": "ours", "ms": 1.5}, {"way": "theirs", "ms": 3.0}]
    assert [path.name for path in out.parent.iterdir()] == ["solvers.json"]


def test_a_record_replaces_the_one_before_and_without_a_file_nothing_is_written(tmp_path):
    out = tmp_path / "it.json"
    for ms in (1.0, 2.0):
        write_record(out, "it.py", {}, {"rows": [Row("ours", ms)]}, libraries=(), threads="")
    assert json.loads(out.read_text())["rows"] == [{"way": "ours", "ms": 2.0}]
    assert "torch" not in json.loads(out.read_text())
    write_record(None, "it.py", {}, {"rows": [Row("ours", 1.0)]})
    assert [path.name for path in tmp_path.iterdir()] == ["it.json"]
