"""Measuring the maps of models and methods on a data set: one pass for each, streamed, journaled, with intervals."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from fastcam.atomic_files import slug
from fastcam.errors import FastcamError, typed
from fastcam.evaluation.class_map import ClassMap
from fastcam.evaluation.journal import Journal, Line
from fastcam.evaluation.protocols.base import Case, Present, Protocol
from fastcam.evaluation.samples import Dataset, LeftOut, Sample
from fastcam.evaluation.statistics import Figure, Tally, weights_of
from fastcam.explain.streaming import Frame
from fastcam.explainer import Explainer
from fastcam.schema import __version__

Told = Callable[[str, int], None]
"""Called as ``told(contestant, pictures done)``; how far a run is."""


@dataclass(frozen=True, eq=False)
class Contestant:
    """A model explained by a method.

    Attributes:
        name: of the model, for tables and file names.
        explainer: of the exported file.
        classes: from the data set's labels to the model's classes.
        method: a name of ``fastcam methods``; None is the file's default.
        options: of the method.
    """

    name: str
    explainer: Explainer
    classes: ClassMap
    method: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """For people."""
        return f"{self.name}, {self.method or 'default method'}"

    @property
    def stem(self) -> str:
        """Of the journal's name; "gradcam" and "gradcam++" have two."""
        parts = self.name, self.method or "default"
        same = all(slug(part) == part for part in parts)
        digest = "" if same else "-" + hashlib.sha256("\0".join(parts).encode("utf-8", "surrogatepass")).hexdigest()[:8]
        return "-".join(map(slug, parts)) + digest

    def check(self) -> None:
        """Raise what the explainer refuses of the method and its options, before anything is measured."""
        self.stream(())

    def stream(self, pictures: Iterable[Any], targets: Any = -1, threshold: float = 0.15) -> Iterator[Frame]:
        """Explain pictures by the method, see :meth:`fastcam.Explainer.stream`."""
        how: dict[str, Any] = {"method": self.method, "options": self.options or None}
        return self.explainer.stream(pictures, targets, threshold, **how)


@dataclass(frozen=True, eq=False)
class Measured:
    """What one pass found.

    Attributes:
        model, method: of the contestant.
        figures: by protocol and name.
        pictures: that were measured.
        left_out: pictures that say nothing, or failed, by reason.
    """

    model: str
    method: str
    figures: Mapping[str, Mapping[str, Figure]]
    pictures: int
    left_out: LeftOut

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "model": self.model,
            "method": self.method,
            "pictures": self.pictures,
            "left out": {
                why: {"count": count, "first": self.left_out.names[why]} for why, count in self.left_out.counts.items()
            },
            "figures": {
                protocol: {name: figure.to_dict() for name, figure in figures.items()}
                for protocol, figures in self.figures.items()
            },
        }


def evaluate(
    contestant: Contestant,
    data: Dataset,
    protocols: Sequence[Protocol],
    out: str | Path | None = None,
    *,
    threshold: float = 0.15,
    limit: int | None = None,
    restart: bool = False,
    told: Told | None = None,
) -> Measured:
    """Explain every picture of a data set once, and measure its maps by all protocols.

    Stopped and called again with the same ``out``, it goes on behind the last picture that was measured. Figures and
    intervals depend neither on threads nor on where a run was stopped. Nothing is kept of a picture but its rows, on
    disk.

    Args:
        contestant: what is measured.
        data: of :func:`fastcam.evaluation.data.open_data`.
        protocols: of :data:`fastcam.evaluation.protocols.PROTOCOLS`.
        out: folder of the journal, ``rows/MODEL-METHOD.jsonl`` there; None keeps none.
        threshold: of boxes, see :class:`fastcam.Explainer`.
        limit: of the data set's first pictures.
        restart: measure everything anew.
        told: is told how far it is.

    Raises:
        FastcamError: the file cannot be explained so, the journal is of other settings, or nothing could be measured.
    """
    explainer = contestant.explainer
    typed("explainer", explainer, Explainer, "a fastcam.Explainer")
    if explainer.exif != data.exif:
        turned = "turned by their EXIF orientation" if data.exif else "as they lie, without EXIF"
        raise FastcamError(f"{data.name} is annotated on pictures {turned}; open the Explainer with exif={data.exif}")
    method = contestant.method or "default"
    path = None if out is None else Path(out) / "rows" / f"{contestant.stem}.jsonl"
    tallies = {protocol.name: protocol.tally() for protocol in protocols}
    left_out, done = LeftOut(), set[str]()
    with Journal(path, _settings(contestant, data, protocols, threshold), restart) as journal:
        for line in journal.lines():
            done.add(line["name"])
            if limit is None or len(done) <= limit:
                _count(line, tallies, left_out)
                left_out.merge(_marks(line))
        of_run = _Pass(contestant, data, protocols, threshold)
        before = len(done) if limit is None else min(len(done), limit)
        with closing(of_run.lines(done, limit)) as lines:  # its threads end here, also where the disk is full
            for number, line in enumerate(lines, before + 1):
                journal.add(line)
                _count(line, tallies, left_out)
                if told is not None:
                    told(contestant.title, number)
        if not before and not of_run.count:
            raise FastcamError(f"{data.name}: there are no pictures to measure; {_why(data.left_out)}")
    left_out.merge(data.left_out)
    figures = {name: _measured(tally) for name, tally in tallies.items()}
    pictures = before + of_run.count - sum(map(left_out.counts.__getitem__, OWN & set(left_out.counts)))
    return Measured(contestant.name, method, figures, pictures, left_out)


