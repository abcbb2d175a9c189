"""Detectors explained by cotangents: a box's score and its sides, at a layer of the backbone, beside autograd.

    python -m fastcam_bench.detectors [--out FILE] [--only TEXT]

torchvision's, with seeded random weights and few boxes. Each is exported by torch (the older exporter) with the
outputs boxes [n, 4], scores [n] and labels [n], then by FastCAM for cotangents of boxes and scores; the best box's
score and its four sides are explained in one run, and the gradients held against PyTorch autograd of these very
scalars. A side on the picture's border has no gradient.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import tempfile
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch

from fastcam import cotangents, schema
from fastcam_bench import torch_oracle as oracle
from fastcam_bench import zoo
from fastcam_bench.architectures import session
from fastcam_bench.isolated import Row
from fastcam_bench.machine import versions, write_report
from fastcam_bench.torch_oracle import difference
from fastcam_export import export_model

OUTPUT = Path(__file__).parent.parent / "results" / "detectors.json"
COMMAND = "python -m fastcam_bench.detectors"
LAYERS = {
    "ssdlite320_mobilenet_v3_large": (
        "/module/backbone/features.0/features.0.12/block/block.1/block.1.2/HardSwish_output_0"
    ),
    "retinanet_resnet50_fpn": "/module/backbone/body/layer4/layer4.2/relu_2/Relu_output_0",
}
"""Detector -> a value of its backbone; the outputs hang on maps of several scales, so none is the layer by itself."""


class Boxes(torch.nn.Module):
    """A detector's boxes, scores and labels of one picture."""

    def __init__(self, module: torch.nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        found = self.module([images[i] for i in range(len(images))])[0]
        return found["boxes"], found["scores"], found["labels"]


def measure(name: str, layer: str) -> Row:
    """One detector: largest difference of each gradient, as a share of its largest value."""
    member = zoo.build(f"torchvision/detection/{name}")
    inner: Any = member.module
    module = Boxes(inner.module).eval()
    proto = _to_onnx(module, torch.from_numpy(member.images))
    made = export_model(
        proto, layer=layer, layout="NCHW", emit="gradients", targets="cotangent", output_name=["boxes", "scores"]
    )
    image = {"image": member.images}
    boxes, scores, _ = session(proto).run(["boxes", "scores", "labels"], image)
    best = cotangents.best_box(scores)
    score = cotangents.element(scores, best, batched=False)
    sides = cotangents.coordinate(boxes, best, *cotangents.SIDES)
    given = {
        f"{schema.COTANGENT}.scores": cotangents.stack(score, np.zeros((1, 4, *scores.shape))),
        f"{schema.COTANGENT}.boxes": cotangents.stack(np.zeros((1, 1, *boxes.shape)), sides),
    }
    activations, gradients = session(made.model).run([schema.ACTIVATIONS, schema.GRADIENTS], image | given)
    row: Row = {"layer": layer, "activations": list(activations.shape), "boxes": len(boxes), "check": made.check}
    for t, what in enumerate(("score", *cotangents.SIDES)):
        expected = oracle.gradients_of(module, member.images, activations, partial(_scalar, best, t))
        row[what] = float(f"{min(difference(gradients[:, t], one) for one in expected):.1e}")
        row[f"{what}, largest gradient"] = float(f"{np.abs(gradients[:, t]).max():.1e}")
    return row


def _scalar(best: int, target: int, outputs: Any) -> torch.Tensor:
    """The score of the best box, or one of its sides."""
    boxes, scores, _ = outputs
    number: torch.Tensor = scores[best] if target == 0 else boxes[best, target - 1]
    return number


def _to_onnx(module: torch.nn.Module, image: torch.Tensor) -> onnx.ModelProto:
    names: dict[str, Any] = {"input_names": ["image"], "output_names": ["boxes", "scores", "labels"]}
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = str(Path(folder) / "model.onnx")
        with contextlib.redirect_stdout(io.StringIO()):  # it prints whole graphs
            torch.onnx.export(module, (image,), path, dynamo=False, opset_version=18, **names)
        return onnx.load(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=OUTPUT)
    parser.add_argument("--only", default="")
    options = parser.parse_args()
    rows: dict[str, Row] = {}
    for name, layer in LAYERS.items():
        if options.only in name:
            rows[name] = measure(name, layer)
            print(name, rows[name], flush=True)
    packages = versions("torch", "torchvision", "onnx", "onnxruntime")
    write_report({"command": COMMAND, "versions": packages, "detectors": rows}, options.out)


if __name__ == "__main__":
    main()
