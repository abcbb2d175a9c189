"""Damaged JPEGs, whose decoders fill with grey what is missing and say nothing."""

from __future__ import annotations

import io
import time
import tracemalloc

import cv2
import numpy as np
import pytest

from fastcam import FastcamError
from fastcam.image import decode
from fastcam.image.damage import misplaced

Image = pytest.importorskip("PIL.Image", reason="Pillow is not installed: it wrote no pictures")


def photo(height=120, width=168, channels=3):
    """Noise over a slope, so that a scan has many bytes of 255."""
    rng = np.random.default_rng(0)
    slope = np.add.outer(np.arange(height), np.arange(width))[..., None] % 256
    return np.clip(slope + rng.normal(0, 40, (height, width, channels)), 0, 255).astype(np.uint8)


def by_opencv(*settings, size=(120, 168), channels=3):
    pixels = photo(*size, channels)
    return cv2.imencode(".jpg", pixels if channels == 3 else pixels[..., 0], [*settings])[1].tobytes()


def by_pillow(mode="RGB", **settings):
    file = io.BytesIO()
    Image.fromarray(photo()).convert(mode).save(file, "JPEG", **settings)
    return file.getvalue()


RESTARTS, PROGRESSIVE = cv2.IMWRITE_JPEG_RST_INTERVAL, cv2.IMWRITE_JPEG_PROGRESSIVE
SAMPLING = cv2.IMWRITE_JPEG_SAMPLING_FACTOR
SOUND = {
    "plain": by_opencv(),
    "grey": by_opencv(channels=1),
    "of a pixel": by_opencv(size=(1, 1)),
    "odd": by_opencv(RESTARTS, 3, size=(97, 131)),
    "restarts": by_opencv(RESTARTS, 8),
    "restarts at each unit": by_opencv(RESTARTS, 1),
    "grey restarts": by_opencv(RESTARTS, 5, channels=1, size=(50, 61)),
    "progressive restarts": by_opencv(RESTARTS, 7, PROGRESSIVE, 1, size=(75, 91)),
    "4:4:4": by_opencv(SAMPLING, 0x111111, RESTARTS, 4),
    "4:1:1": by_opencv(SAMPLING, 0x411111, RESTARTS, 4, PROGRESSIVE, 1, size=(75, 91)),
    "4:4:0": by_opencv(SAMPLING, 0x121111, RESTARTS, 4, size=(75, 91)),
    "progressive": by_pillow(progressive=True, quality=97),
    "optimised": by_pillow(optimize=True, comment=b"said \xff\xd0 here"),
    "inks": by_pillow("CMYK", quality=60),
    "more behind it": by_opencv() + b"\xff\xd8\xff a film \xff\x01",
}


@pytest.mark.parametrize("kind", SOUND)
def test_a_sound_file_is_read(kind):
    assert not misplaced(SOUND[kind])
    assert decode.read(SOUND[kind], "RGB")[0].ndim == 3


def scan(data):
    """Where the data of the first scan begins and ends."""
    begin = data.index(b"\xff\xda")
    return begin + 2 + int.from_bytes(data[begin + 2 : begin + 4], "big"), data.rindex(b"\xff\xd9")


def with_bytes(data, given, share=0.5):
    """Other bytes in the middle of a scan, behind none of 255."""
    begin, end = scan(data)
    at = begin + int((end - begin) * share)
    while data[at - 1] == 0xFF:
        at += 1
    return data[:at] + given + data[at + len(given) :]


def without_a_restart(data):
    at = data.index(b"\xff\xd3", scan(data)[0])
    return data[:at] + data[at + 2 :]


PLAIN, EVERY = SOUND["plain"], SOUND["restarts"]
WRONG = {
    "a frame in a scan": with_bytes(PLAIN, b"\xff\xc0\x00\x04\x08\x00"),
    "a reserved marker": with_bytes(PLAIN, b"\xff\x17"),
    "the begin of another": with_bytes(PLAIN, b"\xff\xd8"),
    "a segment": with_bytes(PLAIN, b"\xff\xe1\x00\x08"),
    "a segment behind the file": with_bytes(PLAIN, b"\xff\xc4\xff\xfe"),
    "erased cells": with_bytes(PLAIN, b"\xff" * 64 + b"\x12"),
    "a restart where there are none": with_bytes(PLAIN, b"\xff\xd0"),
    "a restart out of turn": EVERY.replace(b"\xff\xd4", b"\xff\xd6", 1),
    "a restart that is gone": without_a_restart(EVERY),
    "zeros over restarts": with_bytes(SOUND["restarts at each unit"], bytes(800)),
    "the end is too early": with_bytes(EVERY, b"\xff\xd9"),
}


@pytest.mark.parametrize("reader", ["OpenCV", "Pillow"])
@pytest.mark.parametrize("kind", WRONG)
def test_a_damaged_file_is_refused_whoever_reads_it(kind, reader, monkeypatch):
    monkeypatch.setattr(decode, "has_opencv", lambda: reader == "OpenCV")
    with pytest.raises(FastcamError, match=r"the picture is (damaged|cut short); copy it again"):
        decode.read(WRONG[kind], "RGB")


BOMBS = {
    "all erased": PLAIN[:-2] + b"\xff" * (16 << 20) + PLAIN[-2:],
    "restarts alone": EVERY[:-2] + b"".join(b"\xff%c" % (0xD0 + i % 8) for i in range(8)) * (1 << 20) + EVERY[-2:],
    "segments alone": PLAIN[:-2] + b"\xff\xfe\x00\x02" * (4 << 20) + PLAIN[-2:],
    "scans alone": PLAIN[:-2] + b"\xff\xda\x00\x02" * (4 << 20) + PLAIN[-2:],
}


@pytest.mark.parametrize("kind", BOMBS)
def test_looking_takes_little_time_and_memory_whatever_the_bytes_are(kind):
    """16 MiB, as much as a server takes: strangers send such files."""
    begun = time.process_time()
    tracemalloc.start()
    try:
        misplaced(BOMBS[kind])
        assert tracemalloc.get_traced_memory()[1] < 100 << 20
    finally:
        tracemalloc.stop()
    assert time.process_time() - begun < 5


def test_bytes_of_noise_in_a_scan_are_seen_or_lead_to_a_picture():
    """Whatever they are: a line, or pixels, and no other error. Most of a hundred random bytes hold a marker."""
    rng, refused = np.random.default_rng(1), 0
    for _ in range(60):
        data = with_bytes(PLAIN, rng.integers(0, 256, 600, np.uint8).tobytes(), rng.uniform(0.1, 0.8))
        refused += misplaced(data)
        try:
            assert decode.read(data, "RGB")[0].shape == (120, 168, 3)
        except FastcamError as error:
            assert "copy it again" in str(error)
    assert refused > 40, "1 - (1 - 1/256)^600 is 0.9"
