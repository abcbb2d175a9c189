"""Changes of bytes that know nothing of their meaning, for where libFuzzer is not installed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

ENDS = [0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 2**40, 2**63 - 1, 2**64 - 1]
"""Numbers at which something ends."""
TEXTS = [b"NaN", b"-1", b"1e999", b"null", b"\xff\xfe", b"\0", b"../", b"[" * 40, b"9" * 30, b"%s"]


def changed(data: bytes, others: Sequence[bytes], random: np.random.Generator, longest: int) -> bytes:
    """The bytes with one to six changes: bits, bytes, numbers, blocks moved, cut, doubled or taken from another."""
    out = bytearray(data)
    for _ in range(int(random.integers(1, 7))):
        out = _once(out, others, random)
    return bytes(out[:longest])


def _once(out: bytearray, others: Sequence[bytes], random: np.random.Generator) -> bytearray:
    def at(length: int) -> int:
        return int(random.integers(0, max(1, length)))

    start = at(len(out) + 1)
    length = min(len(out) - start, int(2 ** random.uniform(0, 12)))
    block = bytes(out[start : start + length])
    kind = int(random.integers(0, 8))
    if kind == 0 and out:
        out[at(len(out))] ^= 1 << at(8)
    elif kind == 1 and out:
        out[at(len(out))] = at(256)
    elif kind == 2:
        size = int(random.choice([1, 2, 4, 8]))
        number = ENDS[at(len(ENDS))] % 256**size
        out[start : start + size] = number.to_bytes(size, "big" if at(2) else "little")
    elif kind == 3:
        del out[start : start + length]
    elif kind == 4:
        place = at(len(out) + 1)
        out[place:place] = block
    elif kind == 5:
        out[start : start + length * at(2)] = TEXTS[at(len(TEXTS))]
    elif kind == 6 and others:
        other = others[at(len(others))]
        cut = at(len(other) + 1)
        out[start:] = other[cut:]
    else:
        del out[start:]
    return out
