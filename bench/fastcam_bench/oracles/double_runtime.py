"""Runs an exported model in float64: ONNX's reference evaluator, with PyTorch for the operators that it is slow at.

In float32 two implementations may round a value near a kink to different sides, and every gradient behind differs
then. In float64 that does not happen, so what is compared is the graph's mathematics.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import torch
import torch.nn.functional as F
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

from fastcam_export.verify.double.float64 import in_double

Array = npt.NDArray[Any]


def tensor(array: Array) -> torch.Tensor:
    """As torch tensor; constants of a graph are read-only, which torch warns about."""
    return torch.from_numpy(array if array.flags.writeable else array.copy())


def padded(x: torch.Tensor, pads: Sequence[int] | None, fill: float = 0.0) -> torch.Tensor:
    """``x`` with ONNX's pads [y0, x0, y1, x1]; negative pads crop."""
    y0, x0, y1, x1 = pads or (0, 0, 0, 0)
    return F.pad(x, (x0, x1, y0, y1), value=fill)


class Conv(OpRun):
    """Without auto_pad."""

    def _run(self, x: Array, w: Array, b: Array | None = None, **a: Any) -> tuple[Array]:
        assert a.get("auto_pad", "NOTSET") == "NOTSET"
        bias = None if b is None else tensor(b)
        strides, dilations = tuple(a.get("strides") or (1, 1)), tuple(a.get("dilations") or (1, 1))
        y = F.conv2d(padded(tensor(x), a.get("pads")), tensor(w), bias, strides, 0, dilations, a.get("group") or 1)
        return (y.numpy(),)


class ConvTranspose(OpRun):
    """With pads, which crop, and output_padding."""

    def _run(self, x: Array, w: Array, b: Array | None = None, **a: Any) -> tuple[Array]:
        strides, dilations = tuple(a.get("strides") or (1, 1)), tuple(a.get("dilations") or (1, 1))
        full = F.conv_transpose2d(tensor(x), tensor(w), None, strides, 0, 0, a.get("group") or 1, dilations)
        (y0, x0, y1, x1), (oy, ox) = a.get("pads") or (0, 0, 0, 0), a.get("output_padding") or (0, 0)
        return (padded(full, (-y0, -x0, oy - y1, ox - x1)).numpy(),)


class MaxPool(OpRun):
    """Both outputs: the second says where the maxima lie among all elements of x."""

    def _run(self, x: Array, **a: Any) -> tuple[Array, ...]:
        dilations, ceil = tuple(a.get("dilations") or (1, 1)), bool(a.get("ceil_mode"))
        wide = padded(tensor(x), a.get("pads"), float("-inf"))
        y, at = F.max_pool2d(wide, a["kernel_shape"], a.get("strides"), 0, dilations, ceil, return_indices=True)
        top, left = (a.get("pads") or (0, 0))[:2]
        row, column = np.divmod(at.numpy(), wide.shape[3])  # in the padded map
        first = np.arange(x.shape[0] * x.shape[1]).reshape(*x.shape[:2], 1, 1) * x.shape[2]
        return (y.numpy(), (first + row - top) * x.shape[3] + column - left)[: len(self.output)]


class AveragePool(OpRun):
    """With even padding."""

    def _run(self, x: Array, **a: Any) -> tuple[Array]:
        y0, x0, y1, x1 = a.get("pads") or (0, 0, 0, 0)
        assert (y0, x0) == (y1, x1)
        ceil, counted = bool(a.get("ceil_mode")), bool(a.get("count_include_pad"))
        return (F.avg_pool2d(tensor(x), a["kernel_shape"], a.get("strides"), (y0, x0), ceil, counted).numpy(),)


class Pad(OpRun):
    """Constant mode; negative pads crop."""

    def _run(
        self, x: Array, pads: Array, value: Array | None = None, axes: Array | None = None, mode: str = "constant"
    ) -> tuple[Array]:
        assert mode == "constant"
        both = np.zeros((x.ndim, 2), np.int64)
        both[list(range(x.ndim)) if axes is None else axes.tolist()] = pads.reshape(2, -1).T
        y = np.pad(x, np.maximum(both, 0), constant_values=0 if value is None else float(value))
        return (y[tuple(slice(max(-b, 0), n - max(-e, 0)) for (b, e), n in zip(both, y.shape))],)


class Col2Im(OpRun):
    """Without pads."""

    def _run(self, x: Array, image_shape: Array, block_shape: Array, **a: Any) -> tuple[Array]:
        assert not any(a.get("pads") or [])
        y = F.fold(tensor(x), image_shape.tolist(), block_shape.tolist(), a["dilations"], 0, a["strides"])
        return (y.numpy(),)


class GatherElements(OpRun):
    """ONNX's own knows no axis of more than 64 elements."""

    def _run(self, x: Array, indices: Array, axis: int = 0) -> tuple[Array]:
        return (np.take_along_axis(x, indices, axis),)


def run(model: onnx.ModelProto, feeds: Mapping[str, Array]) -> dict[str, Array]:
    """Outputs of a model by name, computed in float64."""
    operators: list[type[OpRun]] = [Conv, ConvTranspose, MaxPool, AveragePool, Pad, Col2Im, GatherElements]
    evaluator = ReferenceEvaluator(in_double(model), new_ops=operators)
    wide = {name: array.astype(np.float64) if array.dtype == np.float32 else array for name, array in feeds.items()}
    return dict(zip(evaluator.output_names, map(np.asarray, evaluator.run(None, wide))))
