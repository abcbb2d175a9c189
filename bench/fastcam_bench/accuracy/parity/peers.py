"""What pytorch-grad-cam, torch-cam and Captum share with us: how each is called, and where its formula differs.

Every function takes a :class:`Case` and returns what that tool gives: pytorch-grad-cam's heatmaps [N, T, H, W],
torch-cam's maps after its ReLU [N, T, h, w], Captum's signed maps enlarged by its own interpolation, or a quantity at
the image [N, T, C, H, W]. Hooks of one tool stay in a module of its own.
"""

from __future__ import annotations

import contextlib
import copy
import io
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from fastcam_bench.oracles.torch_oracle import Array

Peer = Callable[["Case"], Array]


@dataclass(frozen=True)
class Case:
    """One network and what it is asked.

    Attributes:
        module: in inference mode, without ReLUs in place.
        layer: the target layer as a module path.
        images: [N, 3, H, W].
        classes: int64 [N, T].
        tokens: whether the layer is a sequence with one class token in front and 14 x 14 positions.
    """

    module: nn.Module
    layer: str
    images: torch.Tensor
    classes: Array
    tokens: bool = False

    def twin(self) -> nn.Module:
        """A module without the others' hooks, of the same tensors."""
        shared = (*self.module.parameters(), *self.module.buffers())
        return copy.deepcopy(self.module, {id(tensor): tensor for tensor in shared})

    def reshape(self) -> Callable[[torch.Tensor], torch.Tensor] | None:
        """The layer's value as [N, K, h, w]; None where it is."""
        return (lambda x: x[:, 1:].transpose(1, 2).reshape(len(x), -1, 14, 14)) if self.tokens else None

    def each_target(self, call: Callable[[list[int]], Any]) -> Array:
        """``call`` with one class per image -> [N, ...], for every column of the classes -> [N, T, ...]."""
        with quiet():
            found = [np.asarray(call(column.tolist())) for column in self.classes.T]
        return np.stack(found, axis=1)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without the tools' warnings and prints."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        yield


# ---- how each is called


def _pytorch_grad_cam(kind: str) -> Peer:
    def call(case: Case) -> Array:
        import pytorch_grad_cam
        from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

        module = case.twin()
        layers = [module.get_submodule(case.layer)]
        cam = getattr(pytorch_grad_cam, kind)(module, target_layers=layers, reshape_transform=case.reshape())
        return case.each_target(
            lambda classes: cam(input_tensor=case.images, targets=[ClassifierOutputTarget(c) for c in classes])
        )

    return call


def _guided(case: Case) -> Array:
    from pytorch_grad_cam import GuidedBackpropReLUModel

    model = GuidedBackpropReLUModel(case.twin(), device="cpu")

    def one(image: torch.Tensor, c: int) -> Array:
        return np.asarray(model(image[None].clone(), target_category=c)).transpose(2, 0, 1)

    return case.each_target(lambda classes: [one(image, c) for image, c in zip(case.images, classes)])


def _torch_cam(kind: str) -> Peer:
    def call(case: Case) -> Array:
        from torchcam import methods

        module = case.twin()
        cam = getattr(methods, kind)(module, target_layer=case.layer, reshape_transform=case.reshape())

        def maps(classes: list[int]) -> Array:
            found = cam(classes, module(case.images), normalized=False)[0]
            return np.asarray(found.detach().clamp(min=0))  # its CAM keeps negative values

        return case.each_target(maps)

    return call


def _captum_layer(kind: str) -> Peer:
    """A layer attribution, summed over channels and enlarged by Captum's own interpolation."""

    def call(case: Case) -> Array:
        from captum import attr

        module, reshape = case.twin(), case.reshape()
        if reshape is not None and kind == "LayerGradCam":
            raise NotImplementedError(
                "its LayerGradCam averages over every axis behind the second: channels first only"
            )
        method = getattr(attr, kind)(module, module.get_submodule(case.layer))

        def maps(classes: list[int]) -> Array:
            found = method.attribute(case.images, target=classes)
            found = (reshape(found) if reshape is not None else found).sum(1, keepdim=True)
            large = attr.LayerAttribution.interpolate(found, tuple(case.images.shape[2:]))
            return np.asarray(large[:, 0].detach())

        return case.each_target(maps)

    return call


