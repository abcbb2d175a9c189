"""A class of inputs for the fuzzers' frame whose first change of an input never ends."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np

NAME = "Stalling mutator"


def seeds() -> list[bytes]:
    """One, which is good."""
    return [b"good"]


def mutate(data: bytes, random: np.random.Generator) -> bytes:
    """Stand still, once: the file that STALLED names tells the next process."""
    marker = Path(os.environ["STALLED"])
    if not marker.exists():
        marker.touch()
        time.sleep(1000)
    return data


def attempt(data: bytes) -> str:
    """Everything is good."""
    return "accepted"
