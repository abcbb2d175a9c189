"""The part of a model behind a layer, which the check runs alone to take central differences."""

from __future__ import annotations

import onnx
import onnx_ir as ir
from onnx_ir.passes import common as common_passes

from fastcam_export.autodiff.core.straight_through import is_code
from fastcam_export.verify import stop_gradient
from fastcam_export.verify.finite_differences import LAYER
from fastcam_export.verify.without_quantization import without_rounding


def tail(model: ir.Model, layer: ir.Value, *scores: ir.Value) -> onnx.ModelProto:
    """The part of ``model`` behind ``layer``, which may be the image: the layer becomes the input LAYER.

    What is quantised there, the layer too, is said in real numbers, see
    :mod:`fastcam_export.verify.without_quantization`.
    What gradients hold constant becomes an input too, see :mod:`fastcam_export.verify.stop_gradient`.

    Args:
        model: as it was loaded; it stays as it is.
        layer: one of its values.
        scores: the only outputs of the part, in this order.
    """
    part = model.clone()
    values = {value.name: value for value in (*part.graph.inputs, *(y for node in part.graph for y in node.outputs))}
    code = is_code(layer)
    cut = ir.Value(name=LAYER, type=ir.TensorType(ir.DataType.FLOAT) if code else layer.type, shape=layer.shape)
    part.graph.outputs.clear()  # the layer may be one of them
    if not code:
        ir.convenience.replace_all_uses_with(values[layer.name], cut)
    part.graph.outputs.extend(values[score.name] for score in scores)
    stop_gradient.cut_around(part.graph, values[layer.name] if code else cut)
    without_rounding(part.graph, {values[layer.name]: cut} if code else {})
    part.graph.inputs.append(cut)
    stop_gradient.cut(part.graph, cut)
    common_passes.RemoveUnusedNodesPass()(part)
    common_passes.LiftConstantsToInitializersPass()(part)  # weights that some exporters write as nodes
    return ir.to_proto(part)
