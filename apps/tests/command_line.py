"""What every test of the command line asks of a command that must not work."""

from cf_apps.cli import run


def refused(capsys, words: list[str], *expected: str) -> str:
    """Run a command that must end with code 2 and one line on stderr; returns the line."""
    capsys.readouterr()
    assert run(words) == 2
    said = capsys.readouterr().err
    line = said.splitlines()[-1]
    assert said.count("error:") == 1
    assert line.startswith("error: ")
    assert "Traceback" not in said
    for part in expected:
        assert part in line
    return line
