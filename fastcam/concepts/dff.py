"""Concepts: what the maps of one layer are made of in some pictures, by deep feature factorisation (DFF)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fastcam import kernels
from fastcam.concepts import nmf
from fastcam.errors import FastcamError, checked, typed
from fastcam.image.preprocess import Float, Geometry, Uint8, restore
from fastcam.labels import short_label
from fastcam.render import drawing
from fastcam.runtime.thread_limit import limited
from fastcam.schema import ACTIVATIONS, GRADIENTS, WEIGHTS, Metadata

if TYPE_CHECKING:
    from fastcam.explainer import Explainer

MOST = 16
_LETTERS = 320  # of the legend: as on a picture of this width
CHUNK = 64
"""Classes whose whole gradients are asked for at once, of files that emit these."""
COLORS = ((230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (0, 114, 178), (213, 94, 0), (204, 121, 167))
"""Okabe and Ito's, which colour-blind readers tell apart."""


@dataclass(frozen=True, eq=False)
class Concepts:
    """The parts that the activations of N pictures fall into: A[n, :, i, j] is about sum_c maps[n, c, i, j] vectors[c].

    Attributes:
        maps: float32 [N, C, h, w], not negative: how strong each concept is at each position.
        heatmaps: float32 [N, C, H, W] in 0..1: each concept's maps divided by their maximum over all pictures, and
            bilinearly enlarged to the network's input. A concept that a picture lacks stays dark there.
        vectors: float32 [C, K], not negative, of length one: the concepts as activations.
        strengths: float32 [N, C]: the maps' means. Concepts are in the order of their sum over the pictures.
        scores: float32 [C, classes], what each concept says of each class: w_class . vector, times the concept's
            strength at its strongest position. It is known where the head is a mean and one matrix, else None. The
            mean over positions of maps[n, c] in place of that strength gives the concept's share of the picture's
            score, and the shares' sum is the score but for the bias and ``error``.
        error: ||A - maps x vectors|| / ||A||: what the concepts leave out.
        negative: share of the squared activations that was negative and counts as zero; 0 behind a ReLU.
        labels: class names by index, or None.
        geometry, files, images: per picture, as of an :class:`fastcam.Explanation`.
        metadata: what the exported file says about itself.
        threads: the Explainer's, which OpenCV keeps to while pictures are drawn.
    """

    maps: Float
    heatmaps: Float
    vectors: Float
    strengths: Float
    scores: Float | None
    error: float
    negative: float
    labels: tuple[str, ...] | None
    geometry: tuple[Geometry, ...]
    files: tuple[str | None, ...]
    images: tuple[NDArray[Any], ...]
    metadata: Metadata
    threads: int | None = None

    def __len__(self) -> int:
        return len(self.maps)

    @checked
    def top(self, concept: int, count: int = 3) -> list[tuple[int, str, float]]:
        """The classes for which a concept speaks most: index, short name and score; empty where they are not known."""
        if self.scores is None:
            return []
        order = np.argsort(-self.scores[concept], kind="stable")[:count]
        names = [short_label(self.labels[k]) if self.labels is not None else f"class {k}" for k in order]
        return [(int(k), name, float(self.scores[concept, k])) for k, name in zip(order, names, strict=True)]

    @checked
    @limited
    def picture(self, i: int = 0, width: int = 448) -> Uint8:
        """Picture ``i``, beside it each place in the colour of its strongest concept, and below what the colours mean.

        Args:
            width: of each of the two in pixels.

        Returns:
            uint8 RGB.
        """
        given = self.images[i]
        image = given if given.dtype == np.uint8 else restore(given, self.metadata.preprocessing)
        heat = np.stack([self.geometry[i].heatmap_to_original(each) for each in self.heatmaps[i]])
        strongest, strength = heat.argmax(0), np.clip(heat.max(0), 0, 1)[..., None]
        colors = np.array([color(c) for c in range(len(self.vectors))], np.float64)
        grey = image.mean(-1, keepdims=True)
        mixed = (1 - 0.75 * strength) * grey + 0.75 * strength * colors[strongest]
        both = [drawing.scaled(part, width) for part in (image, np.rint(mixed).astype(np.uint8))]
        legend = [self._line(c, i, 2 * width) for c in range(len(self.vectors))]
        return np.concatenate([np.concatenate(both, axis=1), *legend])

    def _line(self, concept: int, i: int, width: int) -> Uint8:
        """The legend of one concept: its colour, its share of the picture and the classes that it speaks for."""
        share = self.strengths[i, concept] / (self.strengths[i].sum() or 1)
        said = ", ".join(f"{name} {score:.3g}" for _, name, score in self.top(concept))
        text = f"{concept + 1}  {share:.0%}  {said}".rstrip()
        height = len(drawing.label("", 1, like=_LETTERS))
        line = np.concatenate(
            [np.zeros((height, height, 3), np.uint8), drawing.label(text, width - height, _LETTERS)], 1
        )
        line[4:-4, 4 : height - 4] = color(concept)
        return line

    def to_dict(self) -> dict[str, Any]:
        """Everything but pixels and vectors, ready for :func:`json.dumps`."""
        concepts = [
            [{"class": k, "label": name, "score": score} for k, name, score in self.top(c, 5)]
            for c in range(len(self.vectors))
        ]
        images = [
            {"file": file, "strengths": [float(s) for s in row]}
            for file, row in zip(self.files, self.strengths, strict=True)
        ]
        return {
            "fastcam": self.metadata.version,
            "model": self.metadata.source.get("file"),
            "method": "dff",
            "layer": self.metadata.layer.value,
            "error": self.error,
            "negative": self.negative,
            "concepts": [{"classes": classes} for classes in concepts],
            "images": images,
        }


