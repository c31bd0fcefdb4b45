"""Files of one JSON object a line: what is whole is read, whatever stands between."""

import json

from cf_apps.engine.watching.lines import read_lines


def test_every_object_is_read_in_order(tmp_path):
    records = [{"step": 1, "word": "ä\u2028b"}, {}, {"step": 2}]
    path = tmp_path / "log.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    assert read_lines(path) == records


def test_torn_lines_other_values_and_bytes_that_are_no_text_are_left_out(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_bytes(b'{"a": 1}\n{"a": \n\n[1]\n3\nnull\n\xff\xfe\x00\n{"a": 2}\n{"a"')
    assert read_lines(path) == [{"a": 1}, {"a": 2}]


def test_no_file_has_no_lines(tmp_path):
    assert read_lines(tmp_path / "none.jsonl") == []
