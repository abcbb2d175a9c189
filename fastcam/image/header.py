"""How large a picture is, by the header of its file: known before anything is decoded.

Every format that OpenCV decodes to pixels of 8 or 16 bits is read here. A file is measured as its decoder measures it,
so that no header promises less than is decoded.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from typing import NamedTuple

HEAD = 4096
"""Bytes of a header of text, at most."""


class Header(NamedTuple):
    """What the header of a picture's file says.

    Attributes:
        width, height: in pixels.
        channels: at least; of most formats not counted, since they have four at most.
        deep: whether pixels have 16 bits, as far as it is known.
        tile: pixels of a tile, where the file is decoded tile by tile.
    """

    width: int
    height: int
    channels: int = 1
    deep: bool = False
    tile: int = 0

    @property
    def pixels(self) -> int:
        """Pixels of four channels for which the decoder makes room."""
        return max(self.width * self.height, self.tile) * max(1, -(-self.channels // 4))


def header(data: bytes) -> Header | None:
    """The header of a picture's file; None where it has none that is known, or ends too early.

    Args:
        data: the file, or its beginning: of most formats 64 KiB are enough. A TIFF may tell its size at its end, a JPEG
            behind a long profile.
    """
    for begins, read in FORMATS:
        if re.match(begins, data, re.DOTALL):
            try:
                found = read(data)
            except (struct.error, IndexError, ValueError, OverflowError):
                return None
            return found if found is not None and found.width > 0 and found.height > 0 else None
    return None


def _jpeg(data: bytes) -> Header | None:
    """The first frame: markers in front of it are skipped as libjpeg skips them."""
    at = 2
    while True:
        at = data.index(b"\xff", at)
        while data[at] == 0xFF:
            at += 1
        marker, at = data[at], at + 1
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width = struct.unpack_from(">HH", data, at + 3)
            return Header(width, height)
        if marker in (0xD9, 0xDA):
            return None
        if not (marker in (0, 1) or 0xD0 <= marker <= 0xD8):
            at += max(2, struct.unpack_from(">H", data, at)[0])


def _png(data: bytes) -> Header:
    width, height, depth = struct.unpack_from(">IIB", data, 16)
    return Header(width, height, deep=depth == 16)


def _gif(data: bytes) -> Header:
    return Header(*struct.unpack_from("<HH", data, 6))


def _bmp(data: bytes) -> Header:
    if struct.unpack_from("<I", data, 14)[0] == 12:  # of OS/2
        return Header(*struct.unpack_from("<HH", data, 18))
    width, height = struct.unpack_from("<ii", data, 18)
    return Header(width, abs(height))


def _webp(data: bytes) -> Header | None:
    """The canvas of an extended file, which its frames must not leave, or the one frame."""
    kind = data[12:16]
    if kind == b"VP8X":
        width, height = (int.from_bytes(data[at : at + 3], "little") + 1 for at in (24, 27))
        return Header(width, height) if len(data) >= 30 else None
    if kind == b"VP8L":
        bits = struct.unpack_from("<I", data, 21)[0]
        return Header((bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1)
    if kind == b"VP8 ":
        width, height = struct.unpack_from("<HH", data, 26)
        return Header(width & 0x3FFF, height & 0x3FFF)
    return None


WHOLE_NUMBERS = {1: "B", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i", 16: "Q", 17: "q"}
"""Types of TIFF, and how they are packed."""


def _tiff(data: bytes) -> Header | None:
    """The first page."""
    tags = _tags(data)
    if 256 not in tags or 257 not in tags:
        return None
    return Header(tags[256], tags[257], tags.get(277, 1), tags.get(258) == 16, tags.get(322, 0) * tags.get(323, 0))


def _tags(data: bytes) -> dict[int, int]:
    """The first directory of a TIFF: of each tag its whole number, of several tags alike the first, as readers do."""
    order = "<" if data[:2] == b"II" else ">"
    big = struct.unpack_from(f"{order}H", data, 2)[0] == 43
    at = struct.unpack_from(f"{order}{'Q' if big else 'I'}", data, 8 if big else 4)[0]
    count = struct.unpack_from(f"{order}{'Q' if big else 'H'}", data, at)[0]
    at, step, inside = (at + 8, 20, 8) if big else (at + 2, 12, 4)
    found: dict[int, int] = {}
    seen: set[int] = set()
    for entry in range(at, at + step * min(count, 4096), step):
        tag, kind = struct.unpack_from(f"{order}HH", data, entry)
        several = struct.unpack_from(f"{order}{'Q' if big else 'I'}", data, entry + 4)[0]
        letter = WHOLE_NUMBERS.get(kind)
        if letter is None or tag in seen:
            seen.add(tag)
            continue
        seen.add(tag)
        value = entry + 4 + (8 if big else 4)
        if several * struct.calcsize(letter) > inside:
            value = struct.unpack_from(f"{order}{'Q' if big else 'I'}", data, value)[0]
        if value + struct.calcsize(f"={letter}") <= len(data):
            found[tag] = struct.unpack_from(f"{order}{letter}", data, value)[0]
    return found


def _netpbm(data: bytes) -> Header | None:
    """Two numbers, with comments between them."""
    number = rb"(?:\s|#[^\r\n]*\n)+(\d{1,10})(?=\s)"  # readers disagree whether \r ends a comment: none is read
    found = re.match(rb"P[1-6]" + number * 2 + b"(?:" + number + b")?", data[:HEAD])
    return Header(int(found[1]), int(found[2]), deep=int(found[3] or 0) > 255) if found else None


def _pam(data: bytes) -> Header | None:
    head = data[: data.index(b"ENDHDR", 0, HEAD)]
    sides = (rb"^[ \t]*" + name + rb"[ \t]+(\d{1,10})(?=\s)" for name in (b"WIDTH", b"HEIGHT"))
    width, height = (int(found[1]) if (found := re.search(side, head, re.MULTILINE)) else 0 for side in sides)
    return Header(width, height)


def _sun(data: bytes) -> Header:
    return Header(*struct.unpack_from(">II", data, 4))


def _jpeg2000(data: bytes) -> Header | None:
    """The size in the code stream, which a file of boxes has inside."""
    stream = data if data.startswith(b"\xff\x4f") else _box(data, b"jp2c")
    at = stream.find(b"\xff\x4f\xff\x51", 0, 24)
    if at < 0:
        return None
    right, bottom, left, top = struct.unpack_from(">4I", stream, at + 8)
    channels = struct.unpack_from(">H", stream, at + 40)[0]
    return Header(right - left, bottom - top, channels)


def _avif(data: bytes) -> Header | None:
    """The largest picture of the file: which one is shown depends on others."""
    meta = _box(data, b"meta")
    sides = [struct.unpack_from(">II", meta, found.end() + 4) for found in re.finditer(b"ispe", meta)]
    return max((Header(*side) for side in sides), key=lambda one: one.pixels, default=None)


def _box(data: bytes, wanted: bytes) -> bytes:
    """The content of a box at the top of a file of boxes; of none nothing."""
    at = 0
    while at + 8 <= len(data):
        size, kind = struct.unpack_from(">I4s", data, at)
        size = struct.unpack_from(">Q", data, at + 8)[0] if size == 1 else size or len(data)
        if kind == wanted:
            return data[at : at + size]
        at += max(8, size)
    return b""


def orientation(data: bytes) -> int:
    """How a PNG, WebP, AVIF or TIFF lies, 1 to 8 as EXIF counts: 1 is upright, also where nothing is said."""
    try:
        block = data
        if data[4:8] == b"ftyp":
            return _avif_orientation(_box(data, b"meta"))
        if data.startswith(b"\x89PNG"):
            block = _chunk(data, 8, b"eXIf", ">I", 4)
        elif data.startswith(b"RIFF"):
            block = _chunk(data, 12, b"EXIF", "<I", 0).removeprefix(b"Exif\0\0")
        turned = _tags(block).get(274, 1) if re.match(rb"II\x2a\0|MM\0\x2a", block) else 1
    except (struct.error, OverflowError):
        return 1
    return turned if 1 <= turned <= 8 else 1


def _avif_orientation(meta: bytes) -> int:
    """Quarter turns against the clock, then a mirror, each in a box."""
    turn, mirror = (meta.find(name) + 4 for name in (b"irot", b"imir"))
    quarters = meta[turn] & 3 if 4 <= turn < len(meta) else 0
    if not 4 <= mirror < len(meta):
        return (1, 8, 3, 6)[quarters]
    return (4, 5, 2, 7)[quarters if not meta[mirror] & 1 else (quarters + 2) % 4]


def colours_times_alpha(data: bytes) -> bool:
    """Whether libtiff, and so OpenCV, multiplies the colours of a file by its alpha: of a TIFF whose alpha is apart."""
    try:
        tags = _tags(data) if re.match(rb"II[\x2a\x2b]\0|MM\0[\x2a\x2b]", data) else {}
    except (struct.error, OverflowError):
        return False
    return tags.get(338) == 2 and tags.get(258) == 8


def _chunk(data: bytes, at: int, wanted: bytes, length: str, check: int) -> bytes:
    """The content of a chunk of a PNG or WebP; of none nothing."""
    name = 4 if check else 0  # in front of the length or behind it
    while at + 8 <= len(data):
        size = struct.unpack_from(length, data, at + 4 - name)[0]
        if data[at + name : at + name + 4] == wanted:
            return data[at + 8 : at + 8 + size]
        at += 8 + check + size + (0 if check else size % 2)
    return b""


FORMATS: tuple[tuple[bytes, Callable[[bytes], Header | None]], ...] = (
    (rb"\xff\xd8\xff", _jpeg),
    (rb"\x89PNG\r\n\x1a\n", _png),
    (rb"GIF8[79]a", _gif),
    (rb"BM", _bmp),
    (rb"RIFF....WEBP", _webp),
    (rb"II[\x2a\x2b]\0|MM\0[\x2a\x2b]", _tiff),
    (rb"P[1-6]\s", _netpbm),
    (rb"P7\s", _pam),
    (rb"\x59\xa6\x6a\x95", _sun),
    (rb"\0\0\0\x0cjP  \r\n\x87\n|\xff\x4f\xff\x51", _jpeg2000),
    (rb"....ftyp", _avif),
)
"""How files of a format begin, and what reads their size."""
