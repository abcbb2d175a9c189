"""Whether two models give the same outputs, and how much they may differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from fastcam.schema import FastcamError
from fastcam_export.autodiff.core.straight_through import COUNTS, DYNAMIC, QUANTIZE

Array = npt.NDArray[Any]
OUTPUT_TOLERANCE = {"float32": 1e-4, "float16": 1e-2}
"""Largest accepted difference of an output, as a share of its largest value, where fusions changed the last bits."""


def difference(before: Sequence[Array], after: Sequence[Array]) -> tuple[bool, float]:
    """Whether two lists of arrays are equal bit for bit, and the largest difference as a share of the largest value.

    Sequences and maps count by what is in them; of texts it only counts whether they are the same.
    """
    identical, worst = True, 0.0
    for a, b in zip(_numbers(before), _numbers(after)):
        identical &= a.shape == b.shape and a.tobytes() == b.tobytes()
        if a.shape != b.shape or not np.array_equal(np.isfinite(a), np.isfinite(b)):
            return False, float("inf")
        finite = np.isfinite(a)
        x, y = a[finite].astype(np.float64), b[finite].astype(np.float64)
        worst = max(worst, float(np.abs(x - y).max(initial=0) / max(np.abs(x).max(initial=0), 1e-30)))
    return identical, worst


def _numbers(values: Any) -> list[Array]:
    """All arrays in outputs, those in sequences and maps too; of a text its bytes."""
    if isinstance(values, np.ndarray) and values.dtype.kind not in "OUS":
        return [values]
    if isinstance(values, str | bytes):
        return [np.frombuffer(values.encode() if isinstance(values, str) else values, np.uint8)]
    if isinstance(values, Mapping):
        return _numbers([*values.keys(), *values.values()])
    if isinstance(values, np.ndarray):
        values = values.ravel().tolist()
    if isinstance(values, list | tuple):
        return [array for value in values for array in _numbers(value)]
    return [np.asarray(values)]


def output_tolerance(source: onnx.ModelProto) -> float:
    """What :data:`OUTPUT_TOLERANCE` allows for this model."""
    return OUTPUT_TOLERANCE["float16" if is_half(source) else "float32"]


def is_half(model: onnx.ModelProto) -> bool:
    """Whether a model has float16 weights."""
    return any(tensor.data_type == onnx.TensorProto.FLOAT16 for tensor in model.graph.initializer)


def is_quantised(model: onnx.ModelProto) -> bool:
    """Whether a model rounds its values."""
    plain = (QUANTIZE, DYNAMIC, *COUNTS)
    return any(node.op_type in plain or node.op_type.startswith(("QLinear", "DynamicQ")) for node in model.graph.node)


def other_outputs(worst: float, quantised: bool) -> FastcamError:
    """What to say of an export whose outputs differ from the source's by ``worst`` of their largest value."""
    if quantised:
        return FastcamError(
            "the check failed: reading this layer makes the runtime take other kernels than for a quantised model; an "
            f"output differs by {worst:.1e} of its largest value; name another layer (fastcam inspect lists them)"
        )
    return FastcamError(
        f"the check failed: an output of the exported model differs from the source's by {worst:.1e} of its "
        "largest value; please report the model's operators (fastcam inspect)"
    )
