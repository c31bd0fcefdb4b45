"""EQUATIONS.md: every row names a function that exists, and a test that exists."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "EQUATIONS.md"
SYMBOL = re.compile(r"\[`([\w.]+)`\]\(([^)#]+\.py)\)")

ROWS = [
    line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("|") and ".py)" in line
]
SYMBOLS = sorted({match for row in ROWS for match in SYMBOL.findall(row)})


def symbols_of(source: str) -> set[str]:
    """Every function, class and constant of a module; members of a class as `Class.member`."""
    found: set[str] = set()

    def visit(body: list[ast.stmt], prefix: str = "") -> None:
        for node in body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                found.add(prefix + node.name)
            if isinstance(node, ast.ClassDef):
                visit(node.body, f"{prefix}{node.name}.")
            targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
            found.update(prefix + target.id for target in targets if isinstance(target, ast.Name))

    visit(ast.parse(source).body)
    return found


@pytest.mark.parametrize(("symbol", "path"), SYMBOLS)
def test_the_file_defines_the_symbol(symbol: str, path: str):
    file = ROOT / path
    assert file.is_file(), f"{path} is not there"
    assert symbol in symbols_of(file.read_text(encoding="utf-8")), f"{path} does not define {symbol}"


@pytest.mark.parametrize("row", ROWS, ids=[row.split("|")[1].strip() for row in ROWS])
def test_a_row_links_at_least_one_function_and_one_test(row: str):
    tests = [name for name, _ in SYMBOL.findall(row) if name.split(".")[-1].startswith("test_")]
    functions = [name for name, _ in SYMBOL.findall(row) if not name.split(".")[-1].startswith("test_")]
    assert tests, row
    assert functions, row


def test_there_are_rows():
    assert ROWS
