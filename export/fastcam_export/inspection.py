"""What ``inspect_model`` finds: inputs, outputs and what they are taken for, layers, what blocks, the next command.

It answers for every file that is an ONNX graph. The command is tried: all of an export but its check is done.
"""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, Literal

import onnx
import onnx_ir as ir
from google.protobuf.message import DecodeError

from fastcam.input_files import read_bytes
from fastcam.input_roles import TEXTS
from fastcam.schema import Engine, FastcamError
from fastcam_export import metadata_options, multi_layer
from fastcam_export.artifacts import engines
from fastcam_export.autodiff.core.builder import FLOATS
from fastcam_export.autodiff.reverse import path, unsupported
from fastcam_export.graph.load import Loaded, Source
from fastcam_export.graph.query import readable_dims
from fastcam_export.layers import further_inputs, target_layer
from fastcam_export.layers.image_input import find_image, vocabulary
from fastcam_export.layers.image_order import image_order
from fastcam_export.layers.output_meaning import SAYS, Meaning, output_meanings
from fastcam_export.layers.score import Want, find_score
from fastcam_export.outputs import target_kinds
from fastcam_export.outputs.target import Target, find_target
from fastcam_export.result import InspectedLayer, InspectedValue, Inspection
from fastcam_export.steps.check import attach_or_say
from fastcam_export.steps.options import ExportOptions
from fastcam_export.steps.plan import Plan, plan
from fastcam_export.summary import taken_for
from fastcam_export.verify import source_runs
from fastcam_export.verify.unexpected import as_fastcam_error

MOST = 6
"""How many other ways are tried where the plain export does not work."""


@dataclass(frozen=True)
class InspectOptions:
    """What the caller says, as in :func:`fastcam_export.export_model`."""

    output_name: str | None
    score: Want
    for_engine: Engine
    input_name: str | None
    targets: Literal["default", "cotangent"] = "default"

    @property
    def of_export(self) -> dict[str, Any]:
        """The options of an export."""
        return {name: value for name, value in vars(self).items() if value is not None}


def inspected(read: Loaded, options: InspectOptions, file: str) -> Inspection:
    """The inspection of a loaded model.

    Args:
        read: the model.
        options: what the caller says.
        file: how the command names the model.

    Raises:
        FastcamError: an output or input that the caller names is none.
    """
    graph = read.model.graph
    try:
        image = find_image(graph, options.input_name)
    except FastcamError as error:
        if options.input_name is not None:
            raise
        return _without_image(read, str(error))
    meanings = output_meanings(graph, image)
    tried = Attempts(read, options, file)
    command, blocks = tried.first_that_works(meanings)
    planned = tried.planned
    try:
        target = _target(read, image, replace(options, **tried.named))
    except FastcamError as error:
        if options.output_name is not None:
            raise
        target, blocks = None, blocks or [str(error)]
    about = [] if target is None else [one.output for one in target.cotangents] or [target.score.output]
    outputs = tuple(
        InspectedValue(one.output, *_about(one), {one.output, one.value.name} & {*about} != set()) for one in meanings
    )
    outputs += tuple(map(_declared, read.aside.taken.values())) if read.aside is not None else ()
    found = Inspection(
        [], "", None, [], repairs=read.repairs, inputs=_inputs(graph, image), outputs=outputs, blocks=tuple(blocks),
        command=command, notes=planned.notes if planned is not None else (),
    )  # fmt: skip
    if target is None:
        return found
    unread = engines.report(graph, options.for_engine, engines.refused(graph, options.for_engine))
    missing = Counter(node.op_type for node in unsupported(path(graph, [image], target.differentiated)))
    found = replace(found, score=target.score, missing=missing.most_common(), engine=unread)
    return _with_layers(found, read.model, image, target, planned)


def _target(read: Loaded, image: ir.Value, options: InspectOptions) -> Target:
    """What an export would explain; of a named output that holds no class scores, that."""
    graph, names = read.model.graph, metadata_options.names_known(None, read)
    kinds = None
    if options.targets == "cotangent":
        kinds = [options.output_name or ""]
    elif options.score == "logit":
        kinds = target_kinds.to_explain(graph, image, options.output_name, names)
    if kinds is not None:
        return find_target(graph, image, True, "logit", kinds, names)
    return Target(*find_score(graph, image, options.output_name, options.score, any_output=True))


