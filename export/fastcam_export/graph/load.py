"""Reads a model: path, bytes or ModelProto -> a checked, shape-inferred graph in one opset form."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

import onnx
import onnx_ir as ir
from google.protobuf.message import DecodeError, EncodeError
from onnx import version_converter
from onnx_ir.passes import common as common_passes

from fastcam.errors import FastcamError, listed, shown, typed
from fastcam.input_files import read_bytes
from fastcam.schema import METADATA_KEY
from fastcam_export.graph import weights as weights_apart
from fastcam_export.graph.constants import is_constant
from fastcam_export.graph.query import is_added, known_dims
from fastcam_export.graph.reading import legacy
from fastcam_export.graph.reading.batch_axis import with_batch_axis
from fastcam_export.graph.reading.control_flow import settle
from fastcam_export.graph.reading.extensions import without_extensions
from fastcam_export.graph.reading.repair import DEFAULT, newest_opset, repair
from fastcam_export.graph.reading.set_aside import Aside, mark, mark_suppressed, take
from fastcam_export.graph.reading.soundness import refuse_unsound
from fastcam_export.graph.shape_inference import infer_types

Source = str | Path | bytes | onnx.ModelProto

OLDEST, FORM = 7, 18
"""Opsets below OLDEST are refused; those below FORM are converted to FORM, so that rules know one form only."""
LARGE = 4096
"""Bytes above which a weight stays out of what is handed to ONNX's C++ tools; none of them needs its content."""


@dataclass(frozen=True)
class Loaded:
    """A source model, read.

    Attributes:
        proto: as it was given, but for what was repaired; large weights may lie apart.
        model: the same graph in opset form, shapes inferred.
        file: base name of the file ("" if there was none).
        sha256: digest of the file's bytes.
        opset: opset of the default domain in the source.
        repairs: what was repaired or rewritten to read it, in a few words each.
        folder: where the file lies; None if there was none.
        files: all that was read: the file, and those of its external data.
        aside: outputs that are no tensors, with the nodes that make them, which ``model`` lacks; None: there are none.
    """

    proto: onnx.ModelProto
    model: ir.Model
    file: str
    sha256: str
    opset: int
    repairs: tuple[str, ...] = ()
    folder: Path | None = None
    files: tuple[Path, ...] = ()
    aside: Aside | None = None


def load(source: Source, room: Path | None = None, move: bool = True) -> Loaded:
    """Read ``source`` and bring it into the form that the rest of the exporter works on.

    Args:
        source: path, bytes or ModelProto.
        room: a folder for its large weights, see :mod:`fastcam_export.graph.weights`; None: all go into the graph.
        move: whether weights that lie in the model itself go there; else only those that lie beside it stay apart.

    Raises:
        FastcamError: not ONNX, truncated, external data missing, opset too old or not convertible, already exported,
            or in training mode.
    """
    proto, file, digest, files = _read(source, room)
    if room is not None and move:
        proto = weights_apart.put_aside(proto, room)
    opset = _opset(proto, file)
    if any(entry.key == METADATA_KEY for entry in proto.metadata_props) or any(
        is_added(value) for value in (*proto.graph.input, *proto.graph.output)
    ):
        raise FastcamError(f"{file or 'the model'} was already exported by FastCAM; export the original model instead")
    _refuse_optimised(proto, file)
    proto, cut = without_extensions(proto)
    proto, batched = with_batch_axis(proto)
    skeleton, weights = _strip(proto)
    skeleton, repairs = repair(skeleton)
    if repairs:
        repaired = onnx.ModelProto()
        repaired.CopyFrom(skeleton)
        proto = _restore(repaired, weights, 3)
    legacy.put_aside(skeleton, opset)
    aside = take(skeleton)
    _check(skeleton, file)
    skeleton = _convert(_inline(skeleton, file), opset, file)
    legacy.resize_as_it_was(skeleton, opset)
    repairs += legacy.said(legacy.put_back(skeleton)) + cut + batched
    try:
        skeleton = settle(infer_types(skeleton))
    except onnx.shape_inference.InferenceError as error:
        raise FastcamError(f"{file or 'the model'} has contradictory shapes: {_one_line(error)}") from error
    model = ir.from_proto(_restore(skeleton, weights))
    mark(model, aside)
    mark_suppressed(model)
    _refuse_training(model)
    _refuse_wrong_turns(model, file)
    folder = Path(source).absolute().parent if isinstance(source, str | Path) else None
    return Loaded(proto, model, file, digest, opset, tuple(repairs), folder, files, aside)


