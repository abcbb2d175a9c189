"""Pictures as uint8 RGB [height, width, 3], from files, bytes, open files, arrays and PIL.

OpenCV is imported on first use.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fastcam.errors import FastcamError
from fastcam.input_files import read_array, read_bytes

Uint8: TypeAlias = NDArray[np.uint8]
Pixels: TypeAlias = NDArray[Any]
"""uint8 or uint16 [height, width, channels]."""
Floats: TypeAlias = NDArray[np.float32]
_DEEP = np.float32(257)  # 65535 / 255

JPEG = (".jpg", ".jpeg")
SUFFIXES = (*JPEG, ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".ppm", ".pgm")
"""Endings of picture files, in upper or lower case, for folders; a single file is decoded whatever its name."""


def is_picture(path: Path, suffixes: Sequence[str] = SUFFIXES) -> bool:
    """Whether a path is a picture's by its ending, such as ``.JPEG``; the file itself is not read."""
    return path.suffix.lower() in suffixes


def pictures_in(folder: Path, suffixes: Sequence[str] = SUFFIXES) -> list[Path]:
    """The picture files of a folder, hidden ones and those of its subfolders not among them, sorted by name."""
    visible = (path for path in folder.iterdir() if not path.name.startswith("."))  # macOS: "._photo.jpg"
    return sorted(path for path in visible if is_picture(path, suffixes) and path.is_file())


def opencv() -> ModuleType:
    """The cv2 module.

    Raises:
        FastcamError: OpenCV is not installed.
    """
    try:
        import cv2
    except ImportError as error:
        raise FastcamError(
            f"reading and drawing pictures needs OpenCV ({error}); run: pip install opencv-python"
        ) from error
    return cv2


def decode(path: str | Path) -> Uint8:
    """The picture in a file: uint8 RGB [height, width, 3], turned as its EXIF orientation says, alpha dropped.

    Raises:
        FastcamError: no such file, not readable, not a picture, or a picture that is cut short.
    """
    return eight_bits(_decoded(_content(path), str(path)))


def eight_bits(pixels: Pixels) -> Uint8:
    """Pixels of 16 bits as bytes, their upper half; bytes as they are."""
    return pixels if pixels.dtype == np.uint8 else (pixels >> 8).astype(np.uint8)


def _content(path: str | Path) -> Uint8:
    """The bytes of a file; not by cv2.imread, which cannot open names outside the code page on Windows."""
    return np.frombuffer(read_bytes(path, "give a picture file"), np.uint8)


def _decoded(data: Uint8, path: str, whole: bool = False) -> Pixels:
    """The picture that the bytes of a file hold, RGB of 8 or 16 bits; ``whole``: its own channels, alpha among them."""
    cv2 = opencv()
    if cut_short(data.tobytes()):
        raise FastcamError(f"{path}: the picture is cut short; copy it again")
    image = None
    if data.size:
        try:
            own = whole and data[:2].tobytes() != b"\xff\xd8"  # a JPEG has no alpha, and often an orientation
            color = cv2.IMREAD_ANYCOLOR if whole else cv2.IMREAD_COLOR
            image = cv2.imdecode(data, cv2.IMREAD_UNCHANGED if own else color | cv2.IMREAD_ANYDEPTH)
        except cv2.error as error:  # e.g. more pixels than OpenCV accepts
            raise FastcamError(f"{path}: OpenCV cannot decode it ({' '.join(str(error.err).split())})") from error
    if image is None or image.size == 0 or image.dtype not in (np.uint8, np.uint16):
        raise FastcamError(
            f"{path}: not a picture that OpenCV can decode; give a JPEG, PNG, BMP, WebP or TIFF file of 8 or 16 bits, "
            "or an array of bands as .npy"
        )
    if image.ndim == 2:
        return np.asarray(image)[..., None]
    if image.shape[2] > 4:
        return np.asarray(image)
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB if image.shape[2] == 3 else cv2.COLOR_BGRA2RGBA))