def _with_layers(
    found: Inspection, model: ir.Model, image: ir.Value, target: Target, planned: Plan | None
) -> Inspection:
    """The same with the layers, and the chosen one and why."""
    maps = target_layer.Maps.of(model.graph, image, target.value)
    size = planned.size.sides if planned is not None else None
    layers = multi_layer.measured_sides(model, image, target.layers(maps), size)
    if target.functional is not None and planned is not None:
        return _with_head_maps(found, model.graph, layers, planned)
    try:
        chosen, reason = target_layer.choose(layers)
    except FastcamError as error:
        return replace(found, blocks=found.blocks or (str(error),), layers=[_line(layer) for layer in layers])
    in_all = multi_layer.if_known(model, maps, layers, chosen.value, size)
    if chosen.layout.name != "NCHW":
        reason += f"; {chosen.layout.description}"
    lines = [_line(layer, layer is chosen, layer in in_all) for layer in layers]
    return replace(found, layers=lines, reason=reason)


def _with_head_maps(
    found: Inspection, graph: ir.Graph, layers: Sequence[target_layer.Layer], planned: Plan
) -> Inspection:
    """The same of an export of several layers, of which some may lie on the way to one head alone."""
    lines = {layer.value.name: _line(layer) for layer in layers}
    for layer in planned.layers:
        about = layer.about
        shape, kind = readable_dims(layer.value), layer.layout.name
        first = layer is planned.layers[0]
        note = about.reason.partition(";")[0]
        lines[layer.value.name] = InspectedLayer(
            about.value, about.scope, about.op_type, shape, first, note, kind, not first
        )
    order = {output.name: i for i, node in enumerate(graph) for output in node.outputs}
    ordered = sorted(lines, key=lambda name: order.get(name, -1))
    chosen, model = planned.layers[0].about.reason, taken_for(planned.metadata)
    return replace(found, layers=[lines[name] for name in ordered], reason=chosen, taken_for=model)


def _line(layer: target_layer.Layer, chosen: bool = False, in_all: bool = False) -> InspectedLayer:
    about = target_layer.describe(layer.value, "")
    return InspectedLayer(
        name=about.value,
        scope=about.scope,
        op_type=about.op_type,
        shape=readable_dims(layer.value),
        chosen=chosen,
        note=layer.note,
        layout=layer.layout.name,
        in_all=in_all,
    )


# ---- inputs and outputs

HELD = {"ids": "ids", "mask": "a mask", "state": "a state", "picture": "a picture"}


def _about(meaning: Meaning) -> tuple[str, tuple[int | str, ...], str]:
    """Type, shape and what is said of an output."""
    dtype = meaning.value.dtype
    front = f" in front of {meaning.decided}" if meaning.decided else ""
    why = f" ({meaning.reason})" if meaning.reason else ""
    return dtype.name.lower() if dtype is not None else "", meaning.shape, f"{SAYS[meaning.kind]}{front}{why}"


def _inputs(graph: ir.Graph, image: ir.Value | None) -> tuple[InspectedValue, ...]:
    """The inputs that have no weights for a default, and what each is taken for."""
    own = [value for value in graph.inputs if value.name not in graph.initializers]
    wanted = {one.name: one for one in further_inputs.described(graph, image, None)} if image is not None else {}
    words = vocabulary(graph, image) if image is not None else None
    return tuple(InspectedValue(*_value(value), _role(value, image, wanted, words), value is image) for value in own)


def _role(value: ir.Value, image: ir.Value | None, wanted: Mapping[str, Any], words: int | None) -> str:
    if value is image:
        order = image_order(value)
        if words is not None:
            return f"a text, ids of {words} words"
        kinds = {"T": "a video", "D": "a volume", "L": "a signal"}
        return f"{next((kind for letter, kind in kinds.items() if letter in order), 'pictures')}, {order}"
    if image is None:
        return ""
    about = wanted[value.name or ""]
    if not about.read:
        return "is read by nothing"
    if about.role in TEXTS:
        return "wants a text (--text, with an export's --tokenizer), or its ids (--input-value)"
    return f"wants {'a value' if about.role == 'value' else f'a value, {HELD[about.role]}'} (--input-value)"


def _value(value: ir.Value) -> tuple[str, str, tuple[int | str, ...]]:
    dtype = value.dtype.name.lower() if value.dtype is not None else ""
    return value.name or "", dtype, readable_dims(value) if value.shape is not None else ()


