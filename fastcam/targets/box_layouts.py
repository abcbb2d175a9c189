"""A box's four numbers and its scores in one output of rows, for :func:`fastcam.targets.boxes.dense`."""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from fastcam.errors import FastcamError
from fastcam.image.preprocess import Float
from fastcam.targets.arrays import Double

LAYOUTS = ("v5", "v8", "detr", "v10")
Side = Literal["x0", "y0", "x1", "y1"]
SIDES: tuple[Side, ...] = ("x0", "y0", "x1", "y1")


def side_slope(name: str, form: str) -> Float:
    """How a side follows from a box's four numbers, float32 [4]."""
    if name not in SIDES or form not in ("corners", "centre"):
        raise FastcamError(f"a side is one of {', '.join(SIDES)}, form corners or centre; got {name!r}, {form!r}")
    if form == "corners":
        return np.asarray(np.eye(4, dtype=np.float32)[SIDES.index(name)])
    slope: Float = np.zeros(4, np.float32)
    slope["xy".index(name[0])] = 1
    slope["xy".index(name[0]) + 2] = 0.5 if name[1] == "1" else -0.5
    return slope


@dataclass(frozen=True)
class Parts:
    """Boxes and scores as views of outputs [N, ...], or of their cotangents [N, T, ...]; None where they are not there.

    Attributes:
        boxes: [..., B, 4].
        classes: [..., B, C], or [..., B, 1] where each box has one label.
        objectness: [..., B]: a factor of the scores of all classes.
    """

    boxes: NDArray[Any] | None
    classes: NDArray[Any] | None
    objectness: NDArray[Any] | None = None


@dataclass(frozen=True)
class Layout:
    """Where the boxes of a run are.

    Attributes:
        outputs: those that hold boxes and scores, float64 [N, ...].
        boxes, scores: their names, the same where one output holds both.
        labels: [N, B], or None.
        form: what a box's four numbers are, as :func:`fastcam.targets.boxes.coordinate` takes it.
        objectness: whether a fifth number of a row is a factor of all its classes' scores.
        turned: whether the scores (and boxes in the same output) have the axis of boxes last.
        count: how many columns behind these numbers are scores; None: all.
    """

    outputs: Mapping[str, Double]
    boxes: str
    scores: str
    labels: NDArray[np.int64] | None = None
    form: str = "centre"
    objectness: bool = False
    turned: bool = False
    count: int | None = None

    def parts(self, arrays: Mapping[str, NDArray[Any]]) -> Parts:
        """Boxes and scores in the outputs, or in cotangents of some of them."""
        scores = arrays.get(self.scores)
        if scores is not None and self.turned:
            scores = scores.swapaxes(-1, -2)
        if self.boxes != self.scores or scores is None:
            if scores is not None and self.outputs[self.scores].ndim == 2:
                scores = scores[..., None]
            return Parts(arrays.get(self.boxes), scores)
        first = 5 if self.objectness else 4
        classes = scores[..., first : None if self.count is None else first + self.count]
        return Parts(scores[..., :4], classes, scores[..., 4] if self.objectness else None)

    def values(self) -> tuple[Double | None, Double]:
        """The boxes [N, B, 4], or None, and the scores [N, B, C]."""
        parts = self.parts(self.outputs)
        assert parts.classes is not None
        return parts.boxes, parts.classes if parts.objectness is None else parts.objectness[..., None] * parts.classes

    def zeros(self, count: int, explained: Container[str]) -> dict[str, Float]:
        """Cotangents of ``count`` targets, of those outputs that are explained."""
        return {
            name: np.zeros((len(y), count, *y.shape[1:]), np.float32)
            for name, y in self.outputs.items()
            if name in explained
        }

    def fill(self, cotangents: Parts, at: tuple[int, int], box: int, part: int | str, form: str) -> None:
        """Set the cotangent of image and target ``at``: of a box's score of a class, or of a side."""
        n, t = at
        if isinstance(part, str):
            assert cotangents.boxes is not None
            cotangents.boxes[n, t, box] = side_slope(part, form)
            return
        own = self.parts(self.outputs)
        assert cotangents.classes is not None
        cotangents.classes[n, t, box, part] = 1 if own.objectness is None else own.objectness[n, box]
        if cotangents.objectness is not None and own.classes is not None:
            cotangents.objectness[n, t, box] = own.classes[n, box, part]
