"""The same gradients from two tools that none of us wrote: onnx-ad, and onnx2torch with PyTorch's autograd.

    pip install --no-deps onnx-ad==0.3.0 onnx2torch
    python -m fastcam_bench.accuracy.second_opinion [--assets FOLDER] [--out FILE]

One random cotangent of the first output, back to the image and to the layer that "auto" chooses. Ours is ``vjp`` of the
file as it is; theirs at the layer is of the part of the graph behind it (both tools differentiate by inputs only).
Figures are largest differences as a share of the largest value; where a tool refuses, its own words.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx.utils import Extractor

from fastcam_bench.accuracy.architectures import TOLERANCE, one_line
from fastcam_bench.models.explained import session
from fastcam_bench.oracles import torch_oracle as oracle
from fastcam_bench.oracles.machine import versions, write_report
from fastcam_bench.oracles.torch_oracle import Array, difference
from fastcam_bench.paths import RESULTS, default_assets
from fastcam_export import inspect_model, vjp
from fastcam_export.verify.session import quiet_session

OUTPUT = RESULTS / "gradients" / "second_opinion.json"
ASSETS = default_assets() / "models"
FILES = ("squeezenet1.1.onnx", "mobilenet_v1_0.25_128_quant.float.onnx", "resnet20_cifar10.onnx", "mnist.onnx")
TORCHVISION = ("resnet50", "densenet121", "googlenet", "mobilenet_v2", "shufflenet_v2_x1_0")
Row = dict[str, Any]


def models(assets: Path) -> list[tuple[str, onnx.ModelProto]]:
    """Real files, as far as they are there, and exports of torchvision with seeded weights."""
    files = [(name, onnx.load(assets / name)) for name in FILES if (assets / name).is_file()]
    older = [(name, oracle.to_onnx(oracle.build(name), dynamo=False)) for name in TORCHVISION]
    return files + [(f"torchvision {name}", proto) for name, proto in older]


def measure(name: str, proto: onnx.ModelProto) -> Row:
    """One model, at the image and at the default layer."""
    weights = {tensor.name for tensor in proto.graph.initializer}
    image = next(value for value in proto.graph.input if value.name not in weights)
    output = proto.graph.output[0].name
    layer = next(line.name for line in inspect_model(proto, output).layers if line.chosen)
    images = _pictures(image)
    rng = np.random.default_rng(1)
    plain = _with_outputs(proto, [layer])
    activations, scores = session(plain).run([layer, output], {image.name: images})
    cotangent = rng.standard_normal(scores.shape).astype(np.float32)
    made = vjp(proto, [image.name, layer], [output])
    feeds = {image.name: images, f"cotangent.{output}": cotangent}
    ours = session(made).run([f"grad.{image.name}", f"grad.{layer}"], feeds)
    row: Row = {"model": name, "layer": layer}
    parts = [
        ("image", proto, image.name, images, ours[0]),
        ("layer", _tail(proto, layer), layer, activations, ours[1]),
    ]
    for where, part, source, at, gradient in parts:
        for tool, differentiate in TOOLS.items():
            try:
                theirs = differentiate(part, source, output, at, cotangent)
                row[f"{where}, {tool}"] = float(f"{difference(gradient, theirs):.1e}")
            except Exception as error:  # their refusals are of every kind; their words go into the report
                row[f"{where}, {tool}"] = one_line(error)
    return row


def _pictures(image: onnx.ValueInfoProto) -> Array:
    """Two pictures, or one where the file takes one, in the file's layout."""
    dims = [d.dim_value if d.HasField("dim_value") else None for d in image.type.tensor_type.shape.dim]
    last = dims[-1] in (1, 3)
    size = dims[1] if last else dims[2]
    pictures = oracle.pictures(dims[0] or 2, size or 224)
    if last:
        pictures = pictures.transpose(0, 2, 3, 1)[..., : dims[-1]]
    return np.ascontiguousarray(pictures if last else pictures[:, : dims[1]])


def _with_outputs(proto: onnx.ModelProto, names: list[str]) -> onnx.ModelProto:
    made = onnx.ModelProto()
    made.CopyFrom(proto)
    made.graph.output.extend(onnx.helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, None) for n in names)
    return made


def _tail(proto: onnx.ModelProto, layer: str) -> onnx.ModelProto:
    """The part of the model that computes the first output from ``layer``."""
    part: onnx.ModelProto = Extractor(onnx.shape_inference.infer_shapes(proto)).extract_model(
        [layer], [proto.graph.output[0].name]
    )
    part.opset_import.MergeFrom([entry for entry in proto.opset_import if not part.opset_import])
    return part


def onnx_ad(proto: onnx.ModelProto, source: str, output: str, at: Array, cotangent: Array) -> Array:
    """onnx-ad's adjoint, run on ONNX Runtime; one seed, as a last axis."""
    from onnx_ad import reverse

    adjoint = reverse(proto, inputs=[source], outputs=[output], layout="onnx")
    run = quiet_session(adjoint)
    made: Array = run.run([f"adj_{source}"], {source: at, f"adj_{output}": cotangent[..., None]})[0]
    return made[..., 0]


def onnx2torch(proto: onnx.ModelProto, source: str, output: str, at: Array, cotangent: Array) -> Array:
    """PyTorch's autograd on onnx2torch's module."""
    from onnx2torch import convert

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module = convert(proto).eval()
    x = torch.from_numpy(at.copy()).requires_grad_()
    made = module(x)
    first = made[0] if isinstance(made, (tuple, list)) else made
    (gradient,) = torch.autograd.grad(first, x, torch.from_numpy(cotangent))
    return gradient.numpy()


TOOLS: dict[str, Callable[[onnx.ModelProto, str, str, Array, Array], Array]] = {
    "onnx-ad": onnx_ad,
    "onnx2torch": onnx2torch,
}


def table(report: Row) -> str:
    """Markdown: a line per model."""
    columns = [f"{where}, {tool}" for where in ("image", "layer") for tool in TOOLS]
    lines = [
        "# Second opinions",
        "",
        f"`{report['command']}`: largest difference to another tool's gradient, as a share of its largest value.",
        "",
        f"| model | layer | {' | '.join(columns)} |",
        f"|---|---|{'---:|' * len(columns)}",
    ]
    for row in report["results"]:
        figures = [f"{row[c]:.0e}" if isinstance(row[c], float) else row[c].replace("|", "/") for c in columns]
        lines.append(f"| {row['model']} | `{row['layer']}` | {' | '.join(figures)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """The command; see the module's docstring."""
    parser = argparse.ArgumentParser(description="Gradients beside those of onnx-ad and onnx2torch.")
    parser.add_argument("--assets", type=Path, default=ASSETS)
    parser.add_argument("--out", type=Path, default=OUTPUT)
    options = parser.parse_args()
    results = []
    for name, proto in models(options.assets):
        results.append(measure(name, proto))
        print(results[-1], flush=True)
    report = {
        "command": "python -m fastcam_bench.accuracy.second_opinion",
        "versions": versions("fastcam", "onnx-ad", "onnx2torch", "torch", "onnxruntime", "onnx"),
        "tolerance": TOLERANCE,
        "results": results,
    }
    write_report(report, options.out, table)


if __name__ == "__main__":
    main()
