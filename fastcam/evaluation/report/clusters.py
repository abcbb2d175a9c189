"""Groups of maps within a class, found without being told: a class that is right for two reasons has two kinds of maps.

Spectral clustering of small maps, as spectral relevance analysis has it: neighbours in a graph of maps, the first
eigenvectors of its Laplacian, k-means among these. The number of groups is the one whose groups lie farthest apart
there, by their mean silhouette; and one, where they lie no farther apart than halves of what has no groups do.

Sources: Lapuschkin et al., "Unmasking Clever Hans predictors and assessing what machines really learn", 2019; von
Luxburg, "A tutorial on spectral clustering", 2007; Zelnik-Manor and Perona, "Self-tuning spectral clustering", 2004
(each map has a scale of its own); Rousseeuw, "Silhouettes", 1987.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Labels = NDArray[np.int64]

LEAST, MOST = 30, 5
"""Of how many maps there may be groups, and how many groups are tried."""
STRUCTURE = 0.85
"""The mean silhouette from which on there are groups. Halves of blobs at random places, in which there are none, stay
below 0.84."""
SMALLEST = 3
"""Maps of a group, at least."""
NEIGHBOUR = 7
"""A map's scale is its distance to this neighbour."""
LANDMARKS = 400
"""Of more maps this many are compared with each other, and each of the others joins the group of the nearest one."""
STARTS = 8


def groups(maps: Floats) -> tuple[Labels, float]:
    """The group of each map, and the highest mean silhouette; all in group 0, where there is no structure.

    Args:
        maps: [n, h, w], not negative, none of them all zeros.

    Returns:
        int64 [n], from 0 on, and the silhouette, up to 1, NaN of fewer than :data:`LEAST` maps.
    """
    n = len(maps)
    if n < LEAST:
        return np.zeros(n, np.int64), float("nan")
    profiles = _profiles(maps)
    chosen = np.unique(np.linspace(0, n - 1, min(n, LANDMARKS)).round().astype(np.int64))
    distance = _distances(profiles[chosen], profiles[chosen])
    vectors = _spectrum(distance)
    highest, labels = float("nan"), np.zeros(len(chosen), np.int64)
    for count in range(2, MOST + 1):
        points = _unit(vectors[:, :count])
        tried = _k_means(points, count)
        apart = np.sqrt(np.maximum(2 - 2 * points @ points.T, 0))  # of rows of length 1
        value = float(silhouettes(apart, tried).mean())
        if np.bincount(tried, minlength=count).min() >= SMALLEST and not value <= highest:
            highest = value
            labels = tried if value >= STRUCTURE else labels
    nearest = _distances(profiles, profiles[chosen]).argmin(1)
    return labels[nearest], highest


def silhouettes(distance: Floats, labels: Labels) -> Floats:
    """Of each of n things how much nearer its own group is than the next one, -1 to 1; 0 of one alone in its group.

    Args:
        distance: [n, n].
        labels: [n], at least two groups, from 0 on.
    """
    member = (labels[:, None] == np.arange(labels.max() + 1)).astype(np.float64)
    sums, sizes = distance @ member, member.sum(0)
    rows = np.arange(len(labels))
    own = sums[rows, labels] / np.maximum(sizes[labels] - 1, 1)
    means = sums / sizes
    means[rows, labels] = np.inf
    other = means.min(1)
    found: Floats = np.where(sizes[labels] > 1, (other - own) / np.maximum(np.maximum(own, other), 1e-30), 0.0)
    return found


def _profiles(maps: Floats) -> Floats:
    """How the heat lies from top to bottom and from left to right: cumulated shares, [n, h + w], over h and w."""
    heat = maps / maps.sum((1, 2), keepdims=True)
    down, across = (np.cumsum(heat.sum(axis), 1) / maps.shape[3 - axis] for axis in (2, 1))
    return np.concatenate([down, across], 1)


def _distances(a: Floats, b: Floats) -> Floats:
    """How far heat has to be moved to make one map of another, down plus across (Wasserstein's distances of both sums),
    as a share of the sides: [n, m]."""
    return np.stack([np.abs(one - b).sum(1) for one in a])


def _spectrum(distance: Floats) -> Floats:
    """The eigenvectors of the graph's normalised Laplacian, [n, MOST], those of the lowest eigenvalues first."""
    near = np.sort(distance, 1)[:, min(NEIGHBOUR, len(distance) - 1)]
    scale = np.maximum(np.outer(near, near), 1e-30)
    graph = np.exp(-(distance**2) / scale)
    np.fill_diagonal(graph, 0)
    root = 1 / np.sqrt(np.maximum(graph.sum(1), 1e-30))
    vectors: Floats = np.linalg.eigh(root[:, None] * graph * root)[1][:, ::-1][:, :MOST]
    return vectors


def _unit(rows: Floats) -> Floats:
    return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-30), np.float64)


def _k_means(points: Floats, count: int) -> Labels:
    """The best of several starts by k-means++, each with the same random numbers every time."""
    tries = [_from_one_start(points, count, np.random.default_rng(start)) for start in range(STARTS)]
    return min(tries, key=lambda one: one[0])[1]


def _from_one_start(points: Floats, count: int, rng: np.random.Generator) -> tuple[float, Labels]:
    """The sum of squares, and the labels."""
    centres = points[[rng.integers(len(points))]]
    while len(centres) < count:  # k-means++: far points are likelier
        squares = ((points[:, None] - centres) ** 2).sum(2).min(1)
        total = squares.sum()
        chances = squares / total if total > 0 else None
        centres = np.concatenate([centres, points[[rng.choice(len(points), p=chances)]]])
    labels = np.zeros(len(points), np.int64)
    for _ in range(100):
        squares = ((points[:, None] - centres) ** 2).sum(2)
        before, labels = labels, squares.argmin(1)
        if (before == labels).all():
            break
        centres = np.stack([points[labels == c].mean(0) if (labels == c).any() else centres[c] for c in range(count)])
    return float(squares.min(1).sum()), labels
