"""Cotangents of zeros, with which a file runs whose cotangents are still to be given."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastcam.errors import FastcamError
from fastcam.schema import Cotangent, Metadata


def zero_cotangents(
    metadata: Metadata, name: str, feed: Mapping[str, Any], further: Mapping[str, Any]
) -> dict[str, NDArray[np.float32]]:
    """One of zeros for each output that is explained, by the name of its input.

    Args:
        name: of the file, for an error.
        feed: the model's own inputs by name.
        further: what ONNX Runtime says of those beside the images, by name.

    Raises:
        FastcamError: only a run tells how large an output is.
    """
    images, zeros = feed[metadata.input], {}
    for one in metadata.cotangents:
        shape = _by_inputs(one, feed, further) or metadata.size_of(one, images.shape)
        if shape is None:
            raise FastcamError(
                f"{name}: only a run tells the size of output {one.output}, and this file runs with a "
                "cotangent alone; export in two files (--on-demand), or give the cotangent as an array"
            )
        zeros[one.input] = np.zeros((len(images) if one.batched else 1, 1, *shape), np.float32)
    return zeros


def _by_inputs(about: Cotangent, feed: Mapping[str, Any], further: Mapping[str, Any]) -> tuple[int, ...] | None:
    """The shape of an output whose free sides are those of further inputs, as a text's length is."""
    named = {
        side: have
        for name, array in feed.items()
        if name in further
        for side, have in zip(further[name].shape, np.shape(array), strict=False)
        if isinstance(side, str)
    }
    shape = tuple(named.get(side, side) if isinstance(side, str) else side for side in about.shape)
    sizes = tuple(side for side in shape if isinstance(side, int))
    return sizes if named and len(sizes) == len(shape) else None
