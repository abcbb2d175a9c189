"""Gradients that two implementations can be compared in, whatever their rounding does at the kinks of a network.

At a kink (a ReLU at zero, two equal maxima of a window, an end of a Clip) the gradient jumps. The sums of two
implementations differ in their last bits, by processor and by version. So a value within rounding of a kink may fall
to one side in ONNX Runtime and to the other in PyTorch, and then every gradient behind it differs. No tolerance is
right for that. There are two ways out:

- Of small networks, pictures are chosen whose values all keep their distance from the kinks (:func:`clear`), or
  fixed ones are held to it (:func:`away`).
- A network for pictures of 224 pixels has about a million values at kinks, and in float32 some always lie so near. So
  the exported model says beside its outputs what it computed at its kinks (:func:`run`). PyTorch computes the same
  network and takes these values in place of its own at each kink (:class:`AtValues`), where the two differ by rounding
  alone: more is an error. Both then differentiate at the same point, and nothing has to be left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import torch
from onnx import helper
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from fastcam import schema

Array = npt.NDArray[Any]
Kink = tuple[str, Array]
Runtime = Callable[[onnx.ModelProto, Mapping[str, Array]], Mapping[str, Array]]

ROUNDING = 1e-4
"""How far two implementations may be apart at a kink, as a share of the largest value there."""
ON_OUTPUT = ("Relu", "Clip")
"""Operators whose output says on which side each value lies; reading their input would undo ONNX Runtime's fusions."""
ON_INPUT = ("MaxPool", "HardSwish", "HardSigmoid")
FUNCTIONS = {
    "relu": ("Relu",),
    "relu6": ("Clip",),
    "hardtanh": ("Clip",),
    "clamp": ("Clip",),
    "hardswish": ("HardSwish", "HardSigmoid"),
    "hardsigmoid": ("HardSigmoid",),
    "max_pool2d": ("MaxPool",),
}
"""PyTorch's function with kinks -> the operators that it is exported to."""
MARGIN = 1e-5
"""Of :func:`clear`: a hundred times the rounding of one operation in float32, of which a small network has ten."""


def watched(model: onnx.ModelProto) -> tuple[onnx.ModelProto, list[tuple[str, str]]]:
    """The model with the values at its own kinks as further outputs, and (operator, value) of each in their order."""
    found = [
        (node.op_type, node.output[0] if node.op_type in ON_OUTPUT else node.input[0])
        for node in model.graph.node
        if node.op_type in (*ON_OUTPUT, *ON_INPUT) and not node.output[0].startswith(schema.PREFIX)
    ]
    types = {value.name: value.type for value in (*model.graph.value_info, *model.graph.input)}
    wider = onnx.ModelProto()
    wider.CopyFrom(model)
    names = {value.name for value in model.graph.output}
    for name in dict.fromkeys(name for _, name in found if name not in names):
        element = types[name].tensor_type.elem_type if name in types else onnx.TensorProto.FLOAT
        wider.graph.output.append(helper.make_tensor_value_info(name, element, None))
    return wider, found


def run(model: onnx.ModelProto, feeds: Mapping[str, Array], runtime: Runtime) -> tuple[dict[str, Array], list[Kink]]:
    """The outputs of a model by name, and what it computed at its kinks in the order of the graph.

    Args:
        model: an export, or any model.
        feeds: its inputs by name.
        runtime: (model, feeds) -> outputs by name.
    """
    wider, kinks = watched(model)
    found = dict(runtime(wider, feeds))
    return found, [(operator, found[name]) for operator, name in kinks]


