"""Cotangents: what is explained by a file that was exported with ``targets="cotangent"``.

A cotangent c of an output y says that the scalar s with ds/dy = c is explained. Every function here takes an output as
a first run gave it (:meth:`fastcam.Explainer.predict`, or any runtime), says its scalar as a formula, and returns c as
float32 [N, T, *output without N]; of an output without an axis of images, N is 1. :func:`stack` puts several together.
Where s is not linear in y, c is its derivative at y, so it belongs to that picture alone.

>>> from functools import partial
>>> explainer("cat.jpg", cotangent=lambda outputs: probability(outputs["logits"], [-1, 281]))  # doctest: +SKIP
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from fastcam.errors import FastcamError
from fastcam.image.preprocess import Float
from fastcam.targets.arrays import numbers
from fastcam.targets.box_layouts import SIDES
from fastcam.targets.boxes import best_box, coordinate, dense
from fastcam.targets.class_scores import class_score, combination, difference, finer, multi_label, probability
from fastcam.targets.embeddings import pairs, similarity
from fastcam.targets.maps import element, region
from fastcam.targets.points import point
from fastcam.targets.sequences import caption, words

__all__ = [
    "SIDES", "best_box", "caption", "class_score", "combination", "coordinate", "dense", "difference", "element",
    "finer", "multi_label", "pairs", "point", "probability", "region", "similarity", "stack", "words",
]  # fmt: skip


def stack(*cotangents: ArrayLike) -> Float:
    """Several arrays [N, T_i, ...] of one output as one, [N, sum T_i, ...].

    Raises:
        FastcamError: none, no arrays [N, T_i, ...], or arrays of other images or outputs.
    """
    arrays = [numbers(one, "cotangents").astype(np.float32) for one in cotangents]
    if not arrays or min(one.ndim for one in arrays) < 2 or len({(one.shape[0], *one.shape[2:]) for one in arrays}) > 1:
        raise FastcamError("cotangents of one output and of the same images can be stacked; give at least one")
    return np.concatenate(arrays, axis=1)
