"""Which operators compute a Conv's input gradient fastest, and how often the exporter's rule on the shape takes them.

    python -m fastcam_bench.speed.lowerings [--out FILE] [--threads T] [--seconds S] [--no-networks]

Shapes of well-known networks, batch 1 and 8. All contestants of a shape are one ONNX Runtime session each (CPU, worker
threads not spinning), give the same numbers, which is asserted, and take turns in random order. The rule is
``fastcam_export.autodiff.rules.spatial.conv_input_gradient.choose``; "loss" is the time of its choice beside the
fastest, less one.

Whole networks follow: :mod:`fastcam_bench.speed.lowerings.network_gradients`.
"""

from __future__ import annotations

import argparse
import math
import platform
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

from fastcam.runtime.timing import Run, cpu_session, interleaved
from fastcam_bench.oracles.machine import machine, versions, write_report
from fastcam_bench.paths import RESULTS
from fastcam_bench.speed.lowerings import network_gradients, sub_pixel
from fastcam_bench.speed.lowerings.network_gradients import BATCHES
from fastcam_export.autodiff.core.builder import Builder
from fastcam_export.autodiff.core.rule import Node
from fastcam_export.autodiff.core.shapes import crop
from fastcam_export.autodiff.rules.spatial import conv_input_gradient
from fastcam_export.autodiff.rules.spatial.sliding_window import Window, window

OUTPUT = RESULTS / "speed" / "lowerings.json"
EQUAL = 2e-5
"""Largest difference between contestants, as a share of the largest value."""
Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Shape:
    """A convolution: x [N, channels, size, size], w [outputs, channels / group, kernel, kernel]."""

    of: str
    channels: int
    outputs: int
    kernel: int
    size: int
    stride: int = 1
    pad: int = 0
    group: int = 1
    dilation: int = 1


SHAPES = [
    Shape("VGG-16", 3, 64, 3, 224, pad=1),
    Shape("VGG-16", 64, 64, 3, 224, pad=1),
    Shape("VGG-16", 64, 128, 3, 112, pad=1),
    Shape("VGG-16", 256, 256, 3, 56, pad=1),
    Shape("VGG-16", 512, 512, 3, 28, pad=1),
    Shape("VGG-16", 512, 512, 3, 14, pad=1),
    Shape("ResNet-50", 3, 64, 7, 224, stride=2, pad=3),
    Shape("ResNet-50", 64, 64, 3, 56, pad=1),
    Shape("ResNet-50", 128, 128, 3, 28, pad=1),
    Shape("ResNet-50", 256, 256, 3, 14, pad=1),
    Shape("ResNet-50", 512, 512, 3, 7, pad=1),
    Shape("ResNet-50", 128, 128, 3, 56, stride=2, pad=1),
    Shape("ResNet-50", 256, 256, 3, 28, stride=2, pad=1),
    Shape("ResNet-50", 512, 512, 3, 14, stride=2, pad=1),
    Shape("ResNet-50", 256, 64, 1, 56),
    Shape("ResNet-50", 64, 256, 1, 56),
    Shape("ResNet-50", 256, 1024, 1, 14),
    Shape("ResNet-50", 512, 2048, 1, 7),
    Shape("ResNet-50", 256, 512, 1, 56, stride=2),
    Shape("ResNet-50", 1024, 2048, 1, 14, stride=2),
    Shape("ResNeXt-50", 256, 256, 3, 14, pad=1, group=32),
    Shape("ResNeXt-50", 256, 256, 3, 56, stride=2, pad=1, group=32),
    Shape("MobileNetV2", 3, 32, 3, 224, stride=2, pad=1),
    Shape("MobileNetV2", 32, 32, 3, 112, pad=1, group=32),
    Shape("MobileNetV2", 16, 96, 1, 112),
    Shape("MobileNetV2", 96, 96, 3, 112, stride=2, pad=1, group=96),
    Shape("MobileNetV2", 144, 144, 3, 56, pad=1, group=144),
    Shape("MobileNetV2", 192, 192, 3, 28, stride=2, pad=1, group=192),
    Shape("MobileNetV2", 384, 384, 3, 14, pad=1, group=384),
    Shape("MobileNetV2", 576, 576, 3, 14, stride=2, pad=1, group=576),
    Shape("MobileNetV2", 960, 160, 1, 7),
    Shape("EfficientNet-B0", 144, 144, 5, 56, stride=2, pad=2, group=144),
    Shape("EfficientNet-B0", 240, 240, 3, 28, stride=2, pad=1, group=240),
    Shape("EfficientNet-B0", 480, 480, 5, 14, pad=2, group=480),
    Shape("ConvNeXt-T", 3, 96, 4, 224, stride=4),
    Shape("ConvNeXt-T", 96, 96, 7, 56, pad=3, group=96),
    Shape("ConvNeXt-T", 768, 768, 7, 7, pad=3, group=768),
    Shape("ConvNeXt-T", 96, 192, 2, 56, stride=2),
    Shape("ConvNeXt-T", 384, 768, 2, 14, stride=2),
    Shape("DenseNet-121", 128, 32, 3, 56, pad=1),
    Shape("DenseNet-121", 512, 128, 1, 14),
    Shape("SqueezeNet 1.1", 3, 64, 3, 224, stride=2),
    Shape("SqueezeNet 1.1", 16, 64, 3, 55, pad=1),
    Shape("SqueezeNet 1.1", 512, 64, 1, 13),
    Shape("GoogLeNet", 96, 128, 3, 28, pad=1),
    Shape("GoogLeNet", 832, 384, 1, 7),
    Shape("AlexNet", 64, 192, 5, 27, pad=2),
    Shape("DeepLab", 256, 256, 3, 28, pad=2, dilation=2),
]


