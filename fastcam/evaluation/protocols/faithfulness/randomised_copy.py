"""Copies of an exported file whose weights, of some layers, are random: the sanity checks' other models."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from itertools import permutations
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
    """The file with other weights in these layers, also where the export holds small ones a second time, transposed.

    Raises:
        FastcamError: it is too large for a file in one piece.
    """
    from onnx import ModelProto, numpy_helper

    copy = ModelProto()
    copy.CopyFrom(model)
    kernels = {one.name: one for one in copy.graph.initializer if _is_kernel(one)}
    changed = {}
    for name in set(names):
        values = numpy_helper.to_array(kernels[name])
        other = np.ascontiguousarray(draw(name, values), values.dtype).reshape(values.shape)
        changed[name] = other
        for added in [one for one in kernels.values() if one.name.startswith(PREFIX)]:
            again = rearranged(numpy_helper.to_array(added), values, other)
            changed |= {} if again is None else {added.name: again}
    for name, array in changed.items():
        kernels[name].CopyFrom(numpy_helper.from_array(np.ascontiguousarray(array), name))
    if copy.ByteSize() > LIMIT:
        raise FastcamError("the file is larger than 2 GB, and copies with random weights are made in memory")
    return bytes(copy.SerializeToString())


def rearranged(added: NDArray[Any], values: NDArray[Any], other: NDArray[Any]) -> NDArray[Any] | None:
    """What becomes of ``added`` when ``values`` become ``other``, if it is they with their axes in another order,
    maybe turned around in space and times a number; None if it is not."""
    if added.size != values.size or added.dtype != values.dtype or added.dtype.kind != "f":
        return None
    turns: list[Callable[[NDArray[Any]], NDArray[Any]]] = [lambda array: array]
    turns += [lambda array: array[..., ::-1, ::-1]] if values.ndim == 4 else []
    for axes in permutations(range(values.ndim)):
        for turn in turns:
            same = turn(values).transpose(axes).reshape(added.shape)
            place = np.unravel_index(int(np.abs(same).argmax()), same.shape)
            factor = added[place] / same[place] if same[place] else 0
            if factor and np.allclose(added, factor * same, rtol=1e-5, atol=0):
                return np.asarray(factor * turn(other).transpose(axes).reshape(added.shape), added.dtype)
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
