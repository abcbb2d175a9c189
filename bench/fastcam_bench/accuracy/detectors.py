"""Detectors explained by cotangents in words: the best box's score and its sides, beside autograd.

    python -m fastcam_bench.accuracy.detectors [--out FILE] [--only TEXT]

torchvision's and YOLO networks (:mod:`fastcam_bench.models.yolo`, where ultralytics is installed), with seeded random
weights. Each is exported by torch (the older exporter), then by FastCAM for cotangents of its boxes and scores; "the
best box, its score and its four sides" is asked in words, and the gradients at the target layer are held against
PyTorch autograd of these very scalars. A side on the picture's border has no gradient. In R-CNNs PyTorch takes
proposals for constants; in the exported file a box moves with its proposal, so autograd is told to follow that as well.
Rows of a former run that are not run again are kept.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import importlib.util
import io
import json
import tempfile
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import torch

from fastcam import schema
from fastcam.targets import spec_kinds
from fastcam.targets.box_layouts import SIDES
from fastcam_bench.models import yolo, zoo
from fastcam_bench.models.explained import session
from fastcam_bench.oracles import torch_oracle as oracle
from fastcam_bench.oracles.isolated import Row
from fastcam_bench.oracles.machine import versions, write_report
from fastcam_bench.oracles.torch_oracle import difference
from fastcam_bench.paths import RESULTS
from fastcam_export import export_model

OUTPUT = RESULTS / "gradients" / "detectors.json"
COMMAND = "python -m fastcam_bench.accuracy.detectors"
SPEC = f"box:score,{','.join(SIDES)}"
LAST = "/module/backbone/body/layer4/layer4.2/relu_2/Relu_output_0"
LAYERS = {
    "ssdlite320_mobilenet_v3_large": (
        "/module/backbone/features.0/features.0.12/block/block.1/block.1.2/HardSwish_output_0"
    ),
    "retinanet_resnet50_fpn": LAST,
    "fasterrcnn_resnet50_fpn": LAST,
}
"""torchvision's detector -> a value of its backbone; outputs hang on maps of several scales, so none is the layer."""

Array = npt.NDArray[Any]


