"""Files in: a regular file is read whole, and what cannot be read is one line."""

from __future__ import annotations

import io
import os
import stat
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastcam.errors import FastcamError, kind_of, reason, shown


def read_bytes(path: str | Path, wanted: str) -> bytes:
    """The content of a file. Pipes, terminals and devices, which may never end, are refused.

    Args:
        wanted: what to give instead, for the message: "give a picture file".

    Raises:
        FastcamError: there is no such file, or it cannot be read.
    """
    try:
        checked(path)
        return Path(path).read_bytes()
    except FastcamError:
        raise
    except (OSError, ValueError) as error:
        raise FastcamError(f"{shown(path)}: cannot be read ({reason(error)}); {wanted}") from error


def read_text(path: str | Path, wanted: str) -> str:
    """The text in a file of UTF-8, without its byte order mark.

    Raises:
        FastcamError: as of :func:`read_bytes`, or it is no UTF-8.
    """
    try:
        return read_bytes(path, wanted).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise FastcamError(f"{shown(path)}: not UTF-8 text; {wanted}") from error


def read_array(path: str | Path, wanted: str) -> NDArray[Any]:
    """The array in a .npy file; one of Python objects is not unpickled.

    Raises:
        FastcamError: as of :func:`read_bytes`, or there is no such array in it.
    """
    data = io.BytesIO(read_bytes(path, wanted))
    try:
        return np.asarray(np.load(data, allow_pickle=False))
    except (OSError, ValueError, EOFError) as error:
        raise FastcamError(f"{shown(path)}: no array can be read from it ({error}); {wanted}") from error


def checked(path: str | Path) -> None:
    """Refuse what may block: a pipe, a socket, a terminal or another device.

    Raises:
        FastcamError: it is one.
        OSError, ValueError: there is no such file.
    """
    mode = os.stat(path).st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise FastcamError(f"{shown(path)}: is {kind_of(mode)}; give a file")
