"""Central differences of the part of a model behind a layer: what every gradient is checked against."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import onnx

from fastcam.schema import FastcamError
from fastcam_export.layers.layout import Layout
from fastcam_export.verify.float64 import SINGLE, in_double, without_convolutions
from fastcam_export.verify.session import quiet_session

if TYPE_CHECKING:
    import onnxruntime as ort

Array = npt.NDArray[Any]
DIRECTIONS = 4
DTYPES = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(double)": np.float64,
    "tensor(uint8)": np.uint8,
    "tensor(int64)": np.int64,
}
LAYER = "fastcam_check.layer"
"""The name of the layer's value, where that is an input."""
STOPPED = "fastcam_check.stopped."
"""In front of the names of values that are inputs because the gradient treats them as constants, see
:mod:`fastcam_export.verify.stop_gradient`."""


@dataclass(frozen=True)
class Point:
    """Where the check takes its differences.

    Attributes:
        raw: the layer's value, as it is laid out.
        layout: how.
        maps: its positions, [N, K, h, w].
        classes: [N, 1], the explained class of each image.
        cotangents: or what is explained of each output of the model's tail, [N, 1, ...]; the class is then 0.
    """

    raw: Array
    layout: Layout
    maps: Array
    classes: Array
    cotangents: tuple[Array, ...] = ()

    def fit(self, name: str) -> None:
        """Raise where the sequence is not as long as its layout says."""
        order, layout = self.layout.order, self.layout
        if "L" in order:
            length = self.raw.shape[order.index("L")]
            total = layout.prefix + int(np.prod(self.maps.shape[2:])) + (layout.suffix or 0)
            if length != total:
                raise FastcamError(
                    f"layer {name!r} has {length} tokens, but its layout ({layout.found}) makes {total}; give "
                    "prefix_tokens and grid (--prefix-tokens, --grid)"
                )

    def first(self) -> Point:
        """The first image's; not of cotangents."""
        raw = np.take(self.raw, [0], axis=self.layout.order.index("N"))
        return replace(self, raw=raw, maps=self.maps[:1], classes=self.classes[:1])

    def moved(self, step: Array) -> Array:
        """The layer's value with its positions moved by ``step``, [N, K, h, w]; float64."""
        return self.layout.write(self.raw.astype(np.float64), self.maps.astype(np.float64) + step)


def score_session(
    tail: onnx.ModelProto, feeds: Mapping[str, Array], cotangents: Sequence[Array]
) -> tuple[Callable[[Array], Array], Array]:
    """The class scores [N, classes] behind the layer as a function of its value, and step widths for differences.

    Of ``cotangents`` the one "class" is their linear functional of the outputs; NaN where an output has another shape,
    as where a detector finds another number of boxes.
    """
    run, widths = _tail_session(tail)
    types = {value.name: DTYPES[value.type] for value in run.get_inputs()}
    fixed = {name: array.astype(types[name]) for name, array in feeds.items() if name in types}
    stopped = any(name.startswith(STOPPED) for name in types)

    def scores(at: Array) -> Array:
        try:
            outputs = run.run(None, {**fixed, LAYER: at.astype(types[LAYER])})
        except Exception:  # onnxruntime's have no common base but this
            if not stopped:
                raise
            return np.full((len(cotangents[0]) if cotangents else len(at), 1), np.nan)  # another number of regions
        if cotangents:
            return _functional(outputs, cotangents)
        out = np.asarray(outputs[0], np.float64)
        return np.asarray(out.reshape(*out.shape[:2], -1).sum(2))

    return scores, widths


def _functional(outputs: Sequence[Array], cotangents: Sequence[Array]) -> Array:
    """[N, 1]: sum_i cotangent[n, 0, i] output[n, i] over all outputs."""
    if any(output.size != cotangent.size for output, cotangent in zip(outputs, cotangents)):
        return np.full((len(cotangents[0]), 1), np.nan)
    pairs = ((y.astype(np.float64).ravel() * c.ravel()).reshape(len(c), -1) for y, c in zip(outputs, cotangents))
    return np.asarray(sum(pair.sum(1, keepdims=True) for pair in pairs))


def gradient_error(
    tail: onnx.ModelProto,
    feeds: Mapping[str, Array],
    point: Point,
    gradient: Array,
    seed: int = 1,
    directions: int = DIRECTIONS,
) -> float:
    """Compare a gradient with central differences of the part of the model behind the layer.

    Args:
        tail: see :func:`fastcam_export.verify.tail.tail`.
        feeds: the model's inputs.
        point: the layer's value there.
        gradient: [N, K, h, w], or [N, K] where only its spatial mean is in the file; then directions are constant
            over space.
        seed: of the directions.
        directions: how many.

    Returns:
        The worst error over directions and images, as a share of the gradient's norm. Of several step widths the best
        counts: a network is smooth only piecewise, so a wide step meets kinks and a narrow one rounding. The
        differences are taken in float64 where the runtime has the operators behind the layer in it.
    """
    scores, widths = score_session(tail, feeds, point.cotangents)
    rng = np.random.default_rng(seed)
    maps = point.maps
    pooled = gradient.ndim == 2
    area = int(np.prod(maps.shape[2:])) if pooled else 1

    def score(step: Array) -> Array:
        return np.asarray(np.take_along_axis(scores(point.moved(step)), point.classes, axis=1)[:, 0])

    spread = float(np.abs(maps.astype(np.float64)).mean()) or 1.0
    norm = np.sqrt((gradient.astype(np.float64) ** 2).reshape(len(gradient), -1).sum(1)) * area
    worst = 0.0
    for _ in range(directions):
        v = rng.standard_normal(gradient.shape)
        if not pooled:
            v *= maps != 0  # ReLU maps are full of ties at zero, where a MaxPool behind has no derivative
        step = np.broadcast_to(v.reshape(*v.shape[:2], *[1] * (maps.ndim - 2)) if pooled else v, maps.shape)
        expected = (v * gradient).reshape(len(v), -1).sum(1) * area
        slopes = [(score(h * step) - score(-h * step)) / (2 * h) for h in widths * spread]
        errors = np.abs(np.array(slopes) - expected) / np.maximum(norm, 1e-30)
        worst = float(np.maximum(worst, np.fmin.reduce(errors, axis=0).max()))  # NaN only where no width gives a number
    return worst


def _tail_session(tail: onnx.ModelProto) -> tuple[ort.InferenceSession, Array]:
    """A session of the tail, in float64 if the runtime can, and the step widths that suit its precision."""
    try:
        wide = in_double(tail)
        double = quiet_session(without_convolutions(wide))
        rounded = any(node.op_type in SINGLE for node in wide.graph.node)
        return double, np.array([1e-2, 1e-4, 1e-6, *([1e-1, 3e-2, 3e-3, 1e-3, 3e-4] if rounded else [])])
    except Exception:  # no float64 kernel for an operator; the runtime has no narrower exception
        return quiet_session(tail), np.array([1e2, 10, 1, 1e-1, 3e-2, 1e-2, 3e-3, 1e-3, 3e-4, 1e-4])
