"""What is kept of each picture and of each class while a report is made, and what is suspicious about them.

Of a picture a few numbers, of a class a small mean map: the memory does not grow with the pictures' pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastcam.image.preprocess import Float

CELLS = 28
"""Rows and columns of a class's mean map and mean picture."""
SMALL = 14
"""Rows and columns of the map that is kept of each picture."""
SAME, SAME_LEAST = 0.9, 5
"""A class's maps are called the same from this mean correlation on, and from this many pictures on."""
FAR, PICTURES_LEAST, CLASSES_LEAST = 0.5, 4, 3
"""A share of heat is far below the others where it is less than this part of their median, and so is how many times an
even map's share it is: by the first alone small objects would be suspicious, by the second large ones. Of how many
pictures, and classes, there must be shares."""


def percent(share: float) -> str:
    """A share for people, of small ones two digits."""
    return f"{share:.0%}" if share >= 0.0995 else f"{100 * share:.2g}%"


@dataclass(frozen=True)
class Median:
    """Of shares of heat, and of how many times even maps' shares they are; of how many."""

    share: float
    times: float
    n: int

    @classmethod
    def of(cls, shares: Sequence[float], evens: Sequence[float]) -> Median | None:
        """None of nothing."""
        if not shares:
            return None
        times = np.array(shares) / np.maximum(evens, 1e-9)
        return cls(float(np.median(shares)), float(np.median(times)), len(shares))

    def far_below(self, share: float, even: float) -> bool:
        """Whether a share lies far below, see :data:`FAR`."""
        return share < FAR * self.share and share / max(even, 1e-9) < FAR * self.times


@dataclass(frozen=True)
class Facts:
    """A picture.

    Attributes:
        name: of the sample.
        group: the class that it counts for: the marked one where one is known, else the predicted one.
        predicted: the predicted class.
        score: its score.
        truth: the marked classes that the model knows.
        right: whether the predicted class is marked; None where nothing is known.
        share: of the heat of its class's map inside the boxes of the class; None without boxes.
        even: the same of a map that is the same everywhere.
        status: of the map; see :class:`fastcam.results.explanation.Explanation`.
    """

    name: str
    group: str
    predicted: str
    score: float
    truth: tuple[str, ...]
    right: bool | None
    share: float | None
    even: float | None
    status: str


class Seen(NamedTuple):
    """What is kept of a picture's map.

    Attributes:
        place: the picture's number.
        small: the map over its maximum, uint8 [SMALL, SMALL].
        share, right: see :class:`Facts`.
    """

    place: int
    small: NDArray[np.uint8]
    share: float | None
    right: bool | None


