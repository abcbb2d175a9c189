"""Generated scenes as a data set: any number of pictures whose truth is known, made when their turn comes."""

from __future__ import annotations

from typing import Literal

from fastcam.errors import FastcamError
from fastcam.evaluation.data.listed import Listed
from fastcam.evaluation.samples import Annotation, LeftOut, Mask, Sample
from fastcam.evaluation.scenes import CLASSES, COLORS, TEXTURES, Object, scene, scene_seeds
from fastcam.evaluation.scenes.generate import MAX_OBJECTS, MIN_SIZE

MOST, LARGEST = 10_000_000, 4096
Marks = Literal["class", "color", "texture", "all"]
LABELS: dict[str, tuple[str, ...]] = {
    "class": CLASSES,
    "color": COLORS,
    "texture": TEXTURES,
    "all": (*CLASSES, *COLORS, *TEXTURES),
}
"""What objects are marked with, and the labels that there are then."""


def open_scenes(
    count: int, seed: int = 0, size: int = 128, objects: int | None = None, marks: Marks = "class"
) -> Listed:
    """Scenes 0 to ``count - 1`` of a seed; more of the same seed begin with these.

    Args:
        count: how many.
        seed: any whole number from 0 on.
        size: of the square pictures, in pixels.
        objects: in each scene; None: one to five.
        marks: whether an object is marked with its class, its colour, its texture, or with each of the three.

    Raises:
        FastcamError: a number out of its range, or other marks.
    """
    for what, value, least, most in (
        ("the number of scenes", count, 1, MOST),
        ("seed", seed, 0, 2**53),
        ("size", size, MIN_SIZE, LARGEST),
        ("objects", 1 if objects is None else objects, 1, MAX_OBJECTS),
    ):
        if not least <= value <= most:
            raise FastcamError(f"scenes: {what} is {value}; give {least} to {most}")
    if marks not in LABELS:
        raise FastcamError(f"scenes: no marks {marks!r}; there are: {', '.join(LABELS)}")
    seeds = scene_seeds(count, seed)
    settings = f"{seed}-{size}" + ("" if objects is None else f"-{objects}")

    def read(place: int, left_out: LeftOut) -> Sample:
        made = scene(seeds[place], size, objects)
        found = tuple(mark for one in made.objects for mark in _marked(one, marks))
        return Sample(names[place], made.image, found)

    names = [f"scene-{settings}-{i:06}" for i in range(count)]
    return Listed(f"scenes:{count}, seed {seed}, {size} pixels", LABELS[marks], names, read)


def _marked(one: Object, marks: Marks) -> list[Annotation]:
    box = tuple(map(float, one.box))

    def mask() -> Mask:
        return one.mask

    labels = {"class": one.class_name, "color": one.color, "texture": one.texture}
    wanted = labels.values() if marks == "all" else (labels[marks],)
    return [Annotation(label, box, mask) for label in wanted]  # type: ignore[arg-type]
