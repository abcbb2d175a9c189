"""The table of methods adds to what it has: rows of other methods stay as they were, in the order of the methods."""

from __future__ import annotations

import json

from fastcam.methods import METHODS
from fastcam_bench.accuracy.evaluation.__main__ import earlier, in_order
from fastcam_bench.paths import RESULTS


def report(name):
    return json.loads((RESULTS / "evaluation" / f"{name}.json").read_text(encoding="utf-8"))


def test_rows_of_other_methods_stay_as_they_were():
    kept = report("photos")
    gone = ["gradcam", "guided"]
    rows = [row for row in kept["results"] if row["method"] not in gone]
    assert len(rows) == len(kept["results"]) - 4  # of two networks
    found = [each.to_dict() for each in earlier(kept, gone)]
    for row, again in zip(rows, found, strict=True):
        assert row | {"unknown labels": {}, "not measured": {}} == again


def test_rows_are_by_network_and_method():
    rows = list(earlier(report("photos"), []))[::-1]
    ordered, names = in_order(rows), list(METHODS)
    models = [each.model for each in ordered]
    assert list(dict.fromkeys(models)) == list(dict.fromkeys(each.model for each in rows))
    for model in set(models):
        own = [each.method for each in ordered if each.model == model]
        assert own == sorted(own, key=names.index) and len(own) == models.count(model)
    assert models == sorted(models, key=models.index)  # a network's rows stand together
