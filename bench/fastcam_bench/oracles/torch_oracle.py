"""PyTorch as the independent oracle: seeded torchvision models, their ONNX files, and autograd on the same weights."""

from __future__ import annotations

import logging
import os
import sys
import tempfile
import types
import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import torch
from torch.overrides import TorchFunctionMode

from fastcam_bench.oracles.kinks import AtValues, Kink

logging.getLogger("torch").setLevel(logging.WARNING)
for _name in ("_meta_registrations", "_autograd_registrations"):
    # torchvision's compiled operators are not needed, and its wheel may not match the CPU build of torch
    sys.modules.setdefault(f"torchvision.{_name}", types.ModuleType(f"torchvision.{_name}"))
import torchvision  # noqa: E402

Array = npt.NDArray[Any]

MODELS = {
    "alexnet": "features.4",
    "vgg16": "features.22",
    "googlenet": "inception4c",
    "inception_v3": "Mixed_6c",
    "resnet50": "layer3",
    "densenet121": "features.transition3",
    "squeezenet1_1": "features.7",
    "shufflenet_v2_x1_0": "stage3",
    "mobilenet_v2": "features.10",
    "mobilenet_v3_large": "features.10",
    "efficientnet_b0": "features.4",
}
"""torchvision model -> scope of a layer in its middle."""
SIZE = 224
"""Pixels of a side of the pictures that these models are made for."""
OLD_EXPORTER = frozenset({"shufflenet_v2_x1_0"})
"""Exported by torch's older exporter: opset 17, shapes computed at run time, scopes in node names, BatchNorm folded."""


def build(name: str, seed: int = 0) -> torch.nn.Module:
    """A torchvision model with seeded random weights, in inference mode.

    BatchNorm statistics are those of a few pictures. With the initial ones the maps of a deep network are almost
    constant over space, so that every max-pooling window is nearly a tie, where float32 alone decides.
    """
    torch.manual_seed(seed)
    options = {"init_weights": True} if name in ("googlenet", "inception_v3") else {}
    model: torch.nn.Module = getattr(torchvision.models, name)(weights=None, **options).eval()
    settle(model, pictures(8, seed=seed + 1))
    return model.eval()


def settle(model: torch.nn.Module, images: Array, train: bool = True) -> None:
    """Give BatchNorms random weights and the statistics of ``images``, and what begins at zero a share that counts.

    Without ``train`` the images are run, and who calls says by hooks which statistics a BatchNorm has.

    With layer scales near zero blocks are all but identities, their values the same; with a head of zeros no gradient
    is left.
    """
    for parameter in model.parameters():
        if parameter.dim() > 1 and not parameter.any():
            parameter.data.normal_(0, 0.02)
        first = float(parameter.flatten()[0]) if parameter.numel() > 1 else 0.0
        if 0 < abs(first) < 0.5 and bool((parameter == first).all()):  # not by a deviation: that of equals is rounded
            parameter.data.uniform_(0.2, 0.6)
    kinds = (torch.nn.BatchNorm1d, torch.nn.BatchNorm2d, torch.nn.BatchNorm3d)
    norms = [module for module in model.modules() if isinstance(module, kinds) and module.affine]
    for norm in norms:
        norm.weight.data.uniform_(0.5, 1.5)
        norm.bias.data.normal_(1.0, 0.5)
        norm.momentum = 1.0
        norm.train(train)
    if norms:
        with torch.no_grad():
            model(torch.from_numpy(images))
    model.eval()


def pictures(n: int, size: int = SIZE, seed: int = 7) -> Array:
    """Random images with structure at many scales, as photos have: float32 [n, 3, size, size]."""
    generator = torch.Generator().manual_seed(seed)
    image = torch.zeros(n, 3, size, size)
    for cells in (2, 4, 8, 16, 32, 64):
        noise = torch.randn(n, 3, cells, cells, generator=generator)
        image += torch.nn.functional.interpolate(noise, (size, size), mode="bicubic")
    return (image / image.std()).numpy()


