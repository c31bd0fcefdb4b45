"""A run as one HTML file that needs no server, no network and no other file."""

import base64
import json
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

from cf_apps.engine.watching.show.summary import Summary
from cf_apps.engine.watching.show.tables import Table

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1a1a1a; max-width: 72rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.1rem; margin-top: 2rem; }
table { border-collapse: collapse; display: block; overflow-x: auto; }
th, td { text-align: left; vertical-align: top; padding: 0.15rem 1rem 0.15rem 0; border-bottom: 1px solid #e4e4e4; }
td { font-variant-numeric: tabular-nums; overflow-wrap: anywhere; }
figure { margin: 1rem 0; } figcaption { color: #666; } img { max-width: 100%; height: auto; }
pre { background: #f6f6f6; padding: 1rem; overflow-x: auto; }
"""


def page(summary: Summary, tables: Sequence[Table], pictures: Mapping[str, Path]) -> str:
    """The whole page. pictures: caption -> PNG file, which becomes part of the page."""
    name = escape(summary.run.resolve().name)
    first, *others = tables
    settings = {part: summary.part(part) for part in ("task", "fit")}
    return "\n".join(
        [
            f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{name}</title>',
            f"<style>{STYLE}</style>\n</head>\n<body>\n<h1>{name}</h1>",
            _table(first),
            *(_picture(caption, path) for caption, path in pictures.items()),
            *(f"<h2>{escape(table.title)}</h2>\n{_table(table)}" for table in others),
            "<h2>settings</h2>\n<details><summary>task and fit, from config.json</summary>",
            f"<pre>{escape(json.dumps(settings, indent=1, ensure_ascii=False))}</pre>\n</details>",
            "</body>\n</html>\n",
        ]
    )


def _table(table: Table) -> str:
    head = f"<thead>{_row(table.head, 'th')}</thead>" if table.head else ""
    rows = "\n".join(_row(row, "td") for row in table.rows)
    return f"<table>{head}<tbody>\n{rows}\n</tbody></table>"


def _row(words: Sequence[str], cell: str) -> str:
    return f"<tr>{''.join(f'<{cell}>{escape(word)}</{cell}>' for word in words)}</tr>"


def _picture(caption: str, path: Path) -> str:
    data = base64.b64encode(path.read_bytes()).decode()
    words = escape(caption)
    image = f'<img alt="{words}" src="data:image/png;base64,{data}">'
    return f"<figure>{image}<figcaption>{words}</figcaption></figure>"
