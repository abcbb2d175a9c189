"""What the check measures of a gradient, and what of it is a fault, and what only could not be confirmed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir

from fastcam import schema
from fastcam.schema import FastcamError
from fastcam_export.layers.explained_layer import ExplainedLayer
from fastcam_export.verify import stop_gradient
from fastcam_export.verify.double import exported as exported_part
from fastcam_export.verify.equal_outputs import difference, is_half, is_quantised, output_tolerance
from fastcam_export.verify.finite_differences import (
    DIRECTIONS,
    EXACT,
    LAYER,
    STOPPED,
    Agreement,
    Point,
    compare,
    outputs_of,
    scores_of_tail,
)
from fastcam_export.verify.runs import LayerRun
from fastcam_export.verify.sample import predicted_class
from fastcam_export.verify.session import quiet_session, said

Array = npt.NDArray[Any]
GRADIENT_TOLERANCE = {"float32": 1e-2, "float16": 5e-2, "rounded": 1.0, "quantised": 0.3}
"""Largest accepted error of a directional derivative, as a share of the gradient's norm.

"rounded" is for float16 models with kinks behind the layer: without rounding, as the differences are taken, a share of
the values lies on another side of a kink, more of them the deeper the layer. This finds gross errors only: what is
larger than :data:`CONFIRMED` is not confirmed by it. "quantised" is for models of integers: what these are is measured,
see :mod:`fastcam_export.verify.rounded_point`, what other roundings do is not.
"""
CONFIRMED = 5e-2
"""Error up to which differences confirm a gradient."""
ROUNDED_MEAN = 1e-5
"""What share of its mean absolute value a gradient's mean has by rounding alone."""
KINKS = frozenset({"Clip", "HardSigmoid", "HardSwish", "LeakyRelu", "Max", "MaxPool", "Min", "PRelu", "Relu"})


@dataclass(frozen=True)
class Check:
    """What the check measured.

    Attributes:
        bit_identical: every output of the source equals the exported file's bit for bit.
        output_difference: largest difference, as a share of that output's largest absolute value.
        gradient_error: per direction, |<v, g> - central difference| / scale, the worst of them, over all layers; None
            where nothing could be measured.
        directions: number of random directions at the default layer.
        crossing: of how many more directions every step met a kink, so that they say nothing.
        unconfirmed: why differences do not confirm the gradient; "" where they do.
        notes: what else a user should know.
    """

    bit_identical: bool
    output_difference: float
    gradient_error: float | None
    directions: int
    crossing: int = 0
    unconfirmed: str = ""
    notes: tuple[str, ...] = field(default=())

    def to_dict(self) -> dict[str, Any]:
        """For the metadata, without what has nothing to say."""
        optional = ("crossing", "unconfirmed", "notes")
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in vars(self).items()
            if value or name not in optional
        }


@dataclass(frozen=True)
class Judgement:
    """What differences say of one gradient: how it agrees, None where they could not be taken; and the reason why they
    do not confirm it, "" where they do."""

    agreement: Agreement | None
    unconfirmed: str = ""

    @property
    def error(self) -> float | None:
        """That of the agreement."""
        return self.agreement.error if self.agreement is not None else None


def summary_lines(check: Mapping[str, Any], several: bool) -> list[str]:
    """What the summary of an export says of the check."""
    if not check:
        return []
    same = "bit-identical" if check["bit_identical"] else f"equal to {check['output_difference']:.1e}"
    lines = [f"check   outputs {same} to the source's; "]
    if check.get("unconfirmed"):
        lines[0] += "gradient not confirmed:"
        lines.append(f"        {check['unconfirmed']}")
    else:
        lines[0] += (
            f"gradient equal to central differences within {check['gradient_error']:.1e} in {check['directions']} "
            "random directions" + (", and one at each further layer" if several else "")
        )
    if check.get("crossing"):
        lines.append(f"        in {check['crossing']} more directions every step meets a kink of the model")
    return lines + [f"        {note}" for note in check.get("notes", ())]


def refuse_unconfirmed(check: Check) -> None:
    """Raise where the gradient is not confirmed: what ``check="strict"`` asks for."""
    if check.unconfirmed:
        raise FastcamError(
            f"the check cannot confirm the gradient: {check.unconfirmed}; name another layer (fastcam inspect lists "
            "them), or export without --check strict"
        )


