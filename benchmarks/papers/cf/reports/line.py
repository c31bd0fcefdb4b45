"""One line of the page that lists every table."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Line:
    """name: with a link to the report. claims: (claim, verdict, evidence)."""

    name: str
    paper: str
    ours: str
    scale: str
    verdict: str
    command: str
    device: str
    claims: Sequence[tuple[str, str, str]] = ()

    def cells(self) -> list[str]:
        return [self.name, self.paper, self.ours, self.scale, self.verdict, self.command, self.device]
