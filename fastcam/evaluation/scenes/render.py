"""Draw one object: coverage of its outline, texture, relief, shadow."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from fastcam.evaluation.scenes.shapes import OUTLINES
from fastcam.evaluation.scenes.textures import PATTERNS, Float, tones

_SUPERSAMPLE = 4  # coverage is counted on a grid this much finer than the pixels


@dataclass(frozen=True)
class Placed:
    """An object before it is drawn: what it is and where, lengths in pixels, angles in radians."""

    class_name: str
    color: str
    texture: str
    center: tuple[float, float]  # x, y
    radius: float
    angle: float
    proportions: tuple[float, float]
    seed: int  # of its texture's details


def polygons(placed: Placed) -> list[npt.NDArray[np.float64]]:
    """The object's outline in pixels (x right, y down, pixel i covers [i, i + 1))."""
    c, s = np.cos(placed.angle), np.sin(placed.angle)
    turn = placed.radius * np.array([[c, s], [-s, c]])
    return [points @ turn + placed.center for points in OUTLINES[placed.class_name](*placed.proportions)]


def coverage(placed: Placed, height: int, width: int) -> Float:
    """Share of every pixel that the object covers: float32 [height, width], 0..1."""
    full = np.zeros((height, width), np.float32)
    reach = placed.radius + 1
    x0, x1 = max(int(placed.center[0] - reach), 0), min(int(placed.center[0] + reach) + 1, width)
    y0, y1 = max(int(placed.center[1] - reach), 0), min(int(placed.center[1] + reach) + 1, height)
    if x0 >= x1 or y0 >= y1:
        return full
    fine = np.zeros(((y1 - y0) * _SUPERSAMPLE, (x1 - x0) * _SUPERSAMPLE), np.uint8)
    # OpenCV puts a pixel's centre, not its corner, at the integer; four bits of fraction
    fixed = [np.round(((p - [x0, y0]) * _SUPERSAMPLE - 0.5) * 16).astype(np.int32) for p in polygons(placed)]
    cv2.fillPoly(fine, fixed, 255, cv2.LINE_8, 4)
    patch = cv2.resize(fine.astype(np.float32), (x1 - x0, y1 - y0), interpolation=cv2.INTER_AREA)
    full[y0:y1, x0:x1] = patch / 255
    return full


def _surface(placed: Placed, height: int, width: int) -> Float:
    """The flat textured surface: float32 [height, width, 3]."""
    rng = np.random.default_rng(placed.seed)
    body, second = tones(placed.color, rng)
    y, x = np.mgrid[0:height, 0:width].astype(np.float32) + np.float32(0.5)
    x = (x - np.float32(placed.center[0])) / np.float32(placed.radius)
    y = (y - np.float32(placed.center[1])) / np.float32(placed.radius)
    c, s = np.float32(np.cos(angle := rng.uniform(0, 2 * np.pi))), np.float32(np.sin(angle))
    shift = rng.uniform(0, 1, 2).astype(np.float32)
    share = PATTERNS[placed.texture](c * x + s * y + shift[0], c * y - s * x + shift[1], 1 / placed.radius, rng)
    return np.asarray(body + share[..., None] * (second - body), np.float32)


def _blur(image: Float, sigma: float) -> Float:
    return np.asarray(cv2.GaussianBlur(image, (0, 0), max(sigma, 0.3), borderType=cv2.BORDER_REPLICATE), np.float32)


def _window(placed: Placed, height: int, width: int) -> tuple[slice, slice]:
    """Rows and columns that the object or its shadow can touch."""
    reach = 1.6 * placed.radius + 2
    x, y = placed.center
    rows = slice(max(int(y - reach), 0), min(int(y + reach) + 1, height))
    return rows, slice(max(int(x - reach), 0), min(int(x + reach) + 1, width))


def paint(image: Float, placed: Placed, cover: Float, light: float) -> None:
    """Draw the object and its shadow into ``image`` (float32 [H, W, 3], about 0..1), in place.

    ``cover`` is its :func:`coverage`; ``light`` is the direction that the light comes from, in radians.
    """
    rows, columns = _window(placed, *cover.shape)
    if rows.start >= rows.stop or columns.start >= columns.stop:
        return
    region, alpha = image[rows, columns], cover[rows, columns]
    height, width = alpha.shape
    dx, dy = np.cos(light) * placed.radius, np.sin(light) * placed.radius
    moved = np.array([[1, 0, -0.14 * dx], [0, 1, -0.14 * dy]], np.float64)
    shadow = cv2.warpAffine(alpha, moved, (width, height), flags=cv2.INTER_LINEAR)
    region *= 1 - np.float32(0.5) * _blur(np.asarray(shadow, np.float32), 0.1 * placed.radius)[..., None]

    # relief: a blurred coverage is a dome; its slope towards the light brightens, away from it darkens
    dome = _blur(alpha, 0.07 * placed.radius)
    lift = np.array([[1, 0, 0.05 * dx], [0, 1, 0.05 * dy]], np.float64)
    relief = dome - cv2.warpAffine(dome, lift, (width, height), flags=cv2.INTER_LINEAR)
    center = (placed.center[0] - columns.start, placed.center[1] - rows.start)
    local = Placed(**{**placed.__dict__, "center": center})
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    toward = ((x - center[0]) * np.cos(light) + (y - center[1]) * np.sin(light)) / placed.radius
    shade = np.asarray(1 + 0.14 * toward - 0.6 * relief, np.float32)
    surface = _surface(local, height, width) * shade[..., None]
    region += alpha[..., None] * (surface - region)
