"""Makes the backward pass of a small model, and runs it: on ONNX Runtime, and in float64 on the reference evaluator."""

import itertools

import numpy as np
import onnx_ir as ir
import pytest
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun
from scipy import special

from fastcam_export.autodiff.core.batching import BatchedBuilder
from fastcam_export.autodiff.core.builder import Builder
from fastcam_export.autodiff.reverse import backward
from fastcam_export.verify.session import quiet_session
from support.rules import composite as cases_composite
from support.rules import control as cases_control
from support.rules import indexing as cases_indexing
from support.rules import recurrent as cases_recurrent
from support.rules import sampling as cases_sampling


def differentiate(proto, cotangents, wrt, lifted=False, engine="onnxruntime"):
    """The model with its backward pass alone as outputs d_x, for inputs d_y (and "copies" where ``lifted``).

    A structurally zero gradient becomes x * 0.
    """
    model = ir.from_proto(proto)
    graph = model.graph
    values = {value.name: value for value in (*graph.inputs, *(o for node in graph for o in node.outputs))}
    op = BatchedBuilder(graph, engine=engine) if lifted else Builder(graph, engine)
    if lifted:
        op.copies = ir.Value(name="copies", type=ir.TensorType(ir.DataType.INT64), shape=ir.Shape([1]))
        graph.inputs.append(op.copies)
    seeds = {}
    for name in cotangents:
        y = values[name]
        dims = op.dims(y)
        seed = ir.Value(name=f"d_{name}", type=y.type, shape=ir.Shape((None, *dims[1:]) if lifted else dims))
        graph.inputs.append(seed)
        seeds[y] = op.lift_value(seed, dims) if lifted else seed
    gradients = backward(op, seeds, [values[name] for name in wrt])
    graph.outputs.clear()
    for name in wrt:
        gradient = gradients[values[name]] or op.Mul(values[name], 0.0)
        (output,) = op.append("Identity", [gradient], {}, [(gradient.dtype, None)])
        output.name = f"d_{name}"
        graph.outputs.append(output)
    return ir.to_proto(model)


def runner(model):
    """A function from feeds to what ONNX Runtime computes, by output name."""
    session = quiet_session(model, threads=1)
    names = {value.name for value in session.get_inputs()}
    outputs = [output.name for output in session.get_outputs()]

    def run(feeds):
        return dict(zip(outputs, session.run(None, {name: feeds[name] for name in feeds if name in names})))

    return run


def run(model, feeds):
    """What ONNX Runtime computes, by output name."""
    return runner(model)(feeds)


def on_openvino(model, feeds):
    """What OpenVINO's CPU computes in float32, by output name. Without OpenVINO the test is skipped."""
    openvino = pytest.importorskip("openvino", reason="needs OpenVINO (pip install fastcam[openvino])")
    core, exact = openvino.Core(), {"INFERENCE_PRECISION_HINT": "f32"}
    compiled = core.compile_model(core.read_model(model.SerializeToString()), "CPU", exact)
    known = {name for value in compiled.inputs for name in value.get_names()}
    found = compiled({name: array for name, array in feeds.items() if name in known})
    return {name: array for value, array in found.items() for name in value.get_names()}


def reference(model, feeds):
    """What ONNX's reference evaluator computes, by output name."""
    evaluator = ReferenceEvaluator(model, new_ops=[*MENDED, *FURTHER])
    return dict(zip(evaluator.output_names, evaluator.run(None, feeds)))


# ---- operators that the reference evaluator computes wrongly, only in part, or only in float32, from their definition


FURTHER = [
    mended
    for family in (cases_indexing, cases_sampling, cases_recurrent, cases_composite, cases_control)
    for mended in getattr(family, "MENDED", ())
]


class Erf(OpRun):
    def _run(self, x):
        return (np.asarray(special.erf(x), x.dtype),)


class Gelu(OpRun):
    def _run(self, x, approximate="none"):
        if approximate == "tanh":
            return (0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))),)
        return (0.5 * x * (1 + special.erf(x / np.sqrt(2))),)


class Mean(OpRun):
    def _run(self, *xs):
        return (sum(xs) / len(xs),)


class GlobalMaxPool(OpRun):
    def _run(self, x):
        return (x.max(axis=tuple(range(2, x.ndim)), keepdims=True),)


def standardized(x, axes, epsilon, centre=True):
    centred = x - x.mean(axes, keepdims=True) * centre
    return centred / np.sqrt((centred**2).mean(axes, keepdims=True) + epsilon)