def cut_short(data: bytes) -> bool:
    """Whether a PNG or JPEG lacks its end. Some OpenCV versions fill such a picture with grey and say nothing."""
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return b"IEND" not in data
    if not data.startswith(b"\xff\xd8\xff"):
        return False
    at = 2
    while data[at : at + 1] == b"\xff" and data[at + 1 : at + 2] != b"\xda":  # segments before the first scan:
        if data[at + 1 : at + 2] == b"\xff":  # a fill byte, or
            at += 1
        else:  # marker and length; an embedded thumbnail, which has an end of its own, is skipped with its segment
            at += 2 + max(2, int.from_bytes(data[at + 2 : at + 4], "big"))
    return data.find(b"\xff\xd9", at) < 0


def picture(array: Any) -> Uint8:
    """An array as a picture: uint8 [h, w], [h, w, 1], [h, w, 3] (RGB) or [h, w, 4] (alpha dropped) -> [h, w, 3].

    Raises:
        FastcamError: another dtype or shape, or no pixels.
    """
    image = np.asarray(array)
    if image.dtype not in (np.uint8, np.uint16):
        raise FastcamError(
            f"a picture must be uint8 [height, width, 3], got {image.dtype} {list(image.shape)}; "
            "float arrays are taken as [N, C, H, W] tensors, ready for the network"
        )
    if image.ndim == 2:
        image = image[..., None]
    if image.ndim != 3 or image.shape[2] not in (1, 3, 4):
        raise FastcamError(
            f"a picture must be uint8 [height, width, 3], got {list(image.shape)}; give several pictures as a list"
        )
    if image.size == 0:
        raise FastcamError(
            f"the picture has no pixels: {image.shape[1]} x {image.shape[0]}; give one with at least 1 x 1"
        )
    rgb = np.repeat(image, 3, axis=2) if image.shape[2] == 1 else image[..., :3]
    return np.ascontiguousarray(eight_bits(rgb))


def read(image: Any, color: str) -> tuple[Uint8, Pixels | Floats]:
    """A picture to look at, and its pixels as a model of channels ``color`` wants them.

    Both are uint8 RGB [h, w, 3] of an ordinary picture. Pixels of 16 bits become float32 in 0..255. With "RGBA", "BGRA"
    and "BANDS" they keep the picture's own channels, [h, w, C].

    Raises:
        FastcamError: see :func:`load`.
    """
    whole = color in ("RGBA", "BGRA", "BANDS")
    if isinstance(image, str | Path):
        if Path(image).suffix.lower() == ".npy":
            pixels = _bands(read_array(image, "give a .npy file of bands"), whole)
        elif whole:
            pixels = _decoded(_content(image), str(image), whole)
        else:
            pixels = deep(image)
    elif _is_pil(image):
        pixels = _bands(_of_pil(image, whole), whole)
    elif is_encoded(image):
        pixels = _decoded(np.frombuffer(_bytes(image), np.uint8), "the bytes given", whole)
    else:
        pixels = _bands(as_array(image), whole)
    if pixels.dtype == np.uint8 and not whole:
        return pixels, pixels
    shown = eight_bits(pixels[..., :3] if pixels.shape[2] >= 3 else np.repeat(pixels[..., :1], 3, axis=2))
    return np.ascontiguousarray(shown), pixels if pixels.dtype == np.uint8 else pixels.astype(np.float32) / _DEEP


def deep(path: str | Path) -> Pixels:
    """:func:`decode` without losing the lower half of 16 bits."""
    return _decoded(_content(path), str(path))