def to_onnx(
    module: torch.nn.Module, size: int = SIZE, dynamo: bool = True, optimize: bool = False, normed: bool = False
) -> onnx.ModelProto:
    """The module as a ModelProto with a free batch.

    Args:
        dynamo: by torch's newer exporter. The older takes a tenth of its time.
        optimize: of the newer exporter; as torch does by default, BatchNorm folded.
        normed: of the older exporter; BatchNorm stays a node of its own.
    """
    image = torch.randn(2, 3, size, size)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if dynamo:
            # without optimize BatchNorm stays a node of its own, so that the weights are exactly PyTorch's
            shapes = ({0: torch.export.Dim("N", min=1)},)
            program = torch.onnx.export(
                module, (image,), dynamo=True, dynamic_shapes=shapes, optimize=optimize, verbose=False
            )
            assert program is not None
            return program.model_proto
        axes = {"image": {0: "N"}, "logits": {0: "N"}}
        names: dict[str, Any] = {"input_names": ["image"], "output_names": ["logits"], "dynamic_axes": axes}
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "model.onnx")
            if normed:
                names.update(training=torch.onnx.TrainingMode.PRESERVE, do_constant_folding=False)
            torch.onnx.export(module, (image,), path, dynamo=False, opset_version=17, **names)
            return onnx.load(path)