def _read(source: Source, room: Path | None) -> tuple[onnx.ModelProto, str, str, tuple[Path, ...]]:
    if isinstance(source, onnx.ModelProto):
        try:
            refuse_unsound(source, "the model")
            return source, "", hashlib.sha256(source.SerializeToString()).hexdigest(), ()
        except EncodeError as error:
            raise FastcamError("the model is larger than 2 GB; save it with external data and give its path") from error
    typed("model", source, str | os.PathLike | bytes, "the path of an ONNX file, its bytes, or an onnx.ModelProto")
    file, folder, files = "", None, list[Path]()
    if isinstance(source, bytes):
        data = source
    else:
        path = Path(source)
        file, folder = path.name, path.parent
        files.append(path)
        data = read_bytes(path, "give an ONNX file")
    proto = _parse(data, file)
    refuse_unsound(proto, file or "the model")
    files += _take_external_data(proto, file, folder, room is not None)
    return proto, file, hashlib.sha256(data).hexdigest(), tuple(files)


def _parse(data: bytes, file: str) -> onnx.ModelProto:
    name = file or "the model"
    if data[4:8] == b"ORTM":
        raise FastcamError(
            f"{name} is in ONNX Runtime's own format, which nobody reads back; give the .onnx file of it"
        )
    proto = onnx.ModelProto()
    try:
        proto.ParseFromString(data)
    except DecodeError as error:
        raise FastcamError(f"{name} is not an ONNX model, or it is truncated; export or copy it again") from error
    if not proto.graph.node or not proto.graph.output:
        raise FastcamError(f"{name} is not an ONNX model (no graph in it); give the .onnx file of a trained model")
    return proto


def _take_external_data(proto: onnx.ModelProto, file: str, folder: Path | None, apart: bool) -> list[Path]:
    """Put weights of other files into ``proto``, or say where large ones lie (``apart``); those files."""
    outside = [tensor for tensor in proto.graph.initializer if tensor.data_location == onnx.TensorProto.EXTERNAL]
    if folder is None:
        if outside:
            raise FastcamError("the model keeps weights in another file; give its path instead of its bytes")
        return []
    places = {entry.value for tensor in outside for entry in tensor.external_data if entry.key == "location"}
    try:
        if apart:
            weights_apart.find(proto, folder)
        else:
            onnx.load_external_data_for_model(proto, str(folder))
    except (OSError, onnx.checker.ValidationError, ValueError) as error:
        raise FastcamError(
            f"{file} keeps weights in another file that cannot be read ({_one_line(error)}); "
            f"copy that file again and put it beside {file}"
        ) from error
    return [folder / place for place in sorted(places)]


def _check(skeleton: onnx.ModelProto, file: str) -> None:
    """Raise where onnx finds no valid graph. It wants a shape of every output, which runtimes do not."""
    tensors = [value.type.tensor_type for value in skeleton.graph.output if value.type.HasField("tensor_type")]
    without = [tensor for tensor in tensors if not tensor.HasField("shape")]
    for tensor in without:
        tensor.shape.SetInParent()
    try:
        onnx.checker.check_model(skeleton)
    except onnx.checker.ValidationError as error:
        raise FastcamError(
            f"{file or 'the model'} is not a valid ONNX graph ({_one_line(error)}); export it again"
        ) from error
    for tensor in without:
        tensor.ClearField("shape")


def _opset(proto: onnx.ModelProto, file: str) -> int:
    versions = [entry.version for entry in proto.opset_import if entry.domain in DEFAULT]
    if not versions and any(node.domain in DEFAULT for node in proto.graph.node):
        versions = [newest_opset(proto.ir_version)]
    newest = onnx.defs.onnx_opset_version()
    name = file or "the model"
    if not versions:
        raise FastcamError(f"{name} uses no operator of the standard ONNX domain; there is nothing to differentiate")
    if versions[0] < OLDEST:
        raise FastcamError(f"{name} has opset {versions[0]}; the oldest that can be read is {OLDEST}: convert it first")
    if versions[0] > newest:
        raise FastcamError(f"{name} has opset {versions[0]}; the installed onnx knows {newest}: pip install -U onnx")
    return int(versions[0])


