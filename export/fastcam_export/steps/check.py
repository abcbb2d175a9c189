"""The third step of an export: its models are run and compared with the source."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from fastcam.schema import FastcamError
from fastcam_export.artifacts import classifier_head, engines, on_demand, uint8_frames
from fastcam_export.graph import signed_codes, weights
from fastcam_export.graph.constants import RANDOM
from fastcam_export.graph.query import in_default_domain
from fastcam_export.outputs.target import Target
from fastcam_export.steps.attach import Attached, attach
from fastcam_export.steps.plan import Plan
from fastcam_export.verify import image_gradient
from fastcam_export.verify.check import (
    NO_MEAN,
    Check,
    Judgement,
    judge,
    judge_whole,
    refuse_error,
    refuse_unconfirmed,
    without_mean,
)
from fastcam_export.verify.declared import contradiction
from fastcam_export.verify.finite_differences import DIRECTIONS
from fastcam_export.verify.rounded_point import at_rounded_point
from fastcam_export.verify.runs import Comparison, LayerRun, run_both, same_bits
from fastcam_export.verify.session import said
from fastcam_export.verify.source_runs import Source, SourceRun
from fastcam_export.verify.tail import tail

UNSIGNED = (
    "int8 values that the explanation reads are uint8 in the file, 128 larger, as ONNX Runtime itself has them on this "
    "processor: so outputs keep their bits"
)

COUPLED = (
    "warning: the score of a picture depends on the other pictures of its batch, and its map counts what it does to "
    "theirs: explain one at a time"
)


def attach_or_say(plan: Plan) -> Attached:
    """:func:`attach`; where it fails because the file contradicts a run of it, that is said.

    Raises:
        FastcamError: the model has no such gradient, or says of a value what a run contradicts.
    """
    try:
        return attach(plan)
    except FastcamError:
        raise
    except Exception as error:  # ours: what a file says wrongly leads to any
        why = _contradicted(plan)
        if not why:
            raise
        raise FastcamError(f"{why}: correct that first ({said(error)})") from error


def _contradicted(plan: Plan) -> str:
    source, model = plan.loaded.proto, plan.loaded.model
    try:
        run = Source(source, model, plan.image, plan.target.cotangents, plan.metadata.inputs, plan.size.sides).first()
    except FastcamError:  # it does not run at all
        return ""
    return contradiction(source, model, run.sample.feeds)


def check(plan: Plan, attached: Attached) -> tuple[Attached, dict[str, Any]]:
    """Compare outputs with the source's, gradients with central differences, and further models with the one file.

    Args:
        plan: what was planned; its graph is still the model's own.
        attached: its models.

    Returns:
        The models, attached once more where this keeps the outputs' bits; and what was measured, for the metadata.

    Raises:
        FastcamError: something differs, the runtime refuses a model, or, where the check is strict, the gradient is not
            confirmed.
    """
    source, target = plan.loaded.proto, plan.target
    began = Source(source, plan.loaded.model, plan.image, target.cotangents, plan.metadata.inputs, plan.size.sides)
    explained = [one.output for one in target.cotangents] or [target.score.output]
    run = began.of_numbers(began.first(), explained)
    if weights.size(source):
        began.close()
    try:
        return _compared_with(plan, attached, began, run)
    except Exception as error:  # of the runtime, of NumPy, of ours: what a file says wrongly leads to any
        why = contradiction(source, plan.loaded.model, run.sample.feeds) or _other_rows(target, run)
        if not why:
            raise
        raise FastcamError(f"{why}: correct that first ({said(error).partition('; ')[0]})") from error


def _other_rows(target: Target, run: SourceRun) -> str:
    """That the scores do not have a row for each image, as a sentence; "" where they have."""
    rows = np.shape(run.outputs.get(target.score.output, ()))[:1]
    if target.cotangents or rows in ((), (run.sample.images,)):
        return ""
    return f"output {target.score.output!r} has {rows[0]} rows for {run.sample.images} images"


def _compared_with(plan: Plan, attached: Attached, began: Source, run: SourceRun) -> tuple[Attached, dict[str, Any]]:
    """The same, with a run of the source."""
    source, options = plan.loaded.proto, plan.options
    plan, attached = _keeping_bits(plan, attached, run)
    measured, run = _gradients(plan, attached, began, run)
    if options.check == "strict":
        refuse_unconfirmed(measured)
    result = measured.to_dict() | _sizes(plan, run)
    if run.missing:
        return attached, result
    if options.input_gradient == "gradient":
        whole = tail(plan.loaded.model, plan.image, *plan.target.differentiated)
        result["input_gradient_error"] = image_gradient.check(plan.loaded, attached.whole, whole, run)
    if attached.head is not None:
        score = plan.target.differentiated[0].name or ""
        result |= classifier_head.check(attached.whole, attached.head.model, score, run.sample.feeds)
    if attached.framed is not None:
        result |= uint8_frames.check(attached.whole, attached.framed, plan.metadata, options.frames, run.sample.feeds)
    if attached.parts is not None:
        result |= on_demand.check(source, attached.whole, attached.parts, run)
    return attached, result


def _keeping_bits(plan: Plan, attached: Attached, run: SourceRun) -> tuple[Plan, Attached]:
    """The same, with int8 values as uint8 where outputs keep their bits only so. Other engines keep int8."""
    names = (
        frozenset[str]()
        if engines.form(plan.options.for_engine) != "onnxruntime"
        else signed_codes.read_by_added_nodes(attached.whole)
    )
    if not names or run.missing or same_bits(attached.whole, run):
        return plan, attached
    unsigned = replace(plan, unsigned=names)
    again = attach(unsigned)
    return (unsigned, again) if same_bits(again.whole, run) else (plan, attached)


def _sizes(plan: Plan, run: SourceRun) -> dict[str, Any]:
    """The sizes of texts and maps that follow from the picture's alone, where the file does not say them."""
    about = [one for one in plan.target.cotangents if one.axes and not all(isinstance(d, int) for d in one.shape)]
    shapes = {one.output: list(run.outputs[one.output].shape[one.batched :]) for one in about}
    image = list(run.sample.feeds[plan.image.name or ""].shape[1:])
    return {"output_shapes": shapes, "image_shape": image} if shapes else {}


