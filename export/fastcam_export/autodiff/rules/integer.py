"""Operators on integers that stand for numbers, straight through, see :mod:`fastcam_export.autodiff.core.codes`."""

from __future__ import annotations

import onnx_ir as ir

from fastcam_export.autodiff.core.builder import Builder
from fastcam_export.autodiff.core.codes import rescaling
from fastcam_export.autodiff.core.integers import INTEGERS
from fastcam_export.autodiff.core.rule import ZERO, Gradients, Node, rule, within
from fastcam_export.autodiff.core.shapes import cast_like

for name in INTEGERS:
    domain, _, operator = name.rpartition(".")
    within(operator, domain=domain)(rescaling)


@rule("DynamicQuantizeLinear", several=True)
def dynamic_quantize_linear(op: Builder, node: Node, dy: ir.Value) -> Gradients:
    """y = round(x / scale) + zero, scale and zero of the whole range of x, which count as constants: dx = dy"""
    first = node.dys[0]
    return ZERO_OF_STEPS if first is None else {0: cast_like(op, first, node.x)}


ZERO_OF_STEPS: Gradients = {0: ZERO}
