"""PNGs whose pixels are numbers of classes or objects, as PASCAL VOC has them and trainers of segmentation read them.

OpenCV gives the colours of a palette and not its numbers. So the file is handed to it as one of grey values, which is
the same numbers in the same bytes under another header.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fastcam.errors import FastcamError, shown
from fastcam.evaluation.data.listed import has_size, size_of
from fastcam.image.damage import altered, cut_short
from fastcam.image.header import Header, header
from fastcam.image.reading import DEFAULT
from fastcam.image.resampling import opencv
from fastcam.input_files import read_bytes

Indices = NDArray[np.uint16]
_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_GREY, _PALETTE = 0, 3
WANTED = "give a PNG of class numbers, with a palette or grey"


def voc_palette() -> NDArray[np.uint8]:
    """The colours of PASCAL VOC's masks, uint8 [256, 3]: bit by bit of the number, from the highest bit of each colour.

    Source: VOCdevkit's VOClabelcolormap.
    """
    numbers = np.arange(256)
    colours = np.zeros((256, 3), np.int64)
    for bit in range(8):
        for channel in range(3):
            colours[:, channel] |= (numbers >> (3 * bit + channel) & 1) << (7 - bit)
    return colours.astype(np.uint8)


def encode_indices(indices: NDArray[np.uint8]) -> bytes:
    """A PNG of numbers, uint8 [height, width], with the colours of PASCAL VOC as its palette."""
    height, width = indices.shape
    rows = np.zeros((height, width + 1), np.uint8)  # in front of each row its filter: none
    rows[:, 1:] = indices
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, _PALETTE, 0, 0, 0)),
        (b"PLTE", voc_palette().tobytes()),
        (b"IDAT", zlib.compress(rows.tobytes(), 6)),
        (b"IEND", b""),
    ]
    return _SIGNATURE + b"".join(_chunk(name, content) for name, content in chunks)


def read_indices(path: Path) -> Indices:
    """The numbers in a PNG, [height, width], with a palette or grey.

    Raises:
        FastcamError: it cannot be read, or is of colours, which are no numbers.
    """
    data = read_bytes(path, WANTED)
    head = header(data)
    if not data.startswith(_SIGNATURE) or head is None or cut_short(data) or altered(data):
        raise FastcamError(f"{shown(path)}: no whole PNG; {WANTED}")
    DEFAULT.check(head.pixels, head.width, head.height, shown(path))
    depth, kind = data[24], data[25]
    if kind not in (_GREY, _PALETTE):
        raise FastcamError(f"{shown(path)}: a PNG of colours, whose pixels are no class numbers; {WANTED}")
    if not _complete(data, head, depth):
        raise FastcamError(f"{shown(path)}: a PNG with fewer pixels than it says; {WANTED}")
    cv2 = opencv()
    flags = cv2.IMREAD_GRAYSCALE | cv2.IMREAD_ANYDEPTH | cv2.IMREAD_IGNORE_ORIENTATION
    grey = cv2.imdecode(np.frombuffer(_as_grey(data), np.uint8), flags)
    if grey is None or grey.ndim != 2:
        raise FastcamError(f"{shown(path)}: a PNG that OpenCV cannot decode; {WANTED}")
    scale = 1 if depth >= 8 else 255 // ((1 << depth) - 1)  # few bits are stretched to the range of eight
    return np.asarray(grey, np.uint16) // np.uint16(scale)


def why_unfit(path: Path, picture: Path, exif: bool) -> str | None:
    """Why a mask cannot be one of a picture, for what is left out; None where it can. Nothing is decoded."""
    try:
        data = read_bytes(path, WANTED)
    except FastcamError:
        return "mask that is not there"
    size = size_of(data)
    if not data.startswith(_SIGNATURE) or size is None or cut_short(data) or altered(data):
        return "mask that is damaged"
    if data[25] not in (_GREY, _PALETTE):
        return "mask of colours and not of numbers"
    return None if has_size(picture, size, exif) else "mask of another size than its picture"


def _complete(data: bytes, head: Header, depth: int) -> bool:
    """Whether all pixels are there, which OpenCV would fill up; of a PNG that is not interlaced."""
    if data[28]:
        return True
    expected = head.height * (1 + (head.width * depth + 7) // 8)
    packed = b"".join(content for name, content in _chunks(data) if name == b"IDAT")
    try:
        return len(zlib.decompressobj().decompress(packed, expected)) == expected
    except zlib.error:
        return False


def _as_grey(data: bytes) -> bytes:
    """The same PNG with its pixels as grey values, and nothing that would change them."""
    kept = [(name, content) for name, content in _chunks(data) if name in (b"IHDR", b"IDAT", b"IEND")]
    first = kept[0][1]
    kept[0] = (b"IHDR", first[:9] + bytes([_GREY]) + first[10:])
    return _SIGNATURE + b"".join(_chunk(name, content) for name, content in kept)


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = len(_SIGNATURE)
    while at + 12 <= len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        yield data[at + 4 : at + 8], data[at + 8 : at + 8 + length]
        at += 12 + length


def _chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
