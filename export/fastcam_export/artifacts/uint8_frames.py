"""The preprocessing as nodes in front of the model, so that uint8 frames are what goes into the file.

A resize is linear and separable. Along one axis, each pixel of the network's input is a weighted sum of a few
neighbouring pixels of the frame, after the rule of the run time (``fastcam.image``): by the area that they share where
an axis shrinks, bilinear where it grows. Crop and letterbox only shift the rectangles. Which pixels and which weights
are constants for frames of a fixed size, and a few nodes on the frame's shape for a free one. What OpenCV rounds to
whole pixel values is rounded here too, so that both differ only where rounding decides: by one pixel value in less than
one of a thousand places. Where an axis grows OpenCV rounds the weights as well, and between the axes: there it is up to
a quarter of the places, and two values where the other axis shrinks.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from fastcam import schema
from fastcam.memory import in_words
from fastcam.schema import FastcamError, Metadata, Preprocessing
from fastcam_export.verify.equal_outputs import difference
from fastcam_export.verify.sample import predicted_class
from fastcam_export.verify.session import quiet_session

Array = npt.NDArray[Any]
INPUT = schema.FRAMES
SIDES = ("frame_height", "frame_width")
MOST_PIXELS = 10**8
EACH = 40
"""Bytes that a pixel of a frame takes on its way through the nodes in front of the model."""
_PREFIX = "fastcam.frames."
GREY = (0.299, 0.587, 0.114)
"""ITU-R BT.601, as OpenCV's RGB to grey."""