def _captum(kind: str, **options: Any) -> Peer:
    """An attribution at the image."""

    def call(case: Case) -> Array:
        from captum import attr

        method = getattr(attr, kind)(case.twin())

        def values(classes: list[int]) -> Array:
            images = case.images.clone().requires_grad_()
            return np.asarray(method.attribute(images, target=classes, **options).detach())

        return case.each_target(values)

    return call


def _captum_lrp(rule: str | None) -> Peer:
    """LRP with a rule for convolutions in place of Captum's epsilon rule, which has to be set anew for every call."""

    def call(case: Case) -> Array:
        from captum import attr
        from captum.attr._utils import lrp_rules

        module = copy.deepcopy(case.module)  # it changes weights while it runs
        method = attr.LRP(module)

        def values(classes: list[int]) -> Array:
            for layer in module.modules():
                if isinstance(layer, nn.Conv2d) and rule is not None:
                    layer.rule = getattr(lrp_rules, rule)()
            images = case.images.clone().requires_grad_()
            return np.asarray(method.attribute(images, target=classes).detach())

        return case.each_target(values)

    return call


MAPS: dict[str, dict[str, Peer]] = {
    "gradcam": {
        "pytorch-grad-cam": _pytorch_grad_cam("GradCAM"),
        "torch-cam": _torch_cam("GradCAM"),
        "captum": _captum_layer("LayerGradCam"),
    },
    "gradcam++": {
        "pytorch-grad-cam": _pytorch_grad_cam("GradCAMPlusPlus"),
        "torch-cam": _torch_cam("GradCAMpp"),
    },
    "cam": {"torch-cam": _torch_cam("CAM")},
    "xgradcam": {"pytorch-grad-cam": _pytorch_grad_cam("XGradCAM"), "torch-cam": _torch_cam("XGradCAM")},
    "hirescam": {
        "pytorch-grad-cam": _pytorch_grad_cam("HiResCAM"),
        "captum": _captum_layer("LayerGradientXActivation"),
    },
    "elementwise": {"pytorch-grad-cam": _pytorch_grad_cam("GradCAMElementWise")},
    "layercam": {"pytorch-grad-cam": _pytorch_grad_cam("LayerCAM"), "torch-cam": _torch_cam("LayerCAM")},
    "eigencam": {"pytorch-grad-cam": _pytorch_grad_cam("EigenCAM")},
    "eigengradcam": {"pytorch-grad-cam": _pytorch_grad_cam("EigenGradCAM")},
    "kpcacam": {"pytorch-grad-cam": _pytorch_grad_cam("KPCA_CAM")},
    "fem": {"pytorch-grad-cam": _pytorch_grad_cam("FEM")},
}
"""Methods of activations and gradients, by the names of ``fastcam methods``, and who has them."""

MODES: dict[str, dict[str, Peer]] = {
    "gradient": {"captum": _captum("Saliency", abs=False)},
    "input-x-gradient": {"captum": _captum("InputXGradient")},
    "guided": {"pytorch-grad-cam": _guided, "captum": _captum("GuidedBackprop")},
    "deconvolution": {"captum": _captum("Deconvolution")},
    "lrp-epsilon": {"captum": _captum_lrp(None)},
    "lrp-composite": {"captum": _captum_lrp("Alpha1_Beta0_Rule")},
    "lrp-gamma": {"captum": _captum_lrp("GammaRule")},
}
"""Quantities at the image. Captum's LRP knows networks of modules alone: VGG-16."""


# ---- where a formula differs: the tool's own, of our activations [N, K, h, w] and gradients [N, T, K, h, w]


@dataclass(frozen=True)
class Difference:
    """Why a tool gives something else, and its formula where that can be written down: signed maps [N, T, h, w]."""

    why: str
    theirs: Callable[[Array, Array], Array] | None = None


def _weighted(weights: Array, activations: Array) -> Array:
    return np.asarray(np.einsum("ntk,nkhw->nthw", weights, activations))


