"""The size of a picture by its header: what the decoder makes, for every format, and no less for a header that lies."""

import io
import struct

import cv2
import numpy as np
import pytest
from PIL import Image, features

from fastcam.image.header import Header, header

NOISE = np.random.default_rng(0).integers(0, 256, (37, 53, 3), np.uint8)
BY_OPENCV = {
    ".png": NOISE, ".jpg": NOISE, ".webp": NOISE, ".bmp": NOISE, ".tif": NOISE, ".gif": NOISE, ".ppm": NOISE,
    ".pgm": NOISE[..., 0], ".pbm": NOISE[..., 0], ".pam": NOISE, ".ras": NOISE, ".jp2": NOISE,
}  # fmt: skip
BY_PILLOW = {
    "lossless WebP": ("WEBP", {"lossless": True}),
    "animated WebP": ("WEBP", {"save_all": True, "append_images": [Image.fromarray(255 - NOISE)]}),
    "animated GIF": ("GIF", {"save_all": True, "append_images": [Image.fromarray(255 - NOISE)]}),
    "animated PNG": ("PNG", {"save_all": True, "append_images": [Image.fromarray(255 - NOISE)]}),
    "TIFF of pages": ("TIFF", {"save_all": True, "append_images": [Image.new("RGB", (200, 300))]}),
    "BigTIFF": ("TIFF", {"big_tiff": True}),
    "progressive JPEG": ("JPEG", {"progressive": True}),
    "JPEG with a thumbnail and a profile": ("JPEG", {"icc_profile": b"p" * 200_000, "comment": b"\xff\xc0" * 99}),
    "JPEG 2000 stream": ("JPEG2000", {"no_jp2": True}),
    **({"AVIF": ("AVIF", {})} if features.check("avif") else {}),
}


def saved(form, options):
    file = io.BytesIO()
    Image.fromarray(NOISE).save(file, form, **options)
    return file.getvalue()


@pytest.mark.parametrize("suffix", BY_OPENCV)
def test_sizes_are_those_that_are_decoded(suffix):
    data = cv2.imencode(suffix, BY_OPENCV[suffix])[1].tobytes()
    assert header(data)[:2] == cv2.imdecode(np.frombuffer(data, np.uint8), 1).shape[1::-1] == (53, 37)


@pytest.mark.parametrize("name", BY_PILLOW)
def test_sizes_are_those_that_another_program_writes(name):
    form, options = BY_PILLOW[name]
    assert header(saved(form, options))[:2] == (53, 37)


@pytest.mark.parametrize("suffix", [".png", ".tif", ".ppm"])
def test_16_bits_are_seen(suffix):
    deep = cv2.imencode(suffix, NOISE.astype(np.uint16) * 257)[1].tobytes()
    assert header(deep).deep and not header(cv2.imencode(suffix, NOISE)[1].tobytes()).deep


@pytest.mark.parametrize("name", [*BY_OPENCV, *BY_PILLOW])
def test_a_header_that_is_cut_off_anywhere_has_no_size_or_the_right_one(name):
    data = cv2.imencode(name, BY_OPENCV[name])[1].tobytes() if name in BY_OPENCV else saved(*BY_PILLOW[name])
    for length in (*range(200), *range(200, len(data), 997)):
        assert header(data[:length]) is None or header(data[:length])[:2] == (53, 37)


def tiff(*tags):
    """A TIFF of nothing but tags (number, value)."""
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4)


def test_tiles_and_channels_count_as_what_is_made_room_for():
    assert header(tiff((256, 10), (257, 10), (322, 5000), (323, 4000))).pixels == 20_000_000
    assert header(tiff((256, 100), (257, 100), (277, 500))).pixels == 100 * 100 * 125
    assert header(tiff((256, 100), (257, 100), (277, 4), (256, 7))) == Header(100, 100, 4)
    signed = bytearray(tiff((256, 100), (257, 90), (256, 7)))
    signed[12] = 9  # the type of the first tag, which readers take as well
    assert header(bytes(signed)) == Header(100, 90, 1)


@pytest.mark.parametrize(
    "data",
    [
        b"P6 # \r99999 99999\n5 5 255\n" + bytes(75),  # whether \r ends a comment, readers disagree about
        b"P6" + b"\n" * 1_000_000 + b"5 5 255 ",
        b"P7\n" + b"\n" * 1_000_000 + b"WIDTH 5\nHEIGHT 5\nENDHDR\n",
        b"P6 0 5 255\n",
        b"\xff\xd8\xff" + b"\xff" * 100,
        b"\xff\xd8\xff\xe0\0\0" * 100,
        b"\0\0\0\x0cjP  \r\n\x87\n" + b"\0\0\0\x20xml \xff\x4f\xff\x51" + struct.pack(">HHIIII", 41, 0, 5, 5, 0, 0),
        b"\0\0\0\x01ftyp" + bytes(30),
        b"II*\0" + bytes([255] * 40),
        b"#?RADIANCE\n\n-Y 5 +X 5\n",
        b"",
    ],
)
def test_what_has_no_sound_header_has_no_size_at_once(data):
    assert header(data) is None