class _Taken(torch.autograd.Function):
    """Another value in the place of x; the gradient passes."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        return value.clone()

    @staticmethod
    def backward(ctx: Any, dy: torch.Tensor) -> tuple[torch.Tensor, None]:
        return dy, None


class AtValues(TorchFunctionMode):
    """Within it, each function with kinks computes on what ONNX Runtime had there, one after the other.

    Enter it behind modes that change these functions.

    Args:
        values: (operator, what it computed) in the order of the graph, which is PyTorch's; None: nothing is changed.

    Raises:
        ValueError: PyTorch computes another operator, or a value that is off by more than rounding; at the end: not
            every value was taken.
    """

    def __init__(self, values: Sequence[Kink] | None) -> None:
        super().__init__()
        self.left = list(values or ())
        self.idle = values is None

    def __torch_function__(
        self,
        function: Callable[..., Any],
        kinds: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        given = dict(kwargs or {})
        operators = FUNCTIONS.get(getattr(function, "__name__", "").rstrip("_"))
        if operators is None or self.idle:
            return function(*args, **given)
        x = args[0] if args else given.pop("input")
        if not self.left or self.left[0][0] not in operators:
            raise ValueError(f"{function.__name__} in PyTorch, {self.left[:1] and self.left[0][0]} in the graph")
        operator, array = self.left.pop(0)
        value = torch.from_numpy(array).to(x.dtype)  # a float32 file beside PyTorch's float64
        here = function(x.detach().clone(), *args[1:], **given) if operator in ON_OUTPUT else x.detach()
        if value.shape != here.shape:
            raise ValueError(f"{operator}: {tuple(here.shape)} in PyTorch, {tuple(value.shape)} in the graph")
        gap = float((value - here).abs().max() / here.abs().max().clamp(min=1e-30))
        if gap > ROUNDING:
            raise ValueError(f"{operator}: the values of both implementations are {gap:.1e} apart")
        return function(_Taken.apply(x, value), *args[1:], **given)  # type: ignore[no-untyped-call]

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        super().__exit__(kind, error, trace)  # type: ignore[no-untyped-call]
        if self.left and kind is None:
            raise ValueError(f"{len(self.left)} kinks of the graph were not met in PyTorch")


# ---- pictures that keep their distance


def clear(network: Callable[[torch.Tensor], Any], images: Array, count: int, margin: float = MARGIN) -> Array:
    """The first ``count`` of ``images`` whose values all keep ``margin`` from the network's kinks.

    Args:
        network: in inference mode, so that pictures of a batch do not depend on each other; of float64.
        images: [N, ...], at most four times as many as are wanted, so that few can be left out.
        count: how many are wanted.
        margin: see :func:`margins`.

    Raises:
        ValueError: there are fewer.
    """
    if len(images) > 4 * count:
        raise ValueError(f"{count} of {len(images)} pictures: that leaves out too many")
    found = margins(network, images)
    kept = np.flatnonzero(found >= margin)[:count]
    if len(kept) < count:
        raise ValueError(f"fewer than {count} of {len(images)} pictures are clear of kinks: {np.sort(found)}")
    return images[kept]


def margins(network: Callable[[torch.Tensor], Any], images: Array) -> Array:
    """[N]: how near a picture's values come to a kink, as a share of the largest value at that kink, in float64.

    Values that are exactly at it do not count, such as the equal zeros that a pool finds behind a ReLU: they are so in
    every arithmetic, and both sides keep PyTorch's convention there.
    """
    with torch.no_grad(), _Margins() as found:
        network(torch.from_numpy(images.astype(np.float64)))
    smallest: Array = torch.stack([torch.full((len(images),), torch.inf), *found.each]).amin(0).numpy()
    return smallest


class TooNear(ValueError):
    """Numbers that lie too near to a kink for a comparison of gradients."""


@contextmanager
def away(margin: float = MARGIN) -> Iterator[None]:
    """Within it a network computes on fixed numbers; they must keep ``margin`` from its kinks, see :func:`margins`.

    Raises:
        TooNear: at the end, if they do not: a comparison of gradients would hang on rounding. Draw other numbers.
    """
    with _Margins() as found:
        yield
    smallest = min((float(each.min()) for each in found.each), default=np.inf)
    if smallest < margin:
        raise TooNear(f"a value lies within {smallest:.0e} of a kink; draw other numbers")


class _Margins(TorchFunctionMode):
    """Keeps the margin of each picture at each kink."""

    def __init__(self) -> None:
        super().__init__()
        self.each: list[torch.Tensor] = []

    def __torch_function__(
        self,
        function: Callable[..., Any],
        kinds: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        given = dict(kwargs or {})
        name = getattr(function, "__name__", "").rstrip("_")
        if name in FUNCTIONS:
            x = (args[0] if args else given["input"]).detach().double()
            if x.numel():
                self.each.append(_margin(name, x, args, given))
        return function(*args, **given)


def _margin(name: str, x: torch.Tensor, args: Sequence[Any], given: Mapping[str, Any]) -> torch.Tensor:
    """The smallest distance of each picture at a function with kinks, as a share of its largest value there."""
    distance = _window_gap(x, *args[1:], **given) if name == "max_pool2d" else _from_ends(name, x, args, given)
    distance = torch.where(distance == 0, torch.inf, distance)
    largest = torch.where(x.isfinite(), x.abs(), 0).flatten(1).amax(1)  # a padded pool's edges are -inf
    return distance.flatten(1).amin(1) / largest


def _from_ends(name: str, x: torch.Tensor, args: Sequence[Any], given: Mapping[str, Any]) -> torch.Tensor:
    """Distance of each element from the ends of a clamp, from zero of a ReLU."""
    known: dict[str, tuple[Any, ...]] = {"relu": (0,), "relu6": (0, 6), "hardswish": (-3, 3), "hardsigmoid": (-3, 3)}
    ends = known.get(name) or (*args[1:3], *(given.get(key) for key in ("min_val", "max_val", "min", "max")))
    return torch.stack([(x - end).abs() for end in ends if end is not None]).amin(0)


def _window_gap(
    x: torch.Tensor, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1, *rest: Any, **more: Any
) -> torch.Tensor:
    """Distance of the largest value of each window from the next one; windows that reach over the edge count too."""
    (top, left), size = _pair(padding), _pair(kernel_size)
    wide = F.pad(x, (left, left, top, top), value=-torch.inf).clamp(min=-1e30)  # so that differences are numbers
    windows = F.unfold(wide, size, _pair(dilation), 0, _pair(stride or size)).reshape(
        *x.shape[:2], size[0] * size[1], -1
    )
    best = windows.topk(2, 2).values
    return best[:, :, 0] - best[:, :, 1]


def _pair(value: Any) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (int(value[0]), int(value[1]))
