"""Grad-CAM by pytorch-grad-cam, torch-cam and captum, each as its README shows it, from pictures to boxes.

All three get the same weights (on a module of its own each: hooks of one would run in the others' passes), the same
layer, the class that the network predicts, and the same steps around them: cv2.resize, normalisation in torch, the
heatmap at the network's input size, a threshold at 15 % of its maximum, OpenCV's connected components, the largest
one's box, scaled to the picture. captum takes the class as an argument, so its user predicts first.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Sequence
from typing import Any

import cv2
import numpy as np
import torch
from torch import nn

from fastcam.runtime.timing import Laps
from fastcam_bench.models.networks import SIZE, Network
from fastcam_bench.oracles.torch_oracle import Array

MEAN = torch.tensor((0.485, 0.456, 0.406)).view(3, 1, 1)
STD = torch.tensor((0.229, 0.224, 0.225)).view(3, 1, 1)
THRESHOLD = 0.15
Box = tuple[float, float, float, float]


class Peer:
    """One tool on one network.

    Attributes:
        name: the distribution.
    """

    name = ""
    cam: Any

    def __init__(self, module: nn.Module, network: Network) -> None:
        self.module = module
        self.layer = network.layer
        self.reshape = _reshape(network.layout)

    def predict(self, images: torch.Tensor) -> Any:
        """What has to be known before the map is asked for."""
        return None

    def maps(self, images: torch.Tensor, predicted: Any) -> Any:
        """What the tool returns for [N, 3, H, W]."""
        raise NotImplementedError

    def heatmaps(self, maps: Any) -> Array:
        """That as [N, H, W] at the network's input size."""
        large = nn.functional.interpolate(maps, (SIZE, SIZE), mode="bilinear", align_corners=False)
        return np.asarray(large[:, 0].detach().numpy())

    def difference(self, maps: Any, ours: Array) -> float:
        """Largest difference to our maps [N, h, w] under the tool's normalisation, whose maximum is 1."""
        raise NotImplementedError


class PytorchGradCam(Peer):
    """Maps are scaled to 0..1 and enlarged by the tool itself."""

    name = "grad-cam"

    def __init__(self, module: nn.Module, network: Network) -> None:
        super().__init__(module, network)
        from pytorch_grad_cam import GradCAM

        layers = [module.get_submodule(self.layer)]
        self.cam = GradCAM(model=module, target_layers=layers, reshape_transform=self.reshape)

    def maps(self, images: torch.Tensor, predicted: Any) -> Array:
        return np.asarray(self.cam(input_tensor=images, targets=None))

    def heatmaps(self, maps: Any) -> Array:
        return np.asarray(maps)

    def difference(self, maps: Any, ours: Array) -> float:
        def large(one: Array) -> Array:
            return np.asarray(cv2.resize(_scaled(one), (SIZE, SIZE)))

        return float(np.abs(np.stack([_scaled(large(one)) for one in ours]) - maps).max())


class TorchCam(Peer):
    """Maps are scaled to 0..1, at the layer's size."""

    name = "torchcam"

    def __init__(self, module: nn.Module, network: Network) -> None:
        super().__init__(module, network)
        from torchcam.methods import GradCAM

        self.cam = GradCAM(module, target_layer=self.layer, reshape_transform=self.reshape)

    def maps(self, images: torch.Tensor, predicted: Any) -> torch.Tensor:
        scores = self.module(images)
        found: torch.Tensor = self.cam(scores.argmax(dim=1).tolist(), scores)[0]
        return found[:, None]

    def difference(self, maps: Any, ours: Array) -> float:
        return float(np.abs(np.stack([_scaled(one, 1e-8) for one in ours]) - maps[:, 0].numpy()).max())