class Recorder(TorchFunctionMode):
    """Keeps every feature map that a forward pass computes.

    Args:
        ranks: numbers of axes that a feature map may have.
        through: let gradients pass where the model detaches a value.
    """

    def __init__(self, ranks: Collection[int] = (4,), through: bool = False) -> None:
        super().__init__()
        self.ranks, self.through = tuple(ranks), through
        self.maps: list[torch.Tensor] = []

    def __torch_function__(
        self,
        function: Callable[..., Any],
        kinds: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if self.through and function is torch.Tensor.detach:
            return args[0]
        result = function(*args, **(kwargs or {}))
        made = result if isinstance(result, (tuple, list)) else [result]
        self.maps += [t for t in made if isinstance(t, torch.Tensor) and t.dim() in self.ranks and t.requires_grad]
        return result


def gradients_at(
    module: torch.nn.Module,
    images: Array,
    activations: Array,
    classes: Array,
    kinks: Sequence[Kink] | None = None,
) -> Array:
    """Autograd's gradient of each image's class scores at the feature map that equals ``activations``.

    Args:
        module: the model.
        images: [N, 3, H, W], of the model's type.
        activations: [N, K, h, w], what another implementation says the layer's value is.
        classes: int64 [N, T].
        kinks: what the other implementation computed at its kinks (:func:`fastcam_bench.oracles.kinks.run`), to
            differentiate at the same point.

    Returns:
        [N, T, K, h, w].

    Raises:
        LookupError: no feature map of the forward pass equals ``activations``.
    """
    inputs = torch.from_numpy(images).requires_grad_()
    with AtValues(kinks), Recorder() as recorder:
        scores = module(inputs)
    want = torch.from_numpy(activations)
    scale = want.abs().max()
    same = [m for m in recorder.maps if m.shape == want.shape and (m.detach() - want).abs().max() <= 1e-4 * scale]
    if not same:
        raise LookupError("no feature map of the PyTorch model equals the exported activations")
    columns = []  # of the first one: a later equal tensor is a copy, on only some of the paths to the score
    for target in range(classes.shape[1]):
        picked = scores.gather(1, torch.from_numpy(classes[:, target : target + 1])).sum()
        columns.append(torch.autograd.grad(picked, same[0], retain_graph=True)[0])
    return torch.stack(columns, dim=1).numpy()


def as_maps(value: torch.Tensor, grid: Sequence[int], prefix: int = 0) -> list[torch.Tensor]:
    """All readings of a value as maps [N, K, *grid]: channels first or last, or a sequence of tokens."""
    grid, axes = tuple(grid), len(grid)
    frames: list[torch.Tensor] = []
    if axes == 3 and value.dim() in (3, 4) and value.shape[0] % grid[0] == 0:  # frames folded into the batch
        folded = as_maps(value, grid[1:], prefix)
        whole = (one for one in folded if one.shape[0] % grid[0] == 0)  # of a transposed one the batch is another axis
        frames = [one.reshape(-1, grid[0], *one.shape[1:]).movedim(2, 1) for one in whole]
    if value.dim() == 2 + axes:
        return [value, value.movedim(-1, 1)]
    if value.dim() != 3:
        return frames
    area = int(np.prod(grid))
    sequences = [value, value.transpose(1, 2), value.transpose(0, 1)]  # [N, L, C], [N, C, L], [L, N, C]
    fitting = [sequence[:, prefix : prefix + area] for sequence in sequences if sequence.shape[1] >= prefix + area]
    return frames + [tokens.transpose(1, 2).reshape(*tokens.shape[::2], *grid) for tokens in fitting]


def gradients_of(
    module: torch.nn.Module,
    images: Array,
    activations: Array,
    scores: Callable[[torch.Tensor], torch.Tensor],
    prefix: int = 0,
    through: bool = False,
) -> list[Array]:
    """Autograd's gradient of a sum of scores at each value that equals ``activations``, whatever its layout in PyTorch.

    Copies of one value have gradients of their own: one that only a residual branch reads has a part of the whole.

    Args:
        module: the model.
        images: what it takes.
        activations: [N, K, h, w] or [N, K, t, h, w].
        scores: the module's output -> a number to differentiate.
        prefix: tokens in front of the positions, where the value is a sequence.
        through: let gradients pass where the model detaches a value.

    Returns:
        The gradients in the shape of ``activations``, that of the nearest value first.

    Raises:
        LookupError: no value of the forward pass equals ``activations``.
    """
    grid = activations.shape[2:]
    inputs = torch.from_numpy(images).requires_grad_()
    with Recorder({3, 4, 2 + len(grid)}, through) as recorder:
        total = scores(module(inputs))
    found = _nearest(recorder.maps, torch.from_numpy(activations), prefix)
    gradients = []
    for gap, value, index in found:
        if gap > min(1e-3, 10 * found[0][0] + 1e-6):  # float32 through a hundred layers; other values are far off
            break
        (gradient,) = torch.autograd.grad(total, value, allow_unused=True, retain_graph=True)
        if gradient is not None:
            gradients.append(as_maps(gradient, grid, prefix)[index].contiguous().numpy())
    if not gradients:
        nearest = f"the nearest is {found[0][0]:.0e} off" if found else "none has its shape"
        raise LookupError(f"no value of the PyTorch model equals the exported activations; {nearest}")
    return gradients


def _nearest(values: Sequence[torch.Tensor], want: torch.Tensor, prefix: int) -> list[tuple[float, torch.Tensor, int]]:
    """(largest difference as a share of ``want``'s largest, value, which of :func:`as_maps`), the nearest first."""
    scale = want.abs().max()
    found = []
    for value in values:
        for index, maps in enumerate(as_maps(value.detach(), want.shape[2:], prefix)):
            if maps.shape == want.shape:
                found.append((float((maps - want).abs().max() / scale), value, index))
    return sorted(found, key=lambda one: one[0])  # stable: of equals the first comes first


def grad_cam(activations: Array, gradients: Array) -> Array:
    """Equations 1 and 2 of the paper: [N, T, h, w] of [N, K, h, w] and [N, T, K, h, w]."""
    maps: Array = np.einsum("ntk,nkhw->nthw", gradients.mean((3, 4)), activations)
    return np.maximum(maps, 0)


def difference(a: Array, b: Array) -> float:
    """Largest difference as a share of the largest absolute value of ``b``."""
    return float(np.abs(a.astype(np.float64) - b).max() / max(np.abs(b).max(), 1e-30))


_LIBRARY: list[Any] = []


def compiled_operators() -> None:
    """Define torchvision's ``nms`` and ``roi_align`` in Python where its compiled ones do not load.

    The exporter writes both as operators of ONNX either way, and both ways compute the same.
    """
    module = sys.modules["torchvision.ops.roi_align"]  # the attribute of that name is the function
    if _LIBRARY or torchvision.extension._has_ops():
        return
    library: Any = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
    library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    library.define(
        "roi_align(Tensor input, Tensor rois, float spatial_scale, SymInt pooled_height, SymInt pooled_width, "
        "int sampling_ratio, bool aligned) -> Tensor"
    )
    library.impl("nms", _nms, "CPU")
    plain = getattr(module._roi_align, "__wrapped__", module._roi_align)  # not the compiled form, which none can trace
    library.impl("roi_align", plain, "CompositeImplicitAutograd")
    _LIBRARY.append(library)
    torchvision.extension._has_ops = module._has_ops = _there  # type: ignore[attr-defined]
    torchvision.ops._register_onnx_ops._register_custom_op()


def _there() -> bool:
    return True


def _nms(boxes: torch.Tensor, scores: torch.Tensor, threshold: float) -> torch.Tensor:
    order = scores.argsort(descending=True, stable=True)
    overlap = torchvision.ops.box_iou(boxes, boxes) > threshold
    kept: list[int] = []
    dropped = torch.zeros(len(boxes), dtype=torch.bool)
    for index in order.tolist():
        if not dropped[index]:
            kept.append(index)
            dropped |= overlap[index]
    return torch.tensor(kept, dtype=torch.int64)
