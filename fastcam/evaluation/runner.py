"""Measuring the maps of models and methods on a data set: one pass for each, streamed, journaled, with intervals."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fastcam.errors import FastcamError, typed
from fastcam.evaluation.contestant import Contestant as Contestant
from fastcam.evaluation.earlier import Earlier
from fastcam.evaluation.journal import Journal, Line
from fastcam.evaluation.picture_lines import OWN, Pass
from fastcam.evaluation.protocols.base import Protocol
from fastcam.evaluation.samples import Dataset, LeftOut
from fastcam.evaluation.statistics import Figure, weights_of
from fastcam.explainer import Explainer
from fastcam.schema import __version__

Told = Callable[[str, int], None]
"""Called as ``told(contestant, pictures done)``; how far a run is."""


@dataclass
class Refused:
    """A protocol that could not be measured.

    Attributes:
        why: of the first picture.
        pictures: how many.
    """

    why: str
    pictures: int = 0


@dataclass(frozen=True, eq=False)
class Measured:
    """What one pass found.

    Attributes:
        model, method: of the contestant.
        figures: by protocol and name.
        pictures: that were measured.
        left_out: pictures that say nothing, or failed, by reason.
        unknown: labels of the data set that the model does not know, and in how many pictures each is marked.
        refused: protocols that the model, the method or the data do not allow.
    """

    model: str
    method: str
    figures: Mapping[str, Mapping[str, Figure]]
    pictures: int
    left_out: LeftOut
    unknown: Mapping[str, int] = field(default_factory=dict)
    refused: Mapping[str, Refused] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "model": self.model,
            "method": self.method,
            "pictures": self.pictures,
            "left out": {
                why: {"count": count, "first": self.left_out.names[why]} for why, count in self.left_out.counts.items()
            },
            "unknown labels": dict(self.unknown),
            "not measured": {name: {"why": each.why, "pictures": each.pictures} for name, each in self.refused.items()},
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
    lenient: bool = False,
    told: Told | None = None,
) -> Measured:
    """Explain every picture of a data set once, and measure its maps by all protocols.

    Stopped and called again with the same ``out``, it goes on behind the last picture that was measured, and tries
    again those that could not be explained. Figures and intervals depend neither on threads nor on where a run was
    stopped. Nothing is kept of a picture but its rows, on disk.

    Args:
        contestant: what is measured.
        data: of :func:`fastcam.evaluation.data.open_data`.
        protocols: of :data:`fastcam.evaluation.protocols.PROTOCOLS`.
        out: folder of the journal, ``rows/MODEL-METHOD.jsonl`` there; None keeps none.
        threshold: of boxes, see :class:`fastcam.Explainer`.
        limit: of the data set's first pictures.
        restart: measure everything anew.
        lenient: a protocol that the file, the method or a picture does not allow is counted, see
            :attr:`Measured.refused`, and the others go on; otherwise that is an error.
        told: is told how far it is.

    Raises:
        FastcamError: the file cannot be explained so, the journal is of other settings, or nothing could be measured.
    """
    _check_exif(contestant, data)
    path = None if out is None else Path(out) / "rows" / f"{contestant.stem}.jsonl"
    found = _Tallies(protocols)
    with Journal(path, _settings(contestant, data, protocols, threshold), restart) as journal:
        earlier = Earlier(journal, limit)
        for line in earlier.lines():
            found.add(line)
            found.add_marks(line)
        of_run = Pass(contestant, data, protocols, threshold, lenient)
        with closing(of_run.lines(earlier.done, earlier.left)) as lines:  # its threads end here, whatever is raised
            for number, line in enumerate(lines, earlier.count + 1):
                if not earlier.has(line):
                    journal.add(line)
                found.add(line)
                if told is not None:
                    told(contestant.title, number)
    if not found.pictures:
        raise FastcamError(f"{data.name}: there are no pictures to measure; {data.left_out or 'the data set is empty'}")
    found.left_out.merge(data.left_out)
    return found.measured(contestant)


def _check_exif(contestant: Contestant, data: Dataset) -> None:
    typed("explainer", contestant.explainer, Explainer, "a fastcam.Explainer")
    if contestant.explainer.exif != data.exif:
        turned = "turned by their EXIF orientation" if data.exif else "as they lie, without EXIF"
        raise FastcamError(f"{data.name} is annotated on pictures {turned}; open the Explainer with exif={data.exif}")


class _Tallies:
    """What the lines of pictures say, one after the other.

    Attributes:
        pictures: how many there were, measured or not.
        left_out: see :class:`Measured`.
    """

    def __init__(self, protocols: Sequence[Protocol]) -> None:
        self.pictures, self.left_out = 0, LeftOut()
        self._tallies = {protocol.name: protocol.tally() for protocol in protocols}
        self._unknown: Counter[str] = Counter()
        self._refused: dict[str, Refused] = {}

    def add(self, line: Line) -> None:
        """One more picture."""
        self.pictures += 1
        self._unknown.update(line.get("unknown labels", ()))
        if "left out" in line:
            self.left_out.add(line["left out"], f"{line['name']}: {line['error']}" if "error" in line else line["name"])
            return
        weights = weights_of(line["name"])
        for name, row in line["rows"].items():
            if row is not None and name in self._tallies:
                self._tallies[name].add(row, weights)
        for name, why in line.get("not measured", {}).items():
            self._refused.setdefault(name, Refused(why)).pictures += 1

    def add_marks(self, line: Line) -> None:
        """What of the annotations could not be used, of a picture that is not read again."""
        counted: Mapping[str, tuple[int, list[str]]] = line.get("marks left out", {})
        names = {why: first for why, (_, first) in counted.items()}
        self.left_out.merge(LeftOut({why: count for why, (count, _) in counted.items()}, names))

    def measured(self, contestant: Contestant) -> Measured:
        """All of it."""
        figures = {name: _with_any(tally.figures()) for name, tally in self._tallies.items()}
        pictures = self.pictures - sum(self.left_out.counts[why] for why in OWN if why in self.left_out.counts)
        unknown = {label: self._unknown[label] for label in contestant.classes.unmapped}
        return Measured(
            contestant.name, contestant.called, figures, pictures, self.left_out, unknown, dict(self._refused)
        )


def _with_any(figures: dict[str, Figure]) -> dict[str, Figure]:
    """A protocol's figures; none where all of them are of nothing."""
    return figures if any(figure.n for figure in figures.values()) else {}


def _settings(contestant: Contestant, data: Dataset, protocols: Sequence[Protocol], threshold: float) -> dict[str, Any]:
    """What must be the same for a run to go on."""
    classes = sorted((label, sorted(found)) for label, found in contestant.classes.by_label.items())
    metadata = contestant.explainer.metadata
    prompts = contestant.explainer.prompts
    said = {"prompts": hashlib.sha256(repr(sorted(prompts.items())).encode()).hexdigest()[:16]} if prompts else {}
    return said | {
        "fastcam": __version__,
        "data": data.name,
        "model": hashlib.sha256(metadata.to_json().encode()).hexdigest()[:16],
        "classes": hashlib.sha256(repr(classes).encode()).hexdigest()[:16],
        "method": contestant.called,
        "options": dict(contestant.options),
        "threshold": threshold,
        "protocols": [repr(protocol) for protocol in protocols],
    }