@dataclass
class Group:
    """All pictures of a class.

    Attributes:
        heat: sum of their maps, float64 [CELLS, CELLS].
        picture: sum of the pictures, float64 [CELLS, CELLS, 3].
        unit: sum of the maps, centred and of length 1.
        maps: how many have a map.
        count, right, known: pictures; those predicted right; those whose class is known.
        shares, evens: of those with boxes.
        seen: those with a map.
    """

    heat: NDArray[np.float64] = field(default_factory=lambda: np.zeros((CELLS, CELLS)))
    picture: NDArray[np.float64] = field(default_factory=lambda: np.zeros((CELLS, CELLS, 3)))
    unit: NDArray[np.float64] = field(default_factory=lambda: np.zeros(CELLS * CELLS))
    maps: int = 0
    count: int = 0
    right: int = 0
    known: int = 0
    shares: list[float] = field(default_factory=list)
    evens: list[float] = field(default_factory=list)
    seen: list[Seen] = field(default_factory=list)

    def add(self, facts: Facts, heat: Float, picture: NDArray[np.uint8], place: int = 0) -> None:
        """One more picture: its map and pixels in cells, [CELLS, CELLS] and [CELLS, CELLS, 3]; and its number."""
        self.count += 1
        self.right += facts.right is True
        self.known += facts.right is not None
        self.picture += picture
        if facts.share is not None and facts.even is not None:
            self.shares.append(facts.share)
            self.evens.append(facts.even)
        if heat.any():
            self.maps += 1
            self.heat += heat
            centred = heat.astype(np.float64).ravel() - heat.mean(dtype=np.float64)
            self.unit += centred / max(float(np.linalg.norm(centred)), 1e-30)
            small = heat.reshape(SMALL, CELLS // SMALL, SMALL, CELLS // SMALL).mean((1, 3))
            small = np.rint(255 * small / small.max()).astype(np.uint8)
            self.seen.append(Seen(place, small, facts.share, facts.right))

    @property
    def mean_map(self) -> NDArray[np.float64]:
        """[CELLS, CELLS], 0..1."""
        found: NDArray[np.float64] = self.heat / max(1, self.maps)
        return found

    @property
    def mean_picture(self) -> NDArray[np.uint8]:
        """uint8 RGB [CELLS, CELLS, 3]."""
        return np.rint(self.picture / max(1, self.count)).astype(np.uint8)

    @property
    def sameness(self) -> float | None:
        """The mean correlation of two of its maps, cell by cell; None of less than two maps."""
        if self.maps < 2:
            return None
        return float((self.unit @ self.unit - self.maps) / (self.maps * (self.maps - 1)))

    @property
    def share(self) -> float | None:
        """The mean share of heat inside boxes."""
        return float(np.mean(self.shares)) if self.shares else None

    @property
    def even(self) -> float | None:
        """The mean share that an even map has there."""
        return float(np.mean(self.evens)) if self.evens else None

    def flags(self, others: Median | None) -> list[str]:
        """What is suspicious, in words.

        Args:
            others: of the mean shares of all classes.
        """
        said = []
        if self.share is not None and self.even is not None and len(self.shares) >= CLASSES_LEAST:
            if others is not None and others.n >= CLASSES_LEAST and others.far_below(self.share, self.even):
                said.append(
                    f"{percent(self.share)} of the heat lies inside its boxes; the median class has "
                    f"{percent(others.share)}"
                )
            if self.share < self.even:
                said.append(_less(self.share, self.even))
        if self.sameness is not None and self.maps >= SAME_LEAST and self.sameness >= SAME:
            said.append(f"the same map in all {self.maps} pictures (mean correlation {self.sameness:.2f})")
        return said


def _less(share: float, even: float) -> str:
    return f"less heat inside its boxes ({percent(share)}) than an even map has ({percent(even)})"


class Groups:
    """Classes by name."""

    def __init__(self) -> None:
        self.by_name: dict[str, Group] = {}
        self.count = 0
        self._medians: dict[str, Median | None] = {}

    def add(self, facts: Facts, heat: Float, picture: NDArray[np.uint8]) -> None:
        """One more picture."""
        self.by_name.setdefault(facts.group, Group()).add(facts, heat, picture, self.count)
        self.count += 1

    def ranked(self) -> list[tuple[str, Group, list[str]]]:
        """Name, class and what is suspicious about it: the suspicious ones first, then by their share of heat."""
        means = [(group.share, group.even) for group in self.by_name.values() if len(group.shares) >= CLASSES_LEAST]
        others = Median.of([share or 0.0 for share, _ in means], [even or 0.0 for _, even in means])
        rows = [(name, group, group.flags(others)) for name, group in self.by_name.items()]
        return sorted(rows, key=lambda row: (-len(row[2]), 2.0 if row[1].share is None else row[1].share, row[0]))

    def flags(self, facts: Facts) -> list[str]:
        """What is suspicious about a picture, in words; asked when all pictures are in."""
        said = [] if facts.status == "ok" else [f"no map ({facts.status})"]
        if facts.share is None or facts.even is None or said:
            return said
        if facts.group not in self._medians:
            group = self.by_name[facts.group]
            self._medians[facts.group] = Median.of(group.shares, group.evens)
        others = self._medians[facts.group]
        if others is not None and others.n >= PICTURES_LEAST and others.far_below(facts.share, facts.even):
            said.append(
                f"{percent(facts.share)} of the heat lies inside its boxes; the median picture of the class has "
                f"{percent(others.share)}"
            )
        if facts.share < facts.even:
            said.append(_less(facts.share, facts.even))
        return said


def order(facts: Facts, flags: Sequence[str]) -> tuple[float, float, float, str]:
    """What pictures are sorted by: failures first, of these the surest; then suspicious ones; then by share, score."""
    rank = 0 if facts.right is False else 1 if flags else 2
    second = -facts.score if rank == 0 else 1.0 if facts.share is None else facts.share
    return rank, second, facts.score, facts.name
