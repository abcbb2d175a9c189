"""Which boxes of a run are meant, and what they are called."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fastcam.errors import FastcamError
from fastcam.targets.arrays import Double
from fastcam.targets.detectors.forms import Detections, distinct
from fastcam.targets.run_pictures import name_of
from fastcam.targets.spec_parser import File, Spec

Pick = tuple[int, int, str]
"""A box's number, the column of its score, and its name."""
FOUND = 0.25
"""The score from which on a box counts as found, as in most detectors' programs."""
NEAR = 0.5
"""Of several boxes those are taken whose score has at least this share of the best one's."""


@dataclass(frozen=True)
class Picks:
    """The boxes that a spec means.

    Attributes:
        spec, file: for messages and names.
        wanted: the class, or None.
        which: the number of a box, from 0, or its rank among those of the class, -1 for the best.
        most: how many that do not overlap are taken, of those that score nearly as well as the best.
    """

    spec: Spec
    file: File
    wanted: int | None
    which: int = -1
    most: int = 1

    def of(self, form: Detections) -> list[list[Pick]]:
        """Those of each image.

        Raises:
            FastcamError: there is no such box.
        """
        return [self._of(form, n) for n in range(len(form.scores))]

    def _of(self, form: Detections, n: int) -> list[Pick]:
        chances = form.chances[n]
        if not len(chances):
            raise FastcamError(f"the model finds nothing in {name_of(n)}: there is no box to explain")
        labels = None if form.labels is None else form.labels[n]
        column = self._column(form, chances, labels)
        # probabilities that were rounded to one are told apart by what they are made of
        order = np.lexsort((-form.scores[n].max(1), -column))[: int((column > -np.inf).sum())]
        if self.most > 1 and column[order[0]] < FOUND:
            best = self._named(form, chances, labels, int(order[0]))
            warnings.warn(
                f"nothing is found with a score of {FOUND} or more in {name_of(n)}; its best box, "
                f"{best[2]}, has {column[order[0]]:.2g}",
                stacklevel=2,
            )
            return [best]
        if self.most > 1:
            near = [int(k) for k in order if column[k] >= NEAR * column[order[0]]]
            boxes = distinct(None if form.pixels is None else form.pixels[n], near, self.most)
            return [self._named(form, chances, labels, k) for k in boxes]
        if not -len(order) <= self.which < len(chances):
            raise self.spec.wrong(
                f"there are {len(order)} such boxes; box is a number from 0, or a rank -1 to -{len(order)}"
            )
        k = int(order[-self.which - 1]) if self.which < 0 else self.which
        return [self._named(form, chances, labels, k)]

    def _named(self, form: Detections, chances: Double, labels: NDArray[np.int64] | None, k: int) -> Pick:
        classes = chances.shape[1]
        c = int(chances[k].argmax()) if self.wanted is None or classes == 1 else self.wanted + form.counted_from
        meant = c - form.counted_from if labels is None else int(labels[k])
        objects = classes - (form.background is not None)
        known = objects > 1 or labels is not None or (self.file.labels is not None and len(self.file.labels) == 1)
        return k, c, f"{self.file.label(meant)} (box {k})" if known else f"box {k}"

    def _column(self, form: Detections, chances: Double, labels: NDArray[np.int64] | None) -> Double:
        """[B]: what boxes are ranked by; -inf where one is of another class."""
        wanted, classes = self.wanted, chances.shape[1]
        if wanted is None:
            return np.asarray(chances.max(1))
        if labels is not None:
            if wanted not in labels:
                best = labels[np.argsort(-chances[:, 0], kind="stable")].tolist()
                there = ", ".join(self.file.label(int(k)) for k in list(dict.fromkeys(best))[:8])
                raise self.spec.wrong(f"no box of {self.file.label(wanted)}; there are boxes of {there}")
            return np.where(labels == wanted, chances[:, 0], -np.inf)
        if classes == 1:
            if self.file.labels is not None and len(self.file.labels) == 1 and wanted == 0:
                return chances[:, 0]
            raise self.spec.wrong("no output says labels of these boxes, so none can be named; leave the class out")
        if not 0 <= wanted + form.counted_from < classes:
            raise self.spec.wrong(f"class {wanted} is out of range: boxes have {classes} classes, from 0")
        return np.asarray(chances[:, wanted + form.counted_from])
