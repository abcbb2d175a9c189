"""Questions about scenes, with their answers and the objects that they ask about.

Five kinds, each in several wordings: the colour of a shape, the shape of a colour, what lies beside a shape, how many
there are of a shape, and whether there is one of a shape and a colour. A question is
asked only where its answer is certain.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from fastcam_bench.paper.questions.pictures import COLOURS, SHAPES, Pictures

ANSWERS: tuple[str, ...] = (*COLOURS, *SHAPES, "yes", "no", "0", "1", "2", "3", "4")
SIDES = {"left of": (0, -1), "right of": (0, 1), "above": (1, -1), "below": (1, 1)}
"""Axis and sign of each side."""
CLEAR = 0.12
"""Share of the picture that centres must lie apart, for one to lie beside the other."""
PAD, UNKNOWN, LENGTH = 0, 1, 10
WORDINGS = {
    "colour": ("what colour is the {shape}", "what is the colour of the {shape}", "which colour has the {shape}"),
    "shape": ("what shape is {colour}", "what is the {colour} shape", "which shape is the {colour} one"),
    "beside": ("what is {side} the {shape}", "which shape is {side} the {shape}"),
    "count": ("how many {shapes} are there", "how many {shapes}"),
    "exists": ("is there a {colour} {shape}", "is a {colour} {shape} in the picture"),
}
KINDS = tuple(WORDINGS)
PLURALS = {shape: shape + ("es" if shape.endswith("s") else "s") for shape in SHAPES}


def _words() -> dict[str, int]:
    texts = [text for texts in WORDINGS.values() for text in texts]
    plain = {word for text in texts for word in text.split() if not word.startswith("{")}
    plain |= {word for side in SIDES for word in side.split()} | {*SHAPES, *COLOURS, *PLURALS.values()}
    return {"<pad>": PAD, "<unk>": UNKNOWN} | {word: i for i, word in enumerate(["?", *sorted(plain)], 2)}


WORDS: dict[str, int] = _words()
"""Every word that occurs in a question, and its id."""


@dataclass(frozen=True)
class Question:
    """A question about a picture.

    Attributes:
        text: in small letters, with its question mark.
        answer: a number in :data:`ANSWERS`.
        kind: one of :data:`KINDS`.
        objects: places of the objects that it asks about, the answer's among them; empty where there are none.
    """

    text: str
    answer: int
    kind: str
    objects: tuple[int, ...]


def ids(text: str, words: dict[str, int] = WORDS, length: int = LENGTH) -> list[int]:
    """The ids of a text's words, padded at the end."""
    found = [words.get(word, UNKNOWN) for word in text.lower().replace("?", " ? ").split()]
    return [*found, *[PAD] * (length - len(found))][:length]


def ask(pictures: Pictures, i: int, kind: str, rng: Random) -> Question | None:
    """A question of a kind about picture ``i``; None where none has a certain answer."""
    found = _KINDS[kind](_Seen(pictures, i), rng)
    if found is None:
        return None
    answer, objects, words = found
    text = rng.choice(WORDINGS[kind]).format(**words)
    return Question(f"{text}?", ANSWERS.index(answer), kind, objects)


class _Seen:
    """What a picture shows, in plain numbers: of these many are asked."""

    def __init__(self, pictures: Pictures, i: int) -> None:
        count = int((pictures.shapes[i] >= 0).sum())
        self.shapes: list[int] = pictures.shapes[i, :count].tolist()
        self.colours: list[int] = pictures.colours[i, :count].tolist()
        self.centres: list[tuple[float, float]] = pictures.centres[i, :count].tolist()


Made = tuple[str, tuple[int, ...], dict[str, str]]
"""An answer, the objects, and the words of the wording."""


def _unique(values: list[int]) -> list[int]:
    """Places of values that occur once."""
    return [k for k, value in enumerate(values) if values.count(value) == 1]


def _colour(seen: _Seen, rng: Random) -> Made | None:
    places = _unique(seen.shapes)
    if not places:
        return None
    k = rng.choice(places)
    return COLOURS[seen.colours[k]], (k,), {"shape": SHAPES[seen.shapes[k]]}


def _shape(seen: _Seen, rng: Random) -> Made | None:
    places = _unique(seen.colours)
    if not places:
        return None
    k = rng.choice(places)
    return SHAPES[seen.shapes[k]], (k,), {"colour": COLOURS[seen.colours[k]]}


def _beside(seen: _Seen, rng: Random) -> Made | None:
    """Where one object alone lies on a side, and every other is clear of being there."""
    found = []
    for k in _unique(seen.shapes):
        for side, (axis, sign) in SIDES.items():
            apart = [sign * (one[axis] - seen.centres[k][axis]) for one in seen.centres]
            there = [j for j, far in enumerate(apart) if far > 0 and j != k]
            if len(there) == 1 and all(abs(far) >= CLEAR for j, far in enumerate(apart) if j != k):
                found.append((k, there[0], side))
    if not found:
        return None
    k, other, side = rng.choice(found)
    return SHAPES[seen.shapes[other]], (k, other), {"shape": SHAPES[seen.shapes[k]], "side": side}


def _count(seen: _Seen, rng: Random) -> Made:
    """Each number that can be asked for is as probable."""
    counts = [seen.shapes.count(shape) for shape in range(len(SHAPES))]
    number = rng.choice(sorted(set(counts)))
    shape = rng.choice([shape for shape, count in enumerate(counts) if count == number])
    places = tuple(k for k, one in enumerate(seen.shapes) if one == shape)
    return str(number), places, {"shapes": PLURALS[SHAPES[shape]]}


def _exists(seen: _Seen, rng: Random) -> Made:
    """Half are there; of the others shape and colour occur, or the shape alone, but not both in one object."""
    pairs = list(zip(seen.shapes, seen.colours, strict=True))
    shape, colour = rng.choice(pairs)
    if rng.random() < 0.5:
        colour = rng.choice(seen.colours)
        while (shape, colour) in pairs:
            colour = rng.randrange(len(COLOURS))
    places = tuple(k for k, pair in enumerate(pairs) if pair == (shape, colour))
    return "yes" if places else "no", places, {"shape": SHAPES[shape], "colour": COLOURS[colour]}


_KINDS: dict[str, Callable[[_Seen, Random], Made | None]] = {
    "colour": _colour,
    "shape": _shape,
    "beside": _beside,
    "count": _count,
    "exists": _exists,
}
