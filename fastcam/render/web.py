"""What pages show: pictures as data URIs of a bounded size, and texts that are nothing but texts."""

from __future__ import annotations

import base64
import html

import numpy as np

from fastcam.image.preprocess import Size, Uint8, opencv, resize

QUALITIES = (85, 75, 60, 45, 30, 15)
"""Of a JPEG, tried in this order until it is small enough."""


def fitted(size: Size, side: int) -> Size:
    """(height, width) with the longer side at most ``side``, in the same proportions; never larger than it was."""
    factor = min(1.0, side / max(size))
    return max(1, round(size[0] * factor)), max(1, round(size[1] * factor))


def thumbnail(picture: Uint8, side: int) -> Uint8:
    """A picture uint8 RGB [height, width, 3] whose longer side is at most ``side`` pixels."""
    small = fitted((picture.shape[0], picture.shape[1]), side)
    return np.ascontiguousarray(resize(np.ascontiguousarray(picture), small))


def jpeg(picture: Uint8, most: int) -> bytes:
    """A picture as a JPEG of at most ``most`` bytes, as far as its quality can be lowered for that."""
    cv2 = opencv()
    pixels = np.ascontiguousarray(picture[..., ::-1])
    data = b""
    for quality in QUALITIES:
        data = bytes(cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, quality])[1])
        if len(data) <= most:
            break
    return data


def jpeg_uri(picture: Uint8, side: int, most: int) -> str:
    """A picture as ``data:image/jpeg;base64,...``: shrunk to ``side`` pixels, its JPEG of ``most`` bytes."""
    return "data:image/jpeg;base64," + base64.b64encode(jpeg(thumbnail(picture, side), most)).decode("ascii")


def escaped(text: object) -> str:
    """A text between tags or in quotes, whatever is in it; what no page can hold stands there as an escape."""
    encodable = str(text).encode("utf-8", "backslashreplace").decode("utf-8")
    return html.escape("".join(c if c.isprintable() else repr(c)[1:-1] for c in encodable))
