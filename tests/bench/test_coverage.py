"""The coverage report: shares by hand, and modules that are named because tests reach too little of them."""

import json
import sys

import pytest

from fastcam_bench.report import coverage

REPORT = {
    "files": {
        "fastcam/cache.py": {
            "summary": {
                "covered_lines": 8, "num_statements": 10, "covered_branches": 1, "num_branches": 4,
                "percent_covered": 100 * 9 / 14,
            }
        },
        "export/fastcam_export/vjp.py": {
            "summary": {
                "covered_lines": 20, "num_statements": 20, "covered_branches": 0, "num_branches": 0,
                "percent_covered": 100.0,
            }
        },
        "fastcam/empty.py": {"summary": {"covered_lines": 0, "num_statements": 0, "percent_covered": 100.0}},
    }
}  # fmt: skip


def test_shares_are_of_all_lines_and_branches():
    kept = coverage.summary(REPORT)
    assert kept["fastcam"] == {"lines": 80.0, "branches": 25.0}
    assert kept["fastcam_export"] == {"lines": 100.0, "branches": 100.0}
    assert kept["all"] == {"lines": 93.3, "branches": 25.0}
    assert kept["modules"] == {"export/fastcam_export/vjp.py": 100.0, "fastcam/cache.py": 64.3}


@pytest.mark.parametrize(("least", "code"), [(85.0, 1), (60.0, 0)])
def test_a_module_below_the_least_share_is_an_error(tmp_path, monkeypatch, capsys, least, code):
    source, out = tmp_path / "report.json", tmp_path / "coverage.json"
    source.write_text(json.dumps(REPORT), encoding="utf-8")
    monkeypatch.setattr(sys, "argv", ["coverage", str(source), "--out", str(out)])
    monkeypatch.setattr(coverage.low, "__defaults__", (least,))
    assert coverage.main() == code
    said = capsys.readouterr().out.splitlines()
    assert said == ["lines 93.3 %, branches 25.0 %", "fastcam/cache.py: 64.3 %, at least 85.0"][: 1 + code]
    assert json.loads(out.read_text(encoding="utf-8"))["modules"]["fastcam/cache.py"] == 64.3
