"""Captions of generated scenes: a small grammar over objects, their attributes, places and relations.

A caption names one object or two. There are several ways to say the same thing, and all of them are references of a
scene:

    a striped red star                      texture, colour, class
    a red star on the left                  and its place
    there is a red star on the left
    a red star and a blue ring
    a red star left of a blue ring          and their relation
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from fastcam.evaluation.scenes import CLASSES, COLORS, TEXTURES, Object

PAD, START, END = 0, 1, 2
SPECIAL = ("<pad>", "<start>", "<end>")
FUNCTION = ("a", "an", "there", "is", "and", "of", "on", "at", "in", "the")
PLACES = {
    "left": "on the left",
    "right": "on the right",
    "top": "at the top",
    "bottom": "at the bottom",
    "middle": "in the middle",
}
RELATIONS = ("left of", "right of", "above", "below")
NAMED = tuple(name for name in TEXTURES if name != "plain")
VOCABULARY: tuple[str, ...] = (
    *SPECIAL, *FUNCTION, *PLACES, "above", "below", *COLORS, *NAMED, *CLASSES,
)  # fmt: skip
"""All words; a word's token is its index."""
LONGEST = 10
"""Words of the longest caption: "there is a red star at the bottom" has eight, a relation up to nine, and the end."""
NEAR, APART = 0.12, 0.1
"""How far from the picture's middle line, as a share of its side, a side begins; and how far apart objects are."""


@dataclass(frozen=True)
class Thing:
    """What a caption may say of an object: its names, and its centre as shares of width and height."""

    class_name: str
    color: str
    texture: str
    x: float
    y: float

    @staticmethod
    def of(item: Object, size: int) -> Thing:
        """That of an object in a square picture."""
        return Thing(item.class_name, item.color, item.texture, item.center[0] / size, item.center[1] / size)

    def turned(self, across: bool, down: bool, swap: bool) -> Thing:
        """The same in a picture that is mirrored from left to right, from top to bottom, or at its diagonal."""
        x, y = (self.y, self.x) if swap else (self.x, self.y)
        return Thing(self.class_name, self.color, self.texture, 1 - x if across else x, 1 - y if down else y)

    def places(self) -> list[str]:
        """The places that are true of it."""
        sides = (("left", 0.5 - self.x), ("right", self.x - 0.5), ("top", 0.5 - self.y), ("bottom", self.y - 0.5))
        found = [name for name, far in sides if far > NEAR]
        return found or ["middle"]

    def short(self) -> str:
        """ "a red star"."""
        return with_article(f"{self.color} {self.class_name}")

    def long(self) -> str:
        """ "a striped red star"; plain objects have no word for their texture."""
        texture = "" if self.texture == "plain" else f"{self.texture} "
        return with_article(f"{texture}{self.color} {self.class_name}")


def with_article(noun: str) -> str:
    """ "a red star", "an orange star"."""
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def relations(one: Thing, other: Thing) -> list[str]:
    """What is true of where ``one`` is, seen from ``other``: along the axis along which they are farther apart."""
    x, y = one.x - other.x, one.y - other.y
    if max(abs(x), abs(y)) < APART:
        return []
    if abs(x) >= abs(y):
        return ["left of" if x < 0 else "right of"]
    return ["above" if y < 0 else "below"]


def about_one(thing: Thing) -> list[str]:
    """All captions of one object."""
    places = [PLACES[name] for name in thing.places()]
    plain = f"{thing.short()} {places[0]}"
    more = [f"{thing.short()} {place}" for place in places[1:]]
    return [thing.long(), plain, *more, *(f"there is {thing.short()} {place}" for place in places)]


def about_two(one: Thing, other: Thing) -> list[str]:
    """All captions of two objects that name ``one`` first."""
    return [
        f"{one.short()} and {other.short()}",
        *(f"{one.short()} {relation} {other.short()}" for relation in relations(one, other)),
    ]


def references(things: Sequence[Thing]) -> list[str]:
    """All captions of a scene."""
    pairs = [(a, b) for a in things for b in things if a is not b]
    found = [text for thing in things for text in about_one(thing)]
    return found + [text for a, b in pairs for text in about_two(a, b)]


def draw(things: Sequence[Thing], rng: np.random.Generator) -> str:
    """One of them: half are about one object, where there are two, and each way to say it is as likely."""
    first = int(rng.integers(len(things)))
    if len(things) < 2 or rng.random() < 0.5:
        said = about_one(things[first])
    else:
        second = int(rng.integers(len(things) - 1))
        said = about_two(things[first], things[second + (second >= first)])
    return said[int(rng.integers(len(said)))]


def tokens(text: str) -> list[int]:
    """The words as numbers, without start and end."""
    return [VOCABULARY.index(word) for word in text.split()]


def words(numbers: Sequence[int]) -> str:
    """The text of tokens, up to the end."""
    found: list[str] = []
    for number in numbers:
        if number == END:
            break
        found.append(VOCABULARY[number])
    return " ".join(found)


@dataclass(frozen=True)
class Phrase:
    """What a caption says of one object; ``texture`` and ``place`` are None where it says nothing."""

    class_name: str
    color: str
    texture: str | None
    place: str | None

    def true_of(self, thing: Thing) -> bool:
        """Whether an object is what the phrase says."""
        same = (self.class_name, self.color) == (thing.class_name, thing.color)
        return same and self.texture in (None, thing.texture) and (self.place is None or self.place in thing.places())


def parse(text: str) -> tuple[list[Phrase], str | None] | None:
    """The phrases of a caption and the relation between them; None of what is no sentence of the grammar."""
    said = text.removeprefix("there is ")
    for relation in (*RELATIONS, "and"):
        first, found, second = said.partition(f" {relation} a")
        if found and said == text:
            both = [_phrase(first), _phrase(f"a{second}")]
            phrases = [one for one in both if one is not None and one.place is None]
            return (phrases, relation) if len(phrases) == 2 else None
    phrase = _phrase(said)
    return None if phrase is None else ([phrase], None)


def _phrase(text: str) -> Phrase | None:
    place = next((name for name, words_of in PLACES.items() if text.endswith(f" {words_of}")), None)
    noun = text.removesuffix(f" {PLACES[place]}").split() if place else text.split()
    if (
        len(noun) not in (3, 4)
        or " ".join(noun) != with_article(" ".join(noun[1:]))
        or noun[-1] not in CLASSES
        or noun[-2] not in COLORS
    ):
        return None
    if len(noun) == 4 and noun[1] not in NAMED:
        return None
    return Phrase(noun[-1], noun[-2], noun[1] if len(noun) == 4 else None, place)


def true_of(text: str, things: Sequence[Thing]) -> bool:
    """Whether a caption is one of the grammar, and all that it says is true of a scene."""
    parsed = parse(text)
    if parsed is None:
        return False
    phrases, relation = parsed
    if relation is None:
        return any(phrases[0].true_of(thing) for thing in things)
    pairs: Iterator[tuple[Thing, Thing]] = ((a, b) for a in things for b in things if a is not b)
    return any(
        phrases[0].true_of(a) and phrases[1].true_of(b) and (relation == "and" or relation in relations(a, b))
        for a, b in pairs
    )
