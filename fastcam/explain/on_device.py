"""Explanations that stay where they are made: from the network's input to the boxes, nothing leaves the GPU."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from fastcam.errors import FastcamError
from fastcam.explain.postprocess import LayerMaps, explain_maps
from fastcam.explain.request import Request
from fastcam.runtime.exported_model import Network
from fastcam.runtime.inputs.further_inputs import FurtherValues
from fastcam.runtime.io_binding import DeviceTensor, on_device
from fastcam.schema import ACTIVATIONS, CAM, CLASSES, GRADIENTS, PREFIX, WEIGHTS, Metadata
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
    network: Network, kernels: CudaKernels, images: Any, further: FurtherValues, request: Request, heatmaps: bool
) -> Resident:
    """Run ``network`` on a batch and explain it by Grad-CAM, all of it on the device.

    Args:
        images: the network's input, an array on the device or a NumPy array, which is copied there once.
        further: the values of the model's further inputs.
        request: for classes and ranks.
        heatmaps: False leaves out the enlarged maps.

    Raises:
        FastcamError: cotangents or combinations of classes, a batch that the file does not take, or an export in two
            files.
    """
    name, metadata, targets = network.name, network.metadata, request.targets
    if not isinstance(targets, ClassTargets):
        raise FastcamError(f"{name} explains cotangents; on_device explains classes")
    if targets.terms is not None:
        raise FastcamError("on_device explains classes and ranks; for combinations of classes call the Explainer")
    tensor = DeviceTensor(images, pictures=metadata.frames) if on_device(images) else np.ascontiguousarray(images)
    sides = list(network.inputs[metadata.input].shape)
    fits = tensor.ndim == len(sides) and len(tensor) > 0
    if not fits or any(isinstance(b, int) and a != b for a, b in zip(tensor.shape, sides, strict=True)):
        raise FastcamError(
            f"on_device takes the network's input, {sides} of {name}, got {list(tensor.shape)}; pictures go to the "
            "Explainer itself, or to a file exported with --frames"
        )
    outputs = network.resident(tensor, targets.classes, further)
    size = _heatmap_size(tensor.shape, metadata)
    explained = explain_maps(kernels, _gradcam(outputs, metadata), size, request, want_heatmaps=heatmaps)
    own = {key: value for key, value in outputs.items() if not key.startswith(PREFIX)}
    return Resident(own, outputs[CLASSES], explained)


def _gradcam(outputs: dict[str, Any], metadata: Metadata) -> LayerMaps:
    """What the kernels take, on the device."""
    if metadata.emit == "cam":
        return LayerMaps(outputs[CAM], None)
    weights = outputs[WEIGHTS] if metadata.emit == "weights" else outputs[GRADIENTS].mean((3, 4), np.float32)
    return LayerMaps(outputs[ACTIVATIONS], weights)


def _heatmap_size(shape: tuple[int, ...], metadata: Metadata) -> tuple[int, int]:
    """(H, W) of the image that the model sees, of a batch of this shape."""
    preprocessing = metadata.preprocessing
    if metadata.frames:
        assert preprocessing is not None and preprocessing.size is not None  # the export saw to it
        return preprocessing.size
    last = preprocessing is not None and preprocessing.layout == "NHWC"
    return (shape[1], shape[2]) if last else (shape[2], shape[3])
