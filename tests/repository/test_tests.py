"""The tests themselves: each file stands alone, and what several need lies in tests/support."""

import ast
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parents[1]


def imported(path):
    """Full names of the modules that a file imports, inside functions too."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module or ''}.{name.name}" for name in node.names)


@pytest.mark.parametrize("path", sorted(TESTS.rglob("*.py")), ids=lambda path: str(path.relative_to(TESTS)))
def test_no_file_imports_a_test(path):
    parts = [part for module in imported(path) for part in module.split(".")]
    assert not [part for part in parts if part.startswith("test_") and list(TESTS.rglob(f"{part}.py"))]


def test_no_two_test_files_have_one_name():
    """pytest imports them by that name, and refuses the second."""
    names = sorted(path.name for path in TESTS.rglob("test_*.py"))
    assert len(names) == len(set(names)), [name for name in set(names) if names.count(name) > 1]
