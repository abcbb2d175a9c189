"""Pictures, a model and sources for tests of batches."""

from __future__ import annotations

import io
import tarfile

import cv2
import numpy as np

from support.models.contract_model import random_model

LABELS = ("left thing", "right thing", "upper thing")


def model_file(folder, **changes):
    """An exported file of three classes; its path."""
    path = folder / "tiny.cam.onnx"
    path.write_bytes(random_model(classes=len(LABELS), end="Softmax", labels=LABELS, **changes).file())
    return path


def encoded(number):
    """The bytes of a PNG, different for each number."""
    picture = np.random.default_rng(number).integers(0, 256, (12 + number % 3, 16, 3), dtype=np.uint8)
    return cv2.imencode(".png", picture)[1].tobytes()


def pictures(folder, count, bad=()):
    """A folder of pictures, half of them in a subfolder; those of the numbers ``bad`` are none."""
    for number in range(count):
        path = folder / ("more" if number % 2 else "") / f"{number:04}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"no picture" if number in bad else encoded(number))
    return folder


def shard(contents, mode="w"):
    """The bytes of a tar file with these members."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode=mode) as tar:
        for name, data in contents.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return file.getvalue()


def read(source, size, most=1 << 20, only=lambda number: True):
    """The parts of a source that are wanted, in full: number, first picture, and (name, bytes or error) of each."""
    from fastcam import FastcamError
    from fastcam.batch.sources.items import Cursor

    found, cursor = [], Cursor()
    for part in source.parts(size):
        if not only(part.number):
            continue
        inside = []
        for _, item in part.items(most, cursor):
            try:
                content = item.load()
                inside.append((item.name, content if isinstance(content, bytes) else content.read_bytes()))
            except FastcamError as error:
                inside.append((item.name, str(error)))
        assert len(inside) == part.count
        found.append((part.number, part.first, inside))
    return found