# ---- contestants that the exporter does not have


def matmul(op: Builder, view: Window, group: int, dy: ir.Value, w: ir.Value) -> ir.Value | None:
    """A 1x1 kernel of stride 1 as w^T dy."""
    if max(view.kernel) > 1 or max(view.strides) > 1 or group > 1:
        return None
    n, channels, *size = (int(d or 0) for d in op.dims(view.x))
    rows = op.dims(view.y)[1]
    product = op.MatMul(op.Transpose(op.Reshape(w, [rows, channels]), perm=[1, 0]), op.Reshape(dy, [n, rows, -1]))
    return op.Reshape(product, [n, channels, *size])


def zeros(how: str) -> conv_input_gradient.Form:
    """A 1x1 kernel of stride s: w^T dy, then zeros between its elements."""

    def form(op: Builder, view: Window, group: int, dy: ir.Value, w: ir.Value) -> ir.Value | None:
        if max(view.kernel) > 1 or max(view.strides) == 1 or group > 1:
            return None
        n, channels, height, width = (int(d or 0) for d in op.dims(view.x))
        (rows, columns), s = (int(d or 0) for d in op.dims(view.y)[2:]), view.strides[0]
        dense = op.Conv(dy, op.Transpose(w, perm=[1, 0, 2, 3]), kernel_shape=[1, 1])
        if how == "ConvTranspose":
            full = op.ConvTranspose(
                dense, np.ones((channels, 1, s, s), np.float32) * _corner(s), strides=[s, s], group=channels
            )
        elif how == "Pad":
            each = op.Pad(op.Reshape(dense, [n, channels, rows, 1, columns, 1]), [0] * 9 + [s - 1, 0, s - 1])
            full = op.Reshape(each, [n, channels, rows * s, columns * s])
        else:
            sampled = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
            scales = np.array([1, 1, s, s], np.float32)
            full = op.Mul(op.Resize(dense, None, scales, **sampled), np.tile(_corner(s), (rows, columns)))
        ends = op.constant(np.array([height - rows * s, width - columns * s]))
        return crop(op, full, [2, 3], op.constant(np.zeros(2, np.int64)), ends, op.dims(view.x))

    return form


def _corner(stride: int) -> Array:
    """[stride, stride]: one at the first position."""
    return np.eye(1, stride**2, dtype=np.float32).reshape(stride, stride)


FORMS: dict[str, conv_input_gradient.Form] = {
    "ConvTranspose": conv_input_gradient.transposed,
    "Conv, rotated": conv_input_gradient.rotated,
    "zeros between, Conv": conv_input_gradient.stuffed,
    **sub_pixel.FORMS,
    "MatMul": matmul,
    **{f"product, zeros by {how}": zeros(how) for how in ("ConvTranspose", "Pad", "Resize")},
}


