"""Volumes: [N, C, D, H, W] in, and a map [N, T, d, h, w], a heatmap and cuboids of each out.

A method of the CAM family treats positions alike, so slices are laid under the rows for it, as times are for a video.
The heatmap is trilinear with half-pixel centres. Boxes are half-open cuboids x0, y0, z0, x1, y1, z1 in voxels of the
input.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fastcam import kernels
from fastcam.explain.postprocess import LayerMaps, Placed
from fastcam.explain.request import Request
from fastcam.explain.video import StackView
from fastcam.image.preprocess import Float
from fastcam.image.stacks import under_rows
from fastcam.methods import layer_fusion
from fastcam.runtime.run import Run

Mask = NDArray[np.bool_]
Labels = NDArray[np.int64]


class VolumeView(StackView):
    """A file of a model of volumes at one of its layers."""

    samples = "volumes"

    def place(self, run: Run, maps: LayerMaps, request: Request) -> Placed:
        """Heatmaps and cuboids."""
        shown, heat, status = self.heat(maps, run.batch.images[0].shape[-3:], request.style)  # heat [N, T, D, H, W]
        boxes = np.zeros((*status.shape, 6), np.float32)
        parts: list[list[Float]] = [[] for _ in range(len(heat))]
        for n, t in np.ndindex(*status.shape):
            mask = (heat[n, t] >= request.threshold * heat[n, t].max()) & (heat[n, t] > 0)
            found = cuboids(mask, request.connectivity)
            parts[n].append(found)
            if len(found):
                boxes[n, t] = found[np.argmax(found[:, 6]), :6]
        return Placed(shown, heat, boxes, tuple(map(tuple, parts)), status)

    def fused(self, run: Run, name: str, maps: Sequence[Float], request: Request) -> Placed:
        """The maps of several layers as one, with its heatmaps and cuboids."""
        fused = layer_fusion.fuse(name, maps, run.batch.images[0].shape[-3:])
        return self.place(run, LayerMaps(under_rows(fused), None, times=fused.shape[2]), request)


def cuboids(mask: Mask, connectivity: int = 8) -> Float:
    """The components of a mask [D, H, W]: float32 [count, 7], x0, y0, z0, x1, y1, z1 (half open) and voxels, in raster
    order of their first voxel.

    Args:
        connectivity: 8: voxels touch by a corner (26 neighbours); 4: by a face (6).
    """
    labels, count = components(mask, connectivity)
    z, y, x = np.nonzero(labels)
    row = labels[z, y, x] - 1
    at = np.stack([x, y, z], 1)
    low, high = np.full((count, 3), max(mask.shape)), np.zeros((count, 3), np.int64)
    np.minimum.at(low, row, at)
    np.maximum.at(high, row, at + 1)
    return np.concatenate([low, high, np.bincount(row, minlength=count)[:, None]], 1).astype(np.float32)


def components(mask: Mask, connectivity: int = 8) -> tuple[Labels, int]:
    """Labels 1, 2, ... of a mask's components, int64 [D, H, W], and their number: those of each slice by the kernel,
    joined where slices touch."""
    flat, counts = kernels.get().label(np.ascontiguousarray(mask, np.uint8), connectivity)
    before = np.concatenate([[0], np.cumsum(counts)])
    labels = np.where(flat > 0, flat + before[:-1, None, None], 0).astype(np.int64)
    parent = np.arange(before[-1] + 1)
    for first, second in _touching(labels, connectivity):
        a, b = _root(parent, first), _root(parent, second)
        parent[max(a, b)] = min(a, b)
    roots = np.array([_root(parent, one) for one in range(len(parent))])
    joined = roots[labels]
    values, places = np.unique(joined.ravel(), return_index=True)
    order = values[np.argsort(places)]
    order = order[order > 0]
    number = np.zeros(len(parent), np.int64)
    number[order] = np.arange(1, len(order) + 1)
    return number[joined], len(order)


def _touching(labels: Labels, connectivity: int) -> NDArray[np.int64]:
    """[M, 2]: labels of neighbouring slices that touch."""
    steps = (-1, 0, 1) if connectivity == 8 else (0,)
    upper, lower = np.pad(labels[:-1], ((0, 0), (1, 1), (1, 1))), labels[1:]
    height, width = labels.shape[1:]
    pairs = [np.zeros((0, 2), np.int64)]
    for dy in steps:
        for dx in steps:
            other = upper[:, 1 + dy : 1 + dy + height, 1 + dx : 1 + dx + width]
            both = (other > 0) & (lower > 0)
            pairs.append(np.unique(np.stack([other[both], lower[both]], 1), axis=0))
    return np.unique(np.concatenate(pairs), axis=0)


def _root(parent: NDArray[np.int64], one: int) -> int:
    while parent[one] != one:
        parent[one] = parent[parent[one]]
        one = int(parent[one])
    return one