def _without_image(read: Loaded, why: str) -> Inspection:
    """Of a model that takes no pictures."""
    graph = read.model.graph
    outputs = tuple(InspectedValue(*_value(value), "", False) for value in graph.outputs)
    return Inspection(
        [], "", None, [], repairs=read.repairs, inputs=_inputs(graph, None), outputs=outputs, blocks=(why,)
    )


def unread(source: Source, error: FastcamError) -> Inspection:
    """Of a model that cannot be loaded, because of ``error``: its inputs and outputs.

    Raises:
        FastcamError: ``error``, where it is no ONNX graph at all.
    """
    proto = source if isinstance(source, onnx.ModelProto) else onnx.ModelProto()
    try:
        if not isinstance(source, onnx.ModelProto):
            proto.ParseFromString(source if isinstance(source, bytes) else read_bytes(source, "give an ONNX file"))
        weights = {tensor.name for tensor in proto.graph.initializer}
        inputs = tuple(map(_declared, (value for value in proto.graph.input if value.name not in weights)))
        outputs = tuple(map(_declared, proto.graph.output))
    except (OSError, DecodeError, UnicodeError, TypeError, ValueError):
        raise error from None
    if not proto.graph.node or not outputs:
        raise error
    return Inspection([], "", None, [], inputs=inputs, outputs=outputs, blocks=(str(error),))


def _declared(value: onnx.ValueInfoProto) -> InspectedValue:
    kind = value.type.WhichOneof("value")
    if kind != "tensor_type":
        return InspectedValue(value.name, (kind or "").removesuffix("_type"), (), "", False)
    tensor = value.type.tensor_type
    dims = tuple(d.dim_value if d.HasField("dim_value") else d.dim_param or "?" for d in tensor.shape.dim)
    dtype = ir.DataType(tensor.elem_type).name.lower()
    return InspectedValue(value.name, dtype, dims, "", False)


# ---- the command


class Attempts:
    """Exports that are tried, all but their check.

    Attributes:
        planned: the plan of the one that worked; None before, and where none did.
        named: its options that the caller did not say.
    """

    def __init__(self, read: Loaded, options: InspectOptions, file: str) -> None:
        self._read, self._options, self._file = read, options, file
        self.planned: Plan | None = None
        self.named: dict[str, Any] = {}

    def first_that_works(self, meanings: Sequence[Meaning]) -> tuple[str, list[str]]:
        """The command that exports, "" where none does; and why the plain one does not, nothing where it does."""
        why = self._fails({})
        if why is None:
            return self._command({}), []
        for options in islice(self._other_outputs(meanings), MOST):
            if self._fails(options) is None:
                return self._command(options), [str(why)]
        return "", [str(why)]

    def _fails(self, options: Mapping[str, Any]) -> FastcamError | None:
        """Why an export with these options fails; None where it works."""
        read = replace(self._read, model=self._read.model.clone())
        try:
            with as_fastcam_error(read.proto, "exported"):
                planned = plan(read, ExportOptions(**{**self._options.of_export, **options}))
                attach_or_say(planned)
                about = planned.target.cotangents, planned.metadata.inputs, planned.size.sides
                source_runs.Source(read.proto, read.model, planned.image, *about).first()
        except FastcamError as error:
            return error
        self.planned = planned
        self.named = dict(options)
        return None

    def _other_outputs(self, meanings: Sequence[Meaning]) -> Iterator[dict[str, Any]]:
        """Each output that may be class scores, then the numbers of each of floats."""
        if self._options.output_name is not None:
            return
        for one in meanings:
            if one.kind in ("scores", "one score") or (one.kind == "map" and one.decided):
                yield {"output_name": one.output}
        for one in meanings:
            if one.value.dtype in FLOATS and not one.decided:
                yield {"output_name": one.output, "targets": "cotangent"}

    def _command(self, options: Mapping[str, Any]) -> str:
        said = {
            name: value
            for name, value in self._options.of_export.items()
            if value not in ("logit", "onnxruntime", "default")
        }
        flags = {"input_name": "--input", "output_name": "--output-name", "for_engine": "--for-engine"}
        words = [
            f"{flags.get(name, f'--{name}')} {shlex.quote(str(value))}" for name, value in {**said, **options}.items()
        ]
        return " ".join(["fastcam export", shlex.quote(self._file), *words])
