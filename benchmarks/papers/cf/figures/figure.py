"""One figure of the page, and what is said of it."""

from collections.abc import Callable
from dataclasses import dataclass

from cf.figures.stage import Drawn, Stage
from cf.reports.printed import printed


@dataclass(frozen=True)
class Figure:
    """One figure of the page.

    name: of the file. sees: what one looks at. claim: what the paper says. numbers: of the paper's, to stand after it:
    table, column, and the column's name for people. report: the table's own, which the page points to once written.
    """

    name: str
    title: str
    sees: str
    claim: str
    draw: Callable[[Stage], Drawn]
    report: str
    numbers: tuple[str, str, str] | None = None

    @property
    def says(self) -> str:
        """The claim, with the numbers that the paper prints for it."""
        if self.numbers is None:
            return self.claim
        table, column, name = self.numbers
        rows = {row: values[column] for row, values in printed(table).items()}
        said = ", ".join(f"{row} {value}" for row, value in rows.items() if value is not None)
        return f"{self.claim} {name}: {said}."
