"""A small PyTorch network as an ONNX file, by torch's older exporter, and what autograd says of it."""

from __future__ import annotations

import io

import numpy as np
import torch


def onnx_bytes(module, example, free=(0,)):
    """The file of ``module``; input "x", output "y".

    Args:
        example: float32, one input.
        free: the axes of the input that are free in the file.
    """
    file = io.BytesIO()
    names = {"input_names": ["x"], "output_names": ["y"], "dynamic_axes": {"x": {axis: f"d{axis}" for axis in free}}}
    torch.onnx.export(module.eval(), (torch.as_tensor(example),), file, dynamo=False, opset_version=17, **names)
    return file.getvalue()


def grad_cam(module, x, target):
    """Grad-CAM's map of a class, float32 [M, ...], at what the module keeps as ``map`` [M, K, ...]; each of the M rows
    has its own weights."""
    scores = module(torch.as_tensor(x))
    (gradient,) = torch.autograd.grad(scores[:, target].sum(), module.map)
    weights = gradient.mean(tuple(range(2, gradient.ndim)), keepdim=True)
    return np.asarray(torch.relu((weights * module.map).sum(1)).detach())
