"""Weights that hold no finite numbers: what comes of them is none either, or a file was damaged."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from fastcam.errors import listed
from fastcam_export.graph.constants import constant_array

FEW = 3
"""How many are named."""


def broken_weights(graph: ir.Graph) -> str:
    """Names of the weights and constants with NaN or infinity, for a message; "" where there are none.

    Bounds, one number, and masks, minus infinity among zeros, are meant so.
    """
    constants = [node.outputs[0] for node in graph if node.op_type == "Constant" and len(node.outputs) == 1]
    values = [value for value in (*graph.initializers.values(), *constants) if value.dtype is not None]
    floats = [value for value in values if value.dtype is not None and value.dtype.is_floating_point()]
    return listed([value.name for value in floats if _is_broken(constant_array(value))], FEW)


def _is_broken(weight: npt.NDArray[np.generic] | None) -> bool:
    if weight is None or not weight.size:
        return False
    array: npt.NDArray[Any] = (
        weight if weight.dtype.kind == "f" else weight.astype(np.float32)
    )  # of bfloat16 and its kin
    finite = np.isfinite(array)
    if finite.all():
        return False
    if np.isnan(array).any():
        return True
    return array.size > 1 and not ((array[~finite] < 0).all() and not array[finite].any())