class LayerNormalization(OpRun):
    def _run(self, x, scale, b=0.0, axis=None, epsilon=None, stash_type=None):
        axes = tuple(range(axis % x.ndim, x.ndim))
        y = standardized(x, axes, epsilon) * scale + b
        mean = x.mean(axes, keepdims=True)
        return (y, mean, 1 / np.sqrt(x.var(axes, keepdims=True) + epsilon))[: len(self.output)]


class RMSNormalization(OpRun):
    def _run(self, x, scale, axis=None, epsilon=None, stash_type=None):
        return (standardized(x, tuple(range(axis % x.ndim, x.ndim)), epsilon, centre=False) * scale,)


class GroupNormalization(OpRun):
    def _run(self, x, scale, b, epsilon=None, num_groups=None, stash_type=None):
        grouped = x.reshape(x.shape[0], num_groups, -1)
        y = standardized(grouped, (2,), epsilon).reshape(x.shape)
        tail, each = [1] * (x.ndim - 2), x.shape[1] // len(scale)  # one number to a channel, or one to a group
        return (y * scale.repeat(each).reshape(-1, *tail) + b.repeat(each).reshape(-1, *tail),)


class MeanVarianceNormalization(OpRun):
    def _run(self, x, axes=None):
        axes = tuple(axes)
        return ((x - x.mean(axes, keepdims=True)) / (x.std(axes, keepdims=True) + 1e-9),)


class LpNormalization(OpRun):
    def _run(self, x, axis=None, p=None):
        return (x / (np.abs(x) ** p).sum(axis, keepdims=True) ** (1 / p),)