def _bands(array: NDArray[Any], whole: bool) -> Pixels:
    """An array of 8 or 16 bits as [h, w, C]; as RGB where not ``whole``."""
    if not whole and array.dtype != np.uint16:
        return picture(array)
    image = array[..., None] if array.ndim == 2 else array
    channels = image.shape[2] if image.ndim == 3 else 0
    if image.dtype not in (np.uint8, np.uint16) or image.size == 0 or not channels or (not whole and channels == 2):
        raise FastcamError(
            f"a picture must be uint8 or uint16 [height, width, channels], got {array.dtype} {list(array.shape)}; "
            "float arrays are taken as [N, C, H, W] tensors, ready for the network"
        )
    if whole:
        return np.ascontiguousarray(image)
    return np.ascontiguousarray(np.repeat(image, 3, axis=2) if channels == 1 else image[..., :3])


def is_encoded(image: Any) -> bool:
    """Whether this is a picture that has to be decoded or converted: bytes, an open file, or a PIL image."""
    return isinstance(image, bytes | bytearray | memoryview) or hasattr(image, "read") or _is_pil(image)


def _is_pil(image: Any) -> bool:
    return hasattr(image, "convert") and hasattr(image, "mode")


def _of_pil(image: Any, whole: bool) -> Pixels:
    """The pixels of a PIL image as those of its file would be: turned as its EXIF says, 16 bits as 16 bits.

    Raises:
        FastcamError: it is cut short, or of numbers whose range nobody knows.
    """
    from PIL import ImageOps

    try:
        image = ImageOps.exif_transpose(image)
        if image.mode in ("I", "F", "LAB"):  # convert() would cut off what is above 255
            pixels = np.asarray(image)
            if image.mode != "I" or pixels.min(initial=0) < 0 or pixels.max(initial=0) > 65535:
                raise FastcamError(
                    f"a PIL image of mode {image.mode} does not say what is black and what is white; convert it to L, "
                    "I;16 or RGB, or give a float tensor"
                )
            return pixels.astype(np.uint16)
        if image.mode.startswith("I;16"):
            return np.asarray(image).astype(np.uint16)  # in this processor's order of bytes
        mode = image.mode if image.mode in ("L", "RGB", "RGBA") else "RGBA" if whole else "RGB"
        return np.asarray(image if image.mode == mode else image.convert(mode))
    except FastcamError:
        raise
    except (OSError, ValueError, SyntaxError) as error:  # SyntaxError: of broken PNG files
        raise FastcamError(f"the PIL image cannot be read ({error}); open it again") from error


def load(image: Any) -> Uint8:
    """A picture from a path, the bytes of a picture file, an open one, an array (see :func:`picture`), a PIL image or
    anything that speaks DLPack.

    Raises:
        FastcamError: see :func:`decode` and :func:`picture`.
    """
    if isinstance(image, str | Path):
        return decode(image)
    if _is_pil(image):
        return picture(_of_pil(image, False))
    if is_encoded(image):
        return eight_bits(_decoded(np.frombuffer(_bytes(image), np.uint8), "the bytes given"))
    return picture(as_array(image))


def _bytes(image: Any) -> bytes | bytearray | memoryview:
    """The bytes of a picture file that is given as such, or open."""
    content = image.read() if hasattr(image, "read") else image
    if not isinstance(content, bytes | bytearray | memoryview):
        raise FastcamError(
            f"a file that is open for text gives no picture; open {getattr(image, 'name', 'it')} as bytes"
        )
    return content


def as_array(value: Any) -> NDArray[Any]:
    """``value`` as a NumPy array, without a copy where it is one or speaks DLPack (CPU tensors of torch and others).

    Raises:
        FastcamError: it cannot be read as an array.
    """
    if isinstance(value, np.ndarray):
        return value
    try:
        array: NDArray[Any] = np.from_dlpack(value) if hasattr(value, "__dlpack__") else np.asarray(value)
    except (RuntimeError, TypeError, ValueError, BufferError) as error:
        raise FastcamError(
            f"cannot read {type(value).__name__} as an array ({error}); give a path, a NumPy array or a CPU tensor"
        ) from error
    return array