def judge(
    model: ir.Model, source: onnx.ModelProto, tail: onnx.ModelProto, run: LayerRun, exported: onnx.ModelProto
) -> Judgement:
    """Compare the gradient at one layer with differences; where it is not theirs, its nodes in float64.

    Args:
        model: as it was loaded.
        source: as it was given.
        tail: the part of it behind the layer, see :func:`fastcam_export.verify.tail.tail`.
        run: the layer in the exported model's run.
        exported: that model.

    Raises:
        FastcamError: the gradient is zero because the score does not depend on the layer's positions at all.
    """
    feeds = stop_gradient.fed(model, tail, run.feeds)
    if not run.gradient.any():
        _refuse_unread(tail, feeds, run.point, run.layer)
    found = _judged(source, tail, feeds, run.point, run.gradient, run.directions)
    return found if run.pooled else _but_for_rounding(source, tail, feeds, run, run.gradient, exported, found)


def judge_whole(
    model: ir.Model, source: onnx.ModelProto, tail: onnx.ModelProto, run: LayerRun, whole: onnx.ModelProto
) -> Judgement:
    """Compare the whole gradient, and the pooled one as its mean, where differences do not tell the latter.

    A step that is the same at all positions also moves those that are zero, and with them sums of zeros alone, which
    lie on the kink of a ReLU behind: there is no derivative in that direction. Steps of the whole gradient leave them.

    Args:
        model, source, tail, run: as in :func:`judge`.
        whole: an export of the layer alone that emits the whole gradient.
    """
    feeds = stop_gradient.fed(model, tail, run.feeds)
    names = {value.name for value in whole.graph.input}
    given = {name: array for name, array in run.feeds.items() if name in names}
    targets = {} if run.point.cotangents else predicted_class(whole)
    drawn = stop_gradient.drawn(model.graph)
    session = quiet_session(stop_gradient.with_inputs(whole, drawn))
    given |= {name: run.feeds[name] for name in drawn}
    gradient = np.asarray(session.run([schema.GRADIENTS], {**given, **targets})[0])[:, 0]
    mean = gradient.mean(tuple(range(run.gradient.ndim, gradient.ndim)), dtype=np.float64)
    if without_mean(gradient):
        raise FastcamError(NO_MEAN.format(layer=run.layer.value.name) + ": export with --emit gradients, " + OTHERS)
    apart = difference([run.gradient], [mean])[1]
    if apart > output_tolerance(source):
        return Judgement(Agreement(apart, run.directions, allowed=0))
    found = _judged(source, tail, feeds, run.point, gradient, run.directions)
    return _but_for_rounding(source, tail, feeds, replace(run, emitted=schema.GRADIENTS), gradient, whole, found)


NO_MEAN = (
    "the gradient at layer {layer!r} has a mean over positions of zero, since the model subtracts the mean there, as "
    "covariance pooling and instance normalisation do, so that Grad-CAM has no map"
)
OTHERS = "for --method hirescam or layercam, or name another layer (fastcam inspect lists them)"


def without_mean(gradient: Array) -> bool:
    """Whether rounding is all that the mean over positions of a gradient [N, K, ...] holds, in every image."""
    axes = tuple(range(2, gradient.ndim))
    mean, size = (np.abs(a.mean(axes, dtype=np.float64)).max(1) for a in (gradient, np.abs(gradient)))
    return bool((mean <= ROUNDED_MEAN * size).all() and size.any())


def _but_for_rounding(
    source: onnx.ModelProto,
    tail: onnx.ModelProto,
    feeds: Mapping[str, Array],
    run: LayerRun,
    gradient: Array,
    exported: onnx.ModelProto,
    found: Judgement,
) -> Judgement:
    """``found``, but where differences confirm what the export's nodes give in float64, how far float32 is from that.

    A wrong rule is wrong in float64 too, and stays refused.
    """
    exact = not (is_half(source) or is_quantised(source))
    if found.agreement is None or found.agreement.good or not exact or not np.isfinite(found.agreement.error):
        return found
    double = _in_double(tail, feeds, run, exported)
    if double is None or double.shape != gradient.shape:
        return found
    again = _judged(source, tail, feeds, run.point, double, run.directions)
    if again.agreement is None or not again.agreement.good or again.agreement.error > EXACT:
        return found
    flat = (np.reshape(array, (len(double), -1)) for array in (gradient - double, double))
    off, size = (np.linalg.norm(array, axis=1) for array in flat)
    apart = float((off / np.maximum(size, 1e-30)).max())
    agreement = replace(again.agreement, error=apart, allowed=apart)
    return Judgement(agreement, ROUNDING.format(apart=apart) if apart > CONFIRMED else "")


