"""Targets of the images of one run, and what the added outputs say of them: classes, combinations, cotangents."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fastcam.errors import FastcamError, listed
from fastcam.image.preprocess import Float
from fastcam.schema import CAM, CLASSES, GRADIENTS, INPUT_GRADIENT, RELEVANCE, WEIGHTS, Cotangent, Metadata
from fastcam.targets.arrays import Double, numbers
from fastcam.targets.classes import ClassTargets, Target, Terms, combined_name
from fastcam.targets.run_pictures import pictures
from fastcam.targets.spec_parser import INPUT_SIZE, Names, PerImageSpecs, SpecResult

NOT_ASKED = "not_asked"
OF_TARGETS = (WEIGHTS, GRADIENTS, CAM, INPUT_GRADIENT, RELEVANCE)
"""The added outputs that have an axis of targets behind that of images."""

Arrays: TypeAlias = "NDArray[Any] | Mapping[str, NDArray[Any]]"
CotangentSource: TypeAlias = "Arrays | PerImageSpecs | Callable[[dict[str, Any]], Arrays | SpecResult]"


# ---- combinations of classes


def combine(targets: ClassTargets, added: dict[str, Any], metadata: Metadata, name: str) -> dict[str, Any]:
    """The added outputs of combinations of classes: weights and gradients are linear in the score.

    Args:
        added: the added outputs of the classes [N, U].

    Raises:
        FastcamError: the file emits what is not linear.
    """
    if targets.terms is None:
        return added
    positions = targets.picked(len(added[CLASSES]))
    if positions is not None:
        return added | {key: _picked(np.asarray(added[key]), positions) for key in OF_TARGETS if key in added}
    if metadata.emit == "cam":
        raise FastcamError(
            f"{name} holds maps after their ReLU, which do not add up; export with --emit weights to combine classes"
        )
    if RELEVANCE in added or (INPUT_GRADIENT in added and metadata.input_gradient != "gradient"):
        raise FastcamError(
            f"{name} brings back {metadata.input_gradient}, which is not linear in the score; combine classes in a "
            "file that was exported without --input-gradient"
        )
    a = targets.coefficients(len(added[CLASSES]))
    linear = {key: np.asarray(added[key]) for key in (WEIGHTS, GRADIENTS, INPUT_GRADIENT) if key in added}
    return added | {key: np.einsum("ntu,nu...->nt...", a, each.astype(np.float32)) for key, each in linear.items()}


def _picked(values: NDArray[Any], positions: NDArray[np.int64]) -> NDArray[Any]:
    """[N, U, ...] at positions [N, T]: [N, T, ...], zeros where the position is -1."""
    rows = values[np.arange(len(values))[:, None], positions]
    rows[positions < 0] = 0
    return rows


def named_targets(
    targets: ClassTargets, classes: NDArray[np.int64], labels: tuple[str, ...] | None
) -> tuple[NDArray[np.int64], tuple[tuple[Target, ...], ...]]:
    """The leading class of each target, [N, T] (-1 where an image has fewer), and what each target was.

    The leading class is the one with the largest coefficient, the first of equals.

    Args:
        classes: [N, U], as the file resolved them.
    """
    if targets.terms is None:
        return classes, ()
    rows: list[tuple[Target, ...]] = []
    leading = np.full((len(classes), targets.most), -1, np.int64)
    for n, row in enumerate(targets.of(len(classes))):
        combinations: list[Terms] = [tuple((int(classes[n, u]), a) for u, a in terms) for terms in row]
        rows.append(tuple(Target(combined_name(terms, labels), terms) for terms in combinations))
        leading[n, : len(combinations)] = [max(terms, key=lambda term: abs(term[1]))[0] for terms in combinations]
    return leading, tuple(rows)


def status_of(
    codes: NDArray[Any], names: list[str], targets: tuple[tuple[Target, ...], ...]
) -> tuple[tuple[str, ...], ...]:
    """[N, T] of words; :data:`NOT_ASKED` where an image has fewer targets than another."""
    words = [[names[code] for code in row] for row in codes.tolist()]
    for row, own in zip(words, targets, strict=False):
        row[len(own) :] = [NOT_ASKED] * (len(row) - len(own))
        row[:] = [word if t >= len(own) or own[t].name else NOT_ASKED for t, word in enumerate(row)]
    return tuple(map(tuple, words))


@dataclass(frozen=True)
class ImageTargets:
    """What is explained of one image: fixed classes, or a cotangent, whatever becomes of the image.

    Attributes:
        classes: the classes, no ranks, and how the targets follow from them, one row; or
        arrays: the cotangents by input, [1, T, ...].
        metadata, name: of the file.
    """

    metadata: Metadata
    name: str
    classes: ClassTargets | None = None
    arrays: Mapping[str, Float] | None = None

    @property
    def count(self) -> int:
        """T, of the run."""
        if self.arrays is not None:
            return int(next(iter(self.arrays.values())).shape[1])
        assert self.classes is not None
        return self.classes.classes.shape[1] if self.classes.terms is None else self.classes.most

    @property
    def own_count(self) -> int:
        """How many of these are the image's own."""
        return self.count if self.classes is None or self.classes.terms is None else len(self.classes.terms[0])

    def targets(self, images: int) -> Any:
        """What the file is to explain of ``images`` others, see
        :meth:`fastcam.runtime.exported_model.Network.forward`."""
        if self.classes is not None:
            return self.classes.classes
        return self._cotangents(images)

    def _cotangents(self, images: int) -> dict[str, Float]:
        assert self.arrays is not None
        if not all(one.batched for one in self.metadata.cotangents):
            raise FastcamError(
                f"{self.name} explains an output without an axis of images, of which only the image's own run says "
                "what it holds; use a method that runs once (fastcam methods)"
            )
        return {name: np.repeat(array, images, axis=0) for name, array in self.arrays.items()}

    def scores(self, per_class: Float, outputs: dict[str, Any], images: int) -> Float:
        """float32 [M, T]: what is explained, of the scores [M, classes] or the outputs of M images."""
        if self.classes is None:
            return values(self.metadata.cotangents, self._cotangents(images), outputs, images)
        picked = per_class[:, self.classes.classes[0]]
        if self.classes.terms is None:
            return picked
        combined: Float = picked @ self.classes.coefficients(1)[0].T
        return combined

    def combined(self, added: dict[str, Any]) -> dict[str, Any]:
        """The added outputs for the targets."""
        return added if self.classes is None else combine(self.classes, added, self.metadata, self.name)


