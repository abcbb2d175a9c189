"""What Prometheus reads of maps: share of heat, entropy, status, and how far the last ones are from a reference."""

from __future__ import annotations

import re
from itertools import pairwise

import numpy as np
import pytest

from fastcam import Explainer, FastcamError
from fastcam.cli import serve
from fastcam.results.concentration import entropy, heat_inside
from support.batch_cases import encoded
from support.servers.live_server import listening
from support.servers.served_model import server, tiny_file

pytest.importorskip("starlette", reason="the extra serve is not installed: nothing was served")
pytest.importorskip("pyarrow", reason="the extra batch is not installed: there was no reference")
from fastcam.batch.rows import named_rows, rows_of
from fastcam.batch.table import write_part
from fastcam.serving.watching.drift import LAST, LEAST, Reference, figures_of
from fastcam.serving.watching.metrics import Metrics


def read(text, name, **labels):
    """A number that Prometheus reads."""
    said = ",".join(f'{key}="{value}"' for key, value in labels.items())
    found = re.search(rf"^{name}{{{re.escape(said)}}} (\S+)$", text, re.MULTILINE)
    return None if found is None else float(found[1])


def table(folder, explanations):
    folder.mkdir()
    rows = [named_rows(number, str(number), rows_of(one, (-1,), False)[0]) for number, one in enumerate(explanations)]
    write_part(folder, 0, rows, False)
    return folder


def test_maps_are_counted_measured_and_compared_with_a_reference(tmp_path):
    path = tiny_file(tmp_path)
    explainer = Explainer(path)
    seen = [explainer(encoded(number)) for number in range(40)]
    metrics = Metrics({"tiny": Reference(table(tmp_path / "table", seen[:20]))})
    with listening(server(path, metrics=metrics).app) as client:
        for number in range(20, 23):
            assert client.ask("/v1/explain", encoded(number))[0] == 200
        text = client.ask("/metrics")[2].decode()
    assert read(text, "fastcam_maps_total", model="tiny", status="ok") == 3
    for name, measure in (("fastcam_heat_inside", heat_inside), ("fastcam_map_entropy", entropy)):
        values = [measure(one) for one in seen[20:23]]
        assert read(text, f"{name}_count", model="tiny") == 3
        assert read(text, f"{name}_sum", model="tiny") == pytest.approx(sum(values), abs=1e-4)
        assert read(text, f"{name}_bucket", le="0.8", model="tiny") == sum(one <= 0.8 for one in values)
    assert "fastcam_drift{" not in text, "three maps say nothing"
    for number in range(LEAST - 3):
        metrics.saw("tiny", seen[23 + number % 17])
    text = metrics.text().decode()
    now = seen[20:23] + [seen[23 + number % 17] for number in range(LEAST - 3)]
    for name, measure in (("score", lambda one: one.score()), ("entropy", entropy)):
        reference, values = (np.array([measure(one) for one in each], np.float32) for each in (seen[:20], now))
        ends = [-np.inf, *np.unique(np.quantile(reference.astype(np.float64), np.arange(1, 10) / 10)), np.inf]
        p, q = (
            (np.array([((low < each) & (each <= high)).sum() for low, high in pairwise(ends)]) + 0.5)
            / (len(each) + 0.5 * (len(ends) - 1))
            for each in (reference, values)
        )
        assert read(text, "fastcam_drift", figure=name, model="tiny") == pytest.approx(((q - p) * np.log(q / p)).sum())
    assert read(text, "fastcam_drift", figure="status", model="tiny") == 0


def test_the_last_maps_count_and_old_ones_leave(tmp_path):
    explainer = Explainer(tiny_file(tmp_path))
    seen = [explainer(encoded(number)) for number in range(12)]
    reference = Reference(table(tmp_path / "table", seen))
    for _ in range(LAST):
        reference.add({"status": "non_finite"})
    assert set(reference.indices()) == {"status"} and reference.indices()["status"] > 1
    for number in range(LAST):
        reference.add(figures_of(seen[number % 12], 0, 0))
    indices = reference.indices()
    assert indices["status"] == 0 and indices["score"] < 0.1


def test_a_reference_that_is_none_is_refused_before_anything_is_served(tmp_path):
    with pytest.raises(FastcamError, match="give NAME=TABLE"):
        serve._references(["table"])
    with pytest.raises(FastcamError, match="no table"):
        serve._references([f"tiny={tmp_path / 'none'}"])
    there = table(tmp_path / "table", [Explainer(tiny_file(tmp_path))(encoded(0))])
    assert serve._references([f"tiny={there}"]) == {"tiny": there}