ROUNDING = (
    "in float64 it equals them, in float32, as the file computes it, it is {apart:.1e} of its size away from that: the "
    "part of the model behind the layer amplifies rounding, or stands at a kink"
)


def _in_double(
    tail: onnx.ModelProto, feeds: Mapping[str, Array], run: LayerRun, exported: onnx.ModelProto
) -> Array | None:
    """The gradient [N, K, h, w] by the export's nodes in float64; None where the runtime cannot run them so."""
    given = {value.name.removeprefix(STOPPED): value for value in tail.graph.input if value.name.startswith(STOPPED)}
    given[run.layer.value.name or ""] = next(value for value in tail.graph.input if value.name == LAYER)
    try:
        part = exported_part.part(exported, run.emitted, given)
        return outputs_of(part, feeds, run.point.raw)[0][:, 0]
    except Exception:  # no float64 kernel for an operator; the runtime has no narrower exception
        return None


def _judged(
    source: onnx.ModelProto,
    tail: onnx.ModelProto,
    feeds: Mapping[str, Array],
    point: Point,
    gradient: Array,
    directions: int,
) -> Judgement:
    try:
        exact = not (is_half(source) or is_quantised(source))
        found = compare(tail, feeds, point, gradient, tolerance(source, tail), exact, directions=directions)
    except Exception as error:  # onnxruntime's exceptions have no common base but Exception
        return Judgement(None, f"the part of the model behind the layer does not run alone ({said(error)})")
    if found.drowned:
        why = "the score depends so little on the layer that rounding hides it from differences"
        return Judgement(None, why)
    if found.good and found.error > CONFIRMED:
        what = "rounds to integers" if is_quantised(source) else "computes in float16"
        why = f"the model {what}, and its kinks lie elsewhere without; differences agree to {found.error:.1e} only"
        return Judgement(found, why)
    return Judgement(found)


def tolerance(source: onnx.ModelProto, tail: onnx.ModelProto) -> float:
    """What :data:`GRADIENT_TOLERANCE` allows for this model."""
    half, quantised = is_half(source), is_quantised(source)
    kinked = any(node.op_type in KINKS for node in tail.graph.node)
    if quantised and not half:
        return GRADIENT_TOLERANCE["quantised"]
    if kinked and half:
        return GRADIENT_TOLERANCE["rounded"]
    return GRADIENT_TOLERANCE["float16" if half else "float32"]


def refuse_error(found: Agreement | None, what: str) -> None:
    """Raise where the error of a gradient is larger than what is accepted."""
    if found is not None and not np.isfinite(found.error):
        raise FastcamError(
            f"the check failed: {what}, or the score beside its point, is infinite or NaN; name another layer, or "
            "repair the model's weights"
        )
    if found is not None and not found.good:
        raise FastcamError(
            f"the check failed: {what} differs from central differences by {found.error:.1e} of its size; "
            "please report the model's operators (fastcam inspect)"
        )


def _refuse_unread(tail: onnx.ModelProto, feeds: Mapping[str, Array], point: Point, layer: ExplainedLayer) -> None:
    """Raise where other positions of the layer leave every class score as it is, whatever is in them."""
    scores = scores_of_tail(tail, feeds, point.cotangents, point.raw).of
    rng = np.random.default_rng(2)
    spread = float(np.abs(point.maps).mean()) or 1.0
    before = scores(point.moved(np.zeros_like(point.maps)))
    others = (scores(point.moved(spread * rng.standard_normal(point.maps.shape))) for _ in range(DIRECTIONS))
    if all(np.array_equal(before, other) for other in others):
        raise FastcamError(
            f"the score does not depend on the image positions of layer {layer.value.name!r}, so its gradient is zero "
            "everywhere; name an earlier layer (fastcam inspect lists them)"
        )
