"""One model of each family of pytorchcv that takes pictures, with random weights."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from fastcam_bench.oracles.torch_oracle import Array, pictures

NO_PICTURES = frozenset({"jasper", "jasperdr", "quartznet", "voca", "visemenet", "nvpattexp", "raft"})
"""Families of sounds and of pairs of pictures."""
NOT_THESE = ("propainter", "_cub", "wrn1bit")
"""Parts of a video's repair, other training sets of families that are there already, and rounded weights."""
SIDES = {"classification": (128, 224, 299, 331, 32), "segmentation": (128, 256, 480), "other": (128, 256, 224)}
FORMS = {
    "bisenet": (3, 128, 128, {"in_size": (128, 128)}), "fastscnn": (3, 256, 256, {"in_size": (256, 256)}),
    "pfpcnet": (1, 320, 240, {}), "superpointnet": (1, 128, 128, {}),
}  # fmt: skip
"""Families of pictures of their own: channels, height, width, and what else their models are told."""
ALONE = frozenset({"superpointnet"})
"""Models whose outputs have no axis of pictures: they are exported with one."""
OTHERS = ("pose", "centernet", "lffd", "pfpcnet", "superpointnet", "espcnet", "prnet", "ntsnet")
DATA = ("_voc", "_coco", "_cityscapes", "_ade20k", "_celebamaskhq")


def names() -> Iterator[str]:
    """``task/model``: the first model of each family."""
    try:
        from pytorchcv.model_provider import _models
    except ImportError:
        return
    first: dict[str, str] = {}
    for name, make in _models.items():
        first.setdefault(make.__module__.rsplit(".", 1)[-1], name)
    for family, name in first.items():
        if family not in NO_PICTURES and not any(word in family for word in NOT_THESE):
            yield f"{_task(family, name)}/{name}"


def _task(family: str, name: str) -> str:
    if any(word in family for word in OTHERS):
        return "other"
    return "segmentation" if name.endswith(DATA) else "classification"


def build(task: str, name: str) -> tuple[torch.nn.Module, Array]:
    """A model and the pictures that it takes; its first output where it gives several.

    Raises:
        RuntimeError: it takes pictures of none of the sizes that are tried.
    """
    from pytorchcv.model_provider import get_model

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        form = next((FORMS[family] for family in FORMS if name.startswith(family)), None)
        if form is not None:
            channels, height, width, told = form
            pixels = pictures(2, max(height, width))[:, :channels, :height, :width]
            return _First(get_model(name, pretrained=False, **told)).eval(), np.ascontiguousarray(pixels)
        module = _First(get_model(name, pretrained=False)).eval()
        sides = (32,) if "cifar" in name or "svhn" in name else SIDES[task]
        for side in sides:
            try:
                with torch.no_grad():
                    module(torch.zeros(2, 3, side, side))
            except (RuntimeError, ValueError, AssertionError, IndexError, TypeError):
                continue
            return module, pictures(2, side)
    raise RuntimeError(f"{name} takes pictures of none of the sides {', '.join(map(str, sides))}")


class _First(torch.nn.Module):
    """The first output of a module, or of one that gives places first, the first in real numbers."""

    def __init__(self, module: torch.nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return next(one for one in _flat(self.module(images)) if one.is_floating_point())


def _flat(made: Any) -> Iterator[torch.Tensor]:
    if isinstance(made, torch.Tensor):
        yield made
    else:
        for one in made:
            yield from _flat(one)
