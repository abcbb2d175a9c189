"""Central differences of the part of a model behind a layer: what every gradient is checked against."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from fastcam.schema import FastcamError
from fastcam_export.graph import weights
from fastcam_export.layers.layout import Layout
from fastcam_export.verify.double.convolutions import without_convolutions
from fastcam_export.verify.double.float64 import SINGLE, in_double
from fastcam_export.verify.session import quiet_session
from fastcam_export.verify.without_quantization import OFFSET

Array = npt.NDArray[Any]
DIRECTIONS = 4
MORE = 12
"""Directions that are added where one of the first does not agree."""
EXACT = 3e-4
"""Largest accepted error where differences are taken in float64: a gradient that is a thousandth too large is not."""
SUMMED = 3e-9
"""What each position may add to it: a pooled gradient may be a sum of as many numbers in float32."""
ROUNDED = 4
"""How many times the outputs' own rounding a gradient may have, and"""
CONFIRMABLE = 5e-2
"""the largest error that this excuses."""
SHARE = 5
"""A direction agrees, where others do not, if its error is smaller than what is accepted by this factor."""
WIDTHS = {
    "double": (1e-4, 1e-6, 1e-2, 1e-8),
    "lines": (1e-6, 1e-8, 1e-9, 1e-4, 1e-2),
    "rounded": (1e-3, 1e-2, 1e-4, 1e-1, 3e-4, 3e-3, 3e-2, 1e-6),
    "single": (1e-2, 1e-1, 1e-3, 1, 10, 1e2, 3e-2, 3e-3, 3e-4, 1e-4),
}
"""Step widths as shares of the mean absolute activation, the most promising first, by the precision of the tail:
float64; float64 where what rounding made equal lies close together (:mod:`fastcam_export.verify.rounded_point`);
float64 with operators of :data:`fastcam_export.verify.double.float64.SINGLE`; float32."""
HEAVY = 1 << 30
"""Bytes of weights behind a layer from which differences are taken in float32: in float64 no file could hold them."""
WIDER = (1, 1e2, 1e4)
"""Further widths, where rounding drowns the differences of all others: a layer of tiny numbers that hardly counts."""
ROUNDING = {"double": 1e-14, "lines": 1e-14, "rounded": 1e-6, "single": 1e-6}
"""What rounding may add to a score, as a share of it, by the precision of the tail."""
COUPLED = 1e-5
"""From what share of a score another image's part in it is none of rounding."""
DTYPES: dict[str, Any] = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(double)": np.float64,
    "tensor(bool)": np.bool_,
    **{f"tensor({kind})": np.dtype(kind) for kind in ("int8", "uint8", "int16", "uint16", "int32", "uint32", "int64")},
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
                    f"layer {name!r} has {length} tokens, but its layout ({layout.description}) makes {total}; give "
                    "prefix_tokens and grid (--prefix-tokens, --grid)"
                )

    def first(self) -> Point:
        """The first image's; not of cotangents."""
        raw = self.layout.first(self.raw, len(self.maps))
        return replace(self, raw=raw, maps=self.maps[:1], classes=self.classes[:1])

    def moved(self, step: Array) -> Array:
        """The layer's value with its positions moved by ``step``, [N, K, h, w]; float64."""
        return self.layout.write(self.raw.astype(np.float64), self.maps.astype(np.float64) + step)


@dataclass(frozen=True)
class Agreement:
    """How a gradient compares with central differences.

    Attributes:
        error: |<v, g> - difference| as a share of the gradient's norm, the worst of the directions and images that
            count.
        directions: how many count.
        crossing: how many more there are in which every step meets a kink, or none is narrow enough.
        allowed: the largest error that is accepted.
        drowned: no step is so wide that the score moves by more than rounding moves it, and the gradient is as small:
            the error says nothing.
        coupled: an image's score depends on the other images of the batch, so that the sum of all was compared.
    """

    error: float
    directions: int
    crossing: int = 0
    allowed: float = EXACT
    drowned: bool = False
    coupled: bool = False

    @property
    def good(self) -> bool:
        """Whether the error is accepted."""
        return self.error <= self.allowed or self.drowned


@dataclass(frozen=True)
class Scores:
    """The scores behind a layer as a function of its value.

    Attributes:
        of: the layer's value -> [N, classes]; of cotangents the one "class" is their linear functional of the outputs,
            NaN where an output has another shape.
        precision: a key of :data:`WIDTHS`.
    """

    of: Callable[[Array], Array]
    precision: str


