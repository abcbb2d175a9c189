"""The second step of an export: nodes into the graph, and the further models that are made of the result."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import onnx
import onnx_ir as ir

from fastcam import schema
from fastcam_export.artifacts import classifier_head, engines, on_demand, uint8_frames
from fastcam_export.graph import float16, signed_codes, square_weights, weights
from fastcam_export.graph.reading.set_aside import put_back
from fastcam_export.outputs import cam, cotangent_targets, input_attribution
from fastcam_export.steps.plan import Plan


@dataclass(frozen=True)
class Attached:
    """The models of an export, before anything is written into their metadata.

    Attributes:
        whole: the model with everything added, in one file.
        values: the names of the values that were added, by their contract names.
        opset: its opset of the default domain.
        unread: lines on what the engine that the file is for does not read of the model itself.
        head: the part behind the default layer, where that is wanted.
        framed: ``whole`` with the preprocessing in front, where that is wanted.
        parts: ``whole`` as two models, where that is wanted.
    """

    whole: onnx.ModelProto
    values: Mapping[str, str]
    opset: int
    unread: tuple[str, ...]
    head: classifier_head.ClassifierHead | None
    framed: onnx.ModelProto | None
    parts: on_demand.Parts | None

    def with_weights(self, browser: bool) -> Attached:
        """The same with all weights in the models, as far as one file can hold them, or as a browser reads them."""
        head, parts = self.head, self.parts
        return replace(
            self,
            whole=weights.inside(self.whole, browser),
            head=head and replace(head, model=weights.inside(head.model, browser)),
            framed=self.framed and weights.inside(self.framed, browser),
            parts=parts
            and replace(
                parts,
                forward=weights.inside(parts.forward, browser),
                explanation=weights.inside(parts.explanation, browser),
            ),
        )


def attach(plan: Plan) -> Attached:
    """Add to a copy of the plan's graph what explains its target; the plan may be attached again.

    Raises:
        FastcamError: the model has no such gradient, or the engine does not read it.
        UnsupportedOperator: (a FastcamError) an operator between layer and score has no gradient rule.
    """
    plan = plan.copy()
    model, options = plan.loaded.model, plan.options
    signed_codes.write_unsigned(model.graph, plan.unsigned)
    further = _further_output(plan)
    head = _head(plan) if options.head else None
    values = _backward_pass(plan, further, head)
    cam.make_outputs(model.graph, values, options.emitted, plan.layers)
    if not engines.has_list(options.for_engine):
        float16.settle(model.graph, plan.loaded.opset)
    if options.for_engine == "onnxruntime":  # whose files OpenVINO reads as well
        square_weights.keep_apart(model.graph)
    unread = engines.hold(model.graph, options.for_engine)
    model.producer_name, model.producer_version = "fastcam", schema.__version__
    whole = ir.to_proto(model)
    explained = {plan.target.score.output, *(one.output for one in plan.target.cotangents)}
    put_back(whole, plan.loaded.aside, explained)
    return Attached(
        whole,
        {name: value.name or "" for name, value in values.items()},
        model.graph.opset_imports[""],
        unread,
        head,
        uint8_frames.put_in_front(whole, plan.metadata, options.frames) if options.frames else None,
        on_demand.split(whole) if options.on_demand else None,
    )


def _further_output(plan: Plan) -> cam.FurtherOutput | None:
    """What ``input_gradient`` adds."""
    mode, layer = plan.options.input_gradient, plan.layers[0]
    if mode is None:
        return None
    explained, place = plan.target.differentiated, plan.metadata.input_gradient_at
    graph = plan.loaded.model.graph
    return input_attribution.further(graph, plan.image, explained, layer.value, layer.layout, mode, place)


def _head(plan: Plan) -> classifier_head.ClassifierHead:
    layer = plan.layers[0]
    return classifier_head.head(plan.loaded.model, layer.value, layer.layout, plan.target.value)


def _backward_pass(
    plan: Plan, further: cam.FurtherOutput | None, head: classifier_head.ClassifierHead | None
) -> dict[str, ir.Value]:
    """Append the backward pass to the plan's graph; its values by their contract names."""
    graph, target, options = plan.loaded.model.graph, plan.target, plan.options
    if target.functional is not None:
        return cotangent_targets.attach(
            graph,
            plan.image,
            plan.layers,
            target.functional,
            emit=options.emitted,
            engine=engines.form(options.for_engine),
            further=further,
        )
    return cam.attach(
        graph,
        plan.layers,
        target.value,
        targets=options.targets_input,
        emit=options.emitted,
        engine=engines.form(options.for_engine),
        further=further,
        more_outputs=head.emitted if head is not None else None,
    )