def color(concept: int) -> tuple[int, int, int]:
    """RGB of a concept's number, from 0: :data:`COLORS`, then the same ones paler."""
    red, green, blue = COLORS[concept % len(COLORS)]
    pale = concept // len(COLORS)
    return tuple(255 - (255 - value) // (1 + pale) for value in (red, green, blue))  # type: ignore[return-value]


@checked
def concepts(explainer: Explainer, images: Any, count: int = 5) -> Concepts:
    """What the activations of a layer are made of in some pictures: deep feature factorisation.

    The activations of all pictures, a row for each position, are factorised: A = maps x vectors with nothing negative
    (:func:`fastcam.concepts.nmf.nmf`). Places with the same content get the same concept, in one picture and across
    several, without any label; what a concept means to the head is :attr:`Concepts.scores`. What is negative in the
    activations of layers without a ReLU counts as zero (:attr:`Concepts.negative` says how much that is).

    Source: Collins, Achanta and Suesstrunk, "Deep Feature Factorization For Concept Discovery", ECCV 2018, 1806.10206.

    Args:
        explainer: of a file that emits activations; ``explainer.at(layer)`` for another of its layers.
        images: see :meth:`fastcam.Explainer.__call__`.
        count: how many concepts.

    Raises:
        FastcamError: a picture that cannot be used, a file without activations or classes, or a number of concepts that
            they do not have.
    """
    from fastcam.explainer import Explainer

    typed("explainer", explainer, Explainer, "a fastcam.Explainer")
    with explainer._limited():
        return _concepts(explainer, images, count)


def _concepts(explainer: Explainer, images: Any, count: int) -> Concepts:
    metadata, network, name = explainer.metadata, explainer._network, explainer.name
    if metadata.emit == "cam" or metadata.cotangents:
        what = "holds maps, no activations" if metadata.emit == "cam" else "explains cotangents"
        raise FastcamError(f"{name} {what}; concepts need a file exported with --emit weights and class targets")
    if not 1 <= count <= MOST:
        raise FastcamError(f"the number of concepts is from 1 to {MOST}, got {count}")
    prediction = explainer.predict(images)
    asked = np.array([[-1]])
    each = [np.asarray(network.explain(run.forward, asked)[ACTIVATIONS], np.float32) for run in prediction.runs]
    if len({a.shape[1:] for a in each}) > 1:
        raise FastcamError("concepts across pictures need maps of one size; give pictures of one size")
    activations = np.concatenate(each)
    if activations.ndim != 4:
        raise FastcamError(f"{name} explains {metadata.kind}s; concepts are of pictures")
    if not np.isfinite(activations).all():
        raise FastcamError(
            "the activations are not finite (NaN or infinity in the model); there are no concepts in them"
        )
    maps, vectors, error = factorised(activations, count)
    matrix = _matrix(explainer, prediction) if metadata.layer.averaged else None
    peaks = maps.max((0, 2, 3))
    batches = [run.batch for run in prediction.runs]
    geometry = tuple(one for batch in batches for one in batch.geometry)
    shown = maps / np.where(peaks > 0, peaks, 1)[None, :, None, None]
    squares = float((activations.astype(np.float64) ** 2).sum())
    return Concepts(
        maps=maps,
        heatmaps=kernels.get().upsample(np.ascontiguousarray(shown, np.float32), geometry[0].network),
        vectors=vectors,
        strengths=maps.mean((2, 3)),
        scores=None if matrix is None else ((vectors * peaks[:, None]) @ matrix.T).astype(np.float32),
        error=error,
        negative=float((np.minimum(activations, 0).astype(np.float64) ** 2).sum()) / (squares or 1.0),
        labels=metadata.labels,
        geometry=geometry,
        files=prediction.files,
        images=tuple(image for batch in batches for image in batch.images),
        metadata=metadata,
        threads=network.threads,
    )


def factorised(activations: NDArray[Any], count: int) -> tuple[Float, Float, float]:
    """:attr:`Concepts.maps`, :attr:`Concepts.vectors` and :attr:`Concepts.error` of activations [N, K, h, w]."""
    n, k, height, width = activations.shape
    rows = np.maximum(activations, 0).transpose(0, 2, 3, 1).reshape(-1, k).astype(np.float64)
    strengths, vectors = nmf.nmf(rows, count)
    lengths = np.linalg.norm(vectors, axis=1)
    strengths, vectors = strengths * lengths, vectors / np.where(lengths > 0, lengths, 1)[:, None]
    order = np.argsort(-strengths.sum(0), kind="stable")
    strengths, vectors = strengths[:, order], vectors[order]
    size = float(np.linalg.norm(rows)) or 1.0
    error = nmf.error(rows, strengths, vectors) / size
    maps = strengths.reshape(n, height, width, count).transpose(0, 3, 1, 2)
    return np.ascontiguousarray(maps, np.float32), vectors.astype(np.float32), error


def _matrix(explainer: Explainer, prediction: Any) -> NDArray[Any] | None:
    """The head's matrix [classes, K]: the gradients of all classes, which do not depend on the picture there."""
    if not explainer._network.takes_targets or explainer.metadata.score.classes is None:
        return None
    run, classes = prediction.runs[0][0:1], explainer.metadata.score.classes
    step = classes if explainer.metadata.emit == "weights" else CHUNK
    rows = []
    for first in range(0, classes, step):
        found = explainer._network.explain(run.forward, np.arange(first, min(first + step, classes))[None])
        positions = np.prod(found[ACTIVATIONS].shape[2:])
        rows.append(found[GRADIENTS][0].sum((2, 3)) if GRADIENTS in found else found[WEIGHTS][0] * positions)
    return np.concatenate(rows).astype(np.float64)