def scores_of_tail(
    tail: onnx.ModelProto, feeds: Mapping[str, Array], cotangents: Sequence[Array], at: Array | None = None
) -> Scores:
    """The scores of a tail, in float64 if the runtime can run it so.

    Args:
        tail: see :func:`fastcam_export.verify.tail.tail`.
        feeds: the model's inputs, and what gradients hold constant.
        cotangents: what is explained of each output; empty of class scores.
        at: a value of the layer, to try it with: an operator may refuse float64 only when it runs.
    """
    if weights.size(tail) > HEAVY:
        return Scores(_session(tail, feeds, cotangents), "single")
    try:
        wide = in_double(tail)
        lines = any(value.name.startswith(OFFSET) for value in tail.graph.input)
        rounded = any(node.op_type in SINGLE for node in wide.graph.node)
        precision = "rounded" if rounded else "lines" if lines else "double"
        found = Scores(_session(without_convolutions(wide), feeds, cotangents), precision)
        if at is not None:
            found.of(at)
        return found
    except Exception:  # no float64 kernel for an operator; the runtime has no narrower exception
        return Scores(_session(tail, feeds, cotangents), "single")


def exact_outputs_of(tail: onnx.ModelProto, feeds: Mapping[str, Array], at: Array) -> list[Array]:
    """The outputs of a tail as they are, in float64 if the runtime can run it so."""
    try:
        return outputs_of(without_convolutions(in_double(tail)), feeds, at)
    except Exception:  # as in :func:`scores_of_tail`
        return outputs_of(tail, feeds, at)


def outputs_of(tail: onnx.ModelProto, feeds: Mapping[str, Array], at: Array) -> list[Array]:
    """The outputs of a tail as it is."""
    run = quiet_session(tail)
    given = {**feeds, LAYER: at}
    types = {value.name: DTYPES[value.type] for value in run.get_inputs()}
    found = run.run(None, {name: given[name].astype(dtype) for name, dtype in types.items()})
    return [np.asarray(array) for array in found]


def _session(
    tail: onnx.ModelProto, feeds: Mapping[str, Array], cotangents: Sequence[Array]
) -> Callable[[Array], Array]:
    run = quiet_session(tail)
    types = {value.name: DTYPES[value.type] for value in run.get_inputs()}
    fixed = {name: array.astype(types[name]) for name, array in feeds.items() if name in types}

    def scores(at: Array) -> Array:
        outputs = run.run(None, {**fixed, LAYER: at.astype(types[LAYER])} if LAYER in types else fixed)
        if cotangents:
            return _functional(outputs, cotangents)
        out = np.asarray(outputs[0], np.float64)
        return np.asarray(out.reshape(*out.shape[:2], -1).sum(2))

    return scores


def _functional(outputs: Sequence[Array], cotangents: Sequence[Array]) -> Array:
    """[N, 1]: sum_i cotangent[n, 0, i] output[n, i] over all outputs."""
    if any(output.size != cotangent.size for output, cotangent in zip(outputs, cotangents)):
        return np.full((len(cotangents[0]), 1), np.nan)
    pairs = ((y.astype(np.float64).ravel() * c.ravel()).reshape(len(c), -1) for y, c in zip(outputs, cotangents))
    return np.asarray(sum(pair.sum(1, keepdims=True) for pair in pairs))


def compare(
    tail: onnx.ModelProto,
    feeds: Mapping[str, Array],
    point: Point,
    gradient: Array,
    tolerance: float,
    exact: bool = False,
    seed: int = 1,
    directions: int = DIRECTIONS,
) -> Agreement:
    """Compare a gradient with central differences of the part of the model behind the layer.

    A network is smooth only piecewise: of several step widths the best counts, for a wide step meets kinks and a narrow
    one rounding. Where a direction still disagrees, more are tried. A wrong gradient disagrees in nearly all of them;
    where more than half agree closely, the others are those in which every step met a kink.

    Args:
        tail: see :func:`fastcam_export.verify.tail.tail`.
        feeds: the model's inputs, and what gradients hold constant.
        point: the layer's value there.
        gradient: [N, K, h, w], or [N, K] where only its spatial mean is in the file; then directions are constant
            over space. One in float64 is not excused by rounding.
        tolerance: the largest error that is accepted.
        exact: accept :data:`EXACT` only, where the differences are taken in float64.
        seed: of the directions.
        directions: how many.
    """
    scores = scores_of_tail(tail, feeds, point.cotangents, point.raw)
    if exact and scores.precision == "double":
        positions = int(np.prod(point.maps.shape[2:])) if gradient.ndim < point.maps.ndim else 0
        tolerance = min(tolerance, EXACT + SUMMED * positions)
    tried = _Directions(scores, point, gradient, tolerance / SHARE, np.random.default_rng(seed))
    errors = [tried.error() for _ in range(directions)]
    if np.max(errors) > tolerance and _coupled(scores, point):
        tried = replace(tried, coupled=True, drowned=[])
        errors = [tried.error() for _ in range(directions)]
        return Agreement(float(np.max(errors)), directions, 0, tolerance, all(tried.drowned), coupled=True)
    if np.max(errors) <= tolerance:
        return Agreement(float(np.max(errors)), directions, allowed=tolerance)
    if exact and scores.precision == "double" and gradient.dtype != np.float64:
        tolerance = min(CONFIRMABLE, tolerance + ROUNDED * _rounding(tail, feeds, point))
        if np.max(errors) <= tolerance:
            return Agreement(float(np.max(errors)), directions, allowed=tolerance)
    errors += [tried.error() for _ in range(MORE)]
    found = np.array(errors)  # [directions, N]
    agree = found <= tolerance / SHARE
    if (2 * agree.sum(0) > len(found)).all():
        whole = agree.all(1)
        return Agreement(float(found[agree].max()), int(whole.sum()), int((~whole).sum()), tolerance)
    worst = float(found[:directions].max())
    return Agreement(worst, directions, allowed=tolerance, drowned=all(tried.drowned))


