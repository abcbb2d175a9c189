"""The classifiers whose maps are seeds, all with the bundled network's layers below, and the segmentation network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from fastcam_bench.models import bundled_net
from fastcam_bench.models.train_bundled import normalise

Bool = npt.NDArray[np.bool_]
Uint8 = npt.NDArray[np.uint8]
FINE, COARSE, GRID = 32, 112, 24
"""Channels of the two layers that the segmentation network reads, and the side of its grid."""
_POOL, _HIDDEN = 4, 64  # the head with a hidden layer: means over 4 x 4 positions, then so many units


def read_parameters(path: Path) -> bundled_net.Parameters:
    """The bundled model's weights, by name."""
    model = onnx.load(path)
    return {one.name: np.array(numpy_helper.to_array(one)) for one in model.graph.initializer}


class _Recording(bundled_net.TorchOps):
    def __init__(self, parameters: dict[str, Any]) -> None:
        super().__init__(parameters, training=False)
        self.seen: dict[str, Tensor] = {}

    def relu(self, name: str, x: Any) -> Any:
        self.seen[name] = super().relu(name, x)
        return self.seen[name]


@torch.no_grad()
def features(parameters: bundled_net.Parameters, images: Uint8) -> tuple[Tensor, Tensor]:
    """Of pictures uint8 [n, 128, 128, 3] stage1's maps as means [n, 32, 24, 24], and stage4's [n, 112, 16, 16]."""
    tensors = {name: torch.from_numpy(value) for name, value in parameters.items()}
    fine, coarse = [], []
    for start in range(0, len(images), 20):
        ops = _Recording(tensors)
        bundled_net.network(ops, torch.from_numpy(normalise(images[start : start + 20])))
        fine.append(nn.functional.adaptive_avg_pool2d(ops.seen["stage1/relu2"], GRID))
        coarse.append(ops.seen["stage4/relu2"])
    return torch.cat(fine), torch.cat(coarse)


class _HiddenLayer(bundled_net.OnnxOps):
    def linear_of_mean(self, x: str) -> str:
        pooled = self.emit("AveragePool", "head/pool", [x], kernel_shape=[_POOL] * 2, strides=[_POOL] * 2)
        flat = self.emit("Flatten", "head/flatten", [pooled], axis=1)
        hidden = self.emit("Gemm", "head/hidden", [flat, "head/hidden.weight", "head/hidden.bias"], transB=1)
        parts = ["head/linear.weight", "head/linear.bias"]
        return self.emit("Gemm", "head/linear", [self.emit("Relu", "head/relu", [hidden]), *parts], transB=1)


def with_new_head(
    parameters: bundled_net.Parameters, coarse: Tensor, present: Bool, hidden: bool, epochs: int
) -> tuple[bytes, nn.Module]:
    """A classifier of the bundled network's layers and a head that is trained: as an ONNX file, and the head.

    Args:
        parameters: the bundled network's, which stay as they are below the head.
        coarse: stage4's maps of the pictures to train on.
        present: bool [n, classes].
        hidden: a hidden fully connected layer over the places of the map, as VGG-16 has; else a mean over places and
            one matrix, which CAM needs.
        epochs: over all pictures.
    """
    torch.manual_seed(0)
    classes = present.shape[1]
    cells = COARSE * (coarse.shape[2] // _POOL) ** 2
    first = nn.Linear(cells, _HIDDEN) if hidden else nn.Identity()
    last = nn.Linear(_HIDDEN if hidden else COARSE, classes)
    below = [nn.AvgPool2d(_POOL), nn.Flatten(), first, nn.ReLU()] if hidden else [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    head = nn.Sequential(*below, last)
    rate, batch, steps = (1e-3 if hidden else 1e-2), 30, len(coarse) // 30
    optimiser = torch.optim.AdamW(head.parameters(), rate, weight_decay=0.05)
    truth = torch.from_numpy(present).float()
    order = np.random.default_rng(0)
    for _ in range(epochs):
        for part in np.array_split(order.permutation(len(coarse))[: steps * batch], steps):
            loss = nn.functional.binary_cross_entropy_with_logits(head(coarse[part]), truth[part])
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
    head.eval()
    made = dict(parameters)
    for name, layer in (("hidden", first), ("linear", last)):
        if isinstance(layer, nn.Linear):
            made[f"head/{name}.weight"] = layer.weight.detach().numpy()
            made[f"head/{name}.bias"] = layer.bias.detach().numpy()
    return bundled_net.to_onnx(made, classes, _HiddenLayer() if hidden else None), head


class Segmenter(nn.Module):
    """Probabilities [n, C, 24, 24] from the two layers' maps: what is trained is all of it, 13 thousand weights.

    As the paper's network starts from a VGG-16 trained to classify, this one stands on the bundled network, whose
    weights stay as they are.
    """

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.coarse, self.fine = nn.Conv2d(COARSE, 24, 1), nn.Conv2d(FINE, 24, 3, 1, 1)
        self.mixed = nn.Sequential(nn.ReLU(), nn.Conv2d(24, 16, 3, 1, 1), nn.ReLU(), nn.Conv2d(16, classes, 1))

    def forward(self, fine: Tensor, coarse: Tensor) -> Tensor:
        """See the class."""
        enlarged = nn.functional.interpolate(self.coarse(coarse), size=(GRID, GRID), mode="bilinear")
        made: Tensor = self.mixed(enlarged + self.fine(fine)).softmax(1)
        return made
