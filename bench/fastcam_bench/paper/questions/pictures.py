"""Scenes of two to four coloured shapes that do not overlap, as arrays, with the truth that questions are made of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fastcam.evaluation.scenes import Spec, scene, scene_seeds
from fastcam_bench.paths import CACHE

SIZE, MOST = 64, 4
SHAPES = ("triangle", "square", "star", "cross", "ring", "heart")
COLOURS = ("red", "yellow", "green", "blue", "purple", "pink")
RADII = (0.15, 0.22)
REPEATED = 0.4
"""In how many scenes a shape may occur several times: for questions of how many."""


@dataclass(frozen=True, eq=False)
class Pictures:
    """Pictures and their truth; of places without an object the shape and the colour are -1.

    Attributes:
        images: uint8 RGB [n, 64, 64, 3].
        shapes, colours: int64 [n, 4], numbers in :data:`SHAPES` and :data:`COLOURS`.
        centres: float64 [n, 4, 2], x and y as shares of the picture.
        masks: bool [n, 4, 64, 64], the visible pixels of each object.
    """

    images: npt.NDArray[np.uint8]
    shapes: npt.NDArray[np.int64]
    colours: npt.NDArray[np.int64]
    centres: npt.NDArray[np.float64]
    masks: npt.NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.images)

    def turned(self, turn: int) -> Pictures:
        """The same mirrored and turned in one of eight ways, 0 to 7; 0 leaves it as it is."""
        images, masks, x, y = self.images, self.masks, self.centres[..., 0], self.centres[..., 1]
        if turn & 1:
            images, masks, x = images[:, :, ::-1], masks[..., ::-1], 1 - x
        if turn & 2:
            images, masks, y = images[:, ::-1], masks[..., ::-1, :], 1 - y
        if turn & 4:
            images, masks, x, y = images.swapaxes(1, 2), masks.swapaxes(2, 3), y, x
        return Pictures(images, self.shapes, self.colours, np.stack([x, y], axis=2), masks)


def draw(count: int, seed: int) -> Pictures:
    """Pictures of a seed, which are kept in a file for the next call: drawing takes minutes for thousands.

    The first of a longer list are those of a shorter one.
    """
    file = CACHE / f"questions-{count}-{seed}.npz"
    names = ("images", "shapes", "colours", "centres", "masks")
    if file.is_file():
        with np.load(file) as read:
            return Pictures(*(read[name] for name in names))
    made = [_one(each) for each in scene_seeds(count, seed)]
    arrays = [np.stack(part) for part in zip(*made, strict=True)]
    CACHE.mkdir(parents=True, exist_ok=True)
    kept: Any = dict(zip(names, arrays, strict=True))
    np.savez_compressed(file, **kept)
    return Pictures(*arrays)


def _one(seed: int) -> tuple[npt.NDArray[np.generic], ...]:
    rng = np.random.default_rng(seed)
    shapes, colours = np.full(MOST, -1), np.full(MOST, -1)
    centres, masks = np.zeros((MOST, 2)), np.zeros((MOST, SIZE, SIZE), np.bool_)
    places = _places(rng)
    shapes[: len(places)] = rng.permutation(len(SHAPES))[: len(places)]
    if rng.random() < REPEATED:
        shapes[: rng.integers(2, len(places) + 1)] = shapes[0]
    colours[: len(places)] = rng.integers(len(COLOURS), size=len(places))
    specs = [
        Spec(SHAPES[shape], COLOURS[colour], radius=r, center=(x, y))
        for shape, colour, (x, y, r) in zip(shapes, colours, places, strict=False)
    ]
    made = scene(seed, SIZE, specs)
    for i, (one, (x, y, _)) in enumerate(zip(made.objects, places, strict=True)):
        centres[i], masks[i] = (x, y), one.mask
    return made.image, shapes, colours, centres, masks


def _places(rng: np.random.Generator) -> list[tuple[float, float, float]]:
    """x, y and radius of two to four circles that do not touch."""
    wanted = int(rng.integers(2, MOST + 1))
    while True:
        found: list[tuple[float, float, float]] = []
        for _ in range(60):
            r = float(rng.uniform(*RADII))
            x, y = (float(v) for v in rng.uniform(r, 1 - r, 2))
            if all(np.hypot(x - u, y - v) >= r + s for u, v, s in found):
                found.append((x, y, r))
            if len(found) == wanted:
                return found
