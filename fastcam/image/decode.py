"""Pictures as uint8 RGB [height, width, 3], from files, bytes, open files, arrays and PIL.

OpenCV is imported on first use; where it is not installed, Pillow reads. What is
decoded is measured first, by its header.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fastcam.errors import FastcamError, reason, shown
from fastcam.image import pil
from fastcam.image.damage import altered, cut_short, misplaced
from fastcam.image.header import Header, colours_times_alpha, header, orientation
from fastcam.image.reading import DEFAULT, Reading
from fastcam.image.resampling import has_opencv, opencv
from fastcam.input_files import checked, read_array, read_bytes
from fastcam.memory import refuse_more

Uint8: TypeAlias = NDArray[np.uint8]
Pixels: TypeAlias = NDArray[Any]
"""uint8 or uint16 [height, width, channels]."""
Floats: TypeAlias = NDArray[np.float32]
_DEEP = np.float32(257)  # 65535 / 255
_LARGE = 1 << 22
"""Pixels from which on it pays to give OpenCV the room for a picture: else it decodes to one of its own and copies."""
_BEGINNING = 1 << 16
"""Bytes in which most files tell their size."""
_BAND = 1 << 8
"""Rows whose channels change places at once."""

JPEG = (".jpg", ".jpeg")
SUFFIXES = (*JPEG, ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".ppm", ".pgm", ".avif", ".jp2", ".heic", ".heif")
"""Endings of picture files, in upper or lower case, for folders; a single file is decoded whatever its name. Those that
not every OpenCV decodes are among them, so that the pictures of a telephone are told of and not left out."""


def is_picture(path: Path, suffixes: Sequence[str] = SUFFIXES) -> bool:
    """Whether a path is a picture's by its ending, such as ``.JPEG``; the file itself is not read."""
    return path.suffix.lower() in suffixes


def pictures_in(folder: Path, suffixes: Sequence[str] = SUFFIXES) -> list[Path]:
    """The picture files of a folder, hidden ones and those of its subfolders not among them, sorted by name."""
    visible = (path for path in folder.iterdir() if not path.name.startswith("."))  # macOS: "._photo.jpg"
    return sorted(path for path in visible if is_picture(path, suffixes) and path.is_file())


def decode(path: str | Path, reading: Reading = DEFAULT) -> Uint8:
    """The picture in a file: uint8 RGB [height, width, 3], turned as its EXIF orientation says, alpha dropped.

    Raises:
        FastcamError: no such file, not readable, not a picture, too large, or a picture that is cut short.
    """
    return eight_bits(deep(path, reading))


def eight_bits(pixels: Pixels) -> Uint8:
    """Pixels of 16 bits as bytes, their upper half; bytes as they are."""
    return pixels if pixels.dtype == np.uint8 else (pixels >> 8).astype(np.uint8)


def _content(path: str | Path) -> bytes:
    """The bytes of a file; not by cv2.imread, which cannot open names outside the code page on Windows."""
    return read_bytes(path, "give a picture file")


def _decoded(data: bytes, name: str, reading: Reading, whole: bool = False) -> Pixels:
    """The picture that the bytes of a file hold, RGB of 8 or 16 bits; ``whole``: its own channels, alpha among them."""
    if cut_short(data) or altered(data) or misplaced(data):
        raise FastcamError(f"{name}: the picture is {'cut short' if cut_short(data) else 'damaged'}; copy it again")
    head, image = header(data), None
    if head is not None:
        reading.check(head.pixels, head.width, head.height, name)
        if head.pixels >= _LARGE:
            refuse_more(f"{name}: the picture", (head.pixels,), 18 if head.deep else 3, "make it smaller")
        if not has_opencv() or colours_times_alpha(data):
            return _by_pillow(data, name, reading, whole, head)
        cv2 = opencv()
        own = whole and data[:2] != b"\xff\xd8"  # a JPEG has no alpha
        color = cv2.IMREAD_ANYCOLOR if whole else cv2.IMREAD_COLOR
        flags = cv2.IMREAD_UNCHANGED if own else color | cv2.IMREAD_ANYDEPTH
        if not own and (not reading.exif or data[:4] in (b"\x89PNG", b"RIFF") or data[4:8] == b"ftyp"):
            # which not every OpenCV turns
            flags |= cv2.IMREAD_IGNORE_ORIENTATION
        try:
            image = _by_opencv(data, flags, head)
        except cv2.error as error:  # e.g. more pixels than OpenCV accepts
            raise FastcamError(f"{name}: OpenCV cannot decode it ({' '.join(str(error.err).split())})") from error
    if image is None or image.size == 0 or image.dtype not in (np.uint8, np.uint16):
        reader = "OpenCV" if has_opencv() else "Pillow"
        if data[4:8] == b"ftyp":
            raise FastcamError(f"{name}: a HEIC or AVIF picture that {reader} cannot decode; convert it to JPEG or PNG")
        raise FastcamError(
            f"{name}: not a picture that {reader} can decode; give a JPEG, PNG, BMP, "
            "WebP or TIFF file of 8 or 16 bits, or an array of bands as .npy"
        )
    image = _rgb(image if image.ndim == 3 else image[..., None])
    if data[:2] in (b"II", b"MM"):  # OpenCV turns a TIFF in any case, as Pillow does
        return image if reading.exif else _turned(image, _UNDONE[orientation(data)])
    return _turned(image, orientation(data)) if reading.exif else image


