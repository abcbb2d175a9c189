"""The CUDA kernels beside the same written with CuPy and cupyx.scipy.ndimage, on the GPU of this machine.

    python -m fastcam_bench.speed.kernels_gpu [--seconds 2] [--json bench/results/kernels/kernels_gpu.json]

Needs a GPU and CuPy; without them it says so in one line and ends with 2. A call is timed from its beginning to the
moment when the device has finished it; contestants are interleaved as in :mod:`fastcam_bench.speed.kernels`, and must
agree before the clock starts.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import platform
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fastcam import kernels
from fastcam.kernels import cuda
from fastcam.schema import FastcamError, __version__
from fastcam_bench.oracles.machine import machine
from fastcam_bench.speed.kernels import ALPHA, FRACTION, INPUTS, SIZES, Case, Contestant, inputs, masks, record

BATCHES = (1, 16, 64)
ONLY_IN_PLANE = np.zeros((3, 3, 3), bool)  # the neighbours of a pixel, where masks of a batch lie one on the other
ONLY_IN_PLANE[1] = True


# --- the same without our kernels ----------------------------------------------------------------------------------


def array_boxes(xp: Any, ndimage: Any, activations: Any, weights: Any, size: tuple[int, int]) -> Any:
    """int32 [components, 5] of all maps, as one writes it with ``xp`` (CuPy, NumPy) and its ``ndimage``."""
    images, channels, height, width = activations.shape
    maps = xp.matmul(weights, activations.reshape(images, channels, -1).astype(xp.float32))
    maps = xp.maximum(maps, 0).reshape(-1, height, width)
    maps = maps / maps.max(axis=(1, 2), keepdims=True)
    factors = (1, size[0] / height, size[1] / width)
    heat = ndimage.zoom(maps, factors, order=1, mode="nearest", grid_mode=True)
    mask = heat >= FRACTION * heat.max(axis=(1, 2), keepdims=True)
    labels, count = ndimage.label(mask, ONLY_IN_PLANE)
    index = xp.arange(1, count + 1)
    _, y, x = (axis.astype(xp.int32) for axis in xp.broadcast_arrays(*xp.ogrid[: len(mask), : size[0], : size[1]]))
    low = [ndimage.minimum(axis, labels, index) for axis in (x, y)]
    high = [ndimage.maximum(axis, labels, index) + 1 for axis in (x, y)]
    pixels = xp.bincount(labels.ravel(), minlength=count + 1)[1:]
    return xp.stack([xp.asarray(column) for column in (*low, *high, pixels)], axis=1).astype(xp.int32)


def array_overlay(xp: Any, image: Any, heat: Any, lut: Any) -> Any:
    """uint8 [H, W, 3]"""
    color = lut[(heat * 255 + 0.5).astype(xp.uint8)].astype(xp.float32)
    return (image.astype(xp.float32) * (1 - ALPHA) + color * ALPHA + 0.5).astype(xp.uint8)


# --- cases -----------------------------------------------------------------------------------------------------------


def finished(k: cuda.CudaKernels, contestants: dict[str, Contestant]) -> dict[str, Contestant]:
    """Calls that end when the device has done all of it."""

    def wait(call: Contestant) -> Contestant:
        def timed(i: int) -> Any:
            result = call(i)
            k.cupy.cuda.get_current_stream().synchronize()
            return result

        return timed

    return {name: wait(call) for name, call in contestants.items()}


def batch(images: int, dtype: type[np.floating[Any]]) -> tuple[kernels.Activations, kernels.Floats]:
    """Activations [images, 2048, 7, 7] with an object each, and weights [images, 1, 2048]."""
    activations, weights = inputs()
    chosen = [i % INPUTS for i in range(images)]
    values = np.concatenate([activations[i] for i in chosen]).astype(dtype)
    return values, np.concatenate([weights[i] for i in chosen])


def box_cases(k: cuda.CudaKernels, ndimage: Any) -> list[Case]:
    """From activations on the device to the boxes of all components on it."""
    cases = []
    for images in BATCHES:
        for dtype in (np.float32, np.float16):
            contestants = boxes_of(k, ndimage, *(k.cupy.asarray(array) for array in batch(images, dtype)))
            check_boxes(k, contestants["fused"](0), contestants["cupy"](0))
            name = f"{images} x 2048x7x7 {np.dtype(dtype)} to 224: weigh to boxes"
            cases.append(Case(name, "fused", finished(k, contestants)))
    return cases


def boxes_of(k: cuda.CudaKernels, ndimage: Any, activations: Any, weights: Any) -> dict[str, Contestant]:
    size = SIZES["224"]

    def fused(want_heatmaps: bool) -> cuda.DeviceExplained:
        return k.explain_maps(activations, weights, size, FRACTION, want_heatmaps=want_heatmaps)

    return {
        "fused": lambda i: fused(False).components,
        "fused with heatmap": lambda i: fused(True).components,
        "fused, largest only": lambda i: fused(False).largest,
        "cupy": lambda i: array_boxes(k.cupy, ndimage, activations, weights, size),
    }


def check_boxes(k: cuda.CudaKernels, got: Any, wanted: Any) -> None:
    """Interpolation that rounds otherwise may move a border by one pixel."""
    ours, theirs = k.cupy.asnumpy(got), k.cupy.asnumpy(wanted)
    assert ours.shape == theirs.shape, "the contestants find different components"
    assert np.abs(ours - theirs)[:, :4].max() <= 1, "the contestants' boxes differ"


def overlay_cases(k: cuda.CudaKernels) -> list[Case]:
    """The coloured heatmap over a picture."""
    cases = []
    for label, size in SIZES.items():
        contestants = overlays_of(k, size)
        pixels = {name: k.cupy.asnumpy(call(0)).astype(int) for name, call in contestants.items()}
        assert np.abs(pixels["overlay"] - pixels["cupy"]).max() <= 1, "the contestants' overlays differ"
        cases.append(Case(f"overlay {label}", "overlay", finished(k, contestants)))
    return cases


def overlays_of(k: cuda.CudaKernels, size: tuple[int, int]) -> dict[str, Contestant]:
    rng = np.random.default_rng(1)
    image, lut = (k.cupy.asarray(rng.integers(0, 256, shape, np.uint8)) for shape in ((*size, 3), (256, 3)))
    heat = k.upsample(k.cupy.asarray(rng.random((7, 7), np.float32)), size)
    return {
        "overlay": lambda i: k.overlay(image, heat, lut, ALPHA),
        "cupy": lambda i: array_overlay(k.cupy, image, heat, lut),
    }


def label_cases(k: cuda.CudaKernels, ndimage: Any) -> list[Case]:
    """8-connected components of one mask."""
    cases = []
    for label in ("224", "1080p"):
        for name, mask in masks(SIZES[label]).items():
            contestants = labels_of(k, ndimage, k.cupy.asarray(mask))
            counts = {int(call(0)[1]) for call in contestants.values()}
            assert len(counts) == 1, f"the contestants disagree about {name}: {counts}"
            cases.append(Case(f"label {label}: {name}", "fastcam", finished(k, contestants)))
    return cases


def labels_of(k: cuda.CudaKernels, ndimage: Any, mask: Any) -> dict[str, Contestant]:
    return {
        "fastcam": lambda i: k.label(mask),
        "cupyx.scipy.ndimage": lambda i: ndimage.label(mask, np.ones((3, 3), bool)),
    }


# --- report ----------------------------------------------------------------------------------------------------------


def device(cupy: Any) -> dict[str, Any]:
    """Name, memory and versions of driver and runtime."""
    found = cupy.cuda.runtime.getDeviceProperties(cupy.cuda.runtime.getDevice())
    versions = {
        "driver": cupy.cuda.runtime.driverGetVersion(),
        "runtime": cupy.cuda.runtime.runtimeGetVersion(),
        "cupy": cupy.__version__,
        "fastcam": __version__,
        "numpy": importlib.metadata.version("numpy"),
        "python": platform.python_version(),
    }
    return {"gpu": found["name"].decode(), "gib": round(found["totalGlobalMem"] / 2**30, 1), "versions": versions}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="FastCAM's CUDA kernels beside CuPy's")
    parser.add_argument("--seconds", type=float, default=2.0, help="per case")
    parser.add_argument("--json", type=Path, help="where to write the figures")
    options = parser.parse_args(arguments)
    try:
        k = cuda.get()
    except FastcamError as error:
        print(error, file=sys.stderr)
        return 2
    from cupyx.scipy import ndimage

    command = f"python -m fastcam_bench.speed.kernels_gpu --seconds {options.seconds:g} --json {options.json}"
    report = {"command": command, "machine": machine()} | device(k.cupy)
    cases = [*box_cases(k, ndimage), *overlay_cases(k), *label_cases(k, ndimage)]
    record(cases, options.seconds, report, options.json)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
