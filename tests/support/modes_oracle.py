"""What backward modes are held against: changed ReLUs in PyTorch's autograd, and relevance by the papers' formulas.

Relevance is computed image by image in float64 from each layer's dense matrix, so that a formula here is the paper's
sum over products x_j w_jk and nothing else.
"""

import numpy as np
import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from fastcam_bench.oracles.kinks import AtValues

# ---- modes that change the ReLU


class _Changed(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, high, mode):
        ctx.save_for_backward(x)
        ctx.rest = high, mode
        return x.clamp(0, high)

    @staticmethod
    def backward(ctx, dy):
        (x,), (high, mode) = ctx.saved_tensors, ctx.rest
        inside = (x > 0) & (x < high)
        return dy * inside if mode == "gradient" else dy.clamp(min=0) * (inside if mode == "guided" else 1), None, None


class ChangedRelu(TorchFunctionMode):
    """Within it every ReLU and ReLU6, module or function, is differentiated as ``mode`` says."""

    def __init__(self, mode):
        super().__init__()
        self.mode = mode

    def __torch_function__(self, function, kinds, args=(), kwargs=None):
        name = getattr(function, "__name__", "").rstrip("_")
        if name in ("relu", "relu6", "hardtanh"):
            return _Changed.apply(args[0], float("inf") if name == "relu" else 6.0, self.mode)
        return function(*args, **(kwargs or {}))


def input_gradient(module, images, classes, mode, kinks=None):
    """[N, T, C, H, W] of images [N, C, H, W] and classes [N, T]; ``kinks`` as in ``torch_oracle.gradients_at``."""
    found = []
    for column in np.asarray(classes).T:
        inputs = torch.from_numpy(images).requires_grad_()
        with ChangedRelu(mode), AtValues(kinks):
            score = module(inputs).gather(1, torch.from_numpy(column.copy())[:, None]).sum()
        found.append(torch.autograd.grad(score, inputs)[0].numpy())
    return np.stack(found, axis=1)


# ---- relevance


class Sum(nn.Module):
    """The sum of what branches make of one input."""

    def __init__(self, *branches):
        super().__init__()
        self.branches = nn.ModuleList(branches)

    def forward(self, x):
        return sum(branch(x) for branch in self.branches)


class Join(Sum):
    """The same side by side, along the channels."""

    def forward(self, x):
        return torch.cat([branch(x) for branch in self.branches], 1)


class Layer(nn.Sequential):
    """A convolution and the BatchNorm behind it: one layer with weights."""


PASSED = (nn.ReLU, nn.ReLU6, nn.SiLU)
EPSILON, GAMMA = 1e-9, 0.25
RULES = {  # mode -> of convolutions, of all else
    "excitation": ("winning", "winning"),
    "contrastive-excitation": ("winning", "winning"),
    "lrp-epsilon": ("epsilon", "epsilon"),
    "lrp-composite": ("positive", "epsilon"),
    "lrp-gamma": ("gamma", "epsilon"),
}


def relevance(module, image, target, mode, behind=0):
    """R of one image [C, H, W] for one class, at the image or behind the first ``behind`` layers of a Sequential."""
    values = [torch.from_numpy(image.astype(np.float64))[None]]
    with torch.no_grad():
        for layer in module:
            values.append(layer(values[-1]))
        r = torch.zeros_like(values[-1])
        r[0, target] = values[-1][0, target] if mode.startswith("lrp") else 1.0
        layers = list(module)
        if mode == "contrastive-excitation":
            top, x = layers.pop(), values[-2]
            r = _linear(top, x, r, "winning") - _linear(top, x, r, "winning", sign=-1)
        for layer, x in list(zip(layers, values))[:behind:-1] + list(zip(layers, values))[behind : behind + 1]:
            r = _down(layer, x, r, mode)
    return r[0].numpy()


def _down(layer, x, r, mode):
    """R of a layer's input."""
    convolution, other = RULES[mode]
    if isinstance(layer, PASSED):
        return r
    if isinstance(layer, nn.Flatten):
        return r.reshape(x.shape)
    if isinstance(layer, nn.MaxPool2d):
        best = nn.functional.max_pool2d(x, layer.kernel_size, layer.stride, layer.padding, return_indices=True)[1]
        flat = torch.zeros(*x.shape[:2], x[0, 0].numel(), dtype=x.dtype)
        return flat.scatter_add(2, best.flatten(2), r.flatten(2)).reshape(x.shape)
    if isinstance(layer, Join):
        sizes = [branch(x).shape[1] for branch in layer.branches]
        return sum(_down(branch, x, part, mode) for branch, part in zip(layer.branches, r.split(sizes, 1)))
    if isinstance(layer, Sum):
        terms = [branch(x) for branch in layer.branches]
        terms = [term.clamp(min=0) for term in terms] if other == "winning" else terms
        return sum(_down(b, x, _ratio(term * r, sum(terms)), mode) for b, term in zip(layer.branches, terms))
    if isinstance(layer, nn.Identity):
        return r
    if isinstance(layer, nn.Sequential) and not isinstance(layer, Layer):
        inside = [x]
        for each in layer:
            inside.append(each(inside[-1]))
        for each, value in list(zip(layer, inside))[::-1]:
            r = _down(each, value, r, mode)
        return r
    return _linear(layer, x, r, convolution if isinstance(layer, (nn.Conv2d, Layer)) else other)


def _linear(layer, x, r, rule, sign=1):
    """R of the input of z_k = sum_j x_j w_jk + b_k."""
    eye = torch.eye(x.numel(), dtype=x.dtype).reshape(-1, *x.shape[1:])
    bias = layer(torch.zeros_like(x)).flatten()
    products = sign * x.reshape(-1, 1) * (layer(eye).flatten(1) - bias)  # x_j w_jk
    if rule == "positive":
        products, bias = products.clamp(min=0), bias.clamp(min=0)
    elif rule == "winning":
        products, bias = products.clamp(min=0), torch.zeros_like(bias)
    elif rule == "gamma":
        products, bias = products + GAMMA * products.clamp(min=0), bias + GAMMA * bias.clamp(min=0)
    return _ratio(products * r.reshape(1, -1), products.sum(0) + bias).sum(1).reshape(x.shape)


def _ratio(a, b):
    return torch.where(b == 0, torch.zeros_like(a), a / (b + EPSILON * torch.sign(b)))
