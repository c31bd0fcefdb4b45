"""A file is replaced at once or not at all."""

import pytest
from cf_apps.engine.files import replaced, write_text


def test_a_failing_write_keeps_the_old_file_and_leaves_no_other(tmp_path):
    write_text(tmp_path / "a.txt", "old")

    def fail():
        with replaced(tmp_path / "a.txt") as temporary:
            temporary.write_text("half of the n")
            raise OSError("No space left on device")

    with pytest.raises(OSError, match="No space"):
        fail()
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("a.txt", "old")]


def test_a_new_text_takes_the_place_of_the_old(tmp_path):
    write_text(tmp_path / "a.txt", "old")
    write_text(tmp_path / "a.txt", "né")
    assert (tmp_path / "a.txt").read_text(encoding="utf-8") == "né"


def test_two_writers_with_one_process_number_do_not_meet(tmp_path, monkeypatch):
    """As on two machines that share a disk."""
    monkeypatch.setattr("os.getpid", lambda: 7)
    target = tmp_path / "a.json"
    with replaced(target) as mine, replaced(target) as theirs:
        mine.write_text("mine")
        theirs.write_text("theirs")
        assert mine != theirs
    assert target.read_text() == "mine"  # the one that was finished last
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]
