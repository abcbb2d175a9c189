"""What a file emits, as the kernels take it: activations and weights, or signed maps, by the method asked for."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastcam import kernels
from fastcam.image import Float
from fastcam.methods import METHODS, Method, eigen_smoothed, method
from fastcam.schema import ACTIVATIONS, CAM, GRADIENTS, WEIGHTS, FastcamError, Metadata

NO_POSITIVE = "no_positive"
GRADCAM = METHODS["gradcam"]
CAM_ITSELF = ("cam", "cam+eigen")


def served(name: str, metadata: Metadata, file: str) -> Method:
    """The method called ``name``, which the file must be able to serve.

    Raises:
        FastcamError: no such method, or one that needs what the file does not emit.
    """
    found = method(name)
    enough = {"weights": ("weights", "gradients", "cam"), "activations": ("weights", "gradients")}
    if metadata.emit not in enough.get(found.needs, ("gradients",)):
        wanted = "gradients" if found.needs == "gradients" else "weights"
        raise FastcamError(
            f"{file} emits {metadata.emit}, {found.title} needs {found.needs}; run: fastcam export "
            f"{metadata.source.get('file') or 'MODEL.onnx'} --emit {wanted}"
        )
    if found.name in CAM_ITSELF and not metadata.layer.averaged:
        raise FastcamError(
            f"{found.title} is for heads that are a mean over positions and one matrix, and {file} has another behind "
            f"layer {metadata.layer.value}; use gradcam, which needs no such head"
        )
    if found.smooth and metadata.emit == "cam":
        raise FastcamError(
            f"{file} holds maps, {found.title} needs activations and weights; export with --emit weights"
        )
    return found


def kernel_inputs(
    found: dict[str, Any], how: Method, metadata: Metadata
) -> tuple[NDArray[Any], NDArray[Any] | None, list[str]]:
    """Activations and weights, or signed maps and None, from what the file emits; names of the statuses."""
    names = list(kernels.STATUS_NAMES)
    if how.name in CAM_ITSELF:
        found = times_positions(found)
    if metadata.emit == "cam":
        names[kernels.ALL_NEGATIVE] = names[kernels.ZERO_GRADIENT] = NO_POSITIVE
        return found[CAM] if stays(found[CAM]) else as_float(found[CAM]), None, names
    activations = found[ACTIVATIONS]
    if how.maps is not None:
        gradients = np.asarray(found[GRADIENTS]) if how.of_class else None
        maps = how.maps(on_host(activations), gradients)
        targets = (found[GRADIENTS] if GRADIENTS in found else found[WEIGHTS]).shape[1]
        return as_float(np.broadcast_to(maps, (len(maps), targets, *maps.shape[2:]))), None, names
    if metadata.emit == "weights":
        weights = found[WEIGHTS]
    else:
        assert how.weights is not None
        weights = how.weights(on_host(activations), np.asarray(found[GRADIENTS]))
    if how.smooth:
        return eigen_smoothed(on_host(activations), np.asarray(weights)), None, names
    if stays(activations):
        return activations, as_float(weights), names
    half = np.asarray(activations).dtype == np.float16  # which the kernels read
    return np.asarray(activations) if half else as_float(activations), as_float(weights), names


def times_positions(found: dict[str, Any]) -> dict[str, Any]:
    """The mean over h w positions as their sum: pooled gradients, and the map that was made of them."""
    means = {name: found[name] for name in (WEIGHTS, CAM) if name in found}
    positions = np.prod((found[ACTIVATIONS] if ACTIVATIONS in found else found[CAM]).shape[2:])
    return found | {name: mean * np.float32(positions) for name, mean in means.items()}


def stays(array: Any) -> bool:
    """Whether an output was left on the device."""
    return not isinstance(array, np.ndarray)


def on_host(array: Any) -> NDArray[Any]:
    """An output as a NumPy array; CuPy's do not turn into one by themselves."""
    return np.asarray(array.get() if hasattr(array, "get") else array)


def as_float(array: Any) -> Float:
    return np.ascontiguousarray(array, np.float32)
