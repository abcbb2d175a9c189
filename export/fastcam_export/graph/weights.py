"""Large weights stay in files while a model is exported: no copy of its graph copies them, and a run maps them.

A weight that lies beside the model stays where it is; those of a model that has many in itself go to a temporary file.
Such a weight is external data whose location is an absolute path. :func:`inside` takes it into the model again, with
the bytes that the model would have without all this; what is more than one file can hold goes beside the export, copied
piece by piece (:func:`beside`).
"""

from __future__ import annotations

import hashlib
import math
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper

APART = 1 << 16
"""Bytes from which a weight stays apart."""
MANY = 1 << 25
"""Bytes of such weights from which those of one file are put aside."""
FULL = (1 << 31) - (1 << 24)
"""Bytes of weights that one file can hold: protobuf writes less than 2 GiB."""
FULL_IN_BROWSERS = 1 << 29
"""The same of files for onnxruntime-web, which holds a file three times while it reads it, in 4 GiB; weights once."""
PAGE = 4096
"""Where a weight begins in a file, so that it can be mapped into memory."""
PIECE = 1 << 24
"""Bytes that are copied at a time."""
PUT_ASIDE, LOCATED = "fastcam.weights", "fastcam.located_weights"
"""Temporary files: of weights as they are, and of those that say that they lie in the model."""
TYPES: dict[int, int] = {
    onnx.TensorProto.DOUBLE: 8,
    onnx.TensorProto.FLOAT: 4,
    onnx.TensorProto.FLOAT16: 2,
    onnx.TensorProto.BFLOAT16: 2,
    onnx.TensorProto.INT8: 1,
    onnx.TensorProto.UINT8: 1,
}
"""Types of the weights that may lie apart, and their bytes."""
PLAIN = {"name", "dims", "data_type", "raw_data", "data_location"}


@contextmanager
def folder() -> Iterator[Path]:
    """A temporary folder for weights."""
    with tempfile.TemporaryDirectory(prefix="fastcam-", ignore_cleanup_errors=True) as name:
        yield Path(name).resolve()


def is_apart(tensor: onnx.TensorProto) -> bool:
    """Whether a weight lies in a file of its own."""
    return bool(tensor.data_location == onnx.TensorProto.EXTERNAL)


def place(tensor: onnx.TensorProto) -> tuple[Path, int, int]:
    """The file of a weight that is apart, where it begins there, and its bytes."""
    said = {entry.key: entry.value for entry in tensor.external_data}
    return Path(said["location"]), int(said.get("offset", 0)), int(said["length"])


def size(model: onnx.ModelProto) -> int:
    """The bytes of the weights that are apart."""
    return sum(place(tensor)[2] for tensor in model.graph.initializer if is_apart(tensor))


def array(tensor: onnx.TensorProto) -> npt.NDArray[np.generic]:
    """The content of a weight, wherever it is."""
    return numpy_helper.to_array(_inside(tensor) if is_apart(tensor) else tensor)


# ---- apart


def find(model: onnx.ModelProto, folder: Path) -> None:
    """Read what a model keeps in other files, but for large weights, of which it is said where they lie.

    Args:
        model: changed.
        folder: of its file.

    Raises:
        OSError, ValueError, onnx.checker.ValidationError: a file is missing, too short, or not in that folder.
    """
    root = folder.resolve()
    places = {tensor.name: _sound(tensor, root) for tensor in model.graph.initializer if is_apart(tensor)}
    found = {name: one for name, one in places.items() if one is not None and one[2] >= APART}
    if sum(length for _, _, length in found.values()) < MANY:
        found = {}
    large = [tensor for tensor in model.graph.initializer if tensor.name in found]
    for tensor in large:
        tensor.data_location = onnx.TensorProto.DEFAULT
    onnx.load_external_data_for_model(model, str(folder))
    for tensor in large:
        _point(tensor, *found[tensor.name])


def _sound(tensor: onnx.TensorProto, root: Path) -> tuple[Path, int, int] | None:
    """Where a weight lies in a file in the folder ``root``; None where something is wrong with that."""
    said = {entry.key: entry.value for entry in tensor.external_data}
    link = root / said.get("location", "")
    path, kind = link.resolve(), tensor.data_type
    if not path.is_relative_to(root) or not path.is_file() or link.is_symlink() or kind not in TYPES:
        return None
    length = math.prod(tensor.dims) * TYPES[kind]
    offset, there = int(said.get("offset", 0)), path.stat().st_size
    fits = int(said.get("length", length)) == length and offset + length <= there
    return (path, offset, length) if fits else None


def put_aside(model: onnx.ModelProto, folder: Path) -> onnx.ModelProto:
    """A model whose large weights lie in files of ``folder``; itself, where it has few or there is no room.

    Args:
        model: it stays as it is.
        folder: see :func:`folder`.
    """
    large = [tensor for tensor in model.graph.initializer if _can_go(tensor)]
    if sum(len(tensor.raw_data) for tensor in large) < MANY:
        return model
    made: dict[str, onnx.TensorProto] = {}
    try:
        with open(folder / PUT_ASIDE, "wb") as plain, open(folder / LOCATED, "wb") as located:
            for tensor in large:
                file = located if tensor.HasField("data_location") else plain
                moved = onnx.TensorProto(name=tensor.name, dims=tensor.dims, data_type=tensor.data_type)
                _point(moved, Path(file.name), _padded(file), len(tensor.raw_data))
                file.write(tensor.raw_data)
                made[tensor.name] = moved
    except OSError:  # no room
        return model
    shell = without_weights(model)
    shell.graph.initializer.extend(made.get(tensor.name, tensor) for tensor in model.graph.initializer)
    return shell


