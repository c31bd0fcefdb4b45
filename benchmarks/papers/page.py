"""Bring benchmarks/README.md in step with the numbers in benchmarks/results.

uv run python benchmarks/papers/page.py
"""

from pathlib import Path

from cf.reports.page import inserted, page
from cf_apps.engine.files import write_text

BENCHMARKS = Path(__file__).resolve().parents[1]

if __name__ == "__main__":
    readme = BENCHMARKS / "README.md"
    write_text(readme, inserted(readme.read_text(), page(BENCHMARKS / "results")))
    print(f"wrote {readme}")
