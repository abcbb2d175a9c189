"""The report of a model: explains pictures one after the other and writes the page as one file.

The cards wait in a temporary file beside the page until all pictures are seen and it is known which come first, so the
memory does not grow with the pictures' pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any

import numpy as np

from fastcam.atomic_files import replaced
from fastcam.errors import FastcamError, listed, shown
from fastcam.evaluation.model_input import model_input
from fastcam.evaluation.protocols.regions import box_pixels, boxes_of, counted, ignored_pixels
from fastcam.evaluation.report import cards, heat, page
from fastcam.evaluation.report.facts import CELLS, Facts, Groups, order
from fastcam.evaluation.report.kinds import Kind, kinds
from fastcam.evaluation.report.truth import Classes, Shown
from fastcam.evaluation.report.truth import shown as shown_in
from fastcam.evaluation.samples import Dataset, Sample
from fastcam.evaluation.statistics import Figure, Ratio, weights_of
from fastcam.explainer import Explainer
from fastcam.image.preprocess import Uint8, resize
from fastcam.labels import short_label
from fastcam.results.explanation import Explanation

SIDE = 240
"""Pixels of a thumbnail's longer side."""
ERRORS = 100
"""How many pictures that could not be explained are named."""


@dataclass(frozen=True)
class Report:
    """What a page is about.

    Attributes:
        pictures, failures, flagged: how many are on it, are predicted wrong, and are suspicious.
        suspicious: the classes that are.
        correct: the share of pictures that are predicted right, of those whose class is known.
        inside: the mean share of heat inside boxes.
        errors: names and errors of pictures that could not be explained: the first :data:`ERRORS`.
        failed: how many there are.
        kinds: groups of maps within classes, see :func:`fastcam.evaluation.report.kinds.kinds`.
    """

    pictures: int
    failures: int
    flagged: int
    suspicious: tuple[str, ...]
    correct: Figure
    inside: Figure
    errors: tuple[tuple[str, str], ...]
    failed: int
    kinds: tuple[Kind, ...]


def write_report(
    explainer: Explainer,
    data: Dataset,
    output: str | Path,
    classes: Classes | None = None,
    *,
    title: str = "",
    method: str | None = None,
    options: Mapping[str, Any] | None = None,
    side: int = SIDE,
    colors: str = "jet",
    notes: tuple[str, ...] = (),
    limit: int | None = None,
    progress: Callable[[], None] = lambda: None,
) -> Report:
    """Explain the pictures of a data set, and write them as one HTML file that needs no network.

    Args:
        explainer: of classes of pictures.
        data: the pictures, with annotations or without.
        output: the file; it is complete at the end, or as it was.
        classes: which of the model's classes each label of the data set stands for; None: nothing is known of what is
            right.
        title: of the page; by default the model's and the data's names.
        method, options: see :meth:`fastcam.Explainer.__call__`.
        side: pixels of a thumbnail's longer side, 32 to 1024.
        colors: a name from :data:`fastcam.render.drawing.COLORMAPS`.
        notes: further lines of what was left out.
        limit: how many of the first pictures are taken; None: all.
        progress: called behind each picture.

    Raises:
        FastcamError: no picture could be explained, the file explains no classes of pictures, or the page cannot be
            written.
    """
    metadata = explainer.metadata
    if (metadata.cotangents and not explainer.prompts) or metadata.kind in ("video", "signal", "volume", "text"):
        raise FastcamError(
            "a report shows pictures and their classes, and this file explains others; see fastcam explain"
        )
    if not 32 <= side <= 1024:
        raise FastcamError(f"the thumbnails' side is {side}; give 32 to 1024 pixels")
    with replaced(output) as partial, TemporaryFile(dir=partial.parent) as spool:
        made = _Pages(explainer, classes or {}, side, spool, {"method": method, "options": options})
        waiting: dict[int, Sample] = {}
        for frame in explainer.stream(_pictures(explainer, data, waiting, limit), method=method, options=options):
            sample = waiting.pop(frame.index)
            try:
                if frame.error is not None or frame.explanation is None:
                    raise frame.error or FastcamError("it was not explained")
                made.add(sample, frame.explanation)
            except FastcamError as error:
                made.errors.append((sample.name, str(error)))
            progress()
        if not made.places:
            first = f": {made.errors[0][1]}" if made.errors else f" in {shown(data.name)}"
            raise FastcamError(f"no picture could be explained{first}")
        about = page.Heading(
            title or f"{metadata.source.get('file') or 'model'}: {data.name}",
            _lines(explainer, data, method),
            (*notes, *_left_out(data)),
            colors,
        )
        with open(partial, "w", encoding="utf-8", newline="\n") as file:
            report = made.write(file, about)
    return report


def _pictures(explainer: Explainer, data: Dataset, waiting: dict[int, Sample], limit: int | None) -> Iterator[Any]:
    for index, sample in enumerate(islice(data.samples(), limit)):
        waiting[index] = sample
        yield model_input(sample, explainer)


def _lines(explainer: Explainer, data: Dataset, method: str | None) -> tuple[tuple[str, str], ...]:
    """What the page says about itself."""
    metadata = explainer.metadata
    return (
        ("model", str(metadata.source.get("file") or "")),
        ("layer", metadata.layer.value),
        ("method", method or "gradcam"),
        ("pictures", data.name),
    )


