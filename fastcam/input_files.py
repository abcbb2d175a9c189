"""Files in: a regular file is read whole, and what cannot be read is one line.

What a file of text or JSON becomes in memory is many times its size, so such files have a longest length.
"""

from __future__ import annotations

import io
import math
import os
import stat
from collections.abc import Callable
from pathlib import Path
from tokenize import TokenError
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastcam.errors import FastcamError, kind_of, reason, shown, typed

TEXT = 16 << 20
"""Bytes of a file of names or settings, at most."""
NUMBERS = 32 << 20
"""Bytes of a file of numbers in text, at most; a .npy file has no limit."""


def read_bytes(path: str | Path, wanted: str, most: int | None = None) -> bytes:
    """The content of a file. Pipes, terminals and devices, which may never end, are refused.

    Args:
        wanted: what to give instead, for the message: "give a picture file".
        most: how many bytes it may have.

    Raises:
        FastcamError: there is no such file, it cannot be read, or it is too long.
    """
    try:
        checked(path)
        with open(path, "rb") as file:
            data = file.read() if most is None else file.read(most + 1)
    except FastcamError:
        raise
    except (OSError, ValueError) as error:
        raise FastcamError(f"{shown(path)}: cannot be read ({reason(error)}); {wanted}") from error
    if most is not None and len(data) > most:
        raise FastcamError(f"{shown(path)}: longer than the {most >> 20} MiB that are read; {wanted}")
    return data


def read_text(path: str | Path, wanted: str, most: int = TEXT) -> str:
    """The text in a file of UTF-8, without its byte order mark.

    Raises:
        FastcamError: as of :func:`read_bytes`, or it is no UTF-8.
    """
    try:
        return read_bytes(path, wanted, most).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise FastcamError(f"{shown(path)}: not UTF-8 text; {wanted}") from error


def read_array(path: str | Path, wanted: str, check: Callable[[tuple[int, ...]], None] | None = None) -> NDArray[Any]:
    """The array of numbers in a .npy file; Python objects are not unpickled.

    Args:
        check: is asked about the shape before the array is made.

    Raises:
        FastcamError: as of :func:`read_bytes`, or there is no such array in it: its header promises more than there is,
            or something else than numbers.
    """
    data = read_bytes(path, wanted)
    try:
        shape, fortran, dtype, start = _npy_header(data)
        if check is not None:
            check(shape)
        count = math.prod(shape)
        if count * dtype.itemsize > len(data) - start:
            raise ValueError(f"it ends before its {' x '.join(map(str, shape))} numbers do")
        array = np.frombuffer(data, dtype, count, start).reshape(shape, order="F" if fortran else "C")
        return array.astype(dtype.newbyteorder("="))  # a copy that may be written
    except FastcamError:
        raise
    except (
        ValueError,
        EOFError,
        TypeError,
        SyntaxError,
        RecursionError,
        MemoryError,
        OverflowError,
        TokenError,
    ) as error:
        why = " ".join(str(error).split())[:200] or type(error).__name__
        raise FastcamError(f"{shown(path)}: no array can be read from it ({why}); {wanted}") from error


def _npy_header(data: bytes) -> tuple[tuple[int, ...], bool, np.dtype[Any], int]:
    """Shape, order, type and place of the numbers in a .npy file."""
    file = io.BytesIO(data)
    version = np.lib.format.read_magic(file)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"version {version[0]}.{version[1]} of the format")
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read(file)
    if dtype.kind not in "biuf":
        raise ValueError("Python objects, which are not unpickled" if dtype.hasobject else f"{dtype}, no numbers")
    if any(side < 0 for side in shape):
        raise ValueError(f"a shape of {list(shape)}")
    return shape, fortran, dtype, file.tell()


def checked(path: str | Path) -> os.stat_result:
    """Refuse what may block: a pipe, a socket, a terminal or another device. What the system says of the file.

    Raises:
        FastcamError: it is one.
        OSError, ValueError: there is no such file.
    """
    typed("a path", path, str | os.PathLike, "a text or a Path")  # a number is an open file, which would be closed
    found = os.stat(path)
    mode = found.st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise FastcamError(f"{shown(path)}: is {kind_of(mode)}; give a file")
    return found


def in_ort_format(model: str | Path) -> bool:
    """Whether a file is in ONNX Runtime's own format, as ``fastcam export --slim`` writes it."""
    with open(model, "rb") as file:
        return file.read(8)[4:] == b"ORTM"