# ---- shapes


def gradient(shape: Shape, batch: int, form: conv_input_gradient.Form) -> onnx.ModelProto | None:
    """A model dy -> dx of one convolution in one form; None where the form does not say it."""
    count = (shape.size + 2 * shape.pad - (shape.kernel - 1) * shape.dilation - 1) // shape.stride + 1
    inputs = shape.channels // shape.group
    w = np.random.default_rng(0).standard_normal((shape.outputs, inputs, shape.kernel, shape.kernel))
    w /= math.sqrt(shape.outputs / shape.group * shape.kernel**2)
    x_dims, y_dims = (batch, shape.channels, *[shape.size] * 2), (batch, shape.outputs, *[count] * 2)
    both: dict[str, Any] = {"strides": [shape.stride] * 2, "pads": [shape.pad] * 4, "dilations": [shape.dilation] * 2}
    node = helper.make_node("Conv", ["x", "w"], ["y"], "conv", group=shape.group, **both)
    images = [helper.make_tensor_value_info(n, TensorProto.FLOAT, d) for n, d in (("x", x_dims), ("dy", y_dims))]
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, y_dims)
    graph = helper.make_graph([node], "conv", images, [output], [numpy_helper.from_array(w.astype(np.float32), "w")])
    parsed = ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10))
    op, dy = Builder(parsed.graph), parsed.graph.inputs[1]
    conv = Node(next(iter(parsed.graph)), (dy,))
    dx = form(op, window(op, conv, [shape.kernel] * 2), shape.group, dy, conv.inputs[1])
    if dx is None:
        return None
    dx.shape = ir.Shape(x_dims)
    parsed.graph.outputs[:] = [dx]
    parsed.graph.remove(conv.node)
    del parsed.graph.inputs[0]
    return ir.to_proto(parsed)


def chosen(shape: Shape, batch: int) -> str:
    """The form that the exporter takes."""
    forms: list[conv_input_gradient.Form] = []

    def record(op: Builder, view: Window, group: int, dy: ir.Value, w: ir.Value) -> ir.Value:
        forms.append(conv_input_gradient.choose(op, view, group, dy, w))
        return conv_input_gradient.transposed(op, view, group, dy, w)

    gradient(shape, batch, record)
    return next(name for name, form in FORMS.items() if form is forms[0])


def measure(shape: Shape, batch: int, threads: int, seconds: float) -> dict[str, Any]:
    """All contestants of one shape."""
    runs: dict[str, Run] = {}
    expected: Array | None = None
    for name, form in FORMS.items():
        model = gradient(shape, batch, form)
        if model is None or (name == "zeros between, Conv" and shape.stride == 1):
            continue
        made = cpu_session(model.SerializeToString(), threads)
        dy = np.random.default_rng(1).standard_normal(made.get_inputs()[0].shape).astype(np.float32)
        (dx,) = made.run(None, {"dy": dy})
        expected = dx if expected is None else expected
        assert dx.shape == expected.shape and np.abs(dx - expected).max() <= EQUAL * np.abs(expected).max(), (
            shape,
            name,
        )
        runs[name] = _bound(made, dy, dx)
    times = {name: np.array(taken) * 1e3 for name, taken in interleaved(runs, seconds, 5).items()}
    medians = {name: float(np.median(taken)) for name, taken in times.items()}
    best, ours = min(medians, key=medians.__getitem__), chosen(shape, batch)
    return {
        **asdict(shape),
        "batch": batch,
        "median_ms": {name: round(value, 4) for name, value in medians.items()},
        "fastest": best,
        "chosen": ours,
        "loss": round(medians[ours] / medians[best] - 1, 4),
        "samples_ms": {name: taken.round(4).tolist() for name, taken in times.items()},
    }


def _bound(made: ort.InferenceSession, dy: Array, dx: Array) -> Callable[[], None]:
    """One run into memory that is there, as within a graph."""
    binding = made.io_binding()
    binding.bind_cpu_input(made.get_inputs()[0].name, dy)
    output = ort.OrtValue.ortvalue_from_shape_and_type(list(dx.shape), np.float32)
    binding.bind_ortvalue_output(made.get_outputs()[0].name, output)
    return partial(made.run_with_iobinding, binding)


