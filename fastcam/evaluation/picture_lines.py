"""One pass over a data set: each picture explained once, and what the protocols say of it as a line of the journal."""

from __future__ import annotations

from collections.abc import Collection, Generator, Iterator, Sequence
from itertools import islice
from typing import Any

import numpy as np

from fastcam.errors import FastcamError
from fastcam.evaluation.contestant import Contestant
from fastcam.evaluation.journal import Line
from fastcam.evaluation.model_input import model_input
from fastcam.evaluation.protocols.base import Case, Present, Protocol, Row
from fastcam.evaluation.samples import Dataset, Sample
from fastcam.explain.streaming import Frame

NOTHING_KNOWN = "nothing that the model knows is marked"
FAILED = "could not be explained"
NOT_A_NUMBER = "the model's scores are NaN"
OWN = {NOTHING_KNOWN, FAILED, NOT_A_NUMBER}
"""Why pictures of a data set that it could read are not measured."""


class Pass:
    """One contestant's way through a data set.

    Args:
        lenient: whether a protocol that refuses a picture is written down, in place of raised.
    """

    def __init__(
        self, contestant: Contestant, data: Dataset, protocols: Sequence[Protocol], threshold: float, lenient: bool
    ) -> None:
        self.contestant, self.data, self.protocols = contestant, data, protocols
        self.threshold, self.lenient = threshold, lenient
        self._waiting: dict[int, tuple[Sample, list[int], tuple[Present, ...]]] = {}

    def lines(self, done: Collection[str], most: int | None) -> Generator[Line, None, None]:
        """Lines of the first pictures that are not done, in the data set's order."""
        for frame in self.contestant.stream(self._frames(done, most), self._targets, self.threshold):
            yield self._line(frame)

    def _frames(self, done: Collection[str], most: int | None) -> Iterator[Any]:
        """The pictures, in the order in which they are numbered."""
        for index, sample in enumerate(islice(self.data.samples(done), most)):
            self._waiting[index] = sample, [], ()
            yield model_input(sample, self.contestant.explainer)

    def _targets(self, index: int, picture: Any) -> list[int]:
        """What is explained of a picture: what the protocols ask for, each once."""
        sample = self._waiting[index][0]
        present = self._present(sample)
        asked = list(dict.fromkeys(t for protocol in self.protocols for t in protocol.targets(present)))
        classes = self.contestant.explainer.metadata.score.classes
        if classes is not None:
            asked = [target for target in asked if target >= -classes]
        self._waiting[index] = sample, asked, present
        return asked or [-1]  # nothing is asked; the line says so

    def _present(self, sample: Sample) -> tuple[Present, ...]:
        """What is marked and the model knows; of several classes for a label the one with the highest score."""
        by_label = self.contestant.classes.by_label
        known = [label for label in sample.labels if label in by_label]
        scores: Any = None
        found = []
        for label in known:
            classes = by_label[label]
            if len(classes) > 1:
                if scores is None:
                    explainer = self.contestant.explainer
                    scores = explainer.predict(model_input(sample, explainer)).scores[0]
                target = max(sorted(classes), key=scores.__getitem__)
            else:
                (target,) = classes
            found.append(Present(label, int(target), classes, sample.of(label)))
        return tuple(found)

    def _line(self, frame: Frame) -> Line:
        sample, asked, present = self._waiting.pop(frame.index)
        line: Line = {"name": sample.name}
        if sample.left_out is not None:  # a resumed run does not read the sample again
            line["marks left out"] = {
                why: [sample.left_out.counts[why], names] for why, names in sample.left_out.names.items()
            }
        unknown = [label for label in sample.labels if label not in self.contestant.classes.by_label]
        if unknown:
            line["unknown labels"] = unknown
        if frame.explanation is None:
            return line | {"left out": FAILED, "error": str(frame.error).partition(": ")[2]}
        if not asked:
            return line | {"left out": NOTHING_KNOWN}
        if np.isnan(frame.explanation.scores).any():  # no class is the best of them
            return line | {"left out": NOT_A_NUMBER}
        how = self.contestant
        columns = {target: column for column, target in enumerate(asked)}
        case = Case(sample, present, frame.explanation, columns, how.explainer, frame.explanation.method, how.options)
        return line | self._measured(case)

    def _measured(self, case: Case) -> Line:
        rows: dict[str, Row | None] = {}
        refused: dict[str, str] = {}
        for protocol in self.protocols:
            try:
                rows[protocol.name] = protocol.measure(case)
            except FastcamError as error:
                if not self.lenient:
                    raise
                refused[protocol.name] = str(error)
        return {"rows": rows} | ({"not measured": refused} if refused else {})
