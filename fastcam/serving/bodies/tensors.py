"""Tensors of the Open Inference Protocol: names of their types, and their bytes."""

from __future__ import annotations

import math
import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastcam.errors import FastcamError, listed, shown
from fastcam.runtime.inputs.further_inputs import TYPES

DATATYPES: dict[str, Any] = {
    "BOOL": np.bool_, "UINT8": np.uint8, "UINT16": np.uint16, "UINT32": np.uint32, "UINT64": np.uint64,
    "INT8": np.int8, "INT16": np.int16, "INT32": np.int32, "INT64": np.int64,
    "FP16": np.float16, "FP32": np.float32, "FP64": np.float64,
}  # fmt: skip
"""NumPy's types by the protocol's names; "BYTES" is a list of byte strings."""
BY_DTYPE = {np.dtype(dtype): name for name, dtype in DATATYPES.items()}
BY_ORT = {name: BY_DTYPE[np.dtype(dtype)] for name, dtype in TYPES.items()} | {"tensor(string)": "BYTES"}


def checked_type(datatype: Any, name: str) -> str:
    """The name of a type.

    Raises:
        FastcamError: there is none such.
    """
    if not isinstance(datatype, str) or (datatype not in DATATYPES and datatype != "BYTES"):
        raise FastcamError(f"input {shown(repr(name))} has datatype {shown(repr(datatype))}; there are "
                           f"{listed([*DATATYPES, 'BYTES'], 20)}")  # fmt: skip
    return datatype


def checked_shape(shape: Any, name: str) -> list[int]:
    """A shape.

    Raises:
        FastcamError: it is none.
    """
    good = isinstance(shape, list) and all(isinstance(n, int) and not isinstance(n, bool) and n >= 0 for n in shape)
    if not good or len(shape) > 8 or math.prod(shape) > 1 << 40:
        raise FastcamError(f"input {shown(repr(name))} has shape {shown(repr(shape))}; give a list of whole numbers")
    return [*shape]


def of_texts(texts: list[bytes]) -> NDArray[Any]:
    """Byte strings as an array of objects, which NumPy would take for numbers or cut otherwise."""
    array = np.empty(len(texts), object)
    array[:] = texts
    return array


def from_bytes(content: bytes, datatype: str, shape: list[int], name: str) -> NDArray[Any]:
    """Little-endian numbers in C order; byte strings each behind its length of four bytes.

    Raises:
        FastcamError: there are more or fewer than the shape says.
    """
    count = math.prod(shape)
    if datatype != "BYTES":
        dtype = np.dtype(DATATYPES[datatype])
        if len(content) != count * dtype.itemsize:
            raise FastcamError(
                f"input {shown(repr(name))}: {len(content)} bytes for {datatype} of shape {shape}; "
                f"send {count * dtype.itemsize}"
            )
        return np.frombuffer(content, dtype.newbyteorder("<")).astype(dtype, copy=False).reshape(shape)
    found: list[bytes] = []
    at = 0
    while at < len(content) and len(found) <= count:
        length = struct.unpack_from("<I", content, at)[0] if at + 4 <= len(content) else len(content)
        if at + 4 + length > len(content):
            raise FastcamError(f"input {shown(repr(name))}: a byte string is cut short; send all of it")
        found.append(content[at + 4 : at + 4 + length])
        at += 4 + length
    if len(found) != count:
        raise FastcamError(f"input {shown(repr(name))}: {len(found)} byte strings for shape {shape}; send {count}")
    return of_texts(found).reshape(shape)


def to_bytes(array: NDArray[Any]) -> bytes:
    """What :func:`from_bytes` reads."""
    if array.dtype not in BY_DTYPE:
        return b"".join(struct.pack("<I", len(word)) + word for word in words(array))
    return np.ascontiguousarray(array, array.dtype.newbyteorder("<")).tobytes()


def words(array: NDArray[Any]) -> list[bytes]:
    """The elements of an array of texts, in UTF-8."""
    return [one if isinstance(one, bytes) else str(one).encode() for one in array.ravel()]