def summary(results: list[dict[str, Any]]) -> dict[str, Any]:
    """How often the rule takes the fastest, what it loses, and what ConvTranspose everywhere would."""

    def loss(name: Callable[[dict[str, Any]], str]) -> float:
        logs = [math.log(row["median_ms"][name(row)] / row["median_ms"][row["fastest"]]) for row in results]
        return round(math.exp(float(np.mean(logs))) - 1, 4)

    return {
        "cases": len(results),
        "fastest_taken": sum(row["chosen"] == row["fastest"] for row in results),
        "within_5_percent": sum(row["loss"] <= 0.05 for row in results),
        "mean_loss": loss(lambda row: row["chosen"]),
        "mean_loss_of_convtranspose": loss(lambda row: "ConvTranspose"),
        "largest_loss": max(row["loss"] for row in results),
    }


# ---- report


def table(report: dict[str, Any]) -> str:
    """The report as Markdown."""
    lines = [
        "# Lowerings of a Conv's input gradient",
        "",
        f"`{report['command']}`: ONNX Runtime {report['versions']['onnxruntime']}, {report['threads']} threads, "
        f"{report['machine']['cpu']}. Median milliseconds; **fastest**; the exporter's choice is marked +.",
        "",
    ]
    names = list(FORMS)
    lines += ["| shape | batch | " + " | ".join(names) + " |", "|---|---|" + "---|" * len(names)]
    for row in report["results"]:
        kernel = f"{row['kernel']}x{row['kernel']}" + (f" / {row['stride']}" if row["stride"] > 1 else "")
        extra = (f", {row['group']} groups" if row["group"] > 1 else "") + (", dilated" if row["dilation"] > 1 else "")
        cells = []
        for name in names:
            value = row["median_ms"].get(name)
            text = "" if value is None else f"{value:.2f}" if value >= 0.1 else f"{value:.3f}"
            text = f"**{text}**" if name == row["fastest"] else text
            cells.append(text + (" +" if name == row["chosen"] else ""))
        what = f"{row['of']}: {row['channels']} to {row['outputs']}, {kernel}{extra}, at {row['size']}"
        lines.append(f"| {what} | {row['batch']} | " + " | ".join(cells) + " |")
    of = report["summary"]
    lines += [
        "",
        f"The rule takes the fastest in {of['fastest_taken']} of {of['cases']} cases, and one within 5 % of it in "
        f"{of['within_5_percent']}. On geometric mean it loses {of['mean_loss']:.1%}; ConvTranspose everywhere would "
        f"lose {of['mean_loss_of_convtranspose']:.1%}. Its largest loss is {of['largest_loss']:.0%}.",
    ]
    if report["networks"]:
        lines += ["", "## Whole networks", "", *network_gradients.lines(report["networks"])]
    return "\n".join(lines) + "\n"


def main() -> None:
    """The command; see the module's docstring."""
    parser = argparse.ArgumentParser(description="Lowerings of a Conv's input gradient.")
    parser.add_argument("--out", type=Path, default=OUTPUT)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--seconds", type=float, default=0.6, help="per shape and batch size; networks take ten times it"
    )
    parser.add_argument("--no-networks", dest="networks", action="store_false")
    options = parser.parse_args()
    results = []
    for shape in SHAPES:
        for batch in BATCHES:
            row = measure(shape, batch, options.threads, options.seconds)
            results.append(row)
            figures = "  ".join(f"{name} {value:.2f}" for name, value in row["median_ms"].items())
            print(f"{shape.of} {shape} batch {batch}: {figures}; loss {row['loss']:.0%}", flush=True)
    networks = []
    for name in network_gradients.NETWORKS if options.networks else ():
        for row in network_gradients.rows(name, options.threads, 10 * options.seconds):
            networks.append(row)
            print({key: value for key, value in row.items() if key != "samples_ms"}, flush=True)
    report = {
        "command": "python -m fastcam_bench.speed.lowerings",
        "threads": options.threads,
        "versions": versions("fastcam", "onnxruntime", "onnx", "torch", "torchvision"),
        "python": platform.python_version(),
        "machine": machine(),
        "summary": summary(results),
        "results": results,
        "networks": networks,
    }
    print(report["summary"])
    write_report(report, options.out, table)


if __name__ == "__main__":
    main()
