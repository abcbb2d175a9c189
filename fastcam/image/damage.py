"""Whether the file of a picture is whole, as far as that is seen before it is decoded.

Decoders fill what is missing with grey, or with what lay in memory, and OpenCV gives such a picture as a good one. What
a format says of itself is held against its bytes here: ends, checksums, markers. A damage that leaves these as they
were, such as another bit in a coefficient of a JPEG, gives other pixels, and only decoding it twice would tell.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from math import ceil
from typing import NamedTuple

import numpy as np


def cut_short(data: bytes) -> bool:
    """Whether a PNG or JPEG lacks its end. Some OpenCV versions fill such a picture with grey and say nothing, and a
    chunk that is longer than its file has as much memory made for it."""
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        at = 8
        while at + 12 <= len(data):
            if data[at + 4 : at + 8] == b"IEND":
                return False
            at += 12 + int.from_bytes(data[at : at + 4], "big")
        return True
    if not data.startswith(b"\xff\xd8\xff"):
        return False
    at = 2
    while data[at : at + 1] == b"\xff" and data[at + 1 : at + 2] != b"\xda":  # segments before the first scan:
        if data[at + 1 : at + 2] == b"\xff":  # a fill byte, or
            at += 1
        else:  # marker and length; an embedded thumbnail, which has an end of its own, is skipped with its segment
            at += 2 + max(2, int.from_bytes(data[at + 2 : at + 4], "big"))
    return data.rfind(b"\xff\xd9", at) < 0  # from behind, where it mostly is


def altered(data: bytes) -> bool:
    """Whether a part of a PNG is not the one that was written, by its checksum. OpenCV warns, and shows what lay in
    memory where the rest of the picture would be."""
    at = 8 if data.startswith(b"\x89PNG\r\n\x1a\n") else len(data)
    while at + 12 <= len(data):
        end = at + 8 + int.from_bytes(data[at : at + 4], "big")
        name = data[at + 4 : at + 8]
        needed = name[:1].isupper() or name == b"fcTL"  # of the others none changes the pixels
        if needed and zlib.crc32(memoryview(data)[at + 4 : end]) != int.from_bytes(data[end : end + 4], "big"):
            return True
        if name == b"IEND":
            break
        at = end + 4
    return False


_EOI, _SOS, _DRI, _RST = 0xD9, 0xDA, 0xDD, range(0xD0, 0xD8)
_FRAMES = (0xC0, 0xC1, 0xC2, 0xC9, 0xCA)
"""Whose units are blocks of 8 x 8."""
_BEHIND = (0xC4, 0xCC, _SOS, 0xDB, 0xDC, _DRI, *range(0xE0, 0xF0), 0xFE)
"""Segments that may stand behind a scan."""
_SEGMENTS, _MOST, _PART = 1 << 14, 1 << 21, 1 << 20
"""Segments of a file and markers of its scans at most, and bytes that are looked through at once."""


class _Frame(NamedTuple):
    """The size of a JPEG, and the factors [h, v] of its components by their numbers."""

    height: int
    width: int
    factors: dict[int, tuple[int, int]]

    def units(self, scanned: bytes) -> int:
        """Of the scan of these components."""
        largest = [max(factors[i] for factors in self.factors.values()) for i in (0, 1)]
        own = self.factors[scanned[0]] if len(scanned) == 1 else largest
        across, down = (
            ceil(ceil(side * factor / most) / 8) if len(scanned) == 1 else ceil(side / (8 * most))
            for side, factor, most in zip((self.width, self.height), own, largest)
        )
        return across * down


def misplaced(data: bytes) -> bool:
    """Whether a JPEG has markers that cannot be where they are, or lacks some (ITU T.81, annexes B and E).

    A byte 255 that a damage has made is such a marker, and decoders take it for the end of a scan.
    """
    begun = False
    try:
        for sound in _scans(data) if data.startswith(b"\xff\xd8\xff") else ():
            begun = True
            if not sound:
                return True
    except (struct.error, IndexError, KeyError, ValueError, ZeroDivisionError):
        return begun  # of the headers in front of it a decoder has its own words
    return False


def _scans(data: bytes) -> Iterator[bool]:
    """Of each scan, whether its markers, and those up to the next one, are such as can be there."""
    frame, interval, scans, at = None, 0, 0, 2
    markers: _Markers | None = None
    for _ in range(_SEGMENTS):
        at = data.index(b"\xff", at)
        while data[at] == 0xFF:
            at += 1
        marker, body = data[at], at + 3
        if marker == _EOI:
            return
        if scans and marker not in _BEHIND:
            yield False
        end = at + 1 + max(2, struct.unpack_from(">H", data, at + 1)[0])
        if marker in _FRAMES:
            height, width, count = struct.unpack_from(">HHB", data, body + 1)
            each = [data[body + 6 + 3 * i : body + 8 + 3 * i] for i in range(count)]
            frame = _Frame(height, width, {one[0]: (one[1] >> 4, one[1] & 15) for one in each})
        elif marker == _DRI:
            (interval,) = struct.unpack_from(">H", data, body)
        at = end
        if marker == _SOS:
            scans += 1
            if scans == 1 and not interval and _one_marker(data[end:]):
                return  # as most files are
            markers = markers or _Markers(data)
            restarts, at = markers.of_scan(end)
            if restarts is None or (restarts and not interval):
                yield False
            elif interval and frame is not None:
                wanted = -(-frame.units(data[body + 1 : body + 1 + 2 * data[body] : 2]) // interval) - 1
                yield restarts in (wanted, wanted + 1)  # some encoders end with one
            else:
                yield True
        elif scans:
            yield data[at] == 0xFF
    raise ValueError("more segments than any encoder writes")


def _one_marker(scan: bytes) -> bool:
    """Whether the end of the file is all that stands behind the data of a scan, as far as that is told in no time."""
    if len(scan) > _PART or not scan.endswith(b"\xff\xd9"):
        return False
    values = np.frombuffer(scan, np.uint8)
    return int(np.count_nonzero(np.greater(values[:-1] == 255, values[1:] == 0))) == 1


class _Markers:
    """Where a byte of 255 has none of 0 or 255 behind it: in the data of a scan these are the markers.

    Raises:
        ValueError: there are more than any picture needs.
    """

    def __init__(self, data: bytes) -> None:
        values, found, count = np.frombuffer(data, np.uint8), [np.zeros(0, np.int64)], 0
        for begin in range(0, len(values) - 1, _PART):
            part = values[begin : begin + _PART + 1]
            here = np.flatnonzero(np.greater(part[:-1] == 255, (part[1:] == 0) | (part[1:] == 255)))
            found.append(here + begin)
            count += len(here)
            if count > _MOST:
                raise ValueError("more markers than a picture needs")
        self._end, self._at = len(data), np.concatenate(found)
        self._codes = values[self._at + 1]
        self._others = self._at[(self._codes < _RST[0]) | (self._codes > _RST[-1])]

    def of_scan(self, begin: int) -> tuple[int | None, int]:
        """How many restarts a scan has whose data begins there, None where they are out of turn, and where it ends."""
        first = int(np.searchsorted(self._at, begin))
        if first < len(self._at) and self._codes[first] not in _RST:
            return 0, int(self._at[first])
        other = int(np.searchsorted(self._others, begin))
        end = int(self._others[other]) if other < len(self._others) else self._end
        codes = self._codes[first : np.searchsorted(self._at, end)]
        in_turn = np.array_equal(codes, _RST[0] + np.arange(len(codes)) % 8)
        return (len(codes) if in_turn else None), end
