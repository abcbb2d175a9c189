"""NIfTI-1 volumes, .nii and .nii.gz: read as arrays, and a heatmap written in the space of the volume it explains.

A header of 348 bytes (https://nifti.nimh.nih.gov/nifti-1), then the voxels, x fastest. What stands in the header beside
the numbers of this module (the voxels' size, where they lie in the patient) is copied as it is.
"""

from __future__ import annotations

import gzip
import io
import math
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastcam.errors import FastcamError, shown
from fastcam.image.preprocess import Float
from fastcam.input_files import read_bytes

HEADER, DATA = 348, 352
"""Bytes of the header, and where the voxels of a file without extensions begin."""
MOST = 2**29
"""Voxels that are read, at most: 1024 x 1024 x 512."""
DTYPES = {2: "u1", 4: "i2", 8: "i4", 16: "f4", 64: "f8", 256: "i1", 512: "u2", 768: "u4", 1024: "i8", 1280: "u8"}
DIM, DATATYPE, OFFSET, RANGE, MAGIC = 40, 70, 108, 124, 344


def read(path: str | Path) -> NDArray[Any]:
    """The voxels [x, y, z] (or more axes), float32 where the header scales them, else of the file's own type.

    Raises:
        FastcamError: it is not NIfTI-1, cut off, or too large.
    """
    head, order = _head(path)
    rank = struct.unpack_from(f"{order}h", head, DIM)[0]
    code, offset = struct.unpack_from(f"{order}h", head, DATATYPE)[0], struct.unpack_from(f"{order}f", head, OFFSET)[0]
    if not 1 <= rank <= 7 or code not in DTYPES:
        raise FastcamError(f"{shown(path)}: NIfTI of {rank} axes and type {code} is not read; save the volume as .npy")
    shape = struct.unpack_from(f"{order}{rank}h", head, DIM + 2)
    dtype = np.dtype(f"{order}{DTYPES[code]}")
    count, said = math.prod(shape), " x ".join(map(str, shape))
    if min(shape) < 1 or count > MOST:
        raise FastcamError(f"{shown(path)}: {said} voxels are not read, {MOST:,} at most; cut the volume")
    begins = int(offset) if math.isfinite(offset) and DATA <= offset < 2**31 else DATA
    voxels = _start(path, begins + count * dtype.itemsize)[begins:]
    if len(voxels) < count * dtype.itemsize:
        raise FastcamError(f"{shown(path)}: the file ends before its {said} voxels do")
    array = np.frombuffer(voxels, dtype).reshape(shape, order="F")
    while array.ndim > 3 and array.shape[-1] == 1:
        array = array[..., 0]
    slope, shift = struct.unpack_from(f"{order}2f", head, OFFSET + 4)
    plain = not (math.isfinite(slope) and math.isfinite(shift)) or slope == 0 or (slope == 1 and shift == 0)
    return array if plain else array.astype(np.float32) * np.float32(slope) + np.float32(shift)


def in_space_of(heatmap: Float, source: str | Path) -> bytes:
    """A heatmap [x, y, z] as a .nii.gz in the space of the volume ``source``."""
    header, order = _head(source)
    made = bytearray(header[:HEADER] + bytes(DATA - HEADER))
    struct.pack_into(f"{order}8h", made, DIM, 3, *heatmap.shape, 1, 1, 1, 1)
    struct.pack_into(f"{order}2h", made, DATATYPE, 16, 32)
    struct.pack_into(f"{order}3f", made, OFFSET, DATA, 1, 0)
    struct.pack_into(f"{order}2f", made, RANGE, 1, 0)
    return gzip.compress(bytes(made) + heatmap.astype(f"{order}f4").tobytes(order="F"), mtime=0)


def _head(path: str | Path) -> tuple[bytes, str]:
    """The header, and the order of its bytes, "<" or ">"."""
    data = _start(path, HEADER)
    order = {HEADER.to_bytes(4, "little"): "<", HEADER.to_bytes(4, "big"): ">"}.get(data[:4])
    if order is None or data[MAGIC : MAGIC + 3] != b"n+1":
        raise FastcamError(
            f"{shown(path)}: no NIfTI-1 file of one part (.nii, .nii.gz); save the volume as one, or as .npy"
        )
    return data, order


def _start(path: str | Path, length: int) -> bytes:
    """The first bytes of the file, unpacked: a few kilobytes may hold gigabytes, of which no more is made."""
    packed = read_bytes(path, "give a volume")
    try:
        if packed[:2] != b"\x1f\x8b":
            return packed[:length]
        with gzip.open(io.BytesIO(packed)) as file:
            return file.read(length)
    except (OSError, EOFError, zlib.error) as error:
        raise FastcamError(f"{shown(path)}: no volume can be read from it ({error})") from error