def _gradients(plan: Plan, attached: Attached, began: Source, run: SourceRun) -> tuple[Check, SourceRun]:
    """Compare the outputs, and the gradient at each target layer; and the run in which this was done."""
    compared = _compared(plan, attached, run)
    if not run.missing and not all(layer.gradient.any() for layer in compared.layers):
        for other in began.others(run):  # a dead unit may live on another picture
            again = _compared(plan, attached, other) if not other.missing else None
            if again is not None and all(layer.gradient.any() for layer in again.layers):
                compared, run = again, other
                break
    notes = tuple(_notes(plan, compared))
    if run.missing:
        why = f"{' and '.join(run.missing)} empty on every picture that the check tried: nothing was found in them"
        return Check(compared.identical, compared.difference, None, 0, unconfirmed=why, notes=notes), run
    found = [_judged(plan, layer, attached) for layer in compared.layers]
    errors = [one.error for one in found if one.error is not None]
    unconfirmed = next((one.unconfirmed for one in found if one.unconfirmed), "")
    if unconfirmed and _other_rows(plan.target, run):
        raise FastcamError("nothing tells whose scores they are: images come first")  # the caller says the rows
    first = found[0].agreement
    notes += (COUPLED,) * any(one.agreement is not None and one.agreement.coupled for one in found)
    return Check(
        compared.identical,
        compared.difference,
        max(errors) if errors else None,
        first.directions if first is not None else DIRECTIONS,
        sum(one.agreement.crossing for one in found if one.agreement is not None),
        unconfirmed,
        notes,
    ), run


def _compared(plan: Plan, attached: Attached, run: SourceRun) -> Comparison:
    return run_both(plan.loaded.proto, attached.whole, run, attached.values, plan.layers)


def _notes(plan: Plan, compared: Comparison) -> list[str]:
    """What a user should know of the model and its layers."""
    notes = [compared.note] if compared.note else []
    if plan.unsigned:
        notes.append(f"{len(plan.unsigned)} {UNSIGNED}")
    drawn = sorted(
        {node.op_type for node in plan.loaded.model.graph if in_default_domain(node) and node.op_type in RANDOM}
    )
    if drawn:
        notes.append(
            f"the model draws random numbers ({', '.join(drawn)}): two runs of it differ; the check holds them"
        )
    for run in compared.layers:
        if all(side == 1 for side in run.point.maps.shape[2:]):
            name = run.layer.value.name
            notes.append(f"warning: layer {name} has one position only, so that its map is the same all over")
        elif not run.pooled and without_mean(run.gradient):
            notes.append(f"warning: {NO_MEAN.format(layer=run.layer.value.name)}: use --method hirescam or layercam")
    return notes


def _judged(plan: Plan, run: LayerRun, attached: Attached) -> Judgement:
    """What differences say of the gradient at one layer.

    Raises:
        FastcamError: it is wrong, or zero.
    """
    model, source, layer = plan.loaded.model, plan.loaded.proto, run.layer
    part = tail(model, layer.value, *plan.target.differentiated)
    run = at_rounded_point(model, part, run)
    found = judge(model, source, part, run, attached.whole)
    if run.pooled and found.agreement is not None and not found.agreement.good:
        found = judge_whole(model, source, part, run, attach(plan.of_whole_gradient(layer)).whole)
    which = "" if layer.number is None else f" at layer {layer.value.name!r}"
    refuse_error(found.agreement, f"the gradient{which}")
    return found
