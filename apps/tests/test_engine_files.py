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
