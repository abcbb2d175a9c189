"""What a client may ask for. The defaults are safe for an endpoint that strangers reach."""

from __future__ import annotations

from dataclasses import dataclass, fields

from fastcam.errors import FastcamError, typed

RATE = 4096
"""Bytes of a body that come in a second, at least."""


def slow(seconds: float, size: int, grace: float) -> bool:
    """Whether a body of which ``size`` bytes have come in so many seconds comes slower than :data:`RATE`.

    Args:
        grace: seconds that no body is asked for.
    """
    return seconds > grace + size / RATE


@dataclass(frozen=True)
class Limits:
    """Bounds of a request, and of what waits.

    Attributes:
        body: bytes of a request.
        pixels: of a picture, checked on its header before it is decoded.
        pictures: of a request.
        targets: of a picture.
        waiting: requests that are under way at once; one more is told to come again later (429).
        seconds: that a request may take, from its first byte to its answer. What nobody waits for is not run.
        kept: bytes of predictions that may be explained later; 0 keeps none.
        kept_seconds: that one is kept.
        connections: that are open at once, of HTTP and of gRPC so many each.
    """

    body: int = 16 << 20
    pixels: int = 50_000_000
    pictures: int = 32
    targets: int = 32
    waiting: int = 64
    seconds: float = 30.0
    kept: int = 256 << 20
    kept_seconds: float = 300.0
    connections: int = 400

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            typed(field.name, value, int | float, "a positive number")
            if not (value > 0 or (value == 0 and field.name == "kept")):
                raise FastcamError(f"{field.name} is {value}; give a positive number")
