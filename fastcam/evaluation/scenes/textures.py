"""Colours and surface textures: independent of the class, each an attribute that a person can name."""

from __future__ import annotations

import colorsys
from collections.abc import Callable

import cv2
import numpy as np
import numpy.typing as npt

Float = npt.NDArray[np.float32]
Pattern = Callable[[Float, Float, float, np.random.Generator], Float]

HUES: dict[str, tuple[float, float, float]] = {
    # hue in turns, saturation, value
    "red": (0.995, 0.86, 0.86),
    "orange": (0.073, 0.92, 0.98),
    "yellow": (0.145, 0.85, 0.98),
    "green": (0.35, 0.78, 0.68),
    "cyan": (0.505, 0.75, 0.86),
    "blue": (0.61, 0.82, 0.86),
    "purple": (0.765, 0.68, 0.72),
    "pink": (0.92, 0.52, 0.98),
}
"""Colour name -> its centre; an object's own colour is drawn close to it, so that the names never overlap."""


def tones(color: str, rng: np.random.Generator) -> tuple[Float, Float]:
    """Two tones of a named colour, RGB in 0..1: the body's, and a clearly darker or lighter one for the texture."""
    hue, saturation, value = HUES[color]
    hue = (hue + rng.uniform(-0.012, 0.012)) % 1
    saturation = float(np.clip(saturation * rng.uniform(0.88, 1.08), 0, 1))
    value = float(np.clip(value * rng.uniform(0.88, 1.05), 0, 1))
    body = np.array(colorsys.hsv_to_rgb(hue, saturation, value), np.float32)
    darker = body * np.float32(rng.uniform(0.42, 0.55))
    lighter = body + (1 - body) * np.float32(rng.uniform(0.65, 0.8))
    return body, darker if rng.random() < 0.5 else lighter


def _soft(distance: Float, pixel: float) -> Float:
    """Step at 0, about one and a half pixels wide; ``pixel`` is a pixel's extent in the units of ``distance``."""
    return np.asarray(np.clip(0.5 + distance / np.float32(1.5 * pixel), 0, 1), np.float32)


def _wave(x: Float) -> Float:
    """Triangle wave of period 1, range -0.25..0.25: the signed distance to the edges of a square wave."""
    return np.asarray(np.abs((x % 1) - np.float32(0.5)) - np.float32(0.25), np.float32)


def plain(x: Float, y: Float, pixel: float, rng: np.random.Generator) -> Float:
    """One tone."""
    return np.zeros_like(x)


def striped(x: Float, y: Float, pixel: float, rng: np.random.Generator) -> Float:
    """Parallel bars of equal width."""
    frequency = rng.uniform(2.0, 3.2)
    return _soft(_wave(x * np.float32(frequency)), pixel * frequency)


def checkered(x: Float, y: Float, pixel: float, rng: np.random.Generator) -> Float:
    """A chessboard."""
    frequency = rng.uniform(1.4, 2.2)
    a, b = (2 * _soft(_wave(t * np.float32(frequency)), pixel * frequency) - 1 for t in (x, y))
    return np.asarray(0.5 + 0.5 * a * b, np.float32)


def dotted(x: Float, y: Float, pixel: float, rng: np.random.Generator) -> Float:
    """Round dots on a hexagonal grid."""
    frequency = rng.uniform(2.2, 3.2)
    row = y * np.float32(frequency / 0.866)
    column = x * np.float32(frequency) + np.float32(0.5) * (np.floor(row) % 2)
    distance = np.hypot((column % 1) - 0.5, (row % 1) * np.float32(0.866) - np.float32(0.433))
    return _soft(np.asarray(0.29 - distance, np.float32), pixel * frequency)


def marbled(x: Float, y: Float, pixel: float, rng: np.random.Generator) -> Float:
    """Wavy veins: bars bent by smooth noise."""
    grid = rng.standard_normal((7, 7)).astype(np.float32)
    noise = cv2.resize(grid, (64, 64), interpolation=cv2.INTER_CUBIC)
    bend = cv2.remap(noise, (x + 1.5) * 21, (y + 1.5) * 21, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
    frequency = rng.uniform(1.5, 2.2)
    wave = np.sin(np.float32(2 * np.pi) * (x * np.float32(frequency) + np.float32(0.55) * bend))
    return np.asarray(np.clip(0.5 + 1.1 * wave, 0, 1), np.float32)


PATTERNS: dict[str, Pattern] = {
    "plain": plain,
    "striped": striped,
    "checkered": checkered,
    "dotted": dotted,
    "marbled": marbled,
}
"""Texture name -> share of the second tone, 0..1, at points (x, y) of the object's unit circle."""