def _by_pillow(data: bytes, name: str, reading: Reading, whole: bool, head: Header) -> Pixels:
    """What Pillow decodes."""
    found = pil.decoded(data, name, whole, reading)
    if head.deep and found.dtype == np.uint8:
        raise FastcamError(f"{name}: Pillow reads 8 of its 16 bits; run: pip install opencv-python")
    turned = data[:2] in (b"II", b"MM") and not reading.exif  # Pillow turns a TIFF in any case
    return _turned(found, _UNDONE[orientation(data)]) if turned else found


def _by_opencv(data: bytes, flags: int, head: Header) -> Pixels | None:
    """What OpenCV decodes, in its own order of channels; None where it cannot."""
    cv2 = opencv()
    large = head.width * head.height >= _LARGE and orientation(data) == 1
    if large and flags >= 0 and flags & cv2.IMREAD_COLOR and hasattr(os, "memfd_create"):
        found = _into_room(data, flags, np.empty((head.height, head.width, 3), np.uint16 if head.deep else np.uint8))
        if found is not None:
            return found
    image: Pixels | None = cv2.imdecode(np.frombuffer(data, np.uint8), flags) if data else None
    return image


def _into_room(data: bytes, flags: int, room: Pixels) -> Pixels | None:
    """What OpenCV decodes into ``room``; None where the picture has another size or type, or an older OpenCV cannot.

    OpenCV gives room to files alone: this one lies in memory.
    """
    cv2 = opencv()
    file = os.memfd_create("picture")
    try:
        with open(file, "wb", closefd=False) as stream:
            stream.write(data)
        found: Pixels | None = cv2.imread(f"/proc/self/fd/{file}", dst=room, flags=flags)
        return found
    except (cv2.error, TypeError, OSError):
        return None
    finally:
        os.close(file)


def _rgb(image: Pixels) -> Pixels:
    """BGR or BGRA as RGB or RGBA, in place; other channels as they are."""
    if image.shape[2] in (3, 4):
        cv2 = opencv()
        code = cv2.COLOR_BGR2RGB if image.shape[2] == 3 else cv2.COLOR_BGRA2RGBA
        for top in range(0, len(image), _BAND):
            cv2.cvtColor(image[top : top + _BAND], code, dst=image[top : top + _BAND])
    return image


_UNDONE = {1: 1, 2: 2, 3: 3, 4: 4, 5: 5, 6: 8, 7: 7, 8: 6}
"""The orientation that undoes another."""


def _turned(image: Pixels, how: int) -> Pixels:
    """A picture upright that lies as EXIF's orientation says."""
    if how == 1:
        return image
    rows, columns = how in (3, 4, 7, 8), how in (2, 3, 6, 7)
    image = image.transpose(1, 0, 2) if how > 4 else image
    return np.ascontiguousarray(image[:: -1 if rows else 1, :: -1 if columns else 1])


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


