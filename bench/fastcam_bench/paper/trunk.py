"""The CNN of networks that speak of scenes: the bundled network's stages, and one layer behind them.

The bundled network tells classes whatever their colour, so that layer also sees an early stage and the picture itself,
made smaller: colours and textures come from there. It is the layer that is explained.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

import fastcam
from fastcam_bench.models import bundled_net
from fastcam_bench.models.train_bundled import normalise

CELL = 8
"""Pixels of a cell of the last map, a side."""
WEIGHTS = Path(fastcam.__file__).parent / "data" / "scenes.onnx"


class Block(nn.Module):
    """A stage of the bundled network: two convolutions beside a shortcut."""

    def __init__(self, before: int, after: int, stride: int, kernel: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, after, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(after, bundled_net.BN_EPSILON)
        self.conv2 = nn.Conv2d(after, after, kernel, 1, kernel // 2, bias=False)
        self.bn2 = nn.BatchNorm2d(after, bundled_net.BN_EPSILON)
        self.shortcut = nn.Conv2d(before, after, 1, stride, bias=False)
        self.shortcut_bn = nn.BatchNorm2d(after, bundled_net.BN_EPSILON)
        self.relu1, self.relu2 = nn.ReLU(), nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """[N, after, h / stride, w / stride] of [N, before, h, w]."""
        y = self.bn2(self.conv2(self.relu1(self.bn1(self.conv1(x)))))
        found: Tensor = self.relu2(y + self.shortcut_bn(self.shortcut(x)))
        return found


class Trunk(nn.Module):
    """Pictures [N, 3, size, size], normalised, to maps [N, channels, size / 8, size / 8] from 0 on.

    It begins with the bundled network's weights where :func:`start_from_bundled` puts them.
    """

    def __init__(self, size: int, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, bundled_net.STEM, 3, 2, 1, bias=False)
        self.bn = nn.BatchNorm2d(bundled_net.STEM, bundled_net.BN_EPSILON)
        self.relu = nn.ReLU()
        stages, before = [], bundled_net.STEM
        for _, after, stride, kernel in bundled_net.STAGES:
            stages.append(Block(before, after, stride, kernel))
            before = after
        self.stages = nn.Sequential(*stages)
        self.small = nn.AvgPool2d(CELL)
        self.last = nn.Conv2d(bundled_net.STAGES[1][1] + bundled_net.STAGES[3][1] + 3, channels, 1)
        self.last_relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """The last maps."""
        early = self.stages[1](self.stages[0](self.relu(self.bn(self.conv(x)))))
        late = self.stages[3](self.stages[2](early))
        found: Tensor = self.last_relu(self.last(torch.cat([early, late, self.small(x)], 1)))
        return found

    def of_bundled(self) -> list[nn.Module]:
        """The parts that the bundled network has."""
        return [self.conv, self.bn, self.stages]


def start_from_bundled(trunk: Trunk) -> None:
    """The weights are those of the bundled network, which tells classes of objects."""
    import onnx

    known = {one.name: onnx.numpy_helper.to_array(one) for one in onnx.load(str(WEIGHTS)).graph.initializer}
    parts: list[tuple[nn.Module, str]] = [(trunk.conv, "stem/conv"), (trunk.bn, "stem/bn")]
    for stage, (name, *_) in zip(trunk.stages, bundled_net.STAGES, strict=True):
        for part in ("conv1", "bn1", "conv2", "bn2", "shortcut", "shortcut_bn"):
            parts.append((getattr(stage, part), f"{name}/{part}"))
    renamed = {"scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}
    for module, name in parts:
        wanted = {"weight": "weight"} if isinstance(module, nn.Conv2d) else renamed
        values = {into: torch.tensor(known[f"{name}.{part}"]) for part, into in wanted.items()}
        module.load_state_dict(values, strict=False)


def normalised(images: npt.NDArray[np.uint8]) -> Tensor:
    """What it takes of pictures uint8 [n, H, W, 3]: float32 [n, 3, H, W], preset "imagenet"."""
    return torch.from_numpy(normalise(images))


def keep_statistics(net: nn.Module) -> None:
    """Training goes on with the means and deviations that the bundled network's normalisation has."""
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
