"""Files that take uint8 frames: pictures go in as they are, and the file prepares them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from fastcam.errors import FastcamError
from fastcam.image import preprocess
from fastcam.image.reading import Reading
from fastcam.runtime.inputs.batch import Batch
from fastcam.schema import Preprocessing


def batches(sources: Sequence[Any], most: int, reading: Reading) -> Iterator[list[preprocess.Uint8]]:
    """The pictures, read as they are asked for; neighbours of one size, up to ``most``, are a batch."""
    batch: list[preprocess.Uint8] = []
    for source in sources:
        picture = preprocess.load(source, reading)
        if batch and (len(batch) == most or batch[0].shape != picture.shape):
            yield batch
            batch = []
        batch.append(picture)
    if batch:
        yield batch


def prepare(
    sources: Sequence[Any],
    files: Sequence[str | None],
    preprocessing: Preprocessing,
    shape: Sequence[int | str | None],
    name: str,
    reading: Reading,
) -> Batch:
    """Pictures of one size as an input uint8 RGB [N, height, width, 3], and where the file will place them.

    Args:
        sources: pictures, see :func:`fastcam.image.preprocess.load`.
        files: their paths.
        preprocessing: what the file does with them.
        shape: of the file's input.
        name: how messages call the file.
        reading: how files of pictures are read.

    Raises:
        FastcamError: the pictures have different sizes, or another than the file takes.
    """
    pictures = tuple(preprocess.load(source, reading) for source in sources)
    sizes = {(picture.shape[0], picture.shape[1]) for picture in pictures}
    if len(sizes) > 1:
        raise FastcamError(f"the frames of one run must have one size, got {sorted(sizes)}")
    (height, width) = sizes.pop()
    for have, want in zip((height, width), shape[1:3]):
        if isinstance(want, int) and have != want:
            raise FastcamError(
                f"{name} takes frames of {shape[2]} x {shape[1]}, this one is {width} x {height}; resize it, or export "
                "for frames of any size"
            )
    assert preprocessing.size is not None  # the export saw to it
    geometry = preprocess.fit((height, width), preprocessing.size, preprocessing)
    return Batch(np.stack(pictures), pictures, (geometry,) * len(pictures), tuple(files))


def unpacked(images: Any, name: str) -> Any:
    """A uint8 tensor [N, height, width, 3] as its pictures; other images as they are.

    Raises:
        FastcamError: a float tensor, which the file has no input for.
    """
    if isinstance(images, np.ndarray) and images.dtype.kind == "f":
        raise FastcamError(f"{name} takes pictures, uint8 [height, width, 3], and prepares them itself; got floats")
    return list(images) if isinstance(images, np.ndarray) and images.ndim == 4 else images
