"""The networks that are measured: torchvision's definitions with seeded random weights, and real and bundled files."""

from __future__ import annotations

import sys
import warnings
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import numpy as np
import onnx
import torch
from torch import nn

from fastcam_bench.oracles import torch_oracle as oracle
from fastcam_bench.oracles.torch_oracle import Array
from fastcam_bench.paths import CACHE, default_assets

SIZE = 224
TINY = float(np.finfo(np.float32).tiny)


@dataclass(frozen=True)
class Network:
    """A network and where it is explained.

    Attributes:
        title: what tables call it.
        layer: the target layer as a module path, for the peers; "" for a file that has no module.
        export_layer: the same layer for our export; "auto" where that chooses it.
        middle: a layer in the middle as (title, module path); None where that is not measured.
        image_gradient: whether the gradient all the way to the image is measured.
        openvino: whether it is measured on OpenVINO as well.
        layout: how the module lays the layer out.
        preset: the export's preprocessing.
    """

    title: str
    layer: str
    export_layer: str = "auto"
    middle: tuple[str, str] | None = None
    image_gradient: bool = False
    openvino: bool = False
    layout: str = "NCHW"
    preset: str = "imagenet"


NETWORKS = {
    "alexnet": Network("AlexNet", "features.11"),
    "vgg16": Network("VGG-16", "features.29", middle=("relu4_3", "features.22"), image_gradient=True, openvino=True),
    "googlenet": Network("GoogLeNet", "inception5b"),
    "squeezenet1_1": Network("SqueezeNet 1.1", "features"),
    "resnet50": Network("ResNet-50", "layer4", middle=("layer3", "layer3"), image_gradient=True, openvino=True),
    "densenet121": Network("DenseNet-121", "relu"),
    "mobilenet_v2": Network("MobileNetV2", "features", image_gradient=True, openvino=True),
    "mobilenet_v3_large": Network("MobileNetV3-large", "features"),
    "efficientnet_b0": Network("EfficientNet-B0", "features"),
    "convnext_tiny": Network("ConvNeXt-T", "features"),
    "vit_b_16": Network("ViT-B/16", "encoder.layers.encoder_layer_11.ln_1", layout="tokens"),
    "swin_t": Network("Swin-T", "features.7.1.norm1", "features.7.1.norm1", layout="NHWC"),
    "mobilenet_v2_int8": Network("MobileNetV2 int8 (QDQ)", "", preset="tf128"),
    "scenes": Network("bundled (scenes)", ""),
}


class DenseNet(nn.Module):
    """torchvision's DenseNet with its last ReLU as a module, so that every tool can name the same layer."""

    def __init__(self, source: nn.Module) -> None:
        super().__init__()
        self.features = source.get_submodule("features")
        self.classifier = source.get_submodule("classifier")
        self.relu = nn.ReLU()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits [N, classes]."""
        maps = nn.functional.adaptive_avg_pool2d(self.relu(self.features(images)), 1)
        logits: torch.Tensor = self.classifier(torch.flatten(maps, 1))
        return logits


def module(name: str) -> nn.Module:
    """The network with seeded weights, in inference mode, and sane: see :func:`check_activations`."""
    made = oracle.build(name)
    if name == "densenet121":
        made = DenseNet(made).eval()
    check_activations(made, oracle.pictures(2))
    return made


def check_activations(made: nn.Module, images: Array) -> None:
    """Random weights must cost what trained ones do: on ``images`` nothing overflows, dies or is denormal.

    Raises:
        ValueError: a layer's values are not of that kind.
    """
    found: list[tuple[str, float, float, bool]] = []

    def look(name: str, value: torch.Tensor) -> None:
        size = value.abs()
        denormal = float(((size > 0) & (size < TINY)).float().mean())
        found.append((name, float(size.max()), denormal, bool(torch.isfinite(value).all())))

    hooks = [
        part.register_forward_hook(lambda _m, _i, value, name=name: look(name, value))
        for name, part in made.named_modules()
        if not list(part.children()) and name
    ]
    with torch.no_grad():
        made(torch.from_numpy(images))
    for hook in hooks:
        hook.remove()
    for name, largest, denormal, finite in found:
        if not finite or not 1e-6 < largest < 1e6 or denormal > 1e-4:
            raise ValueError(f"{name}: largest {largest:.1e}, denormal {denormal:.1%}: not like trained weights")


def onnx_file(name: str, made: nn.Module | None) -> Path | None:
    """The source file of a network: torch's export of ``made``, kept between runs, or a file that is there.

    None where the file is not on this machine.
    """
    if made is None:
        path = _given(name)
        if not path.is_file():
            print(f"{name}: no file at {path} (set FASTCAM_ASSETS); left out", file=sys.stderr)
            return None
        return path
    path = CACHE / f"{name}-torch{torch.__version__.split('+')[0]}.onnx"
    if not path.is_file():
        CACHE.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_suffix(".partial")
        onnx.save(_exported(made), unfinished)
        unfinished.rename(path)
    return path


def _given(name: str) -> Path:
    assets = default_assets() / "models"
    bundled = Path(str(files("fastcam"))) / "data" / "scenes.onnx"
    return {"scenes": bundled, "mobilenet_v2_int8": assets / "mobilenet_v2_1.0_224_quant.qdq.onnx"}[name]


def _exported(made: nn.Module) -> onnx.ModelProto:
    """What torch's exporter makes of it by default, with a free batch."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            made,
            (torch.randn(2, 3, SIZE, SIZE),),
            dynamo=True,
            dynamic_shapes=({0: torch.export.Dim("N", min=1)},),
            input_names=["image"],
            output_names=["logits"],
            verbose=False,
        )
    assert program is not None
    return program.model_proto


def photos(n: int) -> list[Array]:
    """Pictures uint8 [480, 640, 3] with structure at many scales."""
    made = torch.from_numpy(oracle.pictures(n))
    large = nn.functional.interpolate(made, (480, 640), mode="bilinear")
    return list((large * 50 + 128).clamp(0, 255).byte().permute(0, 2, 3, 1).contiguous().numpy())


def work_above(made: nn.Module, layer: str) -> float:
    """Share of the multiply-adds of Conv and Linear that follows a layer of a sequential network."""
    counted: list[tuple[str, int]] = []

    def count(part: nn.Module, inputs: tuple[torch.Tensor, ...], value: torch.Tensor) -> None:
        weight = part.weight
        assert isinstance(weight, torch.Tensor)
        per_value = weight[0].numel()  # multiply-adds of one number of the result
        counted.append(("", per_value * value.numel()))

    kinds = (nn.Conv2d, nn.Linear)
    hooks = [part.register_forward_hook(count) for part in made.modules() if isinstance(part, kinds)]
    mark = made.get_submodule(layer).register_forward_hook(lambda *_: counted.append((layer, 0)))
    with torch.no_grad():
        made(torch.zeros(1, 3, SIZE, SIZE))
    for hook in (*hooks, mark):
        hook.remove()
    at = next(index for index, (name, _) in enumerate(counted) if name == layer)
    return sum(work for _, work in counted[at:]) / sum(work for _, work in counted)
