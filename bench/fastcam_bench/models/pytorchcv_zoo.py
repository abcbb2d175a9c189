"""One model of each family of pytorchcv that takes pictures, with random weights."""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import torch

from fastcam_bench.oracles.torch_oracle import Array, pictures

NO_PICTURES = frozenset({"jasper", "jasperdr", "quartznet", "voca", "visemenet", "nvpattexp", "raft"})
"""Families of sounds and of pairs of pictures."""
NOT_THESE = ("propainter", "_cub", "wrn1bit")
"""Parts of a video's repair, other training sets of families that are there already, and rounded weights."""
SIDES = {"classification": (128, 224, 299, 331, 32), "segmentation": (128, 256, 480), "other": (128, 256, 224)}
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
    """The first output of a module."""

    def __init__(self, module: torch.nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        made = self.module(images)
        while isinstance(made, tuple | list):
            made = made[0]
        assert isinstance(made, torch.Tensor)
        return made
