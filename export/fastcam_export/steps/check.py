"""The third step of an export: its models are run and compared with the source."""

from __future__ import annotations

from typing import Any

from fastcam_export.artifacts import classifier_head, on_demand, uint8_frames
from fastcam_export.steps.attach import Attached, attach
from fastcam_export.steps.plan import Plan
from fastcam_export.verify import image_gradient
from fastcam_export.verify.check import (
    Check,
    LayerRun,
    layer_error,
    refuse_error,
    run_both,
    tolerance,
    whole_gradient_error,
)
from fastcam_export.verify.finite_differences import DIRECTIONS
from fastcam_export.verify.sample import Sample
from fastcam_export.verify.tail import tail


def check(plan: Plan, attached: Attached) -> dict[str, Any]:
    """Compare outputs with the source's, gradients with central differences, and further models with the one file.

    Args:
        plan: what was planned; its graph is still the model's own.
        attached: its models.

    Returns:
        What was measured, for the metadata.

    Raises:
        FastcamError: something differs, or the runtime refuses a model.
    """
    source, target, options = plan.loaded.proto, plan.target, plan.options
    sample = Sample.of(plan.loaded.model.graph, plan.image, target.cotangents, plan.metadata.inputs)
    result = _gradients(plan, attached, sample).to_dict()
    if options.input_gradient == "gradient":
        whole = tail(plan.loaded.model, plan.image, *target.differentiated)
        result["input_gradient_error"] = image_gradient.check(source, attached.whole, whole, sample)
    if attached.head is not None:
        score = target.differentiated[0].name or ""
        result |= classifier_head.check(attached.whole, attached.head.model, score, sample.feeds)
    if attached.framed is not None:
        result |= uint8_frames.check(attached.whole, attached.framed, plan.metadata, options.frames, sample.feeds)
    if attached.parts is not None:
        result |= on_demand.check(source, attached.whole, attached.parts, sample)
    return result


def _gradients(plan: Plan, attached: Attached, sample: Sample) -> Check:
    """Compare the outputs, and the gradient at each target layer."""
    compared = run_both(plan.loaded.proto, attached.whole, sample, attached.values, plan.layers)
    errors = [_layer_error(plan, run) for run in compared.layers]
    return Check(compared.identical, compared.difference, max([0.0, *errors]), DIRECTIONS)


def _layer_error(plan: Plan, run: LayerRun) -> float:
    """The error of the gradient at one layer.

    Raises:
        FastcamError: it is too large, or the gradient is zero.
    """
    source, layer = plan.loaded.proto, run.layer
    part = tail(plan.loaded.model, layer.value, *plan.target.differentiated)
    error = layer_error(source, part, run)
    if run.pooled and not error <= tolerance(source, part):
        whole = attach(plan.of_whole_gradient(layer)).whole
        error = whole_gradient_error(source, part, run, whole)
    which = "" if layer.number is None else f" at layer {layer.value.name!r}"
    refuse_error(error, source, part, f"the gradient{which}")
    return error
