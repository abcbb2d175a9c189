"""Rows of what was measured, and which of them is chosen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from fastcam.runtime.profile import Choice, Goal
from fastcam.tuning.agreement import Agreement

NOISE = 0.02
"""A share of time that nobody tells apart."""


@dataclass(frozen=True)
class Row:
    """A candidate.

    Attributes:
        goal, choice: what it is for, and what it is.
        seconds: of a picture, the median; None where it was not measured.
        ratio, interval: its time over the default's, the median of rounds, and their 95 % interval.
        agreement: with the reference's maps.
        left_out: why it cannot be chosen; empty where it can.
    """

    goal: Goal
    choice: Choice
    seconds: float | None = None
    ratio: float = 1.0
    interval: tuple[float, float] = (1.0, 1.0)
    agreement: Agreement | None = None
    left_out: str = ""

    def to_dict(self) -> dict[str, Any]:
        """For a profile's file."""
        about: dict[str, Any] = {"goal": self.goal, **asdict(self.choice)}
        if self.seconds is not None:
            about["ms_per_picture"] = round(self.seconds * 1e3, 3)
            about |= {"times_default": round(self.ratio, 4), "interval_95": [round(end, 4) for end in self.interval]}
        if self.agreement is not None:
            about |= {"map_difference": float(f"{self.agreement.difference:.2g}")}
            about |= {"rank_correlation": round(self.agreement.correlation, 5)}
            about |= {"box_overlap": round(self.agreement.overlap, 4)}
            about |= {"score_difference": float(f"{self.agreement.scores:.2g}")}
        return about | ({"left_out": self.left_out} if self.left_out else {})


def best(rows: Sequence[Row]) -> Row:
    """The fastest row; the default, which is the first, unless others are surely faster.

    Of rows that are as fast as the fastest, give or take :data:`NOISE`, the one that changes maps least.
    """
    sure = [row for row in rows[1:] if not row.left_out and row.seconds is not None and row.interval[1] < 1 - NOISE]
    if not sure:
        return rows[0]
    most = min(row.ratio for row in sure) * (1 + NOISE)
    return min(
        (row for row in sure if row.ratio <= most), key=lambda row: row.agreement.difference if row.agreement else 0
    )
