"""YOLO networks with seeded random weights, in the layouts that their exporters write.

Built by ultralytics from its own descriptions, without its weights:

    pip install --no-deps --target DIR ultralytics pyyaml psutil requests pillow       # and PYTHONPATH=DIR

The anchor head of YOLOv5 is not part of that package; here it stands on its YOLOv5 backbone.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from typing import Any

import torch

from fastcam_bench.oracles import torch_oracle as oracle

SIZE = 640
CLASSES = 80
ANCHORS = (
    ((10, 13), (16, 30), (33, 23)),
    ((30, 61), (62, 45), (59, 119)),
    ((116, 90), (156, 198), (373, 326)),
)
"""Width and height in pixels at strides 8, 16 and 32 (Jocher, YOLOv5)."""


class AnchorHead(torch.nn.Module):
    """[N, boxes, 5 + classes]: of each cell and anchor centre, size, objectness and classes, all through a sigmoid s.

    centre = (2 s - 1/2 + cell) stride, size = (2 s)^2 anchor.
    """

    def __init__(self, channels: list[int]) -> None:
        super().__init__()
        self.convs = torch.nn.ModuleList(torch.nn.Conv2d(c, 3 * (5 + CLASSES), 1) for c in channels)

    def forward(self, maps: list[torch.Tensor]) -> torch.Tensor:
        """All boxes of the three maps, the finest first."""
        found = []
        for conv, x, anchors, stride in zip(self.convs, maps, ANCHORS, (8, 16, 32), strict=True):
            n, _, h, w = x.shape
            s = conv(x).view(n, 3, 5 + CLASSES, h, w).permute(0, 1, 3, 4, 2).sigmoid()
            cell = torch.stack(torch.meshgrid(torch.arange(w), torch.arange(h), indexing="xy"), -1).float()
            size = torch.tensor(anchors, dtype=torch.float32).view(1, 3, 1, 1, 2)
            boxes = torch.cat(((2 * s[..., :2] - 0.5 + cell) * stride, (2 * s[..., 2:4]) ** 2 * size, s[..., 4:]), -1)
            found.append(boxes.view(n, -1, 5 + CLASSES))
        return torch.cat(found, 1)


class First(torch.nn.Module):
    """The first output of a network."""

    def __init__(self, module: torch.nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """The boxes."""
        found: Any = self.module(images)
        boxes: torch.Tensor = found[0] if isinstance(found, tuple | list) else found
        return boxes


def _ultralytics(description: str, end_to_end: bool = False) -> torch.nn.Module:
    os.environ.setdefault("YOLO_CONFIG_DIR", tempfile.mkdtemp())  # it writes settings there
    os.environ["YOLO_OFFLINE"] = "true"
    from ultralytics.nn import tasks

    kind = {"seg": tasks.SegmentationModel, "rtdetr": tasks.RTDETRDetectionModel}
    of = next((made for name, made in kind.items() if name in description), tasks.DetectionModel)
    torch.manual_seed(0)
    module: Any = of(description, nc=CLASSES, verbose=False).eval()
    head = module.model[-1]
    head.export = True
    if end_to_end:
        module.end2end = True
    return First(module)


def _v5() -> torch.nn.Module:
    made: Any = _ultralytics("yolov5n.yaml")
    inner = made.module
    old = inner.model[-1]
    channels = [branch[0].conv.in_channels for branch in old.cv2]
    head: Any = AnchorHead(channels).eval()
    head.f, head.i, head.type, head.np = old.f, old.i, "AnchorHead", 0
    inner.model[-1] = head
    return First(inner)


NETWORKS: dict[str, tuple[str, Callable[[], torch.nn.Module]]] = {
    "yolov5n, anchors [1, 25200, 85]": ("v5", _v5),
    "yolov8n [1, 84, 8400]": ("v8", lambda: _ultralytics("yolov8n.yaml")),
    "yolov8n-seg [1, 116, 8400]": ("v8", lambda: _ultralytics("yolov8n-seg.yaml")),
    "yolo11n [1, 84, 8400]": ("v8", lambda: _ultralytics("yolo11n.yaml")),
    "yolov10n, end to end [1, 300, 6]": ("v10", lambda: _ultralytics("yolov10n.yaml", end_to_end=True)),
}
"""Network and the shape of its boxes -> its layout, as :mod:`fastcam.targets.box_layouts` calls it; how it is built."""


def parts(output: torch.Tensor, layout: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Corners [boxes, 4] and scores [boxes] of the first picture, the best class's of each box."""
    rows = output[0].T if layout == "v8" else output[0]
    if layout == "v10":
        return rows[:, :4], rows[:, 4]
    centre, size = rows[:, :2], rows[:, 2:4]
    classes = rows[:, 5:] * rows[:, 4:5] if layout == "v5" else rows[:, 4 : 4 + CLASSES]
    return torch.cat((centre - size / 2, centre + size / 2), 1), classes.max(1).values


def settled(build: Callable[[], torch.nn.Module]) -> tuple[torch.nn.Module, Any]:
    """A network whose BatchNorms have seen pictures, and one picture in 0..1.

    A channel that is all but constant on the pictures would amplify others without bound, and float32 with it.
    """
    module = build().eval()
    oracle.settle(module, _pictures(4, seed=1))
    for norm in module.modules():
        if isinstance(norm, torch.nn.BatchNorm2d) and norm.running_var is not None:
            norm.running_var.clamp_(min=float(norm.running_var.mean()) / 10)
    return module, _pictures(1, seed=7)


def _pictures(n: int, seed: int) -> Any:
    found = oracle.pictures(n, SIZE, seed=seed)
    return (found - found.min()) / (found.max() - found.min())
