"""The scripts that attack a server, for a moment each."""

from __future__ import annotations

import json

import pytest

pytest.importorskip("uvicorn", reason="the extra serve is not installed: nothing was served")
pytestmark = pytest.mark.slow


def test_overload(tmp_path):
    from fastcam_bench.serving import overload

    assert overload.main(["--seconds", "3", "--json", str(tmp_path / "report.json")]) == 0
    found = json.loads((tmp_path / "report.json").read_text())
    assert found["only 200 and 429"] and found["overload"]["answers by status"]["429"] > 0
    assert found["goodput of the peak"] > 0.1 and found["memory MiB"]["most"] > 10


def test_hostile_requests(tmp_path):
    pytest.importorskip("schemathesis", reason="schemathesis is not installed: no request was made")
    from fastcam_bench.serving import hostile

    assert hostile.main(["--requests", "60", "--json", str(tmp_path / "report.json")]) == 0
    found = json.loads((tmp_path / "report.json").read_text())
    assert found["requests"] >= 60 and found["failures"] == [] and found["answers the same afterwards"]