class Boxes(torch.nn.Module):
    """A detector's boxes, scores and labels of one picture."""

    def __init__(self, module: torch.nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        found = self.module([images[i] for i in range(len(images))])[0]
        return found["boxes"], found["scores"], found["labels"]


@dataclass(frozen=True)
class Contender:
    """A detector that is measured.

    Attributes:
        names: of its outputs in ONNX; those of integers are not explained.
        layer: by name, or "auto".
        parts: outputs -> corners [boxes, 4] and scores [boxes].
        labels: class names, where the layout is told by their number.
    """

    module: torch.nn.Module
    picture: Array
    names: list[str]
    layer: str
    parts: Callable[[Any], tuple[torch.Tensor, torch.Tensor]]
    labels: list[str] | None = None


def contenders(only: str) -> Iterator[tuple[str, Callable[[], Contender]]]:
    """Name and how it is made."""
    for name, layer in LAYERS.items():
        if only in name:
            yield name, partial(_torchvision, name, layer)
    for name, (layout, build) in yolo.NETWORKS.items():
        if only in name and importlib.util.find_spec("ultralytics") is not None:
            yield name, partial(_yolo, layout, build)


def _torchvision(name: str, layer: str) -> Contender:
    member = zoo.build(f"torchvision/detection/{name}")
    inner: Any = member.module
    return Contender(Boxes(inner.module).eval(), member.images, ["boxes", "scores", "labels"], layer, _pair)


def _pair(outputs: Any) -> tuple[torch.Tensor, torch.Tensor]:
    return outputs[0], outputs[1]


def _yolo(layout: str, build: Callable[[], torch.nn.Module]) -> Contender:
    module, picture = yolo.settled(build)
    labels = [f"class {i}" for i in range(yolo.CLASSES)]
    return Contender(module, picture, ["output0"], "auto", partial(_dense, layout), labels)


def _dense(layout: str, outputs: Any) -> tuple[torch.Tensor, torch.Tensor]:
    return yolo.parts(outputs[0], layout)


def measure(one: Contender) -> Row:
    """Largest difference of each gradient, as a share of its largest value."""
    proto = _to_onnx(one)
    names = [name for name in one.names if name != "labels"]
    made = export_model(
        proto,
        layer=one.layer,
        layout="NCHW",
        emit="gradients",
        targets="cotangent",
        output_name=names,
        labels=one.labels,
    )
    plain = session(proto)
    outputs = dict(zip(one.names, plain.run(one.names, {"image": one.picture}), strict=True))
    question: Any = spec_kinds.bind(SPEC, made.metadata, "the file", lambda picture: {})
    asked = question(outputs)
    given = {about.input: asked.arrays[about.output] for about in made.metadata.cotangents}
    activations, gradients = session(made.model).run(
        [schema.ACTIVATIONS, schema.GRADIENTS], {"image": one.picture, **given}
    )
    boxes, scores = one.parts([torch.from_numpy(array) for array in outputs.values()])
    corners = boxes[int(scores.argmax())]
    shapes = {name: list(array.shape) for name, array in outputs.items()}
    row: Row = {"layer": made.metadata.layer.value, "activations": list(activations.shape), "outputs": shapes}
    row |= {"asked": SPEC, "box": asked.names[0][0], "check": made.check}
    theirs = _autograd(one, one.module, one.picture, corners, activations)
    exact = _autograd(one, _in_double(one.module), one.picture.astype(np.float64), corners, activations)
    for t, what in enumerate(("score", *SIDES)):
        row[what] = float(f"{min(difference(gradients[:, t], found) for found in theirs[t]):.1e}")
        row[f"{what}, largest gradient"] = float(f"{np.abs(gradients[:, t]).max():.1e}")
    rounding = max(difference(a[0], b[0]) for a, b in zip(theirs, exact, strict=True))
    row["PyTorch from itself in float64"] = float(f"{rounding:.1e}")
    return row


def _autograd(
    one: Contender, module: torch.nn.Module, picture: Array, corners: torch.Tensor, activations: Array
) -> list[list[Array]]:
    """Of the score and each side, PyTorch's gradients at the values that equal the activations."""
    with _proposals_move():
        return [
            oracle.gradients_of(module, picture, activations, partial(_scalar, one, corners, t))
            for t in range(1 + len(SIDES))
        ]


def _in_double(module: torch.nn.Module) -> torch.nn.Module:
    """A copy in float64, that makes its anchors anew."""
    made = copy.deepcopy(module).double()
    heads: list[Any] = [each for each in made.modules() if hasattr(each, "anchors") and hasattr(each, "shape")]
    for head in heads:
        head.shape = None
    return made


def _scalar(one: Contender, corners: torch.Tensor, target: int, outputs: Any) -> torch.Tensor:
    """The score of the box that the exported file finds best, or one of its sides.

    Which boxes suppress others may be decided by rounding, so it is found by where it lies.
    """
    boxes, scores = one.parts(outputs if isinstance(outputs, tuple) else (outputs,))
    gaps = (boxes - corners).abs().max(1).values.detach()
    best = int(gaps.argmin())
    if gaps[best] > 0.01:
        raise LookupError(
            f"PyTorch finds no box at {corners.tolist()}; the nearest is {float(gaps[best]):.2g} pixels off"
        )
    number: torch.Tensor = scores[best] if target == 0 else boxes[best, target - 1]
    return number


@contextlib.contextmanager
def _proposals_move() -> Iterator[None]:
    """Within it boxes depend on the proposals that they are counted from; what is pooled there does not, as ever."""
    from torchvision.models.detection import rpn
    from torchvision.ops import poolers

    network: Any = rpn.RegionProposalNetwork
    module: Any = poolers
    tensor: Any = torch.Tensor
    forward, pool, detach = network.forward, module.roi_align, tensor.detach

    def attached(*args: Any) -> Any:
        tensor.detach = lambda self: self
        try:
            return forward(*args)
        finally:
            tensor.detach = detach

    network.forward = attached
    module.roi_align = lambda x, rois, *args, **options: pool(x, rois.detach(), *args, **options)
    try:
        yield
    finally:
        network.forward, module.roi_align = forward, pool


def _to_onnx(one: Contender) -> onnx.ModelProto:
    names: dict[str, Any] = {"input_names": ["image"], "output_names": one.names}
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = str(Path(folder) / "model.onnx")
        with contextlib.redirect_stdout(io.StringIO()):  # it prints whole graphs
            picture = torch.from_numpy(one.picture)
            torch.onnx.export(one.module, (picture,), path, dynamo=False, opset_version=18, **names)
        return onnx.load(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=OUTPUT)
    parser.add_argument("--only", default="")
    options = parser.parse_args()
    rows: dict[str, Row] = json.loads(options.out.read_text())["detectors"] if options.out.exists() else {}
    for name, build in contenders(options.only):
        rows[name] = measure(build())
        print(name, rows[name], flush=True)
        packages = versions("torch", "torchvision", "ultralytics", "onnx", "onnxruntime")
        write_report({"command": COMMAND, "versions": packages, "detectors": rows}, options.out)


if __name__ == "__main__":
    main()
