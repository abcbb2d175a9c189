"""Copies of an exported file whose weights, of some layers, are random: the sanity checks' other models."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Iterator
from itertools import permutations, product
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fastcam.errors import FastcamError, shown
from fastcam.schema import PREFIX

Draw: TypeAlias = "Callable[[str, NDArray[Any]], NDArray[Any]]"
"""The name and the values of a layer's weights -> other values, of the same shape and dtype."""
_Form: TypeAlias = "tuple[bool, tuple[int, ...], int]"
_Known: TypeAlias = "dict[tuple[int, ...], tuple[list[_Form], NDArray[np.float64]]]"
LIMIT = 2**31 - 1
"""Bytes that an ONNX file in one piece has at most."""
NEAR = 1e-5
"""How far a constant may be from what it was computed as, in units of its largest number."""
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
    known: dict[str, _Known] = {name: {} for name in small}
    changed = dict(others)
    for added in [one for one in held.values() if one.name.startswith(PREFIX)] if small else []:
        constant = numpy_helper.to_array(added)
        if constant.dtype.kind != "f" or not 4 <= constant.size <= SMALL:
            continue
        mine = (name for name, array in small.items() if derived(constant, array, array, known[name]) is not None)
        origin = next(mine, None)
        if origin is None and _is_kernel(added):
            raise FastcamError(
                f"the file holds the constant {added.name}, which may have been computed from small weights in a way "
                "that is not known here; its maps would not be those of random weights"
            )
        if origin is not None and origin in others:
            again = derived(constant, small[origin], others[origin], known[origin])
            changed |= {} if again is None else {added.name: again}
    for name, array in changed.items():
        held[name].CopyFrom(numpy_helper.from_array(np.ascontiguousarray(array), name))
    if copy.ByteSize() > LIMIT:
        raise FastcamError("the file is larger than 2 GB, and copies with random weights are made in memory")
    return bytes(copy.SerializeToString())


def derived(
    added: NDArray[Any], values: NDArray[Any], other: NDArray[Any], known: _Known | None = None
) -> NDArray[Any] | None:
    """What becomes of the constant ``added`` when the weights ``values`` become ``other``; None if it is not theirs.

    It is theirs if it is the weights with their axes in another order, maybe turned around in space, maybe summed over
    some positions, times a number.

    Args:
        known: the forms of ``values`` by shape, filled on the way.
    """
    if added.dtype != values.dtype or values.size % added.size:
        return None
    known = {} if known is None else known
    if added.shape not in known:
        forms = list(_forms(values, added.shape))
        known[added.shape] = forms, np.stack([_formed(values, form, added.shape).ravel() for form in forms])
    forms, rows = known[added.shape]
    flat = added.ravel().astype(np.float64)
    highest = int(np.abs(flat).argmax())
    pivots = rows[:, highest]
    factors = np.divide(flat[highest], pivots, out=np.zeros(len(rows)), where=pivots != 0)
    errors = np.abs(factors[:, None] * rows - flat).max(1)
    best = int(errors.argmin())
    if not factors[best] or errors[best] > NEAR * abs(flat[highest]):
        return None
    return np.asarray(factors[best] * _formed(other, forms[best], added.shape), added.dtype)


def _forms(values: NDArray[Any], shape: tuple[int, ...]) -> Iterator[_Form]:
    """The ways to this shape: turned around or not, the order of the axes, and at which place the sum is taken."""
    turns = (False, True) if values.ndim == 4 else (False,)
    places = range(len(shape) + 1) if values.size > math.prod(shape) else (0,)
    return product(turns, permutations(range(values.ndim)), places)


def _formed(array: NDArray[Any], form: _Form, shape: tuple[int, ...]) -> NDArray[np.float64]:
    turn, axes, place = form
    turned = array[..., ::-1, ::-1] if turn else array
    split = turned.transpose(axes).reshape(*shape[:place], array.size // math.prod(shape), *shape[place:])
    return np.asarray(split.sum(place, dtype=np.float64))


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
