"""The tables of a run on the terminal."""

from collections.abc import Sequence

from cf_apps.engine.watching.show.tables import Table

ROWS = 20  # of a table; the page has all of them


def print_tables(tables: Sequence[Table]) -> None:
    """Print them one under the other; of a long one the last rows."""
    from rich.console import Console
    from rich.table import Table as Drawn
    from rich.text import Text

    console = Console()
    for table in tables:
        left_out = len(table.rows) - ROWS
        more = f", the last {ROWS} of {len(table.rows)}" if left_out > 0 else ""
        drawn = Drawn(
            title=f"{table.title}{more}", title_justify="left", show_header=bool(table.head), box=None
        )
        for title in table.head or ("", ""):
            drawn.add_column(title, overflow="fold")
        for row in table.rows[-ROWS:]:
            drawn.add_row(*map(Text, row))  # Text: a caption with [brackets] is not markup
        console.print(drawn)
        console.print()
