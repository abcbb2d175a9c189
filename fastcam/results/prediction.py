"""The result of a forward pass: scores now, and what an explanation needs later."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastcam.errors import FastcamError, checked
from fastcam.image.preprocess import Float
from fastcam.labels import short_label
from fastcam.runtime.run import Run, join_outputs
from fastcam.schema import Metadata


@dataclass(frozen=True, eq=False)
class Prediction:
    """What a model said about N images, for :meth:`fastcam.Explainer.explain` to explain any time later.

    ``len(p)`` is N; ``p[i]`` and ``p[a:b]`` are predictions of one image and of some. It holds the pictures and the
    values that the explanation reads, so that keeping many costs memory: keep those that may be asked about. Images of
    one run are explained together, even if few of them are asked about.

    Attributes:
        scores: float32 [N, classes]: the explained output as the model gives it.
        classes: int64 [N]: the class with the highest score; -1 of a file that explains cotangents of other things.
        labels: class names by index, or None.
        files: per image its path, or None.
        metadata: what the exported file says about itself.
        runs: for :meth:`fastcam.Explainer.explain`.
    """

    scores: Float
    labels: tuple[str, ...] | None
    files: tuple[str | None, ...]
    metadata: Metadata
    runs: tuple[Run, ...] = field(repr=False)

    def __len__(self) -> int:
        return len(self.scores)

    @checked
    def __getitem__(self, index: int | slice) -> Prediction:
        if not isinstance(index, slice):
            if not -len(self) <= index < len(self):
                raise IndexError(f"image {index} of {len(self)}")
            index = slice(index % len(self), index % len(self) + 1)
        start, stop, step = index.indices(len(self))
        if step != 1 or stop <= start:
            raise FastcamError("some images of a prediction are p[start:stop], at least one and without a step")
        runs, at = [], 0
        for run in self.runs:
            first, last = max(start - at, 0), min(stop - at, len(run))
            if first < last:
                runs.append(run[first:last])
            at += len(run)
        return replace(self, scores=self.scores[index], files=self.files[index], runs=tuple(runs))

    @property
    def nbytes(self) -> int:
        """Bytes of memory that it holds, about: pictures, outputs, and what an explanation reads."""
        return sum(run.nbytes for run in self.runs)

    @property
    def classes(self) -> NDArray[np.int64]:
        """int64 [N]: the class with the highest score."""
        if not self.scores.shape[1]:  # of a file that explains what is no class
            return np.full(len(self), -1, np.int64)
        return np.asarray(np.argmax(self.scores, axis=1), np.int64)

    @property
    def outputs(self) -> dict[str, Any]:
        """The model's own outputs by name."""
        return join_outputs([(run.forward.outputs, len(run)) for run in self.runs])

    @checked
    def top(self, i: int = 0, count: int = 5) -> list[tuple[int, str, float]]:
        """The classes of image ``i`` with the highest scores: index, short name ("class 7" without names) and score."""
        order = np.argsort(-self.scores[i], kind="stable")[:count]
        names = [short_label(self.labels[k]) if self.labels is not None else f"class {k}" for k in order]
        return [(int(k), name, float(self.scores[i, k])) for k, name in zip(order, names, strict=True)]


def joined(runs: Sequence[Run], metadata: Metadata) -> Prediction:
    """Runs of one file as one prediction."""
    scores = np.concatenate([run.scores for run in runs])
    files = tuple(file for run in runs for file in run.batch.files)
    return Prediction(scores, metadata.labels, files, metadata, tuple(runs))
