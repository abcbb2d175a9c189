"""Prompts that name objects of a scene: "a red striped square on the left", and which scenes they are true of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fastcam.evaluation.scenes import CLASSES, COLORS, TEXTURES, Object

SIDES = ("on the left", "on the right")
SPECIAL = ("<pad>", "<unk>")
VOCABULARY = (*SPECIAL, "a", "an", "on", "the", "left", "right", *COLORS, *TEXTURES, *CLASSES)
LENGTH = 8
ANY = -1
"""Of an attribute that a prompt does not name."""
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Prompt:
    """What a prompt names: indices of class, colour, texture and side, :data:`ANY` of what it leaves open."""

    shape: int
    color: int = ANY
    texture: int = ANY
    side: int = ANY

    @property
    def text(self) -> str:
        """The prompt in words."""
        words = [COLORS[self.color]] if self.color != ANY else []
        words += [TEXTURES[self.texture]] if self.texture != ANY else []
        words.append(CLASSES[self.shape])
        article = "an" if words[0][0] in "aeiou" else "a"
        return " ".join([article, *words, *([SIDES[self.side]] if self.side != ANY else [])])

    @property
    def row(self) -> tuple[int, int, int, int]:
        """The attributes as numbers."""
        return self.shape, self.color, self.texture, self.side


def attributes(one: Object, size: int) -> tuple[int, int, int, int]:
    """The attributes of an object of a scene of ``size`` pixels."""
    side = int(one.center[0] >= size / 2)
    return one.class_index, COLORS.index(one.color), TEXTURES.index(one.texture), side


def prompt_of(row: Sequence[int], rng: np.random.Generator) -> Prompt:
    """A prompt that names an object by its class, and by some of its other attributes."""
    shape, color, texture, side = (int(value) for value in row)
    named = rng.random(3) < (0.6, 0.4, 0.2)
    return Prompt(shape, *(value if said else ANY for value, said in zip((color, texture, side), named)))


def true_of(prompts: Ints, objects: Ints) -> npt.NDArray[np.bool_]:
    """Which prompts are true of which scenes, bool [scenes, prompts].

    Args:
        prompts: int64 [P, 4], rows of :attr:`Prompt.row`.
        objects: int64 [N, most, 4], rows of :func:`attributes`; -2 where a scene has fewer objects.
    """
    there = objects[:, None]
    asked = prompts[None, :, None]
    return np.asarray(((asked == ANY) | (asked == there)).all(-1).any(-1))
