"""Scalars of embeddings [N, D]: the similarity to a reference, or of pairs of images."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from fastcam.errors import FastcamError
from fastcam.image.preprocess import Float
from fastcam.input_files import read_array
from fastcam.schema import Cotangent
from fastcam.targets.arrays import Double, Scalars, numbers
from fastcam.targets.spec_parser import Explained, File, Kind, Spec, SpecFunction, array_of, of_output

# ---- with a reference


def similarity(embedding: ArrayLike, references: ArrayLike, kind: Literal["cosine", "dot"] = "cosine") -> Float:
    """s = <y, r>, or their cosine, whose gradient is (r / |r| - s y / |y|) / |y|.

    Args:
        embedding: [N, D] (or [N, D, 1, 1]).
        references: [D], or [T, D]: embeddings of other pictures or of texts.

    Raises:
        FastcamError: they are of another length, or all zeros, which has no direction.
    """
    return _similarity(numbers(embedding, "embeddings"), references, kind)[0]


def _similarity(y: Double, references: ArrayLike, kind: str) -> Scalars:
    flat, others = y.reshape(len(y), -1), np.atleast_2d(numbers(references, "references"))
    if others.ndim != 2 or others.shape[1] != flat.shape[1]:
        raise FastcamError(f"references are {list(np.shape(references))}, the embedding has {flat.shape[1]} numbers")
    if kind not in ("cosine", "dot"):
        raise FastcamError(f"a similarity is cosine or dot, got {kind!r}")
    slope, values = np.stack([others] * len(flat)), flat @ others.T
    if kind == "cosine":
        length, lengths = np.linalg.norm(flat, axis=1), np.linalg.norm(others, axis=1)
        if not length.all() or not lengths.all():
            raise FastcamError("an embedding of zeros has no direction; compare by the dot product, kind='dot'")
        slope = np.stack([_cosine_slope(row, others / lengths[:, None]) for row in flat])
        values = values / (length[:, None] * lengths)
    return slope.reshape(len(y), len(others), *y.shape[1:]).astype(np.float32), values


def _cosine_slope(row: Double, units: Double) -> Double:
    """[T, D]: of one embedding, towards unit vectors [T, D]."""
    length = np.linalg.norm(row)
    return np.asarray((units - (units @ row / length)[:, None] * row / length) / length)


def scaled_cosines(y: Double, references: Double, scale: float, bias: float) -> tuple[Double, Double]:
    """scale * cosine + bias of embeddings [N, D] and references [T, D]: slopes [N, T, D] and values [N, T], float64.

    Raises:
        FastcamError: an embedding of zeros, which has no direction.
    """
    flat = y.reshape(len(y), -1)
    length = np.linalg.norm(flat, axis=1)
    if not length.all():
        raise FastcamError("the embedding of a picture is all zeros, which has no direction; it fits no text")
    units = references / np.linalg.norm(references, axis=1, keepdims=True)
    slopes = np.stack([_cosine_slope(row, units) for row in flat])
    return scale * slopes, scale * (flat @ units.T) / length[:, None] + bias


def _similarity_spec(spec: Spec, file: File) -> SpecFunction:
    """The embedding of a picture, or a .npy file of one or more."""
    about = file.output(spec, (1,))
    kind = spec.choice("kind", ("cosine", "dot"))
    spec.none_but(1, 1000, "a reference: a picture or a .npy file")
    references = np.concatenate([_reference(spec, file, about, word) for word in spec.words])
    stems = [Path(word).stem for word in spec.words]
    names = tuple(f"similarity to {stems[min(t, len(stems) - 1)]}" for t in range(len(references)))

    def explain(y: Double) -> Explained:
        try:
            return *_similarity(y, references, kind), (names,) * len(y)
        except FastcamError as error:
            raise spec.wrong(str(error)) from error

    return of_output(about, explain)


def _reference(spec: Spec, file: File, about: Cotangent, word: str) -> Double:
    """float64 [1, D]"""
    if Path(word).suffix.lower() != ".npy" and os.path.isfile(word):
        return array_of(file.outputs_of(word), about).reshape(1, -1)
    try:
        saved = read_array(word, "give a picture, or a .npy file with an embedding")
        return np.asarray(saved, np.float64).reshape(1, -1)
    except (FastcamError, TypeError, ValueError) as error:
        raise spec.wrong(str(error)) from error


# ---- of pairs


def pairs(embedding: ArrayLike, kind: Literal["cosine", "dot"] = "cosine") -> Float:
    """s = the similarity of images 0 and 1, of 2 and 3, ...: of each image with its partner, which is exact for both.

    Args:
        embedding: [N, D] with an even N.
    """
    return _pairs(numbers(embedding, "embeddings"), kind)[0]


def _pairs(y: Double, kind: str) -> Scalars:
    if len(y) % 2:
        raise FastcamError(f"{len(y)} images are no pairs; give an even number")
    partners = y.reshape(-1, 2, *y.shape[1:])[:, ::-1].reshape(len(y), -1)
    each = [_similarity(y[n : n + 1], partners[n], kind) for n in range(len(y))]
    return np.concatenate([cotangent for cotangent, _ in each]), np.concatenate([values for _, values in each])


def _pair_spec(spec: Spec, file: File) -> SpecFunction:
    about = file.output(spec, (1,))
    kind = spec.choice("kind", ("cosine", "dot"))

    def explain(y: Double) -> Explained:
        if len(y) % 2:
            raise spec.wrong(
                f"{len(y)} pictures ran together, which are no pairs; give an even number of them to a file "
                "whose batch is free"
            )
        return *_pairs(y, kind), (("similarity to its partner",),) * len(y)

    return of_output(about, explain)


KINDS = {
    "similarity": Kind(
        "similarity:other.jpg", "the cosine of embeddings, of a picture or a .npy file; kind=dot", (1,),
        ("output", "kind"), _similarity_spec,
    ),
    "pair": Kind("pair", "the same of pictures 1 and 2, 3 and 4, ...", (1,), ("output", "kind"), _pair_spec),
}  # fmt: skip
