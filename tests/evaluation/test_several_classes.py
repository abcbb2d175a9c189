"""Labels for which several of the model's classes stand: the one with the highest score is explained, by one run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fastcam import Explainer
from fastcam.evaluation.class_map import ClassMap
from fastcam.evaluation.data import open_data
from fastcam.evaluation.protocols import PROTOCOLS
from fastcam.evaluation.protocols.base import Protocol
from fastcam.evaluation.runner import Contestant, evaluate
from fastcam.evaluation.samples import Annotation, Sample
from fastcam.evaluation.statistics import Ratio
from support.given_samples import Given

DATA = Path(__file__).resolve().parents[2] / "fastcam" / "data"
pytestmark = pytest.mark.xdist_group("evaluation")


def test_of_several_classes_for_a_label_the_one_that_scores_highest_is_explained(file):
    asked = {}

    class Seen(Protocol):
        name = title = "seen"

        def measure(self, case):
            (present,) = case.present
            asked[case.sample.name] = present.target, set(present.classes), case.explanation.scores[0]
            return {"hit": present.target}

        def tally(self):
            return Sums()

    class Sums:
        def __init__(self):
            self.ratio = Ratio()

        def add(self, row, weights):
            self.ratio.add(row["hit"], weights)

        def figures(self):
            return {"mean": self.ratio.figure()}

    picture = np.random.default_rng(5).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    data = Given([Sample("one", picture, (Annotation("any", (0, 0, 9, 9)),))], ("any",))
    explainer = Explainer(file, exif=False)
    classes = ClassMap({"any": frozenset({1, 4, 7})}, (), "by hand")
    evaluate(Contestant("scenes", explainer, classes), data, [Seen()])
    target, known, scores = asked["one"]
    assert known == {1, 4, 7} and target == max(known, key=lambda c: scores[c])


def test_of_several_classes_the_best_is_found_among_ranks_that_are_asked_anyway(file, monkeypatch):
    """The same rows as by a run for the scores before, and another run only where the class is not among the ranks."""
    data = open_data("scenes:24")
    explainer = Explainer(file, exif=data.exif)
    count = len(data.labels)
    several = {
        label: frozenset({i if i % 2 else (i + 6) % count, (i + 3) % count}) for i, label in enumerate(data.labels)
    }
    how = Contestant("scenes", explainer, ClassMap(several, (), "by hand"))
    runs = []
    for name in ("predict", "__call__"):
        plain = getattr(Explainer, name)

        def counted(self, *given, name=name, plain=plain, **named):
            runs.append(name)
            return plain(self, *given, **named)

        monkeypatch.setattr(Explainer, name, counted)
    before = evaluate(how, data, [PROTOCOLS["gt-known"](), PROTOCOLS["pointing"]()])
    assert runs == ["predict"] * 24
    runs.clear()
    after = evaluate(how, data, [PROTOCOLS[name]() for name in ("localization", "gt-known", "pointing")])
    beyond = 0
    for sample in data.samples():
        ranked = np.argsort(-explainer(sample.picture).scores[0])
        best = {max(sorted(several[label]), key=lambda c: -ranked.tolist().index(c)) for label in sample.labels}
        beyond += bool(best - {*ranked[:5].tolist()})
    assert runs[:-24] == ["__call__"] * beyond and 0 < beyond < 20
    for name, figures in before.figures.items():
        assert figures == after.figures[name]
