"""Cluttered backgrounds: a gradient, octaves of noise, soft blobs, patterned patches, line scraps and pebbles.

Nothing here has the outline of a class, and every kind of colour and texture occurs, so neither tells where an
object is. All geometry is drawn in fractions of the picture; only the last rounding depends on its size.
"""

from __future__ import annotations

import colorsys

import cv2
import numpy as np

from fastcam.evaluation.scenes.textures import PATTERNS, Float

_COARSE = 64  # soft layers are computed on a grid of this size, whatever the picture's


def _muted(rng: np.random.Generator, saturation: float = 0.45) -> Float:
    """A colour of any hue, at most ``saturation`` vivid, RGB in 0..1."""
    color = colorsys.hsv_to_rgb(rng.random(), rng.uniform(0, saturation), rng.uniform(0.25, 0.9))
    return np.array(color, np.float32)


def _soft_layers(rng: np.random.Generator) -> Float:
    """Gradient, noise and blobs on the coarse grid: float32 [64, 64, 3]."""
    y, x = np.mgrid[0:_COARSE, 0:_COARSE].astype(np.float32) / _COARSE - 0.5
    angle = rng.uniform(0, 2 * np.pi)
    slope = np.clip(0.5 + 0.8 * (np.cos(angle) * x + np.sin(angle) * y), 0, 1)[..., None]
    first = _muted(rng)
    second = np.clip(0.55 * first + 0.45 * _muted(rng), 0, 1)
    layer = first + slope * (second - first)
    for cells, strength in ((3, 0.16), (6, 0.09), (12, 0.06), (24, 0.05)):
        noise = rng.standard_normal((cells, cells, 3)).astype(np.float32)
        noise = 0.75 * noise.mean(axis=2, keepdims=True) * 1.7 + 0.25 * noise  # mostly light, a little colour
        smooth = cv2.resize(noise, (_COARSE, _COARSE), interpolation=cv2.INTER_CUBIC)
        layer = layer + np.float32(strength * rng.uniform(0.2, 1)) * smooth
    for _ in range(rng.integers(2, 7)):
        cx, cy, size = rng.uniform(-0.5, 0.5), rng.uniform(-0.5, 0.5), rng.uniform(0.06, 0.22)
        weight = np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / (2 * size**2))[..., None] * rng.uniform(0.2, 0.6)
        layer = layer + weight.astype(np.float32) * (_muted(rng) - layer)
    return np.asarray(layer, np.float32)


def _patch(image: Float, rng: np.random.Generator) -> None:
    """Blend a faint pattern into a soft irregular region."""
    height, width = image.shape[:2]
    short = min(height, width)
    cx, cy, radius = rng.uniform(0, width), rng.uniform(0, height), rng.uniform(0.12, 0.3) * short
    x0, x1 = max(int(cx - radius), 0), min(int(cx + radius) + 1, width)
    y0, y1 = max(int(cy - radius), 0), min(int(cy + radius) + 1, height)
    y, x = np.mgrid[y0:y1, x0:x1].astype(np.float32)
    x, y = (x - np.float32(cx)) / np.float32(radius), (y - np.float32(cy)) / np.float32(radius)
    c, s = np.float32(np.cos(angle := rng.uniform(0, np.pi))), np.float32(np.sin(angle))
    pattern = PATTERNS[str(rng.choice(list(PATTERNS)[1:]))]
    share = pattern(c * x + s * y, c * y - s * x, 1 / radius, rng)
    lobes = 1 + 0.25 * np.sin(3 * np.arctan2(y, x) + rng.uniform(0, 6))
    alpha = np.clip(2.5 * (0.75 - np.hypot(x, y) * lobes), 0, 1) * rng.uniform(0.12, 0.35)
    region = image[y0:y1, x0:x1]
    region += (alpha * share)[..., None].astype(np.float32) * (_muted(rng, 0.7) - region)


def _near(image: Float, x: float, y: float, strength: float, rng: np.random.Generator) -> tuple[float, ...]:
    """A colour between the picture's at (x, y) and a random one: clutter that belongs to its surroundings."""
    height, width = image.shape[:2]
    here = image[min(int(y * height), height - 1), min(int(x * width), width - 1)]
    return tuple(float(v) for v in here + strength * (_muted(rng, 0.9) - here))


def _line(image: Float, rng: np.random.Generator) -> None:
    """A thin curved scrap: a random walk of the direction."""
    height, width = image.shape[:2]
    x, y, heading = rng.random(), rng.random(), rng.uniform(0, 2 * np.pi)
    color = _near(image, x, y, rng.uniform(0.4, 0.9), rng)
    step, bend = rng.uniform(0.01, 0.03), rng.uniform(-0.25, 0.25)
    turns = heading + np.cumsum(bend + 0.15 * rng.standard_normal(rng.integers(5, 14)))
    points = np.array([x, y]) + np.cumsum(step * np.stack([np.cos(turns), np.sin(turns)], axis=1), axis=0)
    fixed = np.round(points * [width, height] * 16).astype(np.int32)
    thickness = max(1, round(rng.uniform(0.003, 0.012) * min(height, width)))
    cv2.polylines(image, [fixed], False, color, thickness, cv2.LINE_AA, 4)


def _pebble(image: Float, rng: np.random.Generator) -> None:
    """A small irregular polygon, much smaller than any object."""
    height, width = image.shape[:2]
    x, y, corners = rng.random(), rng.random(), int(rng.integers(5, 9))
    color = _near(image, x, y, rng.uniform(0.3, 0.85), rng)
    angle = (np.arange(corners) + rng.uniform(-0.35, 0.35, corners)) * 2 * np.pi / corners
    radius = rng.uniform(0.008, 0.035) * rng.uniform(0.6, 1.2, corners) * min(height, width)
    points = np.stack([x * width + radius * np.cos(angle), y * height + radius * np.sin(angle)], axis=1)
    cv2.fillPoly(image, [np.round(points * 16).astype(np.int32)], color, cv2.LINE_8, 4)


def background(height: int, width: int, rng: np.random.Generator) -> Float:
    """A background without objects: float32 [height, width, 3], RGB, about 0..1 (not clipped)."""
    image = np.asarray(cv2.resize(_soft_layers(rng), (width, height), interpolation=cv2.INTER_CUBIC), np.float32)
    for _ in range(rng.integers(1, 4)):
        _patch(image, rng)
    for _ in range(rng.integers(4, 22)):
        _pebble(image, rng)
    for _ in range(rng.integers(4, 18)):
        _line(image, rng)
    return image