def read(image: Any, color: str, reading: Reading = DEFAULT) -> tuple[Uint8, Pixels | Floats]:
    """A picture to look at, and its pixels as a model of channels ``color`` wants them.

    Both are uint8 RGB [h, w, 3] of an ordinary picture. Pixels of 16 bits become float32 in 0..255. With "RGBA", "BGRA"
    and "BANDS" they keep the picture's own channels, [h, w, C].

    Raises:
        FastcamError: see :func:`load`.
    """
    whole = color in ("RGBA", "BGRA", "BANDS")
    if type(image) is np.ndarray and not whole and _is_rgb(image):
        return image, image
    if isinstance(image, str | Path):
        if Path(image).suffix.lower() == ".npy":
            pixels = _bands(read_array(image, "give a .npy file of bands", reading.shape_check(shown(image))), whole)
        else:
            pixels = _decoded(_content(image), shown(image), reading, whole)
    elif pil.is_pil(image):
        pixels = _bands(pil.pixels(image, whole, reading), whole)
    elif is_encoded(image):
        pixels = _decoded(_bytes(image), "the bytes given", reading, whole)
    else:
        pixels = _bands(as_array(image), whole)
    if pixels.dtype == np.uint8 and not whole:
        return pixels, pixels
    seen = eight_bits(pixels[..., :3] if pixels.shape[2] >= 3 else np.repeat(pixels[..., :1], 3, axis=2))
    seen = np.ascontiguousarray(seen)
    if pixels.dtype == np.uint8:
        return seen, pixels
    floats = pixels.astype(np.float32)
    return seen, np.divide(floats, _DEEP, out=floats)


def _is_rgb(array: NDArray[Any]) -> bool:
    """Whether an array is what :func:`picture` makes of one: uint8 [h, w, 3] with pixels, in C order."""
    return (
        array.dtype == np.uint8
        and array.ndim == 3
        and array.shape[2] == 3
        and array.size > 0
        and array.flags.c_contiguous
        and array.flags.aligned
    )


def deep(path: str | Path, reading: Reading = DEFAULT) -> Pixels:
    """:func:`decode` without losing the lower half of 16 bits."""
    return _decoded(_content(path), shown(path), reading)


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
    return isinstance(image, bytes | bytearray | memoryview) or hasattr(image, "read") or pil.is_pil(image)


def load(image: Any, reading: Reading = DEFAULT) -> Uint8:
    """A picture from a path, the bytes of a picture file, an open one, an array (see :func:`picture`), a PIL image or
    anything that speaks DLPack.

    Raises:
        FastcamError: see :func:`decode` and :func:`picture`.
    """
    if isinstance(image, str | Path):
        return decode(image, reading)
    if pil.is_pil(image):
        return picture(pil.pixels(image, False, reading))
    if is_encoded(image):
        return eight_bits(_decoded(_bytes(image), "the bytes given", reading))
    return picture(as_array(image))


def weight(image: Any) -> int:
    """About how many bytes a picture takes when it is read, by its header; 0 where nobody knows, or it is none."""
    try:
        if pil.is_pil(image):
            return 4 * int(image.size[0]) * int(image.size[1])
        if isinstance(image, str | Path):
            return _weight_of_file(image)
        if isinstance(image, bytes | bytearray | memoryview):
            head = header(bytes(image[:_BEGINNING])) or header(bytes(image))
            return len(image) + (3 * head.pixels if head else 0)
        return int(getattr(image, "nbytes", 0))
    except Exception:  # whatever it is, its reader says so
        return 0


def _weight_of_file(path: str | Path) -> int:
    if Path(path).suffix.lower() == ".npy":
        return os.path.getsize(path)
    checked(path)
    with open(path, "rb") as file:
        beginning = file.read(_BEGINNING)
        head = header(beginning) or header(beginning + file.read())
    return 3 * head.pixels if head else 0


def _bytes(image: Any) -> bytes:
    """The bytes of a picture file that is given as such, or open."""
    try:
        content = image.read() if hasattr(image, "read") else image
    except (OSError, ValueError) as error:  # ValueError: it is closed
        raise FastcamError(f"the open file cannot be read ({reason(error)}); open it again") from error
    if not isinstance(content, bytes | bytearray | memoryview):
        raise FastcamError(
            f"a file that is open for text gives no picture; open {getattr(image, 'name', 'it')} as bytes"
        )
    return bytes(content)


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
