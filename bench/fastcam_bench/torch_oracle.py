"""PyTorch as the independent oracle: seeded torchvision models, their ONNX files, and autograd on the same weights."""

from __future__ import annotations

import logging
import os
import sys
import tempfile
import types
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import torch
from torch.overrides import TorchFunctionMode

logging.getLogger("torch").setLevel(logging.WARNING)
for _name in ("_meta_registrations", "_autograd_registrations"):
    # torchvision's compiled operators are not needed, and its wheel may not match the CPU build of torch
    sys.modules.setdefault(f"torchvision.{_name}", types.ModuleType(f"torchvision.{_name}"))
import torchvision  # noqa: E402

Array = npt.NDArray[Any]

MODELS = {
    "alexnet": "features.4",
    "vgg16": "features.22",
    "googlenet": "inception4c",
    "inception_v3": "Mixed_6c",
    "resnet50": "layer3",
    "densenet121": "features.transition3",
    "squeezenet1_1": "features.7",
    "shufflenet_v2_x1_0": "stage3",
    "mobilenet_v2": "features.10",
    "mobilenet_v3_large": "features.10",
    "efficientnet_b0": "features.4",
}
"""torchvision model -> scope of a layer in its middle."""
OLD_EXPORTER = frozenset({"shufflenet_v2_x1_0"})
"""Exported by torch's older exporter: opset 17, shapes computed at run time, scopes in node names, BatchNorm folded."""


def build(name: str, seed: int = 0) -> torch.nn.Module:
    """A torchvision model with seeded random weights, in inference mode.

    BatchNorm statistics are those of a few pictures. With the initial ones the maps of a deep network are almost
    constant over space, so that every max-pooling window is nearly a tie, where float32 alone decides.
    """
    torch.manual_seed(seed)
    options = {"init_weights": True} if name in ("googlenet", "inception_v3") else {}
    model: torch.nn.Module = getattr(torchvision.models, name)(weights=None, **options).eval()
    norms = [module for module in model.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    for norm in norms:
        norm.weight.data.uniform_(0.5, 1.5)
        norm.bias.data.normal_(1.0, 0.5)
        norm.momentum = 1.0
        norm.train()
    if norms:
        with torch.no_grad():
            model(torch.from_numpy(pictures(8, seed=seed + 1)))
    return model.eval()


def pictures(n: int, size: int = 224, seed: int = 7) -> Array:
    """Random images with structure at many scales, as photos have: float32 [n, 3, size, size]."""
    generator = torch.Generator().manual_seed(seed)
    image = torch.zeros(n, 3, size, size)
    for cells in (2, 4, 8, 16, 32, 64):
        noise = torch.randn(n, 3, cells, cells, generator=generator)
        image += torch.nn.functional.interpolate(noise, (size, size), mode="bicubic")
    return (image / image.std()).numpy()


def to_onnx(module: torch.nn.Module, size: int = 224, dynamo: bool = True) -> onnx.ModelProto:
    """The module as a ModelProto with a free batch."""
    image = torch.randn(2, 3, size, size)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if dynamo:
            # optimize=False: BatchNorm stays a node of its own, so that the weights are exactly PyTorch's
            shapes = ({0: torch.export.Dim("N", min=1)},)
            program = torch.onnx.export(
                module, (image,), dynamo=True, dynamic_shapes=shapes, optimize=False, verbose=False
            )
            assert program is not None
            return program.model_proto
        axes = {"image": {0: "N"}, "logits": {0: "N"}}
        names: dict[str, Any] = {"input_names": ["image"], "output_names": ["logits"], "dynamic_axes": axes}
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "model.onnx")
            torch.onnx.export(module, (image,), path, dynamo=False, opset_version=17, **names)
            return onnx.load(path)


class Recorder(TorchFunctionMode):
    """Keeps every feature map that a forward pass computes."""

    def __init__(self) -> None:
        super().__init__()
        self.maps: list[torch.Tensor] = []

    def __torch_function__(
        self,
        function: Callable[..., Any],
        kinds: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        result = function(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor) and result.dim() == 4 and result.requires_grad:
            self.maps.append(result)
        return result


def gradients_at(module: torch.nn.Module, images: Array, activations: Array, classes: Array) -> Array:
    """Autograd's gradient of each image's class scores at the feature map that equals ``activations``.

    Args:
        module: the model.
        images: [N, 3, H, W], of the model's type.
        activations: [N, K, h, w], what another implementation says the layer's value is.
        classes: int64 [N, T].

    Returns:
        [N, T, K, h, w].

    Raises:
        LookupError: no feature map of the forward pass equals ``activations``.
    """
    inputs = torch.from_numpy(images).requires_grad_()
    with Recorder() as recorder:
        scores = module(inputs)
    want = torch.from_numpy(activations)
    scale = want.abs().max()
    same = [m for m in recorder.maps if m.shape == want.shape and (m.detach() - want).abs().max() <= 1e-4 * scale]
    if not same:
        raise LookupError("no feature map of the PyTorch model equals the exported activations")
    columns = []  # of the first one: a later equal tensor is a copy, on only some of the paths to the score
    for target in range(classes.shape[1]):
        picked = scores.gather(1, torch.from_numpy(classes[:, target : target + 1])).sum()
        columns.append(torch.autograd.grad(picked, same[0], retain_graph=True)[0])
    return torch.stack(columns, dim=1).numpy()


def grad_cam(activations: Array, gradients: Array) -> Array:
    """Equations 1 and 2 of the paper: [N, T, h, w] of [N, K, h, w] and [N, T, K, h, w]."""
    maps: Array = np.einsum("ntk,nkhw->nthw", gradients.mean((3, 4)), activations)
    return np.maximum(maps, 0)


def difference(a: Array, b: Array) -> float:
    """Largest difference as a share of the largest absolute value of ``b``."""
    return float(np.abs(a.astype(np.float64) - b).max() / max(np.abs(b).max(), 1e-30))
