"""What the metadata of an export promise of its inputs and outputs, beside what the file has."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastcam.errors import FastcamError
from fastcam.schema import Metadata


def check_promises(metadata: Metadata, name: str, images: Sequence[Any], taken: set[str], emitted: set[str]) -> None:
    """Raise where a file, or a pair of them, lacks what its metadata say.

    Args:
        name: of the file, for an error.
        images: the shape of the input for images, a name for a free side.
        taken, emitted: the names of all inputs and outputs.
    """
    absent = sorted({*metadata.emitted(), *metadata.further(), metadata.score.output} - emitted)
    absent += sorted({one.output for one in metadata.cotangents} - emitted)
    absent += sorted({metadata.input, *(one.input for one in metadata.cotangents)} - taken)
    if absent:
        raise FastcamError(f"{name} lacks {', '.join(absent)}, which its metadata promises; export it again")
    said = metadata.input_shape
    both = zip(said, images) if len(said) == len(images) else [(0, 1)]
    if any(isinstance(a, int) and isinstance(b, int) and a != b for a, b in both):
        raise FastcamError(
            f"the input {metadata.input!r} of {name} is {list(images)}, and its metadata says "
            f"{list(said)}; export it again"
        )
