"""Pictures of every format, as files, bytes and PIL images; arrays and volumes in files."""

from __future__ import annotations

import gzip
import io
import logging
import struct
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

from fastcam.errors import FastcamError
from fastcam.image import nifti
from fastcam.image.decode import load, read, weight
from fastcam.image.header import header
from fastcam.image.reading import Reading
from fastcam.runtime.inputs import sample_inputs
from fastcam_bench.fuzz import WrongAnswer

NAME = "Pictures"
MOST = Reading(max_pixels=1_000_000)
FLAT = Reading(max_pixels=1_000_000, exif=False)
NUMBERS = [0, 1, 2, 3, 4, 8, 16, 32, 255, 256, 1000, 1001, 4096, 32767, 32768, 65535, 65536, 2**24, 2**31 - 1, 2**31]
logging.getLogger("PIL").setLevel(logging.CRITICAL)
warnings.simplefilter("ignore")


def seeds() -> list[bytes]:
    """Each behind a byte that says how it is read, see :func:`attempt`."""
    good = [bytes([way]) + data for data in pictures() for way in range(4)]
    good += [b"\4" + data for data in arrays()] + [b"\5" + data for data in volumes()]
    return [*good, b"\6[[1, 2], [3, 4.5]]", b"\x071,2\n3;4\n\n5 6\n"]


def pictures() -> Iterator[bytes]:
    """Small pictures of all formats, depths and modes."""
    noise = np.random.default_rng(0).integers(0, 256, (9, 11, 4), np.uint8)
    colours = np.ascontiguousarray(noise[..., :3])
    made = [(suffix, colours) for suffix in (".png", ".jpg", ".webp", ".bmp", ".tif", ".gif", ".ppm", ".pam", ".jp2")]
    made += [(suffix, noise) for suffix in (".png", ".tif", ".webp")]
    made += [(suffix, colours.astype(np.uint16) * 257) for suffix in (".png", ".tif", ".ppm")]
    for suffix, pixels in (*made, (".avif", colours), (".ras", colours)):
        done, data = cv2.imencode(suffix, pixels)
        if done:
            yield data.tobytes()
    image, exif = Image.fromarray(noise), Image.Exif()
    exif[0x0112] = 6
    animated = {"save_all": True, "append_images": [image.convert("RGB")]}
    forms: list[tuple[str, str, dict[str, Any]]] = [("PNG", mode, {}) for mode in ("1", "L", "LA", "P", "I;16")]
    forms += [("JPEG", mode, {"exif": exif, "progressive": mode == "L"}) for mode in ("L", "RGB", "CMYK")]
    forms += [("TIFF", mode, {"exif": exif}) for mode in ("1", "L", "P", "RGBA", "CMYK", "LAB", "F", "I;16")]
    forms += [("TIFF", "RGB", {"compression": name}) for name in ("tiff_lzw", "jpeg", "tiff_deflate", "packbits")]
    forms += [("PNG", "RGB", {"exif": exif}), ("WEBP", "RGB", {"lossless": True, "exif": exif})]
    forms += [(form, "RGB", animated) for form in ("GIF", "PNG", "WEBP")]
    forms += [("BMP", mode, {}) for mode in ("1", "L", "P")]
    for form, mode, options in forms:
        file = io.BytesIO()
        plain = image if mode == "RGBA" else image.convert("L" if mode == "I;16" else "RGB")
        plain = Image.fromarray(colours, "LAB") if mode == "LAB" else plain
        (plain if plain.mode == mode else plain.convert(mode)).save(file, form, **options)
        yield file.getvalue()


def arrays() -> Iterator[bytes]:
    """.npy files of several types, orders and versions."""
    for dtype in ("u1", "u2", ">f4", "f8", "i8", "?", "c8", "S3", "O"):
        file = io.BytesIO()
        np.save(file, np.zeros((4, 5, 3), dtype), allow_pickle=True)
        yield file.getvalue()
    file = io.BytesIO()
    np.lib.format.write_array(file, np.asfortranarray(np.zeros((4, 5, 3), "u1")), version=(2, 0))
    yield file.getvalue()