def image_targets(
    targets: ClassTargets | Mapping[str, Float], classes: NDArray[np.int64], metadata: Metadata, name: str
) -> list[ImageTargets]:
    """What is explained of each image of a run.

    Args:
        targets: the targets, or the cotangents by input.
        classes: [N, U], as the file resolved them.
    """
    if not isinstance(targets, ClassTargets):
        batched = {one.input for one in metadata.cotangents if one.batched}
        return [
            ImageTargets(
                metadata, name, arrays={key: a[n : n + 1] if key in batched else a for key, a in targets.items()}
            )
            for n in range(len(classes))
        ]
    rows = None if targets.terms is None else targets.of(len(classes))
    each = [
        ClassTargets(classes[n : n + 1], None if rows is None else rows[n : n + 1], targets.most)
        for n in range(len(classes))
    ]
    return [ImageTargets(metadata, name, one) for one in each]


# ---- cotangents


@dataclass(frozen=True)
class CotangentTargets:
    """Cotangents as the caller has them, for the file that has these inputs.

    Attributes:
        about: the file's inputs.
        source: an array [N or 1, T, ...], arrays by output, or a function of the outputs (of the images that run
            together) that gives one of those, or a :class:`fastcam.targets.spec_parser.SpecResult`.
        start: the first image that it is now about, of
        images: all of the call.
    """

    about: tuple[Cotangent, ...]
    source: CotangentSource
    images: int
    start: int = 0

    def __len__(self) -> int:
        return self.images

    def __getitem__(self, rows: slice) -> CotangentTargets:
        """The same for the images from ``rows.start`` on."""
        return replace(self, start=self.start + rows.start)

    @property
    def known(self) -> bool:
        """Whether the arrays are there before the model has run."""
        return not callable(self.source) and not isinstance(self.source, PerImageSpecs)

    @property
    def place(self) -> bool | None:
        """Whether one has a place in the picture; None of arrays and functions, of which nobody knows."""
        return getattr(self.source, "place", None)

    def answer(
        self,
        outputs: dict[str, Any],
        images: int,
        size: tuple[int, int] | None = None,
        files: Sequence[str | None] = (),
    ) -> tuple[dict[str, Float], Float, tuple[tuple[Target, ...], ...]]:
        """The cotangents of :meth:`arrays` once the images have run, the scalars [N, T], and what each target is.

        Args:
            size: height and width of the network's input.
            files: of the images, None of one that has none.
        """
        with pictures(files or [None] * images, self.start):
            result = self._of(outputs, images, size)
        if isinstance(result, SpecResult):
            arrays = self._checked(result.arrays, outputs, images)
            return arrays, result.values.astype(np.float32), cotangent_names(result.names, result.boxes)
        arrays = self._checked(result, outputs, images)
        scores = values(self.about, arrays, outputs, images)
        names = tuple(f"target {t + 1}" for t in range(scores.shape[1]))
        return arrays, scores, cotangent_names((names,) * images)

    def _of(self, outputs: dict[str, Any], images: int, size: tuple[int, int] | None) -> Arrays | SpecResult:
        if isinstance(self.source, PerImageSpecs) and len(self.source.rows) != self.images:
            lists = len(self.source.rows)
            raise FastcamError(f"cotangents of {lists} images, there are {self.images}; give one list each")
        if hasattr(self.source, "of_run"):  # words
            known = outputs if size is None else {**outputs, INPUT_SIZE: np.array([size])}
            result: SpecResult = self.source.of_run(self.start, known, images)
            return result
        return self.source(outputs) if callable(self.source) else self.source

    def arrays(self, images: int) -> dict[str, Float]:
        """Known cotangents of ``images`` images from ``start`` on, [N, T, ...], by the names of the file's inputs.

        Raises:
            FastcamError: one is missing, or has another shape than its output.
        """
        assert not callable(self.source) and not isinstance(self.source, PerImageSpecs)
        return self._checked(self.source, {}, images)

    def _checked(self, arrays: Arrays, outputs: dict[str, Any], images: int) -> dict[str, Float]:
        by_output = arrays if isinstance(arrays, Mapping) else {self.about[0].output: arrays}
        names = [one.output for one in self.about]
        if set(by_output) != set(names):
            raise FastcamError(f"cotangents are wanted of {listed(names)}, given of {listed(by_output)}")
        by_input = {one.input: self._array(one, by_output[one.output], outputs, images) for one in self.about}
        if len({array.shape[1] for array in by_input.values()}) > 1:
            counts = listed(f"{name} {array.shape[1]}" for name, array in by_input.items())
            raise FastcamError(f"cotangents of one call have the same number of targets T, got {counts}")
        return by_input

    def _array(self, about: Cotangent, values: Any, outputs: dict[str, Any], images: int) -> Float:
        array = numbers(values, "cotangents").astype(np.float32)
        shape = list(about.shape)
        if about.output in outputs:
            shape = list(np.shape(outputs[about.output])[about.batched :])
        rest = array.shape[2:]
        fits = len(rest) == len(shape) and all(a == b or isinstance(b, str) for a, b in zip(rest, shape, strict=False))
        if not fits or array.shape[1] < 1:
            want = ", ".join(map(str, ("N" if about.batched else 1, "T", *shape)))
            raise FastcamError(f"a cotangent of {about.output!r} is [{want}], got {list(array.shape)}")
        rows = {1, images} if not self.known else {1, self.images}
        if not about.batched:
            rows = {1}
        if len(array) not in rows:
            raise FastcamError(f"the cotangent of {about.output!r} is for {len(array)} images, there are {max(rows)}")
        if not np.isfinite(array).all():
            raise FastcamError(f"the cotangent of {about.output!r} is not finite")
        if about.batched and len(array) == 1:
            return np.repeat(array, images, axis=0)
        return array[self.start : self.start + images] if self.known and about.batched else array


def values(about: tuple[Cotangent, ...], arrays: dict[str, Float], outputs: dict[str, Any], images: int) -> Float:
    """float32 [N, T]: what the cotangents make of the outputs, sum_i cotangent[n, t, i] output[n, i]."""
    total = np.zeros((images, next(iter(arrays.values())).shape[1]))
    for one in about:
        c, y = arrays[one.input], np.asarray(outputs[one.output], np.float64)
        total += (c * (y[:, None] if one.batched else y[None, None])).reshape(*c.shape[:2], -1).sum(2)
    return total.astype(np.float32)


def cotangent_names(names: Names, boxes: Double | None = None) -> tuple[tuple[Target, ...], ...]:
    """The targets of a cotangent, whose scores are the scalars themselves; ``boxes`` [N, T, 4] where some are boxes."""

    def box(n: int, t: int) -> Any:
        return None if boxes is None or np.isnan(boxes[n, t]).any() else tuple(map(float, boxes[n, t]))

    return tuple(
        tuple(Target(name, ((t, 1.0),), box(n, t)) for t, name in enumerate(row)) for n, row in enumerate(names)
    )
