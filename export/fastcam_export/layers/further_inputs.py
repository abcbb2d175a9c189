"""Inputs of a model beside the one that is explained: what the metadata say of them, and what the check feeds them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from fastcam.errors import listed
from fastcam.input_roles import TEXTS
from fastcam.schema import FastcamError, FurtherInput
from fastcam_export.graph.query import known_dims
from fastcam_export.layers import input_roles
from fastcam_export.layers.layout import shape_text

Array = npt.NDArray[Any]
MOST = 4096
"""Numbers in a default: the metadata are for small things."""


def of(graph: ir.Graph, image: ir.Value) -> list[ir.Value]:
    """The inputs that have no default of their own and are not the image."""
    return [value for value in graph.inputs if value is not image and value.name not in graph.initializers]


def described(
    graph: ir.Graph, image: ir.Value, given: Mapping[str, Any] | None, said: Mapping[str, str] | None = None
) -> tuple[FurtherInput, ...]:
    """What the metadata say of each.

    Args:
        given: values by name, which become defaults.
        said: roles by name, in place of those that the graph tells.

    Raises:
        FastcamError: a value or role of an input that the model does not have, or that does not fit.
    """
    others = {value.name or "": value for value in of(graph, image)}
    for name in given or {}:
        if name not in others:
            have = listed(f"{one} {shape_text(value)}" for one, value in others.items()) or "none"
            raise FastcamError(f"the model has no input {name!r} beside the explained one; it has {have}")
    outputs = set(graph.outputs)
    tables = {name: input_roles.rows_of(value) for name, value in others.items()}
    roles = input_roles.roles(others.values(), tables, said)
    texts = input_roles.followed(roles)
    return tuple(
        replace(
            _described(value, (given or {}).get(name), bool(value.uses()) or value in outputs),
            role=roles[name],
            of=texts.get(name, ""),
            words=tables[name],
        )
        for name, value in others.items()
    )


def _described(value: ir.Value, given: Any, read: bool) -> FurtherInput:
    if given is None:
        return FurtherInput(value.name or "", read=read)
    array = np.asarray(given)
    rank = len(value.shape) if value.shape is not None else array.ndim
    dims = known_dims(value) or [None] * rank
    tail = array.shape[-len(dims) + 1 :] if rank > 1 else ()
    fits = array.ndim in (0, rank - 1, rank) and (
        array.ndim == 0 or all(want in (None, have) for want, have in zip(dims[1:], tail))
    )
    if array.dtype.kind not in "biuf" or not fits or array.size == 0:
        raise FastcamError(
            f"input {value.name!r} {shape_text(value)} got {array.dtype} {list(array.shape)}; give numbers that fit"
        )
    if array.size > MOST:
        raise FastcamError(
            f"the value of input {value.name!r} has {array.size} numbers; defaults have at most {MOST}. Give it where "
            "the file is used, or make it a constant of the model"
        )
    return FurtherInput(value.name or "", tuple(array.ravel().tolist()), array.shape, read)


def fed(value: ir.Value, image: ir.Value, feed: Array, about: FurtherInput | None, rng: np.random.Generator) -> Array:
    """What the check feeds an input: its default, pictures of noise beside a picture, numbers around 1, or zeros.

    Args:
        value: the input.
        image: the explained one.
        feed: what that is fed, whose batch and size a free axis takes.
        about: what the metadata say of the input.
    """
    dims = known_dims(value) or []
    batched = bool(dims) and (dims[0] is None or dims[0] == len(feed))
    beside = feed.shape if len(dims) == feed.ndim else (len(feed), *[2] * max(len(dims) - 1, 0))
    shape = [dim if dim is not None else beside[axis] for axis, dim in enumerate(dims)]
    assert value.dtype is not None
    dtype = value.dtype.numpy()
    if about is not None and about.default is not None:
        return _spread(np.reshape(about.default, about.default_shape).astype(dtype), shape, batched)
    if about is not None and about.role in TEXTS and about.words is not None:
        return rng.integers(0, about.words, shape).astype(dtype)
    if dtype.kind == "f":
        noise = rng.standard_normal(shape) if len(dims) >= 4 else rng.uniform(0.5, 1.5, shape)
        return noise.astype(dtype)
    if dtype == np.uint8 and len(dims) >= 4:
        return rng.integers(0, 256, shape, dtype)
    kept = dtype.kind == "b" or "mask" in (value.name or "").lower()  # a mask of zeros leaves nothing to attend to
    return (np.ones if kept else np.zeros)(shape, dtype)


def _spread(array: Array, shape: Sequence[int], batched: bool) -> Array:
    """A default for all images of a run."""
    if array.ndim == 0:
        return np.full(shape, array)
    array = array if array.ndim == len(shape) else array[None]
    return np.repeat(array, shape[0], 0) if batched and len(array) == 1 else array
