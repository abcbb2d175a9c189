"""A class of inputs for the fuzzers' frame in which every seed is a fault of another kind."""

from __future__ import annotations

import os
import time

from fastcam.errors import FastcamError
from fastcam_bench.fuzz import WrongAnswer

NAME = "Planted faults"


def seeds() -> list[bytes]:
    """One input a fault, between two that are good."""
    return [b"good", b"refused", b"traceback", b"hang", b"crash", b"bomb", b"wrong", b"exit", b"good"]


def attempt(data: bytes) -> str:
    """What the input says."""
    if data == b"refused":
        raise FastcamError("no")
    if data == b"traceback":
        raise KeyError("planted")
    if data == b"hang":
        time.sleep(1000)
    if data == b"crash":
        os.abort()
    if data == b"bomb":
        _bomb()
    if data == b"wrong":
        raise WrongAnswer("planted")
    if data == b"exit":
        os._exit(3)
    return "accepted"


def _bomb() -> None:
    """Memory that is used in small pieces, so that no single one is refused."""
    pieces = []
    while True:
        pieces.append(b"x" * (1 << 20))
