"""Copies of an exported file whose weights, of some layers, are random: the sanity checks' other models."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from itertools import permutations, product
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fastcam.errors import FastcamError, shown
from fastcam.schema import PREFIX

Draw: TypeAlias = "Callable[[str, NDArray[Any]], NDArray[Any]]"
"""The name and the values of a layer's weights -> other values, of the same shape and dtype."""
LIMIT = 2**31 - 1
"""Bytes that an ONNX file in one piece has at most."""
SMALL = 4096
"""Up to this many numbers an export computes constants from weights of the model; larger ones stand there once."""


def opened(model: str | Path | bytes) -> Any:
    """The file, an ``onnx.ModelProto``, with the weights that lie beside it.

    Raises:
        FastcamError: onnx is missing.
    """
    try:
        import onnx
    except ImportError as error:
        raise FastcamError('random weights are written with onnx; run: pip install "fastcam[export]"') from error
    return onnx.load_model_from_string(model) if isinstance(model, bytes) else onnx.load(str(model))


def layers(model: Any) -> list[str]:
    """The weights of each layer by name, the one next to the logits first.

    A layer is a kernel or a matrix: floats, or the whole numbers of a quantised model, with two axes or more that are
    longer than 1. Biases and the vectors of normalisations belong to none, and stay as they are: what an export holds
    beside the model may have been computed from them.
    """
    weights = {one.name for one in model.graph.initializer if _is_kernel(one) and not one.name.startswith(PREFIX)}
    found = dict.fromkeys(
        name
        for node in model.graph.node
        if not all(output.startswith(PREFIX) for output in node.output)
        for name in node.input
        if name in weights
    )
    return list(found)[::-1]


def _is_kernel(weights: Any) -> bool:
    from onnx import TensorProto

    kinds = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.INT8, TensorProto.UINT8)
    long = sum(side > 1 for side in weights.dims)
    return weights.data_type in kinds and long >= 2


def randomised(model: Any, names: Iterable[str], draw: Draw) -> bytes:
    """The file with other weights in these layers, and in what the export computed from small ones.

    Raises:
        FastcamError: it is too large for a file in one piece, or nobody knows how an added constant was computed.
    """
    from onnx import ModelProto, numpy_helper

    copy = ModelProto()
    copy.CopyFrom(model)
    held = {one.name: one for one in copy.graph.initializer}
    arrays = {name: numpy_helper.to_array(held[name]) for name in layers(model)}
    others = {
        name: np.ascontiguousarray(draw(name, arrays[name]), arrays[name].dtype).reshape(arrays[name].shape)
        for name in dict.fromkeys(names)
    }
    small = {name: array for name, array in arrays.items() if array.size <= SMALL and array.dtype.kind == "f"}
    changed = dict(others)
    for added in [one for one in held.values() if one.name.startswith(PREFIX)] if small else []:
        constant = numpy_helper.to_array(added)
        if constant.dtype.kind != "f" or not 4 <= constant.size <= SMALL:
            continue
        origin = next((name for name, array in small.items() if derived(constant, array, array) is not None), None)
        if origin is None and _is_kernel(added):
            raise FastcamError(
                f"the file holds the constant {added.name}, which may have been computed from small weights in a way "
                "that is not known here; its maps would not be those of random weights"
            )
        again = derived(constant, small[origin], others[origin]) if origin in others and origin is not None else None
        changed |= {} if again is None else {added.name: again}
    for name, array in changed.items():
        held[name].CopyFrom(numpy_helper.from_array(np.ascontiguousarray(array), name))
    if copy.ByteSize() > LIMIT:
        raise FastcamError("the file is larger than 2 GB, and copies with random weights are made in memory")
    return bytes(copy.SerializeToString())


def derived(added: NDArray[Any], values: NDArray[Any], other: NDArray[Any]) -> NDArray[Any] | None:
    """What becomes of the constant ``added`` when the weights ``values`` become ``other``; None if it is not theirs.

    It is theirs if it is the weights with their axes in another order, maybe turned around in space, maybe summed over
    some positions, times a number.
    """
    if added.dtype != values.dtype or values.size % added.size:
        return None
    count = values.size // added.size
    turns = (False, True) if values.ndim == 4 else (False,)
    for turn, axes, at in product(turns, permutations(range(values.ndim)), range(added.ndim + 1 if count > 1 else 1)):

        def form(
            array: NDArray[Any], turn: bool = turn, axes: tuple[int, ...] = axes, at: int = at
        ) -> NDArray[np.float64]:
            turned = array[..., ::-1, ::-1] if turn else array
            split = turned.transpose(axes).reshape(*added.shape[:at], count, *added.shape[at:])
            return np.asarray(split.sum(at, dtype=np.float64))

        same = form(values)
        place = np.unravel_index(int(np.abs(same).argmax()), same.shape)
        factor = float(added[place]) / float(same[place]) if same[place] else 0.0
        if factor and np.allclose(added, factor * same, rtol=1e-4, atol=1e-5 * float(np.abs(added).max())):
            return np.asarray(factor * form(other), added.dtype)
    return None


def drawn(how: Literal["normal", "shuffle"], seed: int) -> Draw:
    """Random weights that follow from the seed and the layer's name: the same in every copy.

    Args:
        how: "normal" draws from a normal distribution with the mean and the deviation of the layer's own weights,
            "shuffle" puts these in another order, as is done with whole numbers in any case.
    """

    def draw(name: str, values: NDArray[Any]) -> NDArray[Any]:
        key = f"{seed}\0{name}".encode("utf-8", "surrogatepass")
        rng = np.random.default_rng(int.from_bytes(hashlib.blake2b(key, digest_size=8).digest(), "little"))
        if how == "shuffle" or values.dtype.kind != "f":
            return rng.permutation(values.ravel()).reshape(values.shape)
        wide = values.astype(np.float64)
        return rng.normal(wide.mean(), wide.std(), values.shape).astype(values.dtype)

    return draw


def model_of(explainer: Any) -> str | Path | bytes:
    """The file that an Explainer was made of.

    Raises:
        FastcamError: there are two of them.
    """
    model: str | Path | bytes = explainer.model
    if explainer.metadata.pair is not None:
        name = "the model" if isinstance(model, bytes) else shown(str(model))
        raise FastcamError(f"{name} is an export in two files; random weights need one: export without --on-demand")
    return model
