"""The page of figures: one HTML file beside a folder of PNGs, which a browser opens without server or network."""

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

from cf_apps.engine.files import write_text
from cf_apps.engine.run import commit

from cf.figures.figure import Figure
from cf.figures.stage import Drawn, Stage

STYLE = """
:root { color-scheme: light; }
body { max-width: 88rem; margin: 0 auto; padding: 1.5rem; font: 16px/1.5 system-ui, sans-serif; color: #1a1a1a;
  background: #fff; }
h1 { font-size: 1.7rem; margin-bottom: 0.3rem; }
h2 { font-size: 1.2rem; margin: 0 0 0.4rem; }
p { max-width: 52rem; margin: 0.25rem 0; }
nav ul { columns: 24rem; padding-left: 1.2rem; }
section { border-top: 1px solid #ddd; margin-top: 2rem; padding-top: 1.2rem; }
img { display: block; max-width: 100%; height: auto; margin: 0.8rem 0; }
a { color: #2a6f97; }
.missing { color: #8a3b12; }
footer, .notes { color: #555; font-size: 0.92rem; }
code { background: #f3f3f3; padding: 0 0.25em; }
"""
TOP = "top"


def write_page(figures: Sequence[Figure], drawn: Mapping[str, Drawn], stage: Stage, folder: Path) -> Path:
    """FOLDER/figures.html. The pictures lie in FOLDER/figures already."""
    file = folder / "figures.html"
    folder.mkdir(parents=True, exist_ok=True)
    write_text(file, page(figures, drawn, stage, folder))
    return file


def page(figures: Sequence[Figure], drawn: Mapping[str, Drawn], stage: Stage, folder: Path) -> str:
    scale = stage.scale
    title = f"CrossFlow, figures at scale {scale.name}"
    contents = [
        f'<li><a href="#{escape(it.name)}">{escape(it.title)}</a>{_marked(drawn[it.name])}</li>'
        for it in figures
    ]
    return "\n".join(
        [
            "<!doctype html>",
            '<html lang="en">',
            "<head>",
            '<meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{escape(title)}</title>",
            f"<style>{STYLE}</style>",
            "</head>",
            f'<body id="{TOP}">',
            f"<h1>{escape(title)}</h1>",
            f"<p>Scale {escape(scale.name)}: {escape(scale.about)}. The models shown are those of "
            f"seed {stage.seed}; numbers are means over seeds. "
            "Captions were chosen by their length before any picture was drawn.</p>",
            f'<nav aria-label="Figures"><ul>{"".join(contents)}</ul></nav>',
            *(line for it in figures for line in _section(it, drawn[it.name], folder)),
            "<footer><p>Made by <code>uv run python benchmarks/papers/cf_figures.py --scale "
            f"{escape(scale.name)}</code> from trainings and numbers of <code>cf_bench.py</code>, at commit "
            f"{escape(str(commit())[:12])}.</p></footer>",
            "</body>",
            "</html>",
            "",
        ]
    )


def _section(figure: Figure, drawn: Drawn, folder: Path) -> list[str]:
    name = escape(figure.name)
    lines = [
        f'<section id="{name}">',
        f"<h2>{escape(figure.title)}</h2>",
        f"<p>{escape(figure.sees)}</p>",
        f"<p><b>The paper:</b> {escape(figure.says)}</p>",
    ]
    if drawn.picture is not None:
        width, height = drawn.picture.size
        lines += [
            f'<a href="figures/{name}.png"><img src="figures/{name}.png" width="{width}" height="{height}" '
            f'loading="lazy" alt="{escape(drawn.alt)}"></a>'
        ]
    lines += [f'<p class="missing">Left out: {escape(sentence)}.</p>' for sentence in drawn.missing]
    lines += [f'<p class="notes">{escape(note)}</p>' for note in drawn.notes]
    links = [f'<a href="#{TOP}">contents</a>']
    if (folder / f"{figure.report}.md").exists():
        report = escape(figure.report)
        links.insert(0, f'<a href="{report}.md">numbers and verdicts: {report}.md</a>')
    return [*lines, f'<p class="notes">{" · ".join(links)}</p>', "</section>"]


def _marked(drawn: Drawn) -> str:
    """In the contents: what is not whole."""
    if drawn.picture is None:
        return ' <span class="missing">not drawn yet</span>'
    return ' <span class="missing">in part</span>' if drawn.missing else ""