NOTHING_KNOWN = "nothing that the model knows is marked"
FAILED = "could not be explained"
NOT_A_NUMBER = "the model's scores are NaN"
OWN = {NOTHING_KNOWN, FAILED, NOT_A_NUMBER}
"""Why pictures of a data set that it could read are not measured."""


def _measured(tally: Tally) -> dict[str, Figure]:
    """A protocol's figures; none where all of them are of nothing."""
    figures = tally.figures()
    return figures if any(figure.n for figure in figures.values()) else {}


def _why(left_out: LeftOut) -> str:
    said = [f"{count} {reason} ({left_out.names[reason][0]})" for reason, count in left_out.counts.items()]
    return "; ".join(said) or "the data set is empty"


def _marks(line: Line) -> LeftOut:
    """What of a measured picture's annotations could not be used, as the journal has it."""
    counted: Mapping[str, tuple[int, list[str]]] = line.get("marks left out", {})
    return LeftOut({why: n for why, (n, _) in counted.items()}, {why: names for why, (_, names) in counted.items()})


def _count(line: Line, tallies: Mapping[str, Tally], left_out: LeftOut) -> None:
    """A line of the journal into the tallies."""
    if "left out" in line:
        left_out.add(line["left out"], f"{line['name']}: {line['error']}" if "error" in line else line["name"])
        return
    weights = weights_of(line["name"])
    for name, row in line["rows"].items():
        if row is not None and name in tallies:
            tallies[name].add(row, weights)


def _settings(contestant: Contestant, data: Dataset, protocols: Sequence[Protocol], threshold: float) -> dict[str, Any]:
    """What must be the same for a run to go on."""
    classes = sorted((label, sorted(found)) for label, found in contestant.classes.by_label.items())
    metadata = contestant.explainer.metadata
    return {
        "fastcam": __version__,
        "data": data.name,
        "model": hashlib.sha256(metadata.to_json().encode()).hexdigest()[:16],
        "classes": hashlib.sha256(repr(classes).encode()).hexdigest()[:16],
        "method": contestant.method or "default",
        "options": dict(contestant.options),
        "threshold": threshold,
        "protocols": [repr(protocol) for protocol in protocols],
    }


class _Pass:
    """One contestant's way through the data set."""

    def __init__(self, contestant: Contestant, data: Dataset, protocols: Sequence[Protocol], threshold: float) -> None:
        self.contestant, self.data, self.protocols, self.threshold = contestant, data, protocols, threshold
        self.count = 0
        self._waiting: dict[int, tuple[Sample, list[int], tuple[Present, ...]]] = {}

    def lines(self, done: set[str], limit: int | None) -> Generator[Line, None, None]:
        """Lines of the pictures that are not done, in the data set's order."""
        for frame in self.contestant.stream(self._frames(done, limit), self._targets, self.threshold):
            self.count += 1
            yield self._line(frame)

    def _frames(self, done: set[str], limit: int | None) -> Iterator[Any]:
        """The pictures, in the order in which they are numbered."""
        left = None if limit is None else max(0, limit - len(done))
        for index, sample in enumerate(islice(self.data.samples(done), left)):
            self._waiting[index] = sample, [], ()
            yield sample.picture

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
                scores = self.contestant.explainer.predict(sample.picture).scores[0] if scores is None else scores
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
        if frame.explanation is None:
            return line | {"left out": FAILED, "error": str(frame.error).partition(": ")[2]}
        if not asked:
            return line | {"left out": NOTHING_KNOWN}
        if np.isnan(frame.explanation.scores).any():  # no class is the best of them
            return line | {"left out": NOT_A_NUMBER}
        how = self.contestant
        columns = {target: column for column, target in enumerate(asked)}
        case = Case(sample, present, frame.explanation, columns, how.explainer, frame.explanation.method, how.options)
        return line | {"rows": {protocol.name: protocol.measure(case) for protocol in self.protocols}}