class Captum(Peer):
    """Maps as the formula gives them, at the layer's size."""

    name = "captum"

    def __init__(self, module: nn.Module, network: Network) -> None:
        super().__init__(module, network)
        if self.reshape is not None:
            raise NotImplementedError(
                "its LayerGradCam averages over every axis behind the second: channels first only"
            )
        from captum.attr import LayerGradCam

        self.cam = LayerGradCam(module, module.get_submodule(self.layer))

    def predict(self, images: torch.Tensor) -> Any:
        with torch.no_grad():
            return self.module(images).argmax(dim=1)

    def maps(self, images: torch.Tensor, predicted: Any) -> torch.Tensor:
        found: torch.Tensor = self.cam.attribute(images, target=predicted, relu_attributions=True).detach()
        return found

    def difference(self, maps: Any, ours: Array) -> float:
        return float(np.abs(ours - maps[:, 0].numpy()).max() / max(float(maps.max()), 1e-30))


PEERS: tuple[type[Peer], ...] = (PytorchGradCam, TorchCam, Captum)


def make(module: nn.Module, network: Network) -> tuple[dict[str, Peer], dict[str, str]]:
    """The peers that can explain the network, and of the others why not."""
    made: dict[str, Peer] = {}
    refused: dict[str, str] = {}
    for kind in PEERS:
        try:
            made[kind.name] = kind(twin(module), network)
        except NotImplementedError as error:
            refused[kind.name] = str(error)
    return made, refused


def twin(module: nn.Module) -> nn.Module:
    """A module without the other's hooks, of the same tensors."""
    shared = (*module.parameters(), *module.buffers())
    return copy.deepcopy(module, {id(tensor): tensor for tensor in shared})


def compile_module(peer: Peer) -> None:
    """Replace the peer's module, wherever the tool holds it, by what torch.compile makes of it."""
    fast = torch.compile(peer.module)
    for holder, attribute in (
        (peer, "module"),
        (peer.cam, "model"),
        (peer.cam, "forward_func"),
        (getattr(peer.cam, "activations_and_grads", None), "model"),
    ):
        if hasattr(holder, attribute):
            setattr(holder, attribute, fast)


def tensor(pictures: Sequence[Array]) -> torch.Tensor:
    """Pictures uint8 [h, w, 3] as the network's input, as a user of these tools writes it."""
    small = np.stack([cv2.resize(picture, (SIZE, SIZE)) for picture in pictures])
    images = torch.from_numpy(small).permute(0, 3, 1, 2).float().div(255)
    return ((images - MEAN) / STD).contiguous()


def box(heatmap: Array, height: int, width: int) -> Box:
    """The box around the largest component of what reaches the threshold, in pixels of the picture."""
    mask = (heatmap >= THRESHOLD * heatmap.max()).astype(np.uint8)
    _, _, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
    x, y, w, h, _ = max(stats[1:], key=lambda row: row[cv2.CC_STAT_AREA])
    across, down = width / SIZE, height / SIZE
    return (x * across, y * down, (x + w) * across, (y + h) * down)


def end_to_end(peer: Peer, pictures: Sequence[Array]) -> tuple[list[Box], Laps]:
    """Boxes of ``pictures``, and how long the tool's own call took of it."""
    images = tensor(pictures)
    predicted = peer.predict(images)
    start = time.perf_counter()
    maps = peer.maps(images, predicted)
    taken = time.perf_counter() - start
    heatmaps = peer.heatmaps(maps)
    boxes = [box(heatmap, *picture.shape[:2]) for heatmap, picture in zip(heatmaps, pictures)]
    return boxes, Laps({"map alone": taken})


def _scaled(one: Array, epsilon: float = 1e-7) -> Array:
    """A map from 0 to 1, as pytorch-grad-cam scales it; torch-cam adds another epsilon."""
    one = one - one.min()
    return np.asarray(one / (one.max() + epsilon))


def _reshape(layout: str) -> Callable[[torch.Tensor], torch.Tensor] | None:
    """A layer's value as [N, K, h, w]; None where it is."""
    if layout == "tokens":  # a class token, then the positions
        return lambda value: value[:, 1:].transpose(1, 2).reshape(len(value), -1, 14, 14)
    return (lambda value: value.permute(0, 3, 1, 2)) if layout == "NHWC" else None
