"""Bodies that come compressed."""

from __future__ import annotations

import zlib

from fastcam.errors import FastcamError, shown
from fastcam.serving.errors import TooLarge

WINDOWS = {"gzip": 16 + zlib.MAX_WBITS, "x-gzip": 16 + zlib.MAX_WBITS, "deflate": zlib.MAX_WBITS}
"""How zlib calls the encodings of HTTP, RFC 9110."""


def unpacked(body: bytes, encoding: str, most: int) -> bytes:
    """A body as it was before it was compressed; no more of it is unpacked than may be.

    Args:
        encoding: the header Content-Encoding.
        most: bytes that a body may have.

    Raises:
        FastcamError: another encoding, or a body that is not of it.
        TooLarge: more bytes.
    """
    name = encoding.strip().lower()
    if name in ("", "identity"):
        return body
    if name not in WINDOWS:
        raise FastcamError(f"the body has the encoding {shown(repr(encoding))}; send it plain, or as gzip or deflate")
    reader = zlib.decompressobj(WINDOWS[name])
    try:
        content = reader.decompress(body, most + 1)
    except zlib.error as error:
        raise FastcamError(f"the body is no {name} ({error}); send it plain, or as it says") from error
    if len(content) > most:
        raise TooLarge(f"the body has more than the {most} bytes that are taken")
    if not reader.eof or reader.unused_data:
        raise FastcamError(f"the body is cut short, or goes on behind its {name}; send all of it, and no more")
    return content