def _left_out(data: Dataset) -> list[str]:
    """What the data set could not use."""
    left = data.left_out
    return [f"{count} left out: {reason} ({listed(left.names[reason], 5)})" for reason, count in left.counts.items()]


class _Pages:
    """Cards in a temporary file, and what is known of their pictures."""

    def __init__(
        self, explainer: Explainer, classes: Classes, side: int, spool: IO[bytes], how: Mapping[str, Any]
    ) -> None:
        self.explainer, self.classes, self.side, self.spool, self.how = explainer, classes, side, spool, how
        self.places: list[tuple[Facts, int, int]] = []
        self.errors: list[tuple[str, str]] = []
        self.groups = Groups()
        self.correct, self.inside = Ratio(share=True), Ratio()

    def add(self, sample: Sample, explanation: Explanation) -> None:
        """One more picture, and the explanation of its predicted class."""
        predicted = int(explanation.classes[0, 0])
        marked = shown_in(sample, self.classes, explanation.scores[0])
        right = next((each for each in marked if predicted in self.classes[each.label]), None)
        name = short_label(self._label(predicted))
        about = right or (marked[0] if marked else None)
        boxes = boxes_of(counted(sample.of(about.label)) if about is not None else ())
        score = float(explanation.scores[0, predicted])
        views = [cards.View(f"predicted: {name} {score:.3g}", explanation, 0, boxes)]
        own: Explanation | None = explanation if right or not marked else None
        if marked and right is None:
            own = self._explained(sample, marked[0])
            if own is not None:
                value = float(explanation.scores[0, marked[0].target])
                views.append(cards.View(f"marked: {marked[0].label} {value:.3g}", own, 0, boxes))
        share = None if about is None or own is None else _share(sample, about.label, own)
        facts = Facts(
            sample.name,
            about.label if about else name,
            name,
            score,
            tuple(each.label for each in marked),
            None if not marked else right is not None,
            None if share is None else share[0],
            None if share is None else share[1],
            (own or explanation).status[0][0],
        )
        guided = facts.right is not True
        body = cards.views(sample.name, views, self.side, guided).encode("utf-8", "backslashreplace")
        at = self.spool.tell()
        self.spool.write(body)
        self.places.append((facts, at, len(body)))
        weights = weights_of(sample.name)
        if facts.right is not None:
            self.correct.add(float(facts.right), weights)
        if facts.share is not None:
            self.inside.add(facts.share, weights)
        self.groups.add(facts, heat.in_grid(own or explanation, 0, CELLS), _cells(explanation.image(0)))

    def _label(self, index: int) -> str:
        labels = self.explainer.metadata.labels
        return labels[index] if labels is not None and index < len(labels) else f"class {index}"

    def _explained(self, sample: Sample, marked: Shown) -> Explanation | None:
        """The map of the marked class; None where the file explains the predicted one alone."""
        try:
            return self.explainer(model_input(sample, self.explainer), targets=[marked.target], **self.how)
        except FastcamError:
            return None

    def write(self, file: IO[str], about: page.Heading) -> Report:
        """Write the page."""
        flags = [self.groups.flags(facts) for facts, _, _ in self.places]
        sequence = sorted(range(len(self.places)), key=lambda i: order(self.places[i][0], flags[i]))
        ranked = self.groups.ranked()
        report = Report(
            len(self.places),
            sum(facts.right is False for facts, _, _ in self.places),
            sum(map(bool, flags)),
            tuple(name for name, _, said in ranked if said),
            self.correct.figure(),
            self.inside.figure(),
            tuple(self.errors[:ERRORS]),
            len(self.errors),
            tuple(kinds(self.groups.by_name)),
        )
        shares = {"predicted right": report.correct, "share of heat in boxes": report.inside}
        file.write(page.beginning(about, shares, len(self.places), report.failures, report.flagged))
        file.write(page.classes(ranked))
        at_card = {i: (number, self.places[i][0].name) for number, i in enumerate(sequence, 1)}
        by_name = self.groups.by_name
        figures = [cards.kind_figure(n, kind, by_name[kind.label], at_card) for n, kind in enumerate(report.kinds, 1)]
        file.write(page.kinds(figures))
        titles = [kind.title for kind in report.kinds]
        file.write(page.toolbar([name for name, _, _ in ranked], titles, len(self.places)))
        kind_of = {place: n for n, kind in enumerate(report.kinds, 1) for place in kind.places}
        for number, i in enumerate(sequence, 1):
            facts, at, length = self.places[i]
            self.spool.seek(at)
            file.write(cards.opening(number, facts, flags[i], kind_of.get(i, 0)))
            file.write(self.spool.read(length).decode("utf-8"))
            file.write(cards.CLOSING)
        file.write(page.end(report.errors, report.failed))
        return report


def _share(sample: Sample, label: str, explanation: Explanation) -> tuple[float, float] | None:
    """The share of heat inside the boxes of a class, and an even map's; None where it has none."""
    annotations, size = sample.of(label), explanation.geometry[0].original
    boxes = boxes_of(counted(annotations))
    if not len(boxes):
        return None
    heatmap = explanation.geometry[0].heatmap_to_original(explanation.heatmaps[0, 0])
    return heat.share_inside(heatmap, box_pixels(boxes, size), ignored_pixels(sample, annotations, size))


def _cells(picture: Uint8) -> Uint8:
    return resize(np.ascontiguousarray(picture), (CELLS, CELLS))