def _plus_plus_with_epsilon(a: Array, g: Array) -> Array:
    total = a.sum((-2, -1))[:, None, :, None, None]
    alpha = np.where(g != 0, g**2 / (2 * g**2 + total * g**3 + 1e-6), 0)
    return _weighted((alpha * np.maximum(g, 0)).sum((-2, -1)), a)


def _plus_plus_undivided(a: Array, g: Array) -> Array:
    return _weighted((g**2 * np.maximum(g, 0)).sum((-2, -1)), a)


def _quotient_with(epsilon: float) -> Callable[[Array, Array], Array]:
    def maps(a: Array, g: Array) -> Array:
        total = a.sum((-2, -1))[:, None]
        return _weighted(np.einsum("nkhw,ntkhw->ntk", a, g) / (total + epsilon), a)

    return maps


def _first_component(features: Array) -> Array:
    """[K, h, w] -> [h, w] with the sign that the decomposition happens to give."""
    samples = features.reshape(len(features), -1).T
    samples = samples - samples.mean(0)
    return np.asarray((samples @ np.linalg.svd(samples, full_matrices=True)[2][0]).reshape(features.shape[1:]))


def _eigen(a: Array, g: Array) -> Array:
    maps = np.stack([_first_component(each) for each in a])[:, None]
    return np.asarray(np.broadcast_to(maps, (*g.shape[:2], *maps.shape[2:])))


def _eigen_grad(a: Array, g: Array) -> Array:
    return np.stack([[_first_component(each) for each in image] for image in (a[:, None] * g)])


_SIGN = (
    "a principal component has no sign: the tool takes the one that its decomposition gives, and its ReLU then keeps "
    "either half; ours is the sign of the larger extreme (Chung and Ying 2025)"
)
DIFFERENCES: dict[tuple[str, str], Difference] = {
    ("gradcam++", "pytorch-grad-cam"): Difference(
        "it adds 1e-6 to the denominator 2 g^2 + g^3 sum A, which is smaller than that where gradients are below 1e-3",
        _plus_plus_with_epsilon,
    ),
    ("gradcam++", "torch-cam"): Difference(
        "torch-cam 0.5.0 divides a copy (alpha[mask].div_(...)), so its alpha stays g^2: a defect",
        _plus_plus_undivided,
    ),
    ("xgradcam", "pytorch-grad-cam"): Difference("it adds 1e-7 to the denominator sum A", _quotient_with(1e-7)),
    ("xgradcam", "torch-cam"): Difference("it adds 1e-8 to the denominator sum A", _quotient_with(1e-8)),
    ("eigencam", "pytorch-grad-cam"): Difference(_SIGN, _eigen),
    ("eigengradcam", "pytorch-grad-cam"): Difference(_SIGN, _eigen_grad),
    ("kpcacam", "pytorch-grad-cam"): Difference(_SIGN),
}
"""Looked up only where the figures differ."""

RELU6 = Difference("it changes ReLU modules alone; a ReLU6 keeps its gradient there, and counts as a ReLU here")


def no_relu_in_place(module: nn.Module) -> nn.Module:
    """``module`` with ReLUs that leave their input alone: hooks of several tools need it."""
    for part in module.modules():
        if hasattr(part, "inplace"):
            part.__dict__["inplace"] = False
    return module


def relu_for_relu6(module: nn.Module) -> nn.Module:
    """``module`` with a ReLU in place of each ReLU6."""
    for part in module.modules():
        for name, child in part.named_children():
            if isinstance(child, nn.ReLU6):
                setattr(part, name, nn.ReLU())
    return module


def narrow_classifier(module: nn.Module) -> nn.Module:
    """VGG-16 with 256 in place of 4096 values between its fully connected layers, seeded: a tenth of its weights."""
    torch.manual_seed(1)
    classifier = module.get_submodule("classifier")
    for name, inputs, outputs in (("0", 25088, 256), ("3", 256, 256), ("6", 256, 1000)):
        layer = nn.Linear(inputs, outputs)
        nn.init.normal_(layer.weight, 0, (2 / inputs) ** 0.5)
        nn.init.zeros_(layer.bias)
        setattr(classifier, name, layer)
    return module.eval()


def who_has(name: str) -> Sequence[str]:
    """The tools that have a method or mode."""
    return tuple({**MAPS, **MODES}.get(name, {}))