class LRN(OpRun):
    def _run(self, x, alpha=None, beta=None, bias=None, size=None):
        y = np.empty_like(x)
        for c in range(x.shape[1]):
            near = x[:, max(0, c - (size - 1) // 2) : c + size // 2 + 1]
            y[:, c] = x[:, c] / (bias + alpha / size * (near**2).sum(1)) ** beta
        return (y,)


class Pad(OpRun):
    def _run(self, x, pads, value=None, axes=None, mode=None):
        axes = range(x.ndim) if axes is None else [axis % x.ndim for axis in axes]
        both = np.zeros((x.ndim, 2), np.int64)
        both[list(axes)] = np.reshape(pads, (2, -1)).T
        # what a negative pad cuts off is gone before anything is repeated
        x = x[tuple(slice(max(-b, 0), size - max(-e, 0)) for (b, e), size in zip(both, x.shape))]
        more = {"constant_values": 0 if value is None else value} if mode == "constant" else {}
        return (np.pad(x, np.maximum(both, 0), mode=mode, **more),)


class ConvTranspose(OpRun):
    def _run(self, x, w, b=None, auto_pad=None, dilations=None, group=None, kernel_shape=None,
             output_padding=None, output_shape=None, pads=None, strides=None):  # fmt: skip
        axes = x.ndim - 2
        strides, dilations = strides or [1] * axes, dilations or [1] * axes
        kernel_shape = kernel_shape or list(w.shape[2:])
        pads, more = pads or [0] * 2 * axes, output_padding or [0] * axes
        rows = list(zip(x.shape[2:], strides, dilations, kernel_shape, more))
        full = np.zeros(
            (x.shape[0], group, w.shape[1], *(((n - 1) * s + (k - 1) * d + 1 + m) for n, s, d, k, m in rows))
        )
        xs, ws = x.reshape(x.shape[0], group, -1, *x.shape[2:]), w.reshape(group, -1, *w.shape[1:])
        for tap in itertools.product(*map(range, kernel_shape)):
            at = tuple(slice(t * d, t * d + (n - 1) * s + 1, s) for t, (n, s, d, _, _) in zip(tap, rows))
            full[(slice(None),) * 3 + at] += np.einsum("ngi...,gio->ngo...", xs, ws[(slice(None),) * 3 + tap])
        y = full.reshape(x.shape[0], -1, *full.shape[3:])
        if output_shape or auto_pad in ("SAME_UPPER", "SAME_LOWER"):
            wanted = output_shape or [n * s for n, s, _, _, _ in rows]
            total = [max(have - want, 0) for have, want in zip(y.shape[2:], wanted)]
            begin = [t // 2 if auto_pad == "SAME_UPPER" else t - t // 2 for t in total]
            pads = [*begin, *(t - b for t, b in zip(total, begin))]
        y = y if b is None else y + b.reshape(-1, *[1] * axes)
        return (y[(slice(None),) * 2 + tuple(slice(p, n - e) for p, e, n in zip(pads, pads[axes:], y.shape[2:]))],)


def windows(x, auto_pad, ceil_mode, dilations, kernel_shape, pads, strides):
    """For each axis the positions [windows, kernel] that windows cover, the image's size and the padding after it."""
    axes = len(kernel_shape)
    strides, dilations, pads = strides or [1] * axes, dilations or [1] * axes, pads or [0] * 2 * axes
    for size, k, s, d, b, e in zip(x.shape[2:], kernel_shape, strides, dilations, pads, pads[axes:]):
        extent = (k - 1) * d + 1
        if auto_pad in ("SAME_UPPER", "SAME_LOWER"):
            total = max((-(-size // s) - 1) * s + extent - size, 0)
            b = total // 2 if auto_pad == "SAME_UPPER" else total - total // 2
            e = total - b
        room = size + b + e - extent
        count = (-(-room // s) if ceil_mode else room // s) + 1
        count -= bool(ceil_mode) and (count - 1) * s >= size + b  # it would start behind the image
        yield np.arange(count)[:, None] * s + np.arange(k) * d - b, size, e


class MaxPool(OpRun):
    def _run(self, x, auto_pad=None, ceil_mode=None, dilations=None, kernel_shape=None, pads=None,
             storage_order=None, strides=None):  # fmt: skip
        # the last axis first: of equal maxima the one that comes first in every axis is the first in scan order
        spans = list(windows(x, auto_pad, ceil_mode, dilations, kernel_shape, pads, strides))
        y, where = x, np.arange(x.size).reshape(x.shape)
        for axis, (at, size, _) in reversed(list(enumerate(spans, 2))):
            inside = ((at >= 0) & (at < size)).reshape(*at.shape, *[1] * (x.ndim - axis - 1))
            taps = np.where(inside, np.take(y, np.clip(at, 0, size - 1), axis), -np.inf)
            first = np.expand_dims(taps.argmax(axis + 1), axis + 1)
            y = np.take_along_axis(taps, first, axis + 1).squeeze(axis + 1)
            where = np.take_along_axis(np.take(where, np.clip(at, 0, size - 1), axis), first, axis + 1).squeeze(
                axis + 1
            )
        return (y, where)[: len(self.output)]


class AveragePool(OpRun):
    def _run(self, x, auto_pad=None, ceil_mode=None, count_include_pad=None, dilations=None, kernel_shape=None,
             pads=None, strides=None):  # fmt: skip
        y = x
        for axis, (at, size, e) in enumerate(
            windows(x, auto_pad, ceil_mode, dilations, kernel_shape, pads, strides), 2
        ):
            inside, tail = (at >= 0) & (at < size), [1] * (x.ndim - axis - 1)
            counted = (at < size + e) if count_include_pad else inside
            taken = np.take(y, np.clip(at, 0, size - 1), axis) * inside.reshape(*at.shape, *tail)
            y = taken.sum(axis + 1) / counted.sum(1).reshape(-1, *tail)
        return (y,)


class LpPool(OpRun):
    def _run(self, x, auto_pad=None, ceil_mode=None, dilations=None, kernel_shape=None, p=None, pads=None,
             strides=None):  # fmt: skip
        y = np.abs(x) ** p
        for axis, (at, size, _) in enumerate(
            windows(x, auto_pad, ceil_mode, dilations, kernel_shape, pads, strides), 2
        ):
            inside = ((at >= 0) & (at < size)).reshape(*at.shape, *[1] * (x.ndim - axis - 1))
            y = (np.take(y, np.clip(at, 0, size - 1), axis) * inside).sum(axis + 1)
        return (y ** (1 / p),)


class GlobalLpPool(OpRun):
    def _run(self, x, p=None):
        return ((np.abs(x) ** p).sum(tuple(range(2, x.ndim)), keepdims=True) ** (1 / p),)


NORMS = [LpNormalization, LayerNormalization, RMSNormalization, GroupNormalization, MeanVarianceNormalization]
MENDED = [Erf, Gelu, Mean, GlobalMaxPool, LRN, Pad, ConvTranspose, MaxPool, AveragePool, LpPool, GlobalLpPool, *NORMS]
