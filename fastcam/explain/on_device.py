"""Explanations that stay where they are made: from the network's input to the boxes, nothing leaves the GPU."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from fastcam.errors import FastcamError
from fastcam.runtime.exported_model import Network
from fastcam.runtime.io_binding import DeviceTensor, on_device
from fastcam.schema import ACTIVATIONS, CAM, CLASSES, GRADIENTS, PREFIX, WEIGHTS
from fastcam.targets.classes import ClassTargets

if TYPE_CHECKING:
    from fastcam.kernels.cuda import CudaKernels, DeviceArray, DeviceExplained


@dataclass(frozen=True, eq=False)
class Resident:
    """What :meth:`fastcam.Explainer.on_device` found, as CuPy arrays, which torch and others take by DLPack.

    Attributes:
        outputs: the model's own outputs by name.
        classes: int64 [N, T]: the class behind each target.
        explained: maps, heatmaps, status (:data:`fastcam.kernels.STATUS_NAMES`), counts, the box of the largest
            component of each map, and all components: the fields of :class:`fastcam.kernels.Explained`. Boxes are in
            pixels of the network's input. Its ``boxes()`` brings the largest components' to the host, ``read()``
            everything; both wait on the stream where the kernels run.
    """

    outputs: dict[str, DeviceArray]
    classes: DeviceArray
    explained: DeviceExplained


def explain(
    network: Network,
    kernels: CudaKernels,
    images: Any,
    asked: ClassTargets,
    threshold: float,
    connectivity: int,
    heatmaps: bool,
) -> Resident:
    """Run ``network`` on a batch and explain it, all of it on the device.

    Args:
        images: the network's input, an array on the device or a NumPy array, which is copied there once.
        asked: classes and ranks, for all images the same or a row for each.

    Raises:
        FastcamError: combinations of classes, a batch that the file does not take, or an export in two files.
    """
    name, metadata = network.name, network.metadata
    if asked.terms is not None:
        raise FastcamError("on_device explains classes and ranks; for combinations of classes call the Explainer")
    tensor = DeviceTensor(images, pictures=metadata.frames) if on_device(images) else np.ascontiguousarray(images)
    sides = list(network.inputs[metadata.input].shape)
    fits = tensor.ndim == len(sides) and len(tensor) > 0
    if not fits or any(isinstance(b, int) and a != b for a, b in zip(tensor.shape, sides, strict=True)):
        raise FastcamError(
            f"on_device takes the network's input, {sides} of {name}, got {list(tensor.shape)}; pictures go to the "
            "Explainer itself, or to a file exported with --frames"
        )
    found = network.resident(tensor, asked.classes)
    if metadata.emit == "cam":
        activations, weights = found[CAM], None
    else:
        activations = found[ACTIVATIONS]
        weights = found[WEIGHTS] if metadata.emit == "weights" else found[GRADIENTS].mean((3, 4), np.float32)
    how = metadata.preprocessing
    size = how.size if metadata.frames and how is not None else _spatial(tensor.shape, how.layout if how else "NCHW")
    assert size is not None  # a file for frames has one
    explained = kernels.explain_maps(activations, weights, size, threshold, connectivity, want_heatmaps=heatmaps)
    own = {key: value for key, value in found.items() if not key.startswith(PREFIX)}
    return Resident(own, found[CLASSES], explained)


def _spatial(shape: tuple[int, ...], layout: str) -> tuple[int, int]:
    """(H, W) of a batch."""
    return (shape[1], shape[2]) if layout == "NHWC" else (shape[2], shape[3])
