"""Outlines of the classes: each a few polygons inside the unit circle, filled by the even-odd rule.

Every outline takes two numbers in [0, 1] that vary its proportions, so that a class is a family of shapes. Polygons
are float64 [n, 2] arrays of (x, y), y downwards, the farthest vertex at distance 1 from the origin.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

Polygon = npt.NDArray[np.float64]
Outline = Callable[[float, float], list[Polygon]]


def _polar(radius: npt.ArrayLike, angle: npt.ArrayLike) -> Polygon:
    radius, angle = np.broadcast_arrays(np.asarray(radius, np.float64), np.asarray(angle, np.float64))
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)


def _circle(radius: float, points: int = 72) -> Polygon:
    return _polar(radius, np.linspace(0, 2 * np.pi, points, endpoint=False))


def triangle(u: float, v: float) -> list[Polygon]:
    """Three corners on the unit circle; the apex angle varies around the equilateral one."""
    half = np.deg2rad(54 + 14 * u)  # half the arc that the base spans
    return [_polar(1.0, [-np.pi / 2, np.pi / 2 - half, np.pi / 2 + half])]


def square(u: float, v: float) -> list[Polygon]:
    """A rectangle whose sides differ by at most a fifth."""
    half = np.arctan(1 - 0.2 * u)
    return [_polar(1.0, [half, np.pi - half, np.pi + half, -half])]


def star(u: float, v: float) -> list[Polygon]:
    """Five tips."""
    angle = np.arange(10) * np.pi / 5 - np.pi / 2
    return [_polar(np.where(np.arange(10) % 2, 0.36 + 0.12 * u, 1.0), angle)]


def cross(u: float, v: float) -> list[Polygon]:
    """A plus sign; ``u`` is the arms' width."""
    a = 0.24 + 0.12 * u
    quarter = np.array([[1, a], [a, a], [a, 1]], np.float64)
    turn = np.array([[0, -1], [1, 0]], np.float64)
    points = np.concatenate([quarter @ np.linalg.matrix_power(turn.T, k) for k in range(4)])
    return [points / np.hypot(1, a)]


def ring(u: float, v: float) -> list[Polygon]:
    """A disc with a round hole; ``u`` is the hole's radius."""
    return [_circle(1.0), _circle(0.48 + 0.2 * u)]


def heart(u: float, v: float) -> list[Polygon]:
    """The classical heart curve, stretched a little by ``u``."""
    t = np.linspace(0, 2 * np.pi, 80, endpoint=False)
    x = 16 * np.sin(t) ** 3 * (0.92 + 0.16 * u)
    y = -(13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)) - 2.5
    points = np.stack([x, y], axis=1)
    return [points / np.hypot(x, y).max()]


def crescent(u: float, v: float) -> list[Polygon]:
    """The unit disc without a disc of radius ``r`` whose centre lies ``d`` to the right."""
    d, r = 0.42 + 0.12 * u, 0.76 + 0.08 * v
    x = (1 - r * r + d * d) / (2 * d)  # where the two circles meet
    y = np.sqrt(1 - x * x)
    outer, inner = np.arctan2(y, x), np.arctan2(y, x - d)
    far = _polar(1.0, np.linspace(outer, 2 * np.pi - outer, 60))
    near = _polar(r, np.linspace(2 * np.pi - inner, inner, 48)) + np.array([d, 0])
    return [np.concatenate([far, near])]


def flower(u: float, v: float) -> list[Polygon]:
    """Five to seven round petals around a round hole."""
    petals = 5 + min(int(3 * v), 2)
    t = np.linspace(0, 2 * np.pi, 24 * petals, endpoint=False)
    depth = 0.48 + 0.08 * u
    return [_polar(1 - depth + depth * np.sqrt(np.abs(np.cos(petals * t / 2))), t), _circle(0.17, 36)]


def arrow(u: float, v: float) -> list[Polygon]:
    """A shaft with a triangular head."""
    neck, head, shaft = -0.05 + 0.25 * u, 0.62 + 0.1 * v, 0.19 + 0.07 * u
    tail = -np.sqrt(1 - shaft * shaft)
    top: list[tuple[float, float]] = [(1, 0), (neck, -head), (neck, -shaft), (tail, -shaft)]
    return [np.array(top + [(x, -y) for x, y in reversed(top[1:])], np.float64)]


def spiral(u: float, v: float) -> list[Polygon]:
    """A band along Archimedes' spiral, one and three quarters to two turns long."""
    turns, width = 1.75 + 0.25 * u, 0.13 + 0.03 * v
    t = np.linspace(0, 1, 120)
    middle = 0.12 + (1 - width - 0.12) * t
    angle = 2 * np.pi * turns * t
    band = width * np.minimum(1, 6 * np.minimum(t, 1 - t) + 0.35)  # ends taper
    points = np.concatenate([_polar(middle + band, angle), _polar(middle - band, angle)[::-1]])
    return [points / np.hypot(points[:, 0], points[:, 1]).max()]


OUTLINES: dict[str, Outline] = {
    "triangle": triangle,
    "square": square,
    "star": star,
    "cross": cross,
    "ring": ring,
    "heart": heart,
    "crescent": crescent,
    "flower": flower,
    "arrow": arrow,
    "spiral": spiral,
}
"""Class name -> outline, in the order of the class indices."""
