"""Runs an exported model in float64: ONNX's reference evaluator, with PyTorch for the operators that it is slow at.

In float32 two implementations may round a value near a kink to different sides, and every gradient behind differs
then. In float64 that does not happen, so what is compared is the graph's mathematics.
"""

import numpy as np
import torch
import torch.nn.functional as F
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

from fastcam_export.verify import in_double


def tensor(array):
    """As torch tensor; constants of a graph are read-only, which torch warns about."""
    return torch.from_numpy(array if array.flags.writeable else array.copy())


def padded(x, pads, fill=0.0):
    """``x`` (torch) with ONNX's pads [y0, x0, y1, x1]; negative pads crop."""
    y0, x0, y1, x1 = pads or (0, 0, 0, 0)
    return F.pad(x, (x0, x1, y0, y1), value=fill)


class Conv(OpRun):
    def _run(
        self, x, w, b=None, auto_pad="NOTSET", dilations=None, group=1, kernel_shape=None, pads=None, strides=None
    ):
        assert auto_pad == "NOTSET"
        bias = None if b is None else tensor(b)
        x = padded(tensor(x), pads)
        y = F.conv2d(x, tensor(w), bias, tuple(strides or (1, 1)), 0, tuple(dilations or (1, 1)), group)
        return (y.numpy(),)


class ConvTranspose(OpRun):
    def _run(self, x, w, b=None, auto_pad="NOTSET", dilations=None, group=1, kernel_shape=None, output_padding=None,
             output_shape=None, pads=None, strides=None):  # fmt: skip
        x, w = tensor(x), tensor(w)
        full = F.conv_transpose2d(x, w, None, tuple(strides), 0, 0, group, tuple(dilations))
        (y0, x0, y1, x1), (oy, ox) = pads or (0, 0, 0, 0), output_padding or (0, 0)
        return (padded(full, (-y0, -x0, oy - y1, ox - x1)).numpy(),)


class MaxPool(OpRun):
    def _run(self, x, auto_pad="NOTSET", ceil_mode=0, dilations=None, kernel_shape=None, pads=None, storage_order=0,
             strides=None):  # fmt: skip
        x = padded(tensor(x), pads, float("-inf"))
        return (F.max_pool2d(x, kernel_shape, strides, 0, tuple(dilations or (1, 1)), bool(ceil_mode)).numpy(),)


class AveragePool(OpRun):
    def _run(self, x, auto_pad="NOTSET", ceil_mode=0, count_include_pad=0, dilations=None, kernel_shape=None, pads=None,
             strides=None):  # fmt: skip
        y0, x0, y1, x1 = pads or (0, 0, 0, 0)
        assert (y0, x0) == (y1, x1)
        x = tensor(x)
        return (F.avg_pool2d(x, kernel_shape, strides, (y0, x0), bool(ceil_mode), bool(count_include_pad)).numpy(),)


class Pad(OpRun):
    def _run(self, x, pads, value=None, axes=None, mode="constant"):
        assert mode == "constant"
        axes = list(range(x.ndim)) if axes is None else axes.tolist()
        both = np.zeros((x.ndim, 2), np.int64)
        both[axes] = pads.reshape(2, -1).T
        y = np.pad(x, np.maximum(both, 0), constant_values=0 if value is None else value)
        return (y[tuple(slice(max(-b, 0), n - max(-e, 0)) for (b, e), n in zip(both, y.shape))],)


class Col2Im(OpRun):
    def _run(self, x, image_shape, block_shape, dilations=None, pads=None, strides=None):
        assert not any(pads or [])
        y = F.fold(tensor(x), image_shape.tolist(), block_shape.tolist(), dilations, 0, strides)
        return (y.numpy(),)


def run(model, feeds):
    """Outputs of a ModelProto by name, computed in float64."""
    operators = [Conv, ConvTranspose, MaxPool, AveragePool, Pad, Col2Im]
    evaluator = ReferenceEvaluator(in_double(model), new_ops=operators)
    feeds = {k: v.astype(np.float64) if v.dtype == np.float32 else v for k, v in feeds.items()}
    return dict(zip(evaluator.output_names, evaluator.run(None, feeds)))
