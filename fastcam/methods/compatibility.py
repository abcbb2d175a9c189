"""What a file emits, as the kernels take it: activations and weights, or signed maps, by the method asked for."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastcam import kernels
from fastcam.errors import FastcamError
from fastcam.image.preprocess import Float
from fastcam.methods import METHODS, Method, MethodResult, eigen_smoothed, method
from fastcam.methods.options import with_options
from fastcam.schema import ACTIVATIONS, CAM, GRADIENTS, INPUT_GRADIENT, RELEVANCE, WEIGHTS, Metadata

NO_POSITIVE = "no_positive"
CAM_ITSELF = ("cam", "cam+eigen")
_ENOUGH: dict[str, tuple[str, ...]] = {
    "weights": ("weights", "gradients", "cam"),
    "activations": ("weights", "gradients"),
    "gradients": ("gradients",),
    "nothing": ("weights", "gradients", "cam"),
}
"""The emit levels that serve what a method needs of the layer."""


def served(name: str, metadata: Metadata, file: str, options: Mapping[str, Any] | None = None) -> Method:
    """The method called ``name`` with its options set, which the file must be able to serve.

    Raises:
        FastcamError: no such method or option, or a method that needs what the file does not have; the message says
            how to export it.
    """
    wanted = with_options(method(name), options)
    lacks = _lacks(wanted, metadata)
    if lacks:
        raise FastcamError(f"{file} {lacks}; run: {command(wanted, metadata)}")
    if wanted.runs == "layer" and metadata.cotangents:
        raise FastcamError(f"{file} explains cotangents, and {wanted.title} class scores; export it without cotangents")
    if wanted.name in CAM_ITSELF and not metadata.layer.averaged:
        raise FastcamError(
            f"{wanted.title} is for heads that are a mean over positions and one matrix, and {file} has another behind "
            f"layer {metadata.layer.value}; use gradcam, which needs no such head"
        )
    if wanted.smooth and metadata.emit == "cam":
        raise FastcamError(
            f"{file} holds maps, {wanted.title} needs activations and weights; export with --emit weights"
        )
    return wanted


def servable(metadata: Metadata) -> list[str]:
    """The methods that a file can serve as it is, by name."""
    found = []
    for name in METHODS:
        with contextlib.suppress(FastcamError):
            found.append(served(name, metadata, "").name)
    return found


def _lacks(wanted: Method, metadata: Metadata) -> str:
    """What the file has in place of what the method needs; empty if it has all of it."""
    if metadata.emit not in _ENOUGH[wanted.needs]:
        return f"emits {metadata.emit}, {wanted.title} needs {wanted.needs}"
    if wanted.runs == "layer" and metadata.head is None:
        return f"is the whole model, {wanted.title} runs what lies behind the layer by itself"
    if wanted.mode is None:
        return ""
    if metadata.input_gradient != wanted.mode:
        have = f"brings back {metadata.input_gradient}" if metadata.input_gradient else "brings nothing back"
        return f"{have}, {wanted.title} needs {wanted.mode}"
    if wanted.at_image and metadata.input_gradient_at != "image":
        return f"brings {wanted.mode} back to the layer, {wanted.title} needs it at the image"
    return ""


def command(wanted: Method, metadata: Metadata) -> str:
    """The export that serves a method: as the file was exported, and what is missing beside."""
    emit = metadata.emit if metadata.emit in _ENOUGH[wanted.needs] else "weights"
    emit = "gradients" if wanted.needs == "gradients" else emit
    if wanted.runs == "layer" and emit == "cam":
        emit = "weights"
    mode = wanted.mode or metadata.input_gradient
    why = metadata.layer.reason
    layers = [metadata.layer.value] if why.startswith(("named as", "the last value computed in scope")) else []
    if metadata.layers:  # the default one first
        layers = [metadata.layer.value, *(metadata.layers[n - 1].value for n in metadata.numbers())]
    parts = ["fastcam export", metadata.source.get("file") or "MODEL.onnx"]
    parts += [f"--layer {layer}" for layer in layers]
    parts += [f"--emit {emit}"] if emit != "weights" or metadata.emit != "weights" else []
    parts += [f"--input-gradient {mode}"] if mode else []
    parts += ["--head"] if wanted.runs == "layer" or metadata.head is not None else []
    parts += ["--on-demand"] if metadata.pair is not None else []
    parts += ["--targets cotangent"] if metadata.cotangents else []
    return " ".join(parts)


def kernel_inputs(
    added: dict[str, Any], wanted: Method, metadata: Metadata
) -> tuple[NDArray[Any], NDArray[Any] | None, list[str]]:
    """Activations and weights, or signed maps and None, from what the file emits; names of the statuses."""
    names = list(kernels.STATUS_NAMES)
    if wanted.name in CAM_ITSELF:
        added = times_positions(added)
    if metadata.emit == "cam":
        names[kernels.ALL_NEGATIVE] = names[kernels.ZERO_GRADIENT] = NO_POSITIVE
        return added[CAM] if stays(added[CAM]) else as_float(added[CAM]), None, names
    activations = added[ACTIVATIONS]
    if wanted.maps is not None:
        gradients = np.asarray(added[GRADIENTS]) if wanted.of_class else None
        maps = wanted.maps(_host(activations), gradients)
        targets = (added[GRADIENTS] if GRADIENTS in added else added[WEIGHTS]).shape[1]
        return as_float(np.broadcast_to(maps, (len(maps), targets, *maps.shape[2:]))), None, names
    if metadata.emit == "weights":
        weights = added[WEIGHTS]
    else:
        assert wanted.weights is not None
        weights = wanted.weights(_host(activations), np.asarray(added[GRADIENTS]))
    if wanted.smooth:
        return eigen_smoothed(_host(activations), np.asarray(weights)), None, names
    if stays(activations):
        return activations, as_float(weights), names
    half = np.asarray(activations).dtype == np.float16  # which the kernels read
    return np.asarray(activations) if half else as_float(activations), as_float(weights), names


def times_positions(added: dict[str, Any]) -> dict[str, Any]:
    """The mean over h w positions as their sum: pooled gradients, and the map that was made of them."""
    means = {name: added[name] for name in (WEIGHTS, CAM) if name in added}
    positions = np.prod((added[ACTIVATIONS] if ACTIVATIONS in added else added[CAM]).shape[2:])
    return added | {name: mean * np.float32(positions) for name, mean in means.items()}


def stacked(
    added: dict[str, Any], results: Sequence[MethodResult]
) -> tuple[NDArray[Any], NDArray[Any] | None, list[str], Float | None]:
    """The same of what a method gives for each image; and its attributions [N, T, C, H, W], if it has any."""
    names = list(kernels.STATUS_NAMES)
    attributions = _stacked([one.attributions for one in results])
    maps, weights = (_stacked([getattr(one, name) for one in results]) for name in ("maps", "weights"))
    if maps is not None:
        return maps, None, names, attributions
    return as_float(added[ACTIVATIONS]), weights, names, attributions


def brought_back(added: dict[str, Any], tensor: Any, layout: str) -> dict[str, Any]:
    """What the mode of the file brought back to the image or the layer, by its name in the explanation."""
    if RELEVANCE in added:
        return {"relevance": as_float(added[RELEVANCE])}
    if INPUT_GRADIENT not in added:
        return {}
    gradient, inputs = np.asarray(added[INPUT_GRADIENT]), np.asarray(tensor)
    if layout.endswith("C"):
        gradient, inputs = np.moveaxis(gradient, -1, 2), np.moveaxis(inputs, -1, 1)
    if "C" not in layout:
        gradient, inputs = gradient[:, :, None], inputs[:, None]
    return {"input_gradients": as_float(gradient), "inputs": as_float(inputs)}


def on_host(added: Mapping[str, Any]) -> dict[str, Any]:
    """The added outputs as NumPy arrays, those that were left on the device too."""
    return {name: _host(value) if stays(value) else value for name, value in added.items()}


def _stacked(arrays: Sequence[Float | None]) -> Float | None:
    there = [one for one in arrays if one is not None]
    return as_float(np.stack(there)) if there else None


def stays(array: Any) -> bool:
    """Whether an output was left on the device."""
    return not isinstance(array, np.ndarray)


def _host(array: Any) -> NDArray[Any]:
    """An output as a NumPy array; CuPy's do not turn into one by themselves."""
    return np.asarray(array.get() if hasattr(array, "get") else array)


def as_float(array: Any) -> Float:
    return np.ascontiguousarray(array, np.float32)
