"""Inputs of kernels that several tests share: maps of every kind, sizes, masks; and equality of what is explained."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage

from fastcam import kernels

NAN, INF = float("nan"), float("inf")


def signed(*shape: int, seed: int = 0) -> kernels.Floats:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def smooth(*shape: int, seed: int = 0) -> kernels.Floats:
    sigma = (*[0] * (len(shape) - 2), 1, 1)
    return ndimage.gaussian_filter(signed(*shape, seed=seed), sigma).astype(np.float32)


def picture(*shape: int, seed: int = 0) -> kernels.Bytes:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def assert_same(got: kernels.Explained, wanted: kernels.Explained) -> None:
    for name in kernels.Explained._fields:
        if name != "heatmaps" or got.heatmaps is not None:
            np.testing.assert_array_equal(getattr(got, name), getattr(wanted, name), err_msg=name, strict=True)


TRICKY = [0.0, -0.0, 1.0, 0.15, 0.5, 1e-45, 1e-38, 3e38, -1.0, float(np.nextafter(np.float32(0.15), np.float32(0)))]


FRACTIONS = st.sampled_from([0.15, 0.5, 1.0, 1e-6, 1e-30]) | st.floats(0, 1, exclude_min=True, width=32)


@st.composite
def maps_of_any_kind(draw: st.DrawFn) -> kernels.Floats:
    """float32 [1, T, h, w]: random, few levels, almost flat, huge and tiny, not finite, all equal, sparse."""
    height, width, seed = draw(st.integers(1, 8)), draw(st.integers(1, 8)), draw(st.integers(0, 2**32 - 1))
    rng = np.random.default_rng(seed)
    maps = rng.standard_normal((1, draw(st.integers(1, 2)), height, width)).astype(np.float32)
    kind = draw(st.sampled_from(["random", "levels", "flat", "equal", "scales", "tricky", "bad", "sparse"]))
    if kind == "levels":
        maps = np.round(maps * 2)
    elif kind == "flat":
        maps = np.float32(1) + np.round(maps) * np.float32(2.0 ** -draw(st.integers(15, 23)))
    elif kind == "equal":
        maps = np.full_like(maps, draw(st.sampled_from(TRICKY)))
    elif kind == "scales":
        maps = maps * np.float32(10) ** rng.integers(-44, 38, maps.shape).astype(np.float32)
    elif kind == "tricky":
        maps = rng.choice(np.array(TRICKY, np.float32), maps.shape)
    elif kind == "bad":
        maps.flat[rng.integers(maps.size)] = draw(st.sampled_from([NAN, INF, -INF]))
    elif kind == "sparse":
        maps = maps * (rng.random(maps.shape) < 0.2)
    return np.ascontiguousarray(maps, np.float32)


def sizes() -> st.SearchStrategy[tuple[int, int]]:
    """Mostly much larger than the maps: there the boxes come from crossings; else from rows of pixels."""
    large, any_size = st.integers(30, 130), st.integers(1, 60)
    return st.tuples(large, large) | st.tuples(large, large) | st.tuples(any_size, any_size)


SIDES = st.integers(1, 20)


ANY_FLOAT = st.floats(width=32) | st.sampled_from([0.0, -0.0, 1.0, NAN, INF, -INF])


def map_arrays(elements: st.SearchStrategy[float] = ANY_FLOAT) -> st.SearchStrategy[kernels.Floats]:
    shapes = st.tuples(st.integers(0, 2), st.integers(0, 3), SIDES, SIDES)
    return hnp.arrays(np.float32, shapes, elements=elements)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def uniform(*shape: int, seed: int = 0) -> kernels.Floats:
    return rng(seed).random(shape, np.float32)


def spiral(size: int) -> kernels.Bytes:
    """One long path that winds inwards, one pixel wide, with one pixel between its turns."""
    mask = np.zeros((size, size), np.uint8)
    y, x, dy, dx = 0, 0, 0, 1
    mask[0, 0] = 1
    length = size - 1
    while length > 0:
        for _ in range(2 if length < size - 1 else 3):
            for _ in range(length):
                y, x = y + dy, x + dx
                mask[y, x] = 1
            dy, dx = dx, -dy
        length -= 2
    return mask


def checkerboard(height: int, width: int) -> kernels.Bytes:
    return (np.indices((height, width)).sum(axis=0) % 2).astype(np.uint8)


MASKS: dict[str, kernels.Bytes] = {
    **{f"random{d}": (uniform(61, 83, seed=int(100 * d)) < d).astype(np.uint8) for d in (0.05, 0.3, 0.5, 0.6, 0.9)},
    "blobs": (ndimage.gaussian_filter(signed(120, 97), 3) > 0).astype(np.uint8),
    "spiral": spiral(41),
    "mirrored spiral": np.ascontiguousarray(spiral(40)[::-1, ::-1]),
    "checkerboard": checkerboard(18, 25),
    "comb": np.ascontiguousarray(np.pad(np.tile([[1, 0]], (9, 8)), ((0, 1), (0, 0)), constant_values=1), np.uint8),
    "cup": np.array([[1, 0, 1, 0, 1], [1, 0, 1, 1, 1], [1, 1, 1, 0, 0]], np.uint8),
    "empty": np.zeros((5, 9), np.uint8),
    "full": np.ones((5, 9), np.uint8),
    "row": (uniform(1, 70) < 0.5).astype(np.uint8),
    "column": (uniform(70, 1) < 0.5).astype(np.uint8),
    "pixel": np.ones((1, 1), np.uint8),
    "ends of rows": np.array([[0, 0, 1], [1, 0, 0], [0, 0, 1], [1, 0, 1]], np.uint8),
}