def _can_go(tensor: onnx.TensorProto) -> bool:
    return len(tensor.raw_data) >= APART and not is_apart(tensor) and {f.name for f, _ in tensor.ListFields()} <= PLAIN


def _padded(file: IO[bytes]) -> int:
    at = file.tell()
    file.write(bytes(-at % PAGE))
    return file.tell()


def _point(tensor: onnx.TensorProto, path: Path, offset: int, length: int, name: str | None = None) -> None:
    tensor.data_location = onnx.TensorProto.EXTERNAL
    del tensor.external_data[:]
    for key, value in {"location": name or str(path), "offset": offset, "length": length}.items():
        tensor.external_data.add(key=key, value=str(value))


def without_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy without any initializer."""
    shell = onnx.ModelProto()
    for field, value in model.ListFields():
        if field.name != "graph":
            _assign(shell, field.name, value)
    for field, value in model.graph.ListFields():
        if field.name != "initializer":
            _assign(shell.graph, field.name, value)
    return shell


def _assign(message: onnx.ModelProto | onnx.GraphProto, name: str, value: object) -> None:
    if hasattr(value, "__len__") and not isinstance(value, (str, bytes)):
        getattr(message, name).extend(value)
    elif hasattr(value, "CopyFrom"):
        getattr(message, name).CopyFrom(value)
    else:
        setattr(message, name, value)


# ---- back


def inside(model: onnx.ModelProto, browser: bool = False) -> onnx.ModelProto:
    """A model with all its weights in it, as far as one file can hold them; itself, where nothing is apart."""
    full = FULL_IN_BROWSERS if browser else FULL
    if not any(map(is_apart, model.graph.initializer)) or size(model) > full:
        return model
    made = without_weights(model)
    for tensor in model.graph.initializer:
        made.graph.initializer.append(_inside(tensor) if is_apart(tensor) else tensor)
    return made


def _inside(tensor: onnx.TensorProto) -> onnx.TensorProto:
    path, offset, length = place(tensor)
    made = onnx.TensorProto()
    made.CopyFrom(tensor)
    made.ClearField("external_data")
    if path.name != PUT_ASIDE:
        made.data_location = onnx.TensorProto.DEFAULT
    else:
        made.ClearField("data_location")
    with open(path, "rb") as file:
        file.seek(offset)
        made.raw_data = file.read(length)
    return made


def runnable(model: onnx.ModelProto) -> tuple[bytes, str]:
    """A model's bytes for a session, and the folder of its weights, "" where it has none apart."""
    files = {place(tensor)[0] for tensor in model.graph.initializer if is_apart(tensor)}
    if not files:
        return model.SerializeToString(), ""
    root = Path(os.path.commonpath([str(path.parent) for path in files]))
    made = onnx.ModelProto()
    made.CopyFrom(model)
    for tensor in made.graph.initializer:
        if is_apart(tensor):
            path, offset, length = place(tensor)
            _point(tensor, path, offset, length, path.relative_to(root).as_posix())
    return made.SerializeToString(), str(root)


class Copier:
    """The weights of models that are too large for one file, as one file beside them.

    Args:
        models: their weights are apart; several may hold the same.
    """

    def __init__(self, models: list[onnx.ModelProto]) -> None:
        tensors = (tensor for model in models for tensor in model.graph.initializer if is_apart(tensor))
        self._offsets: dict[tuple[Path, int, int], int] = {}
        end = 0
        for one in dict.fromkeys(map(place, tensors)):
            self._offsets[one] = end + -end % PAGE
            end = self._offsets[one] + one[2]

    def _pieces(self) -> Iterator[bytes]:
        end = 0
        for (path, offset, left), begin in self._offsets.items():
            yield bytes(begin - end)
            end = begin + left
            with open(path, "rb", buffering=0) as source:
                source.seek(offset)
                while left:
                    piece = source.read(min(left, PIECE))
                    if not piece:
                        raise OSError(f"{path.name} ends too early")
                    left -= len(piece)
                    yield piece

    def digest(self) -> str:
        """Eight digits that say what is in the file."""
        digest = hashlib.sha256()
        for piece in self._pieces():
            digest.update(piece)
        return digest.hexdigest()[:8]

    def copy(self, file: IO[bytes]) -> None:
        """Write the file, piece by piece."""
        for piece in self._pieces():
            file.write(piece)

    def point_to(self, model: onnx.ModelProto, name: str) -> None:
        """Let a model take its weights from the file ``name`` beside it."""
        for tensor in model.graph.initializer:
            if is_apart(tensor):
                one = place(tensor)
                _point(tensor, one[0], self._offsets[one], one[2], name)