class _Nodes:
    """Nodes and constants in the order in which they are made; ``nodes.Add(a, b)`` makes one, numbers are constants."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def constant(self, value: Any) -> str:
        if isinstance(value, str):
            return value
        array = value if isinstance(value, np.ndarray | np.generic) else np.float64(value)
        name = f"{_PREFIX}constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def __getattr__(self, operator: str) -> Any:
        def make(*inputs: Any, output: str = "", **attributes: Any) -> str:
            output = output or f"{_PREFIX}{operator.lower()}_{len(self.nodes)}"
            names = [self.constant(value) for value in inputs]
            self.nodes.append(helper.make_node(operator, names, [output], f"{output}_node", **attributes))
            return output

        return make


def refuse(metadata: Metadata, frames: bool | tuple[int, int], on_demand: bool) -> None:
    """Raise where an export cannot take frames.

    Raises:
        FastcamError: no preprocessing of a known size, or another option that frames do not go with.
    """
    size = _size(frames)
    if metadata.preprocessing is not None and metadata.preprocessing.stack > 1:
        raise FastcamError("frames are pictures that go in one by one, and stack says several; leave one of them out")
    if size is not None and not (len(size) == 2 and min(size) >= 1):
        raise FastcamError(f"frames is {frames}; give True, or (height, width) of the frames")
    if size is not None and math.prod(size) > MOST_PIXELS:
        raise FastcamError(
            f"frames of {size[0]} x {size[1]} would take about {in_words(math.prod(size) * EACH)} of memory; the most "
            f"are {MOST_PIXELS // 10**6} million pixels: give a smaller size"
        )
    if size is None and metadata.engine == "tensorrt":
        raise FastcamError(f"for {metadata.engine} frames must have one size; give frames=(height, width)")
    if on_demand or metadata.cotangents:
        other = "on_demand" if on_demand else "targets cotangent"
        raise FastcamError(f"frames and {other} do not go together; leave one of them out")
    _known(metadata)


def described(metadata: Metadata, frames: bool | tuple[int, int]) -> Metadata:
    """The metadata of a model that takes frames, from those of the model that takes images.

    Args:
        metadata: of the export without the nodes in front.
        frames: True for frames of any size, or their (height, width).
    """
    shape = (metadata.input_shape[0], *(_size(frames) or SIDES), 3)
    return replace(metadata, input=INPUT, input_shape=shape, frames=True)


def _size(frames: bool | tuple[int, int]) -> tuple[int, int] | None:
    """The (height, width) of frames; None where it is free."""
    return None if isinstance(frames, bool) else (int(frames[0]), int(frames[1])) if len(frames) == 2 else (0, 0)


def put_in_front(model: onnx.ModelProto, metadata: Metadata, frames: bool | tuple[int, int]) -> onnx.ModelProto:
    """``model`` with the input :data:`INPUT`, uint8 RGB [N, height, width, 3], in place of its image input.

    Args:
        model: an exported model that takes images as ``metadata`` says.
        frames: True for frames of any size, or their (height, width).

    Raises:
        FastcamError: the metadata has no preprocessing, or no size that the model's input has.
    """
    how, size = _known(metadata), _size(frames)
    image = next(value for value in model.graph.input if value.name == metadata.input)
    op = _Nodes()
    if how.color == "GRAY":  # before the resize and rounded, as OpenCV does it on pixels
        pixels = op.Round(op.MatMul(op.Cast(INPUT, to=TensorProto.FLOAT), np.array(GREY, np.float32)[:, None]))
    elif metadata.engine != "tensorrt":
        pixels = INPUT  # whose rows are taken while they are bytes
    else:  # TensorRT does nothing with bytes but casting them
        pixels = op.Cast(INPUT, to=TensorProto.FLOAT)
    rows, columns, inside = _sums(op, how, op.Shape(INPUT, start=1, end=3)) if size is None else _constants(how, size)
    channels = 1 if how.color == "GRAY" else 3
    high = _summed(op, pixels, rows, channels)  # [N, H, w, C]
    turned = _summed(op, op.Transpose(high, perm=[0, 2, 1, 3]), columns, channels)  # [N, W, H, C]
    placed = op.Round(op.Transpose(turned, perm=[0, 3, 2, 1]))
    if inside is not None:
        placed = op.Where(inside, placed, np.float32(how.pad_value))
    if how.color == "BGR":
        placed = op.Gather(placed, _ints(2, 1, 0), axis=1)
    _normalised(op, placed, how, image)
    return _joined(model, image, op, size)


def _summed(op: _Nodes, pixels: str, sums: Any, channels: int) -> str:
    """[N, a, b, C] -> [N, A, b, C], by what :func:`_weights` says of the first of the two axes."""
    taken, weights = sums
    taps = op.Cast(op.Reshape(op.Gather(pixels, taken, axis=1), _ints(0, 0, 0, -1)), to=TensorProto.FLOAT)
    return str(op.Reshape(op.MatMul(weights, taps), _ints(0, 0, -1, channels)))


def _known(metadata: Metadata) -> Preprocessing:
    how = metadata.preprocessing
    if how is None or how.size is None:
        raise FastcamError(
            "frames need a preprocessing of a known size; give preprocess (--preprocess), with a size where the model "
            "leaves height and width free"
        )
    if len(metadata.input_shape) != 4:
        raise FastcamError("frames are pictures, but this model takes videos; leave frames out")
    return how


def _ints(*values: int) -> Array:
    return np.array(values, np.int64)


def _sums(op: _Nodes, how: Preprocessing, sides: Any) -> tuple[Any, Any, Any]:
    """Pixels and weights of the rows and of the columns, and which of the pixels [H, W] are not a letterbox's bars (or
    None), of a frame's (h, w).

    The formulas are those of ``fastcam.image.fit`` and ``resize``, in float64.
    """
    assert how.size is not None
    whole = op.Cast(sides, to=TensorProto.DOUBLE)
    frame, network = [op.Gather(whole, np.int64(axis)) for axis in (0, 1)], how.size
    sources: list[tuple[Any, Any]] = [(0.0, side) for side in frame]
    targets: list[tuple[Any, Any]] = [(0.0, float(side)) for side in network]
    if how.resize == "crop":
        ratio = op.Mul(op.Min(*(op.Div(f, n) for f, n in zip(frame, network))), how.crop_fraction)
        sources = [_centred(op, side, op.Mul(ratio, n)) for side, n in zip(frame, network)]
    elif how.resize == "letterbox":
        ratio = op.Min(*(op.Div(n, f) for f, n in zip(frame, network)))
        targets = [_centred(op, float(n), op.Mul(ratio, f)) for f, n in zip(frame, network)]
    both = [_weights(op, *each) for each in zip(frame, network, sources, targets)]
    inside = None
    if how.resize == "letterbox":
        masks = [_between(op, side, *target) for side, target in zip(network, targets)]
        inside = op.And(op.Unsqueeze(masks[0], _ints(1)), masks[1])
    return both[0], both[1], inside


def _centred(op: _Nodes, side: Any, inner: Any) -> tuple[str, str]:
    """Begin and length of ``inner``, rounded and at least 1, in the middle of ``side``."""
    length = op.Min(side, op.Max(op.Round(inner), 1.0))
    return op.Floor(op.Div(op.Sub(side, length), 2.0)), length


def _between(op: _Nodes, count: int, begin: Any, length: Any) -> str:
    index = np.arange(count, dtype=np.float64)
    return str(op.And(op.GreaterOrEqual(index, begin), op.Less(index, op.Add(begin, length))))


def _weights(op: _Nodes, frame: Any, count: int, source: tuple[Any, Any], target: tuple[Any, Any]) -> tuple[str, str]:
    """int64 [count, k], float32 [count, 1, k]: pixels of the frame and weights, for each of the network on an axis."""
    index = op.Sub(np.arange(count, dtype=np.float64)[:, None], target[0])
    scale = op.Div(source[1], target[1])
    shrinks = op.Greater(scale, 1.0)
    low = op.Add(op.Mul(index, scale), source[0])
    centre = op.Sub(op.Mul(op.Add(index, 0.5), scale), 0.5)
    centre = op.Add(op.Max(op.Min(centre, op.Sub(source[1], 1.0)), 0.0), source[0])
    first = op.Floor(op.Where(shrinks, low, centre))
    pixel = op.Add(first, op.Range(0.0, op.Add(op.Ceil(scale), 1.0), 1.0))
    shared = op.Sub(op.Min(op.Add(low, scale), op.Add(pixel, 1.0)), op.Max(low, pixel))
    area = op.Div(op.Max(shared, 0.0), scale)
    bilinear = op.Max(op.Sub(1.0, op.Abs(op.Sub(centre, pixel))), 0.0)
    taken = op.Max(op.Min(pixel, op.Sub(frame, 1.0)), 0.0)  # a pixel outside has the weight zero
    weights = op.Cast(op.Where(shrinks, area, bilinear), to=TensorProto.FLOAT)
    return op.Cast(taken, to=TensorProto.INT64), op.Unsqueeze(weights, _ints(1))


def _constants(how: Preprocessing, size: tuple[int, int]) -> tuple[Any, Any, Any]:
    """What :func:`_sums` is for frames of one size."""
    op = _Nodes()
    rows, columns, inside = _sums(op, how, _ints(*size))
    names = [*rows, *columns, *([inside] if inside is not None else [])]
    outputs = [helper.make_empty_tensor_value_info(name) for name in names]
    graph = helper.make_graph(op.nodes, "geometry", [], outputs, op.constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
    values = [np.asarray(value) for value in onnx.reference.ReferenceEvaluator(model).run(None, {})]
    return values[:2], values[2:4], values[4] if inside is not None else None


def _normalised(op: _Nodes, placed: str, how: Preprocessing, image: onnx.ValueInfoProto) -> None:
    """``pixel * (scale / std) - mean / std`` in the run time's float32, in the model's layout and type."""
    std, mean = np.asarray(how.std, np.float64), np.asarray(how.mean, np.float64)
    factor, offset = (value.astype(np.float32).reshape(-1, 1, 1) for value in (how.scale / std, mean / std))
    x = op.Sub(op.Mul(placed, factor), offset)
    if how.layout == "NHWC":
        x = op.Transpose(x, perm=[0, 2, 3, 1])
    kind = image.type.tensor_type.elem_type
    if kind in (TensorProto.UINT8, TensorProto.INT8):
        limits = np.iinfo(helper.tensor_dtype_to_np_dtype(kind))
        x = op.Clip(op.Round(x), np.float32(limits.min), np.float32(limits.max))
    op.Cast(x, to=kind, output=image.name)


def _joined(
    model: onnx.ModelProto, image: onnx.ValueInfoProto, op: _Nodes, size: tuple[int, int] | None
) -> onnx.ModelProto:
    framed = onnx.ModelProto()
    framed.CopyFrom(model)
    graph = framed.graph
    first = image.type.tensor_type.shape.dim[0]
    images = first.dim_value or first.dim_param or "N"
    frames = helper.make_tensor_value_info(INPUT, TensorProto.UINT8, [images, *(size or SIDES), 3])
    inputs, nodes = list(graph.input), list(graph.node)
    del graph.input[:], graph.node[:]
    graph.input.extend([frames if value.name == image.name else value for value in inputs])
    graph.node.extend([*op.nodes, *nodes])
    graph.initializer.extend(op.constants)
    return framed


def check(
    exported: onnx.ModelProto,
    framed: onnx.ModelProto,
    metadata: Metadata,
    frames: bool | tuple[int, int],
    feeds: Mapping[str, Array],
    seed: int = 0,
) -> dict[str, float]:
    """Run the framed model on random frames: the network's input against NumPy, the outputs against ``exported``'s.

    Args:
        exported, framed: the model without and with the nodes in front.
        metadata: of ``exported``.
        frames: as in :func:`put_in_front`.
        feeds: inputs of ``exported``; what the models need beside images is taken from them.
        seed: of the frames.

    Returns:
        Share of the input's values that are one pixel value off; rounding decides there.

    Raises:
        FastcamError: more differs than that.
    """
    how, size = _known(metadata), _size(frames)
    assert how.size is not None
    rng = np.random.default_rng(seed)
    count = metadata.input_shape[0] if isinstance(metadata.input_shape[0], int) else 2
    further = {name: array for name, array in feeds.items() if name != metadata.input} | predicted_class(exported)
    image = next(value for value in exported.graph.input if value.name == metadata.input)
    probe = onnx.ModelProto()
    probe.CopyFrom(framed)
    probe.graph.output.append(helper.make_tensor_value_info(image.name, image.type.tensor_type.elem_type, None))
    step = np.max(how.scale / np.asarray(how.std, np.float64))
    off: list[float] = []
    for sides in [size] if size else [(how.size[0] * 2 + 31, how.size[1] * 3 + 7), (19, how.size[1] * 2)]:
        pictures = rng.integers(0, 256, (count, *sides, 3), np.uint8)
        wanted = np.stack([expected(picture, how) for picture in pictures])
        *outputs, x = quiet_session(probe).run(None, {INPUT: pictures, **further})
        again = quiet_session(exported).run(None, {image.name: x, **further})
        far = np.abs(x.astype(np.float64) - wanted) / step
        identical = (
            difference([np.asarray(value) for value in again], [np.asarray(value) for value in outputs])[1] < 1e-4
        )
        if not identical or far.max() > 1.02 or (far > 0.02).mean() > 0.02:
            raise FastcamError(
                "the check failed: the nodes that prepare the frames do not do what the preprocessing says; this is a "
                "defect of FastCAM: please report it"
            )
        off.append(float((far > 0.02).mean()))
    return {"frames_rounded_otherwise": max(off)}


def expected(frame: Array, how: Preprocessing) -> Array:
    """One frame prepared by NumPy, in float64 and without the matrices: [C, H, W], or [H, W, C] for NHWC."""
    assert how.size is not None
    pixels = frame.astype(np.float64)
    if how.color == "GRAY":
        pixels = np.rint(pixels @ np.array(GREY))[..., None]
    (h, w), (high, wide) = frame.shape[:2], how.size
    source, target = [(0, h), (0, w)], [(0, high), (0, wide)]
    if how.resize == "crop":
        ratio = min(w / wide, h / high) * how.crop_fraction
        source = [_middle(h, high * ratio), _middle(w, wide * ratio)]
    elif how.resize == "letterbox":
        ratio = min(wide / w, high / h)
        target = [_middle(high, h * ratio), _middle(wide, w * ratio)]
    for axis, ((begin, length), (_, into)) in enumerate(zip(source, target)):
        part = np.moveaxis(pixels, axis, -1)[..., begin : begin + length]
        pixels = np.moveaxis(np.apply_along_axis(_resampled, -1, part, into), -1, axis)
    whole = np.full((high, wide, pixels.shape[2]), how.pad_value)
    (y, tall), (x, broad) = target
    whole[y : y + tall, x : x + broad] = np.rint(pixels)
    if how.color == "BGR":
        whole = whole[..., ::-1]
    prepared: Array = (whole * how.scale - np.asarray(how.mean)) / np.asarray(how.std)
    return prepared if how.layout == "NHWC" else prepared.transpose(2, 0, 1)


def _middle(side: int, inner: float) -> tuple[int, int]:
    length = min(side, max(1, round(inner)))
    return (side - length) // 2, length


def _resampled(line: Array, count: int) -> Array:
    """Means over ``count`` equal parts of a line of pixels where it shrinks, bilinear values where it grows."""
    edges = np.linspace(0, len(line), count + 1)
    if count < len(line):
        total = np.concatenate([[0.0], np.cumsum(line)])
        return np.asarray(np.diff(np.interp(edges, np.arange(len(line) + 1), total)) / (len(line) / count))
    return np.asarray(np.interp((edges[:-1] + edges[1:]) / 2 - 0.5, np.arange(len(line)), line))
