"""The point at which a quantised model's gradient is checked: what each of its integers is in a run of the model.

:mod:`fastcam_export.verify.without_quantization` says the tail by lines y = m x + c. Here m and c are measured: m is
one where the gradient passes, c what the model's rounding adds there. Where an operator with a kink reads y, it is
moved by a small part of a step below, more for each later element, so that values that rounding made equal (zeros at
the kink of a ReLU, ties of a MaxPool) stand on the side of PyTorch's conventions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir

from fastcam_export.autodiff.core import integers
from fastcam_export.autodiff.core.straight_through import DEQUANTIZE, DYNAMIC, MOVES, coding, is_code, limits
from fastcam_export.graph.constants import constant_array
from fastcam_export.verify import stop_gradient
from fastcam_export.verify.finite_differences import Point, exact_outputs_of
from fastcam_export.verify.runs import LayerRun
from fastcam_export.verify.without_quantization import BEFORE, OFFSET, SLOPE, passed_over

Array = npt.NDArray[Any]
KINKS = frozenset(
    {"Abs", "Celu", "Clip", "Elu", "HardSigmoid", "HardSwish", "LeakyRelu", "Max", "Min", "PRelu", "Relu"}
)
KINKS |= {"QLinearLeakyRelu", "Selu", "Shrink", "ThresholdedRelu"}
POOLED = frozenset({"GlobalMaxPool", "MaxPool", "ReduceMax", "ReduceMin"})
PASSED = MOVES | {DEQUANTIZE, "Cast", "Pad"}
ASIDE = 0.05
"""By what part of a step values are moved off the kinks that rounding put them on."""


def at_rounded_point(model: ir.Model, tail: onnx.ModelProto, run: LayerRun) -> LayerRun:
    """A layer's run, moved off the kinks, with what its tail takes beside the layer."""
    point = off_kinks(run.layer.value, run.point)
    feeds = stop_gradient.fed(model, tail, run.feeds)
    fed = measured(model, tail, feeds, point.moved(np.zeros_like(point.maps)))
    return replace(run, point=point, feeds=fed)


def off_kinks(layer: ir.Value, point: Point) -> Point:
    """``point`` of a layer whose numbers are rounded, with these moved as those behind it are."""
    node = layer.producer()
    code = node.inputs[0] if node is not None and node.op_type == DEQUANTIZE else layer
    known = coding(code) if code is not None and is_code(code) else None
    scale = constant_array(known.scale) if known is not None else None
    if scale is None or code is None or not _meets_kinks(code):
        return point
    return replace(point, maps=_aside(point.maps.astype(np.float64), np.asarray(scale.min(), np.float64)))


def measured(model: ir.Model, tail: onnx.ModelProto, feeds: Mapping[str, Array], raw: Array) -> dict[str, Array]:
    """``feeds`` with the slopes and offsets that ``tail`` takes.

    Args:
        model: the source, as it was loaded.
        tail: see :func:`fastcam_export.verify.tail.tail`.
        feeds: the model's inputs, and those of the tail that are known already.
        raw: the layer's value.
    """
    inputs = {value.name for value in tail.graph.input}
    names = [name.removeprefix(SLOPE) for name in inputs if name.startswith(SLOPE)]
    if not names:
        return dict(feeds)
    values = {value.name: value for node in model.graph for value in node.outputs}
    codes = [values[name] for name in names]
    run = _source_run(model, codes, feeds)
    slopes = {f"{SLOPE}{code.name}": _passes(code, run).astype(np.float64) for code in codes}
    wanted = {f"{OFFSET}{code.name}": _moved(code, run) for code in codes}
    flat = {name: np.zeros_like(slope) for name, slope in slopes.items()}
    before = _tail_run(tail, {**feeds, **flat, **wanted}, raw, [f"{BEFORE}{name}" for name in names])
    offsets = {
        f"{OFFSET}{name}": np.asarray(wanted[f"{OFFSET}{name}"] - slopes[f"{SLOPE}{name}"] * x.astype(np.float64))
        for name, x in zip(names, before)
    }
    return {**feeds, **slopes, **offsets}