def volumes() -> Iterator[bytes]:
    """A NIfTI volume, plain and packed."""
    head = bytearray(nifti.DATA)
    struct.pack_into("<i", head, 0, nifti.HEADER)
    struct.pack_into("<8h", head, nifti.DIM, 3, 3, 4, 5, 1, 1, 1, 1)
    struct.pack_into("<2h", head, nifti.DATATYPE, 4, 16)
    struct.pack_into("<3f", head, nifti.OFFSET, nifti.DATA, 2, 1)
    head[nifti.MAGIC : nifti.MAGIC + 4] = b"n+1\0"
    yield bytes(head) + bytes(120)
    yield gzip.compress(bytes(head) + bytes(120))


def mutate(data: bytes, random: np.random.Generator) -> bytes:
    """A number of a header changed, in either order of bytes, or the file cut off."""
    out = bytearray(data)
    for _ in range(int(random.integers(1, 4))):
        kind = ">" if random.integers(2) else "<"
        letter = "BHIQ"[int(random.integers(4))]
        number = NUMBERS[int(random.integers(len(NUMBERS)))] % 256 ** struct.calcsize(letter)
        packed = struct.pack(kind + letter, number)
        at = int(random.integers(1, max(2, min(len(out), int(2 ** random.uniform(3, 11))))))
        out[at : at + len(packed)] = packed
    return bytes(out[: int(random.integers(1, len(out) + 1))] if random.random() < 0.15 else out)


def _path(suffix: str) -> Callable[[bytes], Path]:
    def written(data: bytes) -> Path:
        path = Path("input").with_suffix(suffix)
        path.write_bytes(data)
        return path

    return written


def _pixels(image: object, color: str, reading: Reading, data: bytes) -> None:
    """Read it, and hold it against what its header says."""
    seen, pixels = read(image, color, reading)
    sides = seen.shape[:2]
    if seen.dtype != np.uint8 or seen.ndim != 3 or seen.shape[2] != 3 or pixels.shape[:2] != sides or not seen.size:
        raise WrongAnswer(f"{seen.dtype} {seen.shape}, {pixels.dtype} {pixels.shape}")
    if pixels.dtype == np.float32 and not (pixels.min() >= 0 and pixels.max() <= 255):
        raise WrongAnswer(f"pixels from {pixels.min()} to {pixels.max()}")
    head = header(data)
    if sides[0] * sides[1] > MOST.max_pixels:
        raise WrongAnswer(f"{sides} were decoded")
    if isinstance(image, bytes) and head is not None and sorted(sides) != sorted((head.width, head.height)):
        raise WrongAnswer(f"the header says {head}, and {sides} were decoded")
    if color == "RGB" and isinstance(image, bytes) and not np.array_equal(load(data, reading), seen):
        raise WrongAnswer("load and read differ")
    weight(image)


def attempt(data: bytes) -> str:
    """Read as the first byte says."""
    way, data = (data[:1] or b"\0")[0] % 8, data[1:]
    try:
        if way == 2:
            try:
                image = Image.open(io.BytesIO(data))
            except Exception:  # of Pillow, in the user's own call
                return "refused"
            _pixels(image, "RGB", MOST, data)
        elif way < 4:
            _pixels(data, ("RGB", "BANDS", "", "RGBA")[way], FLAT if way == 3 else MOST, data)
        elif way == 4:
            path = _path(".npy")(data)
            _pixels(path, "BANDS", MOST, b"")
        else:
            found = sample_inputs.read(_path((".nii.gz", ".json", ".csv")[way - 5])(data))
            if found.dtype.kind not in "biuf":
                raise WrongAnswer(f"an array of {found.dtype}")
    except FastcamError as error:
        if "\n" in str(error) or len(str(error)) > 2000:
            raise WrongAnswer(f"a message of several lines: {error}") from error
        raise
    return "accepted"
