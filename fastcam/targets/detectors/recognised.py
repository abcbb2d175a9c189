"""Which form a detector's outputs have."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastcam.errors import listed
from fastcam.schema import PREFIX, Cotangent
from fastcam.targets.detectors.forms import Detections
from fastcam.targets.detectors.levels import Size, levels_of
from fastcam.targets.detectors.rows import apart, boxes_of, is_caffe, one_output
from fastcam.targets.spec_parser import INPUT_SIZE, File, Outputs, Spec

SAID = ("layout", "boxes", "scores", "priors")
"""Options that say where things are, in rows."""


def form_of(spec: Spec, file: File, outputs: Outputs) -> Detections:
    """The form of the outputs of a run.

    Raises:
        FastcamError: it cannot be told; the message says which option tells it.
    """
    size = _size(file, outputs)
    arrays: dict[str, NDArray[Any]] = {
        name: np.asarray(value)
        for name, value in outputs.items()
        if hasattr(value, "shape") and not name.startswith(PREFIX)
    }
    arrays = {name: _without_axis_of_one(array) for name, array in arrays.items()}
    explained = {one.output: arrays[one.output] for one in file.about if one.output in arrays}
    if any(is_caffe(one.shape) for one in file.about) and not set(spec.options) & {"boxes", "scores"}:
        return one_output(spec, file, arrays, size)
    if not any(option in spec.options for option in SAID):
        form = levels_of(file, explained, size)
        if form is not None:
            return form
    softmaxes = {one.output for one in file.about if one.activation == "Softmax"}
    boxes = boxes_of(spec, arrays, softmaxes)
    return apart(spec, file, arrays, boxes, size) if boxes is not None else one_output(spec, file, arrays, size)


def _without_axis_of_one(array: NDArray[Any]) -> NDArray[Any]:
    """[N, boxes, 1, 4], as YOLOv4 has boxes for each class, is [N, boxes, 4]."""
    return array[:, :, 0] if array.ndim == 4 and array.shape[2:] == (1, 4) else array


def _size(file: File, outputs: Outputs) -> Size:
    """Height and width of the network's input."""
    if INPUT_SIZE in outputs:
        height, width = np.asarray(outputs[INPUT_SIZE]).ravel().tolist()
        return int(height), int(width)
    return file.preprocessing.size if file.preprocessing is not None else None


def refuse_unexplained(spec: Spec, file: File) -> None:
    """Raise where the file can have no boxes."""
    if not any(len(one.shape) in (1, 2, 3, 4) and _may_be_boxes(one) for one in file.about):
        have = listed(f"{one.output} {list(one.shape)}" for one in file.about)
        raise spec.wrong(f"{file.name} explains {have}, which are no boxes or scores of boxes")


def _may_be_boxes(about: Cotangent) -> bool:
    return len(about.shape) > 1 or not about.batched or any(isinstance(d, str) for d in about.shape)
