"""Samples: a picture and what somebody has marked in it, as every data set gives them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fastcam.errors import printable
from fastcam.image.preprocess import Uint8

Box: TypeAlias = "tuple[float, float, float, float]"
"""x0, y0, x1, y1 in pixels of the picture, half open: a pixel (x, y) lies inside where x0 <= x < x1."""
Mask: TypeAlias = "NDArray[np.bool_]"
"""bool [height, width] of the picture."""
Attention: TypeAlias = "NDArray[np.float32]"
"""float32 [h, w] >= 0 over the whole picture, of any size: how much somebody looked there."""


@dataclass(frozen=True, eq=False)
class Annotation:
    """One object, or one class, that is marked in a picture.

    Attributes:
        label: its class, in the words of the data set.
        box: around it; None where the data set has none.
        read_mask: gives its pixels, when somebody asks; None where the data set has none.
        difficult: the data set calls it so (PASCAL VOC), and its benchmarks leave it out.
        crowd: many objects of a kind under one mark (COCO's iscrowd), which count neither for nor against.
    """

    label: str
    box: Box | None = None
    read_mask: Callable[[], Mask] | None = None
    difficult: bool = False
    crowd: bool = False

    @cached_property
    def mask(self) -> Mask | None:
        """Its pixels, read once for all that ask; None where the data set has none."""
        if self.read_mask is None:
            return None
        mask = self.read_mask().view()
        mask.flags.writeable = False
        return mask


@dataclass(frozen=True, eq=False)
class Sample:
    """A picture and its annotations.

    Attributes:
        name: unique in the data set; what is resumed goes by it.
        picture: a file, or uint8 RGB [height, width, 3].
        annotations: what is marked, in the data set's order.
        read_ignored: gives the pixels that count for nothing (PASCAL VOC's void, the border of its objects), when
            somebody asks; None where there are none.
        left_out: what else is marked in it, and cannot be used; None where there is nothing.
        text: what is asked about it, of data sets of questions; it goes to the model's text input.
        read_attention: gives where each of some people looked, when somebody asks; None where nobody knows.
    """

    name: str
    picture: Path | Uint8
    annotations: tuple[Annotation, ...] = ()
    read_ignored: Callable[[], Mask] | None = None
    left_out: LeftOut | None = None
    text: str | None = None
    read_attention: Callable[[], tuple[Attention, ...]] | None = None

    @property
    def labels(self) -> tuple[str, ...]:
        """The classes that are marked, each once, in the order of the annotations."""
        return tuple(dict.fromkeys(each.label for each in self.annotations))

    def of(self, label: str) -> tuple[Annotation, ...]:
        """The annotations of a class."""
        return tuple(each for each in self.annotations if each.label == label)


@dataclass
class LeftOut:
    """What a data set could not use: how often, and the first names, by reason.

    Attributes:
        counts: by reason.
        names: the first :data:`NAMED` names of each.
    """

    counts: dict[str, int] = field(default_factory=dict)
    names: dict[str, list[str]] = field(default_factory=dict)

    def add(self, reason: str, name: str) -> None:
        """One more picture or object that is left out."""
        self.counts[reason] = self.counts.get(reason, 0) + 1
        first = self.names.setdefault(reason, [])
        if len(first) < NAMED:
            first.append(name)

    def merge(self, other: LeftOut) -> None:
        """What another one counted too."""
        for reason, count in other.counts.items():
            self.counts[reason] = self.counts.get(reason, 0) + count
            self.names[reason] = (self.names.get(reason, []) + other.names[reason])[:NAMED]

    def __bool__(self) -> bool:
        """Whether anything is left out."""
        return bool(self.counts)

    def __str__(self) -> str:
        """Each reason with its count and its first name, on one line."""
        return "; ".join(
            f"{count} {reason} ({printable(self.names[reason][0])})" for reason, count in self.counts.items()
        )

    def lines(self) -> list[str]:
        """Each reason with its count and its first names, a line each, for people."""
        lines = []
        for reason, count in self.counts.items():
            names = [printable(name) for name in self.names[reason][:5]]
            lines.append(f"left out, {reason}: {count} ({', '.join(names)}{', ...' if count > 5 else ''})")
        return lines

    def copy(self) -> LeftOut:
        """Another one that says the same, and is counted on from there."""
        return LeftOut(dict(self.counts), {reason: list(names) for reason, names in self.names.items()})


NAMED = 20
"""How many names :class:`LeftOut` keeps of a reason."""


class Dataset(Protocol):
    """Pictures with annotations, one after the other.

    Attributes:
        name: for people: "voc:VOC2012 val".
        labels: every class of the data set, in its order.
        left_out: what :meth:`samples` met and could not use, counted from its last start.
        exif: whether boxes and masks are those of the picture turned as its EXIF orientation says.
    """

    name: str
    labels: tuple[str, ...]
    left_out: LeftOut
    exif: bool

    def __len__(self) -> int:
        """How many samples there are, about: broken ones are found when they are read."""

    def samples(self, skip: Collection[str] = ()) -> Iterator[Sample]:
        """The samples in an order that is the same every time, without those whose names are in ``skip``.

        Nothing is held but the index of the data set.
        """
