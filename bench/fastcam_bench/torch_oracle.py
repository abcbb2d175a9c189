"""PyTorch as the independent oracle: seeded torchvision models, their ONNX files, and autograd on the same weights."""

import io
import logging
import sys
import types
import warnings

import numpy as np
import onnx
import torch
from torch.overrides import TorchFunctionMode

logging.getLogger("torch").setLevel(logging.WARNING)
for name in ("_meta_registrations", "_autograd_registrations"):
    # torchvision's compiled operators are not needed, and its wheel may not match the CPU build of torch
    sys.modules.setdefault(f"torchvision.{name}", types.ModuleType(f"torchvision.{name}"))
import torchvision  # noqa: E402


def build(name, seed=0):
    """A torchvision model with seeded random weights, in inference mode.

    BatchNorm statistics are those of a few pictures. With the initial ones the maps of a deep network are almost
    constant over space, so that every max-pooling window is nearly a tie, where float32 alone decides.
    """
    torch.manual_seed(seed)
    options = {"init_weights": True} if name in ("googlenet", "inception_v3") else {}
    model = getattr(torchvision.models, name)(weights=None, **options).eval()
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


def pictures(n, size=224, seed=7):
    """Random images with structure at many scales, as photos have: float32 [n, 3, size, size]."""
    generator = torch.Generator().manual_seed(seed)
    image = torch.zeros(n, 3, size, size)
    for cells in (2, 4, 8, 16, 32, 64):
        noise = torch.randn(n, 3, cells, cells, generator=generator)
        image += torch.nn.functional.interpolate(noise, (size, size), mode="bicubic")
    return (image / image.std()).numpy()


def to_onnx(module, size=224, dynamo=True):
    """The module as a ModelProto with a free batch."""
    image = torch.randn(2, 3, size, size)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if dynamo:
            shapes = ({0: torch.export.Dim("N", min=1)},)
            # optimize=False: BatchNorm stays a node of its own, so that the weights are exactly PyTorch's
            options = {"dynamo": True, "dynamic_shapes": shapes, "optimize": False, "verbose": False}
            return torch.onnx.export(module, (image,), **options).model_proto
        buffer = io.BytesIO()
        axes = {"image": {0: "N"}, "logits": {0: "N"}}
        names = {"input_names": ["image"], "output_names": ["logits"], "dynamic_axes": axes}
        torch.onnx.export(module, (image,), buffer, dynamo=False, opset_version=17, **names)
        return onnx.load_from_string(buffer.getvalue())


class Recorder(TorchFunctionMode):
    """Keeps every feature map that a forward pass computes."""

    def __init__(self):
        super().__init__()
        self.maps = []

    def __torch_function__(self, function, kinds, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor) and result.dim() == 4 and result.requires_grad:
            self.maps.append(result)
        return result


def gradients_at(module, images, activations, classes):
    """Autograd's gradient of each image's class scores at the feature map that equals ``activations``.

    Args:
        module: the model.
        images: float32 [N, 3, H, W].
        activations: float32 [N, K, h, w], what another implementation says the layer's value is.
        classes: int [N, T].

    Returns:
        float32 [N, T, K, h, w], or None where no tensor of the forward pass equals ``activations``.
    """
    inputs = torch.from_numpy(images).requires_grad_()
    with Recorder() as recorder:
        scores = module(inputs)
    want = torch.from_numpy(activations)
    scale = want.abs().max()
    same = [m for m in recorder.maps if m.shape == want.shape and (m.detach() - want).abs().max() <= 1e-4 * scale]
    if not same:
        return None
    columns = []  # of the first one: a later equal tensor is a copy, on only some of the paths to the score
    for target in range(classes.shape[1]):
        picked = scores.gather(1, torch.from_numpy(classes[:, target : target + 1])).sum()
        columns.append(torch.autograd.grad(picked, same[0], retain_graph=True)[0])
    return torch.stack(columns, dim=1).numpy()


def difference(a, b):
    """Largest difference as a share of the largest absolute value."""
    return float(np.abs(a.astype(np.float64) - b).max() / max(np.abs(b).max(), 1e-30))