def _source_run(model: ir.Model, codes: list[ir.Value], feeds: Mapping[str, Array]) -> dict[str, Array]:
    """The integers, and the steps that were chosen at run time, by name."""
    steps = [v for c in codes if (known := coding(c)) is not None for v in (known.scale, known.zero) if v is not None]
    names = [value.name or "" for value in dict.fromkeys([*codes, *steps]) if value.producer() is not None]
    return dict(zip(names, stop_gradient.values(model, names, feeds)))


def _tail_run(tail: onnx.ModelProto, feeds: Mapping[str, Array], raw: Array, names: list[str]) -> list[Array]:
    probe = onnx.ModelProto()
    probe.CopyFrom(tail)
    del probe.graph.output[:]
    probe.graph.output.extend(onnx.helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, None) for n in names)
    return exact_outputs_of(probe, feeds, raw)


def _step(value: ir.Value | None, run: Mapping[str, Array]) -> Array | None:
    if value is None:
        return None
    return run[value.name or ""] if value.name in run else constant_array(value)


def _broadcasting(code: ir.Value, parameter: Array | None, shape: tuple[int, ...]) -> Array | None:
    """A scale or zero point, or a limit, in a form that broadcasts with the integers."""
    node = code.producer()
    if parameter is None or node is None or parameter.size == 1:
        return None if parameter is None else parameter.reshape(())
    axis = node.attributes.get_int("axis", 1) % max(len(shape), 1)
    block = node.attributes.get_int("block_size", 0)
    if block:
        scale = np.shape(parameter) if parameter.ndim > 1 else None
        sizes = [-(-n // block) if a == axis else n for a, n in enumerate(shape)] if scale is None else scale
        return parameter.reshape(sizes).repeat(block, axis).take(range(shape[axis]), axis)
    return parameter.reshape([-1] + [1] * (len(shape) - 1 - axis))


def _numbers(code: ir.Value, run: Mapping[str, Array]) -> tuple[Array, Array]:
    """What the integers stand for, and the size of a step."""
    known, array = coding(code), run[code.name or ""]
    assert known is not None
    scale, zero = (_broadcasting(code, _step(each, run), array.shape) for each in (known.scale, known.zero))
    step = np.ones(()) if scale is None else scale.astype(np.float64)
    return np.asarray((array - (0.0 if zero is None else zero.astype(np.float64))) * step), step


def _passes(code: ir.Value, run: Mapping[str, Array]) -> Array:
    """Where the gradient passes."""
    node, array = code.producer(), run[code.name or ""]
    assert node is not None
    operator = integers.find(node)
    if operator is not None:
        ends: tuple[Array | None, Array | None] | None = integers.limits(node, operator)
    else:
        ends = (None, None) if node.op_type == DYNAMIC else limits(node)
    below, above = (_broadcasting(code, end, array.shape) for end in ends or (None, None))
    inside = np.ones(array.shape, bool)
    inside &= array > below if below is not None else True
    inside &= array < above if above is not None else True
    activation = passed_over(node)
    if activation is not None and activation.op_type == "Relu":
        inside &= _numbers(code, run)[0] > 0
    return inside


def _moved(code: ir.Value, run: Mapping[str, Array]) -> Array:
    number, step = _numbers(code, run)
    return _aside(number, step) if _meets_kinks(code) else number


def _meets_kinks(code: ir.Value) -> bool:
    """Whether an operator with a kink reads the numbers themselves, perhaps rearranged."""
    stack, met = [code], {code}
    while stack:
        for node, _ in stack.pop().uses():
            if node.op_type in KINKS or node.op_type in POOLED:
                return True
            if node.op_type in PASSED:
                stack += [value for value in node.outputs if value not in met]
                met.update(node.outputs)
    return False


def _aside(number: Array, step: Array) -> Array:
    later = np.arange(number.size).reshape(number.shape) / max(number.size, 1)
    return np.asarray(number - ASIDE * np.abs(step) * (1 + later))
