"""How closely exported gradients, weights and maps agree with PyTorch autograd on the same weights.

    python -m fastcam_bench.accuracy.agreement [--out FILE] [MODEL ...]

torchvision models with seeded random weights, at the default layer and at one in the middle, two targets a picture. The
figures are largest differences as a share of the largest value. PyTorch differentiates on the side of every kink to
which ONNX Runtime fell (fastcam_bench.oracles.kinks). Layers in the middle are also compared in float64, and PyTorch's
float32
with its own float64: where a value lies within rounding of a kink (a ReLU at zero, two equal maxima), these two fall to
different sides, and everything behind differs.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch

from fastcam import schema
from fastcam_bench.oracles import double_runtime, kinks
from fastcam_bench.oracles import torch_oracle as oracle
from fastcam_bench.oracles.machine import versions, write_report
from fastcam_bench.oracles.torch_oracle import Array, difference, grad_cam
from fastcam_bench.paths import RESULTS
from fastcam_export import export_model
from fastcam_export.verify.session import quiet_session

OUTPUT = RESULTS / "gradients" / "agreement.json"
TARGETS = np.array([[-1, 3]])


def run(exported: onnx.ModelProto, images: Array, targets: Array) -> dict[str, Array]:
    """Outputs by name, on ONNX Runtime's CPU provider."""
    return _onnxruntime(exported, _feeds(exported, images, targets))


def at_kinks(exported: onnx.ModelProto, images: Array, targets: Array) -> tuple[dict[str, Array], list[kinks.Kink]]:
    """Outputs by name, and what was computed at the model's kinks, on ONNX Runtime's CPU provider."""
    return kinks.run(exported, _feeds(exported, images, targets), _onnxruntime)


def _feeds(exported: onnx.ModelProto, images: Array, targets: Array) -> dict[str, Array]:
    return {exported.graph.input[0].name: images, schema.TARGETS: targets}


def _onnxruntime(model: onnx.ModelProto, feeds: Mapping[str, Array]) -> dict[str, Array]:
    session = quiet_session(model)
    return dict(zip([value.name for value in session.get_outputs()], session.run(None, feeds)))


def default_layer(
    module: torch.nn.Module, proto: onnx.ModelProto, size: int = oracle.SIZE
) -> dict[str, float | str | bool]:
    """Gradients, weights and maps at the layer that the exporter chooses, in float32; pictures of ``size`` pixels."""
    images = oracle.pictures(2, size)
    exported = export_model(proto, emit="gradients")
    found, sides = at_kinks(exported.model, images, TARGETS)
    activations, gradients = found[schema.ACTIVATIONS], found[schema.GRADIENTS]
    expected = oracle.gradients_at(module, images, activations, found[schema.CLASSES], sides)
    pooled, others = at_kinks(export_model(proto, check=False).model, images, TARGETS)
    means = expected.mean((3, 4))
    if not all(np.array_equal(a, b) for (_, a), (_, b) in zip(sides, others, strict=True)):
        means = oracle.gradients_at(module, images, activations, pooled[schema.CLASSES], others).mean((3, 4))
    return {
        "layer": exported.metadata.layer.value,
        "outputs_bit_identical": exported.check["bit_identical"],
        "gradients": difference(gradients, expected),
        "weights": difference(pooled[schema.WEIGHTS], means),
        "maps": difference(grad_cam(activations, gradients), grad_cam(activations, expected)),
    }


def middle_layer(
    module: torch.nn.Module, proto: onnx.ModelProto, layer: str, size: int = oracle.SIZE
) -> dict[str, Any]:
    """Gradients at ``layer``, in float32 (a figure per picture; PyTorch's own error beside it) and in float64."""
    images = oracle.pictures(4, size)
    exported = export_model(proto, layer=layer, emit="gradients", check=False)
    found, sides = at_kinks(exported.model, images, TARGETS)
    activations, classes = found[schema.ACTIVATIONS], found[schema.CLASSES]
    single = oracle.gradients_at(module, images, activations, classes, sides)
    double_module = copy.deepcopy(module).double()

    feeds = {exported.metadata.input: images, schema.TARGETS: TARGETS}
    wide, wide_sides = kinks.run(exported.model, feeds, double_runtime.run)
    inputs, layer_value = images.astype(np.float64), wide[schema.ACTIVATIONS]
    double = oracle.gradients_at(double_module, inputs, layer_value, classes, wide_sides)
    return {
        "layer": exported.metadata.layer.value,
        "float32_per_picture": list(map(difference, found[schema.GRADIENTS], single)),
        "pytorch_float32_to_its_float64_per_picture": list(map(difference, single, double)),
        "float64": difference(wide[schema.GRADIENTS], double),
        "float64_maps": difference(
            grad_cam(wide[schema.ACTIVATIONS], wide[schema.GRADIENTS]), grad_cam(wide[schema.ACTIVATIONS], double)
        ),
    }


def measure(name: str) -> dict[str, Any]:
    """Both layers of one model."""
    module = oracle.build(name)
    proto = oracle.to_onnx(module, dynamo=name not in oracle.OLD_EXPORTER)
    return {
        "model": name,
        "default": default_layer(module, proto),
        "middle": middle_layer(module, proto, oracle.MODELS[name]),
    }


def main() -> None:
    """The command; see the module's docstring."""
    parser = argparse.ArgumentParser(description="Agreement with PyTorch autograd.")
    parser.add_argument("models", nargs="*", default=list(oracle.MODELS))
    parser.add_argument("--out", type=Path, default=OUTPUT)
    options = parser.parse_args()
    results = []
    for name in options.models:
        results.append(measure(name))
        default, middle = results[-1]["default"], results[-1]["middle"]
        print(
            f"{name:20} default {default['gradients']:.0e} {default['weights']:.0e} {default['maps']:.0e}  "
            f"middle {' '.join(f'{d:.0e}' for d in middle['float32_per_picture'])}  float64 {middle['float64']:.0e}",
            flush=True,
        )
    report = {
        "command": "python -m fastcam_bench.accuracy.agreement",
        "versions": versions("fastcam", "torch", "torchvision", "onnxruntime", "onnx"),
        "results": results,
    }
    write_report(report, options.out)


if __name__ == "__main__":
    main()
