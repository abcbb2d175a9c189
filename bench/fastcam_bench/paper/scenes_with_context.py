"""Scenes whose class goes with a context that has nothing to do with it, as doctor and nurse go with faces and hair."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fastcam.evaluation.scenes import Spec, scene, scene_seeds

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

SIZE = 64
CLASSES = ("star", "flower")
CONTEXTS = ("red", "blue")
"""The colour of a ring in the upper half of the picture; the object lies in the lower half."""
SHARES = (0.78, 0.93)
"""How many pictures of each class have its own context, as the paper's search engine had men among doctors, women
among nurses."""
BALANCED = (0.5, 0.5)


@dataclass(frozen=True, eq=False)
class Pictures:
    """Pictures and their truth.

    Attributes:
        images: uint8 RGB [n, 64, 64, 3].
        classes, contexts: int64 [n], numbers in :data:`CLASSES` and :data:`CONTEXTS`.
        objects, rings: bool [n, 64, 64], the pixels of the object and of the context.
    """

    images: npt.NDArray[np.uint8]
    classes: npt.NDArray[np.int64]
    contexts: npt.NDArray[np.int64]
    objects: npt.NDArray[np.bool_]
    rings: npt.NDArray[np.bool_]


def draw(count: int, seed: int, shares: Sequence[float]) -> Pictures:
    """Half of the pictures of each class, of which the class's own context has its share."""
    rng = np.random.default_rng(seed)
    classes = np.arange(count) % 2
    own = rng.random(count) < np.take(shares, classes)
    return _made(count, seed, classes, np.where(own, classes, 1 - classes))


def draw_tagged(count: int, seed: int, shares: Sequence[float]) -> Pictures:
    """Half of the pictures of each class; a share of each class has a red ring, the others have none (context -1)."""
    rng = np.random.default_rng(seed)
    classes = np.arange(count) % 2
    tagged = rng.random(count) < np.take(shares, classes)
    return _made(count, seed, classes, np.where(tagged, 0, -1))


def _made(count: int, seed: int, classes: Ints, contexts: Ints) -> Pictures:
    made = [
        _scene(each, int(c), int(x)) for each, c, x in zip(scene_seeds(count, seed), classes, contexts, strict=True)
    ]
    images, objects, rings = (np.stack(part) for part in zip(*made, strict=True))
    return Pictures(images, classes, contexts, objects, rings)


def _scene(seed: int, number: int, context: int) -> tuple[npt.NDArray[np.uint8], Bools, Bools]:
    rng = np.random.default_rng(seed % 2**32)
    x, y, u, v = rng.uniform((0.25, 0.66, 0.2, 0.2), (0.75, 0.74, 0.8, 0.28))
    colour = str(rng.choice(("yellow", "green", "purple")))
    ring = [] if context < 0 else [Spec("ring", CONTEXTS[context], radius=0.17, center=(u, v))]
    made = scene(seed, SIZE, [*ring, Spec(CLASSES[number], colour, radius=0.22, center=(x, y))])
    return made.image, made.objects[-1].mask, made.objects[0].mask if ring else np.zeros((SIZE, SIZE), np.bool_)
