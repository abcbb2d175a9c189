"""How pictures are read: how large they may be, and whether their EXIF orientation counts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from numbers import Integral

from fastcam.errors import FastcamError, typed

MAX_PIXELS = 100_000_000
"""Of a picture, unless another limit is said: a file of some kilobytes may hold billions."""


@dataclass(frozen=True)
class Reading:
    """How pictures are read.

    Attributes:
        max_pixels: the largest picture that is decoded, in pixels (of more than four channels it counts once for each
            four). Its header is asked first. Arrays and tensors in memory, which nobody decodes, have no limit.
        exif: whether a picture is turned as its EXIF orientation says.
    """

    max_pixels: int = MAX_PIXELS
    exif: bool = True

    def __post_init__(self) -> None:
        typed("max_pixels", self.max_pixels, Integral, "a whole number of pixels")
        typed("exif", self.exif, bool, "True or False")
        if self.max_pixels < 1:
            raise FastcamError(f"max_pixels is {self.max_pixels}; give at least 1")

    def check(self, pixels: int, width: int, height: int, name: str) -> None:
        """Refuse a picture that is too large.

        Args:
            pixels: that its decoder makes room for: width times height, or more.
            name: how messages call it.

        Raises:
            FastcamError: it is.
        """
        if pixels > self.max_pixels:
            more = f" with {pixels:,} for all its channels or tiles" if pixels != width * height else ""
            raise FastcamError(
                f"{name}: the picture has {width} x {height} pixels{more}, more than the {self.max_pixels:,} that are "
                "read; make it smaller, or raise max_pixels (--max-pixels)"
            )

    def shape_check(self, name: str) -> Callable[[tuple[int, ...]], None]:
        """The same for an array [height, width] or [height, width, channels], by its shape; others are not asked."""

        def check(shape: tuple[int, ...]) -> None:
            if len(shape) in (2, 3):
                groups = -(-shape[2] // 4) if len(shape) == 3 else 1
                self.check(shape[0] * shape[1] * groups, shape[1], shape[0], name)

        return check


DEFAULT = Reading()
"""What holds where nothing is said."""
