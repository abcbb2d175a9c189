"""The models of the architecture sweep, with seeded weights.

Torchvision's, one of every family of timm and of pytorchcv, and those of transformers.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch

from fastcam_bench.models import hugging_face, pytorchcv_zoo
from fastcam_bench.oracles import torch_oracle as oracle  # before torchvision: it says what that may go without
from fastcam_bench.oracles.torch_oracle import Array

import torchvision  # isort: skip

TASKS = {"": "classification", "segmentation": "segmentation", "detection": "detection", "video": "video"}
SMALL = (
    "test",
    "femto",
    "atto",
    "pico",
    "xxs",
    "xx",
    "nano",
    "mini",
    "tiny",
    "xs",
    "small",
    "_s",
    "t0",
    "b0",
    "18",
    "lite",
)


@dataclass(frozen=True)
class Member:
    """A model, ready to be exported.

    Attributes:
        module: in inference mode, seeded; takes one float tensor and returns a tensor or a tuple of tensors.
        images: float32, what it is explained on.
        more: other pictures, from a seed.
        task: "classification", "segmentation", "detection", "video", or what its outputs are, which cotangents explain.
        outputs: names of what it returns, where it has several.
    """

    module: torch.nn.Module
    images: Array
    more: Callable[[int], Array]
    task: str
    outputs: tuple[str, ...] = ("scores",)

    @property
    def parameters(self) -> int:
        """How many numbers it has learned, or would have."""
        return sum(parameter.numel() for parameter in self.module.parameters())


def names(only: str = "") -> Iterator[str]:
    """``torchvision/task/model``, ``timm/family/model``, ``pytorchcv/task/model``, ``transformers/task/model``:
    those that contain ``only``."""
    if not only.startswith(("timm/", "pytorchcv/", "transformers/")):
        yield from (name for name in _torchvision_names() if only in name)
    if not only.startswith(("torchvision/", "pytorchcv/", "transformers/")):
        yield from (name for name in _timm_names(only.split("/")[1] if "/" in only else "") if only in name)
    others = [f"pytorchcv/{name}" for name in pytorchcv_zoo.names()]
    others += [f"transformers/{name}" for name in hugging_face.names()]
    yield from (name for name in others if only in name)


def _torchvision_names() -> Iterator[str]:
    for folder, task in TASKS.items():
        package = getattr(torchvision.models, folder) if folder else torchvision.models
        for name in sorted(torchvision.models.list_models(module=package)):
            yield f"torchvision/{task}/{name}"


def _timm_names(group: str) -> Iterator[str]:
    try:
        import timm
    except ImportError:
        return
    for family in timm.list_modules():
        found = timm.list_models(module=family)
        if found and group in family:
            yield f"timm/{family}/{smallest(family, found)}"


def smallest(family: str, found: list[str]) -> str:
    """The member with the fewest parameters of those whose name sounds small."""
    import timm

    def rank(name: str) -> tuple[int, int]:
        small = [i for i, word in enumerate(SMALL) if word in name]
        return (min(small) if small else len(SMALL), len(name))

    own = [name for name in found if not name.startswith("test_")] or found
    counted = {}
    for name in sorted(own, key=rank)[:4]:
        try:
            with warnings.catch_warnings(), torch.device("meta"):
                warnings.simplefilter("ignore")
                counted[name] = sum(p.numel() for p in timm.create_model(name).parameters())
        except (RuntimeError, NotImplementedError):  # it computes with its weights while it is built
            counted[name] = 1 << 40
    return min(counted, key=lambda name: counted[name])


def build(name: str) -> Member:
    """The model ``name`` of :func:`names`."""
    library, group, short = name.split("/")
    torch.manual_seed(0)
    if library == "timm":
        return _timm(short)
    if library == "pytorchcv":
        module, images = pytorchcv_zoo.build(group, short)
        return _settled(module, _like(images), group, 1 if short in pytorchcv_zoo.ALONE else 2)
    if library == "transformers":
        module, images, outputs = hugging_face.build(group, short)
        number = 1 if short in hugging_face.ALONE else 2
        return replace(_settled(module, _like(images), group, number), outputs=outputs)
    makers: dict[str, Callable[[str], Member]] = {
        "classification": _classifier,
        "segmentation": _segmenter,
        "detection": _detector,
        "video": _video,
    }
    return makers[group](short)


def _like(images: Array) -> Callable[..., Array]:
    """Other pictures or clips of the same form."""
    frames = images.shape[1] if images.ndim == 5 else 1

    def made(n: int, seed: int = 7) -> Array:
        *_, channels, height, width = images.shape
        made = oracle.pictures(n * frames, max(height, width), seed)[:, :channels, :height, :width]
        return np.ascontiguousarray(made.reshape(n, *images.shape[1:]))

    return made


def _classifier(name: str) -> Member:
    options = {"init_weights": True} if name in ("googlenet", "inception_v3") else {}
    module = torchvision.models.get_model(name, weights=None, **options).eval()
    fixed = re.match("vit|maxvit|alexnet|vgg", name)
    return _settled(module, partial(oracle.pictures, size=224 if fixed else 128), "classification")


def _segmenter(name: str) -> Member:
    module = torchvision.models.get_model(name, weights=None, weights_backbone=None).eval()
    return _settled(_Out(module), partial(oracle.pictures, size=96), "segmentation")


def _detector(name: str) -> Member:
    oracle.compiled_operators()
    options: dict[str, Any] = {"weights": None, "weights_backbone": None, "num_classes": 5}
    if "rcnn" in name:  # few boxes: random scores let all of them through
        options |= {"box_score_thresh": 0.0, "rpn_post_nms_top_n_test": 30, "box_detections_per_img": 10}
    else:
        options |= {"score_thresh": 0.0, "topk_candidates": 30, "detections_per_img": 10}
    if not name.startswith("ssd"):
        options |= {"min_size": 128, "max_size": 128}
    module = torchvision.models.get_model(name, **options).eval()
    size = {"ssd300_vgg16": 300, "ssdlite320_mobilenet_v3_large": 320}.get(name, 128)
    if name == "ssd300_vgg16":  # its maps are scaled by 20: random scores would be 1, without a gradient
        for parameter in module.head.classification_head.parameters():
            parameter.data *= 0.01
    return _settled(_Best(module).eval(), partial(oracle.pictures, size=size), "detection", 1)


def _video(name: str) -> Member:
    module = torchvision.models.get_model(name, weights=None).eval()
    frames, size = (16, 224) if re.match("mvit|swin", name) else (16, 112) if "s3d" not in name else (16, 224)

    def clips(n: int, seed: int = 7) -> Array:
        pictures = oracle.pictures(n * frames, size, seed)
        return np.ascontiguousarray(pictures.reshape(n, frames, 3, size, size).transpose(0, 2, 1, 3, 4))

    return _settled(module, clips, "video")


def _timm(name: str) -> Member:
    import timm

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module = timm.create_model(name, pretrained=False, exportable=True).eval()
    own = module.default_cfg["input_size"]
    wanted = own[-1] if module.default_cfg.get("fixed_input_size") else min(own[-1], 128)
    for size in (wanted, own[-1]):
        try:
            with torch.no_grad():
                module(torch.zeros(1, 3, size, size))
            break
        except (RuntimeError, AssertionError, ValueError):  # too small for its windows, or not a multiple of them
            continue
    return _settled(module, partial(oracle.pictures, size=size), "classification")


def _settled(module: torch.nn.Module, inputs: Callable[..., Array], task: str, n: int = 2) -> Member:
    """A member whose BatchNorms have seen some of ``inputs(number, seed=...)``, explained on ``n`` others."""
    norms = [norm for norm in module.modules() if getattr(norm, "running_var", None) is not None]
    hooks = [norm.register_forward_pre_hook(_sound) for norm in norms]
    oracle.settle(module, inputs(2 if task == "video" else 8, seed=1), train=False)
    for hook in hooks:
        hook.remove()
    return Member(module, inputs(n, seed=7), lambda seed: inputs(n, seed=seed), task)


def _sound(norm: torch.nn.Module, given: tuple[torch.Tensor, ...]) -> None:
    """Give a BatchNorm the statistics of what it is given, its variances not so small that float32 is lost.

    A channel that is dead on the few pictures, or the same on all of them, would amplify others, and its own rounding,
    without bound.
    """
    values = given[0].transpose(0, 1).flatten(1)
    mean, variance = values.mean(1), values.var(1)
    norm.running_mean.copy_(mean)  # type: ignore[operator]
    least = torch.clamp(1e-2 * mean**2, min=float(variance.mean()) / 10)
    norm.running_var.copy_(torch.maximum(variance, least))  # type: ignore[operator]


class _Out(torch.nn.Module):
    """A segmenter's logits, [N, classes, H, W]."""

    def __init__(self, module: torch.nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.module(images)["out"]
        return logits


class _Best(torch.nn.Module):
    """A detector's scores of the first picture, the best first, [boxes]."""

    def __init__(self, module: torch.nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        scores: torch.Tensor = self.module([images[i] for i in range(len(images))])[0]["scores"]
        return scores
