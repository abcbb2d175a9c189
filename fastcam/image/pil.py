"""PIL images as the pixels that OpenCV reads from their files. Pillow is imported where one is given."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastcam.errors import FastcamError
from fastcam.image.reading import Reading


def is_pil(image: Any) -> bool:
    """Whether this is a PIL image, without importing Pillow."""
    return hasattr(image, "convert") and hasattr(image, "mode")


def pixels(image: Any, whole: bool, reading: Reading) -> NDArray[Any]:
    """The pixels of a PIL image as those of its file would be: turned as its EXIF says, 16 bits as 16 bits.

    Args:
        whole: with its own channels, alpha among them.

    Raises:
        FastcamError: it is too large or cut short, or of numbers whose range nobody knows.
    """
    from PIL import ImageOps

    width, height = image.size
    reading.check(width * height, width, height, "the PIL image")
    try:
        given, image = image, ImageOps.exif_transpose(image) if reading.exif else image
        if image.mode in ("I", "F", "LAB"):  # convert() would cut off what is above 255
            numbers = np.asarray(image)
            if image.mode != "I" or numbers.min(initial=0) < 0 or numbers.max(initial=0) > 65535:
                raise FastcamError(
                    f"a PIL image of mode {image.mode} does not say what is black and what is white; convert it to L, "
                    "I;16 or RGB, or give a float tensor"
                )
            return numbers.astype(np.uint16)
        if image.mode.startswith("I;16"):
            return np.asarray(image).astype(np.uint16)  # in this processor's order of bytes
        mode = _mode(image, given.format) if whole else image.mode if image.mode in ("L", "RGB", "RGBA") else "RGB"
        return np.asarray(image if image.mode == mode else image.convert(mode))
    except FastcamError:
        raise
    except Exception as error:  # whatever Pillow's plugins raise
        raise FastcamError(f"the PIL image cannot be read ({_line(error)}); open it again") from error


def _mode(image: Any, form: str | None) -> str:
    """In which mode a PIL image has the channels of its file: grey, colours, or colours and alpha."""
    shows_through = "transparency" in image.info and image.mode in ("P", "RGB")
    inks = image.mode == "CMYK" and form == "TIFF"  # which OpenCV reads with an alpha, and of a JPEG without
    if shows_through or inks or image.mode in ("RGBA", "LA", "PA", "RGBa", "La"):
        return "RGBA"
    return "L" if image.mode in ("1", "L") else "RGB"


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


def decoded(data: bytes, name: str, whole: bool, reading: Reading) -> NDArray[Any]:
    """The pixels in the bytes of a file that OpenCV does not read, or not as they are: RGB, or its ``whole`` channels.

    Raises:
        FastcamError: Pillow is not installed, or cannot read it.
    """
    try:
        from PIL import Image
    except ImportError as error:
        raise FastcamError(f"{name}: reading it needs Pillow ({error}); run: pip install pillow") from error
    try:
        image = Image.open(io.BytesIO(data))
    except Exception as error:
        raise FastcamError(f"{name}: Pillow cannot read it ({_line(error)}); save it as PNG") from error
    found = pixels(image, whole, reading)
    rgb = found if found.ndim == 3 else found[..., None]
    if whole:
        return np.ascontiguousarray(rgb)
    return np.ascontiguousarray(np.repeat(rgb, 3, axis=2) if rgb.shape[2] == 1 else rgb[..., :3])
