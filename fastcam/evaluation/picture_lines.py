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
from fastcam.results.explanation import Explanation

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
        self._waiting: dict[int, tuple[Sample, list[int]]] = {}

    def lines(self, done: Collection[str], most: int | None) -> Generator[Line, None, None]:
        """Lines of the first pictures that are not done, in the data set's order."""
        for frame in self.contestant.stream(self._frames(done, most), self._targets, self.threshold):
            yield self._line(frame)

    def _frames(self, done: Collection[str], most: int | None) -> Iterator[Any]:
        """The pictures, in the order in which they are numbered."""
        for index, sample in enumerate(islice(self.data.samples(done), most)):
            self._waiting[index] = sample, []
            yield model_input(sample, self.contestant.explainer)

    def _targets(self, index: int, picture: Any) -> list[int]:
        """What is explained of a picture: what the protocols ask for, each once.

        Of several classes for a label the one with the highest score is, and scores are known behind the run. Where
        ranks are asked as well, the class is most often among them, and the run need not wait for the scores of another
        one.
        """
        sample = self._waiting[index][0]
        asked = self._classes_to_explain(self._present(sample, None))
        if any(target < 0 for target in asked) or not self._several(sample):
            self._waiting[index] = sample, asked
            return asked or [-1]  # nothing is asked; the line says so
        explainer = self.contestant.explainer
        asked = self._classes_to_explain(
            self._present(sample, explainer.predict(model_input(sample, explainer)).scores[0])
        )
        self._waiting[index] = sample, asked
        return asked or [-1]

    def _several(self, sample: Sample) -> bool:
        """Whether several classes stand for some label."""
        by_label = self.contestant.classes.by_label
        return any(len(by_label.get(label, ())) > 1 for label in sample.labels)

    def _classes_to_explain(self, present: Sequence[Present]) -> list[int]:
        asked = dict.fromkeys(target for protocol in self.protocols for target in protocol.targets(present))
        classes = self.contestant.explainer.metadata.score.classes
        return [target for target in asked if classes is None or target >= -classes]

    def _present(self, sample: Sample, scores: Any) -> tuple[Present, ...]:
        """What is marked and the model knows; of several classes for a label the one with the highest score.

        Args:
            scores: [classes]; None where they are not known, and labels with several classes are left out.
        """
        found = []
        for label in sample.labels:
            classes = self.contestant.classes.by_label.get(label, frozenset())
            if len(classes) == 1 or (classes and scores is not None):
                target = max(sorted(classes), key=scores.__getitem__) if len(classes) > 1 else min(classes)
                found.append(Present(label, int(target), classes, sample.of(label)))
        return tuple(found)

    def _line(self, frame: Frame) -> Line:
        sample, asked = self._waiting.pop(frame.index)
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
        try:
            case = self._case(sample, asked, frame.explanation)
        except FastcamError as error:
            return line | {"left out": FAILED, "error": str(error)}
        return line | self._measured(case)

    def _case(self, sample: Sample, asked: list[int], explanation: Explanation) -> Case:
        """The picture with its explanation, which is made again where it lacks a label's best class."""
        how = self.contestant
        present = self._present(sample, explanation.scores[0])
        columns = {target: column for column, target in enumerate(asked)}
        by_class = {int(index): column for column, index in enumerate(explanation.classes[0])}
        wanted = self._classes_to_explain(present)
        if any(target not in columns and target not in by_class for target in wanted):
            explanation = how.explain(model_input(sample, how.explainer), wanted, self.threshold)
            columns = {target: column for column, target in enumerate(wanted)}
        else:
            columns |= {target: by_class[target] for target in wanted if target not in columns}
        return Case(sample, present, explanation, columns, how.explainer, explanation.method, how.options)

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
