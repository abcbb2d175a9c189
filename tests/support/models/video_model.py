"""A small network of clips, and PyTorch's Grad-CAM maps and trilinear heatmaps of it."""

import numpy as np
import torch
from onnx import helper

from support.models.pyramid_model import model_of

F = torch.nn.functional
RNG = np.random.default_rng(0)
FRAMES, SIZE = 6, 12
TENSORS = {
    "w": (RNG.standard_normal((5, 3, 3, 3, 3)) / 4).astype(np.float32),
    "w2": (RNG.standard_normal((6, 5, 3, 3, 3)) / 4).astype(np.float32),
    "fc": RNG.standard_normal((6, 4)).astype(np.float32),
    "axes": np.array([2, 3, 4]),
}
CLIPS = RNG.standard_normal((2, 3, FRAMES, SIZE, SIZE)).astype(np.float32)


def video(last=False):
    """[N, 3, 6, 12, 12] (or channels last) -> maps [N, 5, 3, 6, 6] -> ... -> [N, 4]."""
    pads = [1] * 6
    nodes = [helper.make_node("Transpose", ["image"], ["x"], perm=[0, 4, 1, 2, 3])] if last else []
    nodes += [
        helper.make_node("Conv", ["x" if last else "image", "w"], ["c"], pads=pads, strides=[2, 2, 2]),
        helper.make_node("Relu", ["c"], ["a"]),
        helper.make_node("Conv", ["a", "w2"], ["d"], pads=pads),
        helper.make_node("Tanh", ["d"], ["b"]),
        helper.make_node("ReduceMean", ["b", "axes"], ["m"], keepdims=0),
        helper.make_node("MatMul", ["m", "fc"], ["logits"]),
    ]
    shape = ["N", FRAMES, SIZE, SIZE, 3] if last else ["N", 3, FRAMES, SIZE, SIZE]
    return model_of(nodes, TENSORS, shape, 4)


def gradcam(clips, classes):
    """Grad-CAM's maps at "a", [N, T, t, h, w]."""
    w = {name: torch.tensor(array) for name, array in TENSORS.items()}
    a = F.relu(F.conv3d(torch.tensor(clips), w["w"], padding=1, stride=2)).requires_grad_()
    scores = torch.tanh(F.conv3d(a, w["w2"], padding=1)).mean((2, 3, 4)) @ w["fc"]
    maps = []
    for c in classes:
        (gradient,) = torch.autograd.grad(scores[:, c].sum(), a, retain_graph=True)
        maps.append(F.relu((gradient.mean((2, 3, 4), keepdim=True) * a).sum(1)).detach())
    return torch.stack(maps, 1).numpy(), scores.detach().numpy()


def heatmaps(maps):
    """[N frames, T, H, W]: each clip's map divided by its maximum, trilinear."""
    peak = maps.max((2, 3, 4), keepdims=True)
    low = torch.tensor(maps / np.where(peak > 0, peak, 1))
    large = F.interpolate(low, (FRAMES, SIZE, SIZE), mode="trilinear", align_corners=False).numpy()
    return np.moveaxis(large, 2, 1).reshape(-1, maps.shape[1], SIZE, SIZE)