def _strip(proto: onnx.ModelProto) -> tuple[onnx.ModelProto, dict[str, onnx.TensorProto]]:
    """A copy without large weights, which become inputs, and all the weights by name."""
    weights = {tensor.name: tensor for tensor in proto.graph.initializer}
    skeleton = onnx.ModelProto()
    skeleton.CopyFrom(weights_apart.without_weights(proto))
    inputs = {value.name for value in skeleton.graph.input}
    for name, tensor in weights.items():
        if _nbytes(tensor) <= LARGE:
            skeleton.graph.initializer.append(tensor)
        if name not in inputs and (_nbytes(tensor) > LARGE or skeleton.ir_version < 4):
            value = onnx.helper.make_tensor_value_info(name, tensor.data_type, list(tensor.dims))
            skeleton.graph.input.append(value)
    return skeleton, weights


def _nbytes(tensor: onnx.TensorProto) -> int:
    count = 1
    for dim in tensor.dims:
        count *= dim
    return count * 4


def _inline(skeleton: onnx.ModelProto, file: str) -> onnx.ModelProto:
    """The model with the bodies of its own functions in place of the nodes that call them, which name their scopes."""
    if not skeleton.functions:
        return skeleton
    domains = {function.domain for function in skeleton.functions}
    try:
        result = common_passes.InlinePass()(ir.from_proto(skeleton))
    except (ValueError, ir.passes.PassError) as error:
        raise FastcamError(
            f"{file or 'the model'} has functions that cannot be inlined ({_one_line(error.__cause__ or error)}); "
            "inline them with onnx.inliner first"
        ) from error
    for domain in domains - {"", *(node.domain for node in result.model.graph.all_nodes())}:
        result.model.graph.opset_imports.pop(domain, None)
    return ir.to_proto(result.model)


def _convert(skeleton: onnx.ModelProto, opset: int, file: str) -> onnx.ModelProto:
    if opset >= FORM:
        return skeleton
    try:
        return version_converter.convert_version(skeleton, FORM)
    except Exception as error:  # the converter's C++ core raises bare RuntimeErrors of many kinds
        raise FastcamError(
            f"{file or 'the model'} cannot be converted from opset {opset} to {FORM} ({_one_line(error)}); "
            f"export it from its framework with opset {FORM} or later"
        ) from error


def _restore(skeleton: onnx.ModelProto, weights: dict[str, onnx.TensorProto], ir_version: int = 8) -> onnx.ModelProto:
    """Put the weights back; a weight that was listed among the inputs (as old exporters do) is a constant from here."""
    graph = skeleton.graph
    inputs = [value for value in graph.input if value.name not in weights]
    added = [tensor for tensor in graph.initializer if tensor.name not in weights]  # by the version converter
    del graph.input[:], graph.initializer[:]
    graph.input.extend(inputs)
    graph.initializer.extend([*weights.values(), *added])
    skeleton.ir_version = max(skeleton.ir_version, ir_version)
    return skeleton


def _refuse_optimised(proto: onnx.ModelProto, file: str) -> None:
    """Convolutions in one processor's memory layout, which ONNX Runtime's optimiser writes and nobody else reads."""
    node = next((node for node in proto.graph.node if node.domain == "com.microsoft.nchwc"), None)
    if node is not None:
        raise FastcamError(
            f"{file or 'the model'} was optimised by ONNX Runtime for one processor ({node.domain}.{node.op_type}); "
            "give the file from before that optimisation"
        )


def _refuse_wrong_turns(model: ir.Model, file: str) -> None:
    """Transposes of another number of axes than their input has, which ONNX's inference lets pass."""
    for node in model.graph.all_nodes():
        x = node.inputs[0] if node.inputs else None
        perm, dims = list(node.attributes.get_ints("perm", ())), known_dims(x) if x is not None else None
        if node.op_type == "Transpose" and perm and dims is not None and sorted(perm) != list(range(len(dims))):
            raise FastcamError(
                f"{file or 'the model'} has Transpose {shown(node.name or '')!r} with perm [{listed(perm)}], and its "
                f"input has {len(dims)} axes; export it again"
            )


def _refuse_training(model: ir.Model) -> None:
    for node in model.graph:
        training = node.op_type == "BatchNormalization" and node.attributes.get_int("training_mode", 0) != 0
        if node.op_type == "Dropout" and len(node.inputs) > 2 and node.inputs[2] is not None:
            flag = ir.convenience.get_const_tensor(node.inputs[2])
            training = flag is None or bool(flag.numpy())
        if training and not is_constant(node.inputs[0]):  # weights are also standardised by such nodes
            raise FastcamError(f"{node.op_type} {node.name!r} is in training mode; export the model in inference mode")


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200]
