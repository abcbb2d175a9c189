"""The table of methods: everything has a row, and every test that a row names exists."""

from __future__ import annotations

import ast
import json
from pathlib import Path

import pytest

from fastcam.methods import METHODS
from fastcam.schema import MODES
from fastcam_bench.accuracy.method_evidence import ROWS
from fastcam_bench.accuracy.parity import peers
from fastcam_bench.paths import RESULTS
from fastcam_bench.report import methods_table

TESTS = Path(__file__).parents[1]
LISTED = [name for listed in methods_table.names().values() for name in listed]


def test_every_method_and_mode_has_one_row():
    assert set(METHODS) | set(MODES) <= set(LISTED) <= set(ROWS)
    assert len(LISTED) == len(set(LISTED))


def functions(file):
    tree = ast.parse((TESTS / file).read_text(encoding="utf-8"))
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize("name", LISTED)
def test_the_tests_that_a_row_names_exist(name):
    assert ROWS[name].tests
    for test in ROWS[name].tests:
        file, function = test.split("::")
        assert function in functions(file), test


def test_the_page_is_what_the_package_has():
    page = methods_table.OUTPUT.read_text(encoding="utf-8")
    assert page == methods_table.table(), f"run: {methods_table.COMMAND}"


@pytest.mark.parametrize("name", [name for name in LISTED if peers.who_has(name)])
def test_peers_that_were_compared_are_peers_of_the_table(name):
    """And each comparison is in the results, equal or explained."""
    assert set(peers.who_has(name)) <= set(ROWS[name].peers)
    report = json.loads((RESULTS / "methods" / "parity.json").read_text(encoding="utf-8"))
    rows = [row for entry in report["networks"].values() for row in entry["rows"] if row["method"] == name]
    assert {row["tool"] for row in rows} == set(peers.who_has(name))
    for row in rows:
        if "refused" not in row:
            equal = row["difference"] <= report["tolerance"]
            explained = row.get("with_its_formula", row.get("in_float64", 0)) <= report["tolerance"]
            assert equal or (row["why"] != "unexplained" and explained), row
