"""The progress line: moving on a terminal, plain elsewhere."""

import io

from cf_apps.engine import progress_line
from cf_apps.engine.watching.progress import LiveLine, PlainLines


class Stream(io.TextIOWrapper):
    """Text kept in memory, from a terminal or not."""

    def __init__(self, terminal):
        super().__init__(io.BytesIO(), encoding="utf-8")
        self.terminal = terminal

    def isatty(self):
        return self.terminal

    def text(self):
        self.flush()
        return self.buffer.getvalue().decode()


def test_a_pipe_gets_few_plain_lines_the_last_among_them():
    stream = Stream(terminal=False)
    with progress_line("train", stream) as line:
        for step in range(101):
            line.show(step / 100, f"step {step}")
    assert stream.text() == "train:   0%  step 0\ntrain: 100%  step 100\n"


def test_plain_lines_come_again_when_time_has_passed():
    stream = Stream(terminal=False)
    with PlainLines("train", stream, seconds=0.0) as line:
        for step in range(4):
            line.show(step / 10, "")
    assert len(stream.text().splitlines()) == 4


def test_a_terminal_gets_a_bar_with_share_and_losses():
    stream = Stream(terminal=True)
    line = progress_line("train", stream)
    assert isinstance(line, LiveLine)
    with line:
        line.show(0.5, "step 50 · fm 0.1")
    assert " 50%" in stream.text()
    assert "fm 0.1" in stream.text()
