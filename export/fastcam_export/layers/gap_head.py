"""Whether a head is a mean over the layer's positions and one matrix, as Class Activation Mapping (CAM) wants it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import onnx_ir as ir

from fastcam_export.autodiff.reverse import path
from fastcam_export.graph.constants import constant_array
from fastcam_export.graph.query import ELEMENTS_KEPT, VIEWS, captured, dependents, dims_of, in_default_domain, input_at
from fastcam_export.layers.layout import Layout


@dataclass(frozen=True)
class _State:
    """How far a value on the way is: which of its axes are positions (none behind the mean), and matrices so far."""

    positions: tuple[int, ...]
    matrices: int = 0

    @property
    def pooled(self) -> bool:
        return not self.positions


def is_averaged(graph: ir.Graph, image: ir.Value, layer: ir.Value, layout: Layout, score: ir.Value) -> bool:
    """Whether ``score`` = W mean_ij(layer) + b with constants W and b, W perhaps the identity.

    Then the score's gradient is w_k / (h w) at every position, so that Grad-CAM is CAM divided by h w (Selvaraju et al.
    2017, section 3.1). What lies behind the layer is followed node by node: one mean over exactly its positions, at
    most one Gemm, MatMul or 1 x 1 Conv, biases, and what moves values only. Anything else makes it False, a case that
    is not recognised as well.
    """
    if layout.prefix or layout.suffix != 0 or layout.folded:
        return False
    of_image = dependents(graph, [image])
    value, state = layer, _State(tuple(layout.spatial))
    nodes = path(graph, [layer], [score])
    while value is not score:
        readers = [(node, i) for node in nodes for i, x in enumerate(node.inputs) if x is value]
        if len(readers) != 1 or any(value in captured(node) for node in nodes):
            return False
        node, index = readers[0]
        others = [x for i, x in enumerate(node.inputs) if i != index and x is not None]
        if any(x in of_image for x in others) and node.op_type not in VIEWS:
            return False
        step = STEPS.get(node.op_type) if in_default_domain(node) else None
        after = step(node, index, state) if step is not None else None
        if after is None:
            return False
        value, state = node.outputs[0], after
    return state.pooled and state.matrices <= 1


# ---- steps: (node, input index, state of that input) -> state of the output, None where it is no such head


def _same(node: ir.Node, index: int, state: _State) -> _State | None:
    return state if index == 0 else None


def _view(node: ir.Node, index: int, state: _State) -> _State | None:
    """Behind the mean all axes but images and channels have size one, which are dropped or added."""
    before, after = node.inputs[0], node.outputs[0]
    known = before is not None and before.shape is not None and after.shape is not None
    kept = known and _sizes(before) == _sizes(after)
    return state if state.pooled and index == 0 and kept else None


def _transpose(node: ir.Node, index: int, state: _State) -> _State | None:
    order = list(node.attributes.get_ints("perm", ()))
    return replace(state, positions=tuple(order.index(axis) for axis in state.positions)) if order else None


def _global_mean(node: ir.Node, index: int, state: _State) -> _State | None:
    rank = len(dims_of(node.inputs[0]))
    return replace(state, positions=()) if sorted(state.positions) == list(range(2, rank)) else None


def _mean(node: ir.Node, index: int, state: _State) -> _State | None:
    rank = len(dims_of(node.inputs[0]))
    array = constant_array(input_at(node, 1))
    axes = array.reshape(-1).tolist() if array is not None else list(node.attributes.get_ints("axes", ()))
    same = sorted(int(axis) % rank for axis in axes) == sorted(state.positions) if rank else False
    return replace(state, positions=()) if same and index == 0 and not state.pooled else None


def _window(node: ir.Node, index: int, state: _State) -> _State | None:
    """An AveragePool whose one window is all positions."""
    whole = list(node.attributes.get_ints("kernel_shape", ())) == list(dims_of(node.inputs[0])[2:])
    padded = any(node.attributes.get_ints("pads", ())) or node.attributes.get_string("auto_pad", "NOTSET") != "NOTSET"
    return _global_mean(node, index, state) if whole and not padded else None


def _matrix(node: ir.Node, index: int, state: _State) -> _State | None:
    pooled = state.pooled and index == 0 and not node.attributes.get_int("transA", 0)
    return replace(state, matrices=state.matrices + 1) if pooled and len(dims_of(node.inputs[1])) == 2 else None


def _point(node: ir.Node, index: int, state: _State) -> _State | None:
    """A 1 x 1 convolution treats all positions alike, so that it may stand on either side of the mean."""
    taps = dims_of(node.inputs[1])[2:]
    moved = any(node.attributes.get_ints("pads", ())) or any(s != 1 for s in node.attributes.get_ints("strides", ()))
    alike = bool(taps) and all(tap == 1 for tap in taps) and node.attributes.get_int("group", 1) == 1 and not moved
    maps = state.pooled or sorted(state.positions) == list(range(2, 2 + len(taps)))
    return replace(state, matrices=state.matrices + 1) if alike and maps and index == 0 else None


def _bias(node: ir.Node, index: int, state: _State) -> _State | None:
    """A constant added, which does not broadcast the value."""
    x, y = node.inputs[index], node.outputs[0]
    known = x is not None and x.shape is not None and y.shape is not None
    return state if known and dims_of(x) == dims_of(y) and (index == 0 or node.op_type == "Add") else None


STEPS: dict[str, Callable[[ir.Node, int, _State], _State | None]] = {
    **dict.fromkeys(ELEMENTS_KEPT, _same),
    **dict.fromkeys(VIEWS, _view),
    "Transpose": _transpose,
    "GlobalAveragePool": _global_mean,
    "ReduceMean": _mean,
    "AveragePool": _window,
    "Gemm": _matrix,
    "MatMul": _matrix,
    "Conv": _point,
    "Add": _bias,
    "Sub": _bias,
}


def _sizes(value: ir.Value | None) -> list[int]:
    """The fixed sizes above one behind the axis of images."""
    return [d for d in dims_of(value)[1:] if isinstance(d, int) and d != 1]
