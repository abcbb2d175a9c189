"""sweep: the components of a map at many thresholds are those of each threshold by itself, as SciPy labels them."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from fastcam.kernels import native, reference
from fastcam.schema import FastcamError


def by_scipy(values, cut, connectivity):
    """Rows x0, y0, x1, y1, pixels."""
    labels, _ = ndimage.label(values >= cut, np.ones((3, 3)) if connectivity == 8 else None)
    return [
        [xs.start, ys.start, xs.stop, ys.stop, int((labels[ys, xs] == i).sum())]
        for i, (ys, xs) in enumerate(ndimage.find_objects(labels), 1)
    ]


def drawn(rng, kind):
    h, w = rng.integers(1, 40, 2)
    values = rng.normal(size=(h, w)).astype(np.float32)
    if kind == "steps":
        values = np.round(values * 2) / 2
    if kind == "smooth":
        values = reference.upsample(rng.normal(size=(3, 3)).astype(np.float32), (int(h), int(w)))
    if kind == "holes":
        values[rng.random((h, w)) < 0.1] = np.nan
    return values


@pytest.mark.parametrize("k", [native, reference], ids=["native", "reference"])
@pytest.mark.parametrize("kind", ["noise", "steps", "smooth", "holes"])
def test_every_threshold_by_itself_says_the_same(k, kind):
    rng = np.random.default_rng(len(kind))
    for _ in range(40 if k is native else 8):
        values, connectivity = drawn(rng, kind), int(rng.choice([4, 8]))
        cuts = np.sort(np.concatenate([rng.normal(size=7), [0.5, 0.5]]).astype(np.float32))[::-1].copy()
        rows, counts = k.sweep(values, cuts, connectivity)
        parts = np.split(rows, np.cumsum(counts)[:-1])
        assert [part.tolist() for part in parts] == [by_scipy(values, cut, connectivity) for cut in cuts]


def test_windows_and_cuts_in_any_order():
    rng = np.random.default_rng(9)
    for _ in range(60):
        values, cuts = drawn(rng, "noise"), rng.normal(size=6).astype(np.float32)
        cuts[rng.integers(6)] = rng.choice([np.nan, np.inf, -np.inf])
        window = rng.integers(-5, 45, 4).astype(np.int32)
        for got, want in zip(
            native.sweep(values, cuts, 8, window), reference.sweep(values, cuts, 8, window), strict=True
        ):
            np.testing.assert_array_equal(got, want)
    rows, counts = native.sweep(np.zeros((2, 2), np.float32), np.zeros(0, np.float32))
    assert rows.shape == (0, 5) and counts.shape == (0,)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((np.zeros(3, np.float32), np.zeros(1, np.float32)), "values must be"),
        ((np.zeros((3, 3), np.float32), np.zeros((1, 1), np.float32)), "cuts must be"),
        ((np.zeros((3, 3), np.float32), np.zeros(1, np.float32), 5), "connectivity"),
        ((np.zeros((3, 3), np.float32), np.zeros(1, np.float32), 8, np.zeros(3, np.int32)), "window must be"),
    ],
)
def test_what_cannot_be_swept_is_refused_in_one_line(arguments, words):
    for k in (native, reference):
        with pytest.raises(FastcamError, match=words):
            k.sweep(*arguments)