def _coupled(scores: Scores, point: Point) -> bool:
    """Whether a step of the first image alone moves the scores of others: a softmax over the batch, for one."""
    step = np.zeros(point.maps.shape)
    step[0] = np.random.default_rng(3).standard_normal(step.shape[1:]) * (np.abs(point.maps).mean() or 1.0)
    before, after = (scores.of(point.moved(each)) for each in (np.zeros_like(step), step))
    if not len(before) == len(after) == len(step):
        return False
    noise = COUPLED * np.abs(before).max(initial=0)
    return bool((np.abs(after - before)[1:] > noise).any())


def _rounding(tail: onnx.ModelProto, feeds: Mapping[str, Array], point: Point) -> float:
    """How far the runtime's own outputs are from those in float64, the largest share of what is explained of one.

    Sigmoids are exact to 1e-7, which is much of a score of 1e-5, as detectors give where nothing is found; the
    gradient has the same share.
    """
    at = point.moved(np.zeros_like(point.maps))
    single, double = outputs_of(tail, feeds, at), exact_outputs_of(tail, feeds, at)
    cotangents = point.cotangents or tuple(np.ones_like(y) for y in double)
    shares = [0.0]
    for a, b, c in zip(single, double, cotangents):
        if b.size and a.size == b.size == c.size:
            of = float(np.linalg.norm(b.ravel() * c.ravel()))
            shares.append(float(np.linalg.norm((a - b.reshape(a.shape)).ravel() * c.ravel())) / max(of, 1e-30))
    return max(shares)


@dataclass(frozen=True)
class _Directions:
    """Random directions at a point, one after the other."""

    scores: Scores
    point: Point
    gradient: Array
    close: float
    rng: np.random.Generator
    drowned: list[bool] = field(default_factory=list)
    """Of each direction: whether at the widest step rounding explains all that the gradient is off."""
    coupled: bool = False
    """Whether all images count as one."""

    def error(self) -> Array:
        """[N], or [1] of all images as one: how far the gradient is from the differences in the next direction."""
        maps, gradient = self.point.maps, self.gradient
        pooled = gradient.ndim < maps.ndim
        area = int(np.prod(maps.shape[gradient.ndim :]))
        v = self.rng.standard_normal(gradient.shape)
        if not pooled:
            v *= maps != 0  # ReLU maps are full of ties at zero, where a MaxPool behind has no derivative
        step = np.broadcast_to(v.reshape(*v.shape, *[1] * (maps.ndim - v.ndim)) if pooled else v, maps.shape)
        rows = 1 if self.coupled else len(v)
        expected = (v * gradient).reshape(rows, -1).sum(1) * area
        norm = np.sqrt((gradient.astype(np.float64) ** 2).reshape(rows, -1).sum(1)) * area
        spread = float(np.abs(maps.astype(np.float64)).mean()) or 1.0
        best, widest, drowned = np.full(rows, np.nan), 0.0, False
        usual = WIDTHS[self.scores.precision]
        for number, width in enumerate((*usual, *WIDER)):
            if number >= len(usual) and not drowned:
                break
            h = width * spread
            above, below = self._score(h * step), self._score(-h * step)
            off = np.abs((above - below) / (2 * h) - expected)
            best = np.fmin(best, off / np.maximum(norm, 1e-30))
            if (best <= self.close / 10).all():
                break
            if width > widest:
                rounding = ROUNDING[self.scores.precision] * np.maximum(np.abs(above), np.abs(below)) / (2 * h)
                widest, drowned = width, bool((off <= rounding).all())
        self.drowned.append(drowned)
        return np.where(np.isnan(best), np.inf, best)  # where no width gives a number

    def _score(self, step: Array) -> Array:
        found = self.scores.of(self.point.moved(step))
        score = np.asarray(np.take_along_axis(found, self.point.classes, axis=1)[:, 0])
        return score.sum(keepdims=True) if self.coupled else score
