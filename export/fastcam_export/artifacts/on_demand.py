"""Explain on demand: an exported model as two, the forward part and the explanation part.

The forward part is the source with more outputs, so that a frame nobody asks about costs a plain forward pass. The
explanation part takes these outputs under the same names, and ``fastcam.targets``, and gives what the one file gives.

What follows from constants alone is computed in both. Of a value of which only the shape is read the forward part says
the shape, and float16 copies stay where they are read. Constants of 16 KiB and more that both parts hold lie once in a
third file, named after its content, so that no part reads another export's. Both parts carry one digest
(:class:`fastcam.schema.Pair`), and ``Explainer`` refuses two that do not fit.

One file with an If around the explanation was measured beside it (``python -m fastcam_bench.speed.on_demand``): it
costs as little when nobody asks, but asked later it runs the model again, and OpenVINO 2026.4 refuses that file.

The parts are not cut by :func:`onnx_ir.convenience.extract`: it takes the same nodes, but puts constants in the order
of a set, and writes the type of each value, by which the explanation part of a small transformer grows by 42 %.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy.typing as npt
import onnx
from onnx import numpy_helper

from fastcam import schema
from fastcam.schema import FastcamError, Metadata, Pair
from fastcam_export.graph.constants import RANDOM
from fastcam_export.graph.query import is_added
from fastcam_export.verify import stop_gradient
from fastcam_export.verify.equal_outputs import difference, output_tolerance
from fastcam_export.verify.session import quiet_session
from fastcam_export.verify.source_runs import SourceRun

Array = npt.NDArray[Any]
SHARED = 1 << 14
"""Bytes from which a constant that both parts need is stored once, in a file of its own."""
PAGE = 4096
"""Where a constant may begin in that file, so that it can be mapped into memory."""


@dataclass(frozen=True)
class Parts:
    """The two models.

    Attributes:
        forward: the source's nodes; the source's outputs, and behind them the extra ones.
        explanation: the added nodes. Inputs are values of the forward part (outputs, own or extra, or inputs) under the
            names that they have there, and ``fastcam.targets``; outputs are the contract's.
        extra: names of the forward part's outputs that are there for the explanation part alone.
    """

    forward: onnx.ModelProto
    explanation: onnx.ModelProto
    extra: tuple[str, ...]


def split(whole: onnx.ModelProto) -> Parts:
    """Cut an exported model where the added nodes read the model's own.

    What the explanation reads of the model is carried; constants, and what follows from constants alone, are in both
    parts; of values of which only the shape is read, the forward part says the shape.

    Raises:
        FastcamError: the type of a value between the parts is not known.
    """
    graph = whole.graph
    constant = _constants(graph)
    forward = [node for node in graph.node if not is_added(node)]
    asked = {value.name for value in graph.input if is_added(value)}
    known = {value.name for value in graph.input} - asked | {name for node in forward for name in node.output}
    known -= constant
    after = []
    for node in graph.node:
        if is_added(node) and _belongs_forward(node, known):
            forward.append(node)
            known.update(node.output)
        elif is_added(node):
            after.append(node)
    read = dict.fromkeys(name for node in after for name in _reads(node))
    carried = [name for name in read if name in known]
    explanation = _explanation(whole, after, carried, set(read) & constant)
    there = {value.name for value in (*graph.input, *graph.output)}
    extra = [name for name in carried if name not in there]
    return Parts(_forward(whole, forward, extra), explanation, tuple(extra))


def _belongs_forward(node: onnx.NodeProto, values: set[str]) -> bool:
    """Whether an added node reads one value of the model, costs nothing, and is all that need be carried of it.

    The copies that keep ONNX Runtime's float16 roundings (:mod:`fastcam_export.graph.float16`) also stay where they are
    read.
    """
    aside = node.output[0].startswith(f"{schema.PREFIX}aside.")
    return len(node.input) == 1 and node.input[0] in values and (aside or node.op_type in ("Shape", "Size"))


def _reads(node: onnx.NodeProto) -> Iterator[str]:
    """Names that a node reads, those that its bodies read from outside included."""
    yield from filter(None, node.input)
    for attribute in node.attribute:
        for body in (attribute.g, *attribute.graphs):
            own = {value.name for value in (*body.input, *body.initializer)}
            own |= {name for inner in body.node for name in inner.output}
            names = [name for inner in body.node for name in _reads(inner)] + [value.name for value in body.output]
            yield from (name for name in names if name not in own)


def _constants(graph: onnx.GraphProto) -> set[str]:
    """Initializers, but for defaults of inputs, and the model's values that follow from them alone."""
    found = {tensor.name for tensor in graph.initializer} - {value.name for value in graph.input}
    for node in graph.node:
        if not is_added(node) and node.op_type not in RANDOM and found.issuperset(_reads(node)):
            found.update(node.output)
    return found


def _forward(whole: onnx.ModelProto, nodes: list[onnx.NodeProto], extra: list[str]) -> onnx.ModelProto:
    part = _shell(whole, nodes)
    graph = part.graph
    graph.input.extend(value for value in whole.graph.input if not is_added(value))
    graph.output.extend(value for value in whole.graph.output if not is_added(value))
    graph.output.extend(_described(whole.graph, extra))
    part.metadata_props.extend(whole.metadata_props)
    graph.initializer.extend(t for t in whole.graph.initializer if not is_added(t))
    return part


def _explanation(
    whole: onnx.ModelProto, after: list[onnx.NodeProto], carried: list[str], constants: set[str]
) -> onnx.ModelProto:
    again, needed = [], set(constants)
    for node in reversed(whole.graph.node):
        if not is_added(node) and needed.intersection(node.output):
            again.append(node)
            needed.update(_reads(node))
    part = _shell(whole, [*again[::-1], *after])
    graph = part.graph
    graph.input.extend(_described(whole.graph, carried))
    asked = [value for value in whole.graph.input if is_added(value)]
    graph.input.extend(asked)
    graph.output.extend(value for value in whole.graph.output if is_added(value))
    needed.update(value.name for value in asked)
    graph.initializer.extend(tensor for tensor in whole.graph.initializer if tensor.name in needed)
    return part


def _shell(whole: onnx.ModelProto, nodes: Iterable[onnx.NodeProto]) -> onnx.ModelProto:
    part = onnx.ModelProto(
        ir_version=whole.ir_version,
        producer_name=whole.producer_name,
        producer_version=whole.producer_version,
        opset_import=whole.opset_import,
        functions=whole.functions,
    )
    part.graph.name = whole.graph.name
    part.graph.node.extend(nodes)
    return part


def _described(graph: onnx.GraphProto, names: Iterable[str]) -> Iterator[onnx.ValueInfoProto]:
    """The types of values."""
    found = {value.name: value for value in (*graph.value_info, *graph.input, *graph.output)}
    for name in names:
        if name not in found or found[name].type.WhichOneof("value") is None:
            raise FastcamError(f"the type of {name!r}, which the explanation reads, is not known; export one file")
        yield found[name]


def check(source: onnx.ModelProto, whole: onnx.ModelProto, parts: Parts, run: SourceRun) -> dict[str, bool | float]:
    """Run the pair; what is to be said of its outputs, under the names of :class:`fastcam_export.verify.check.Check`.

    The forward part must give what the source gives, and the explanation part, of that, what the one file gives, whose
    gradient :mod:`fastcam_export.verify.check` has compared with central differences.

    Args:
        source: the source model.
        whole: its export in one file.
        parts: its export in two.
        run: the source on the check's images.

    Raises:
        FastcamError: one of them gives something else.
    """
    sample, drawn = run.sample, list(run.sample.drawn)
    feeds = dict(sample.with_drawn)
    forward = quiet_session(stop_gradient.with_inputs(parts.forward, drawn))
    names = [value.name for value in forward.get_outputs()]
    values = {**feeds, **dict(zip(names, forward.run(None, feeds)))}
    del forward  # each may hold weights
    identical, worst = difference(list(run.outputs.values()), [values[name] for name in run.outputs])
    explanation = quiet_session(parts.explanation)
    taken = {value.name: values[value.name] for value in explanation.get_inputs() if value.name in values}
    targets = sample.targets(parts.explanation, values)
    added = [value.name for value in explanation.get_outputs()]
    in_parts = explanation.run(added, {**taken, **targets})
    del explanation
    in_one = quiet_session(stop_gradient.with_inputs(whole, drawn)).run(added, {**feeds, **targets})
    _, apart = difference(in_one, in_parts)
    if max(worst, apart) > output_tolerance(source):
        raise FastcamError(
            f"the check failed: in two files, outputs differ from the source's by {worst:.1e} and the explanation from "
            f"the one file's by {apart:.1e} of the largest value; export one file, and please report the model"
        )
    return {"bit_identical": identical, "output_difference": worst, "pair_difference": apart}


def paired(parts: Parts, metadata: Metadata) -> Metadata:
    """The forward part's metadata, as long as nothing is written."""
    explanation = parts.explanation.SerializeToString(deterministic=True)
    said = [metadata.to_json().encode(), explanation, *map(str.encode, parts.extra)]
    digest = hashlib.sha256(b"\0".join(said)).hexdigest()
    return replace(metadata, pair=Pair("forward", "", parts.extra, digest))


def explanation_path(output: Path) -> Path:
    """Where the explanation part lies: ``x.cam.explain.onnx`` beside ``x.cam.onnx``."""
    return output.with_name(f"{output.stem}.explain.onnx")


def files_to_write(parts: Mapping[Path, onnx.ModelProto], output: Path) -> dict[Path, bytes]:
    """What to write: the large constants that several parts hold, if there are any, and the parts, the last one last.

    The name of the first says what is in it, so that no part ever meets the constants of another export.
    """
    data, places = bytearray(), {}
    for key, content in _shared(list(parts.values())).items():
        data.extend(bytes(-len(data) % PAGE))
        places[key] = (len(data), len(content))
        data.extend(content)
    location = f"{output.stem}.{hashlib.sha256(data).hexdigest()[:8]}.data"
    files = {output.with_name(location): bytes(data)} if places else {}
    return files | {path: _outside(part, places, location).SerializeToString() for path, part in parts.items()}


Key = tuple[str, int, tuple[int, ...], bytes]
"""Of a constant: name, type, dimensions and the digest of its bytes."""


def _shared(parts: Sequence[onnx.ModelProto]) -> dict[Key, bytes]:
    """The large constants that several parts hold."""
    found: dict[Key, bytes] = {}
    held: Counter[Key] = Counter()
    for tensor in (tensor for part in parts for tensor in part.graph.initializer if tensor.ByteSize() >= SHARED):
        content = _bytes(tensor)
        key = _key(tensor, content)
        found[key] = content
        held[key] += 1
    return {key: content for key, content in found.items() if held[key] > 1}


def _bytes(tensor: onnx.TensorProto) -> bytes:
    return tensor.raw_data or numpy_helper.from_array(numpy_helper.to_array(tensor)).raw_data


def _key(tensor: onnx.TensorProto, content: bytes) -> Key:
    return tensor.name, tensor.data_type, tuple(tensor.dims), hashlib.sha256(content).digest()


def _outside(part: onnx.ModelProto, places: Mapping[Key, tuple[int, int]], location: str) -> onnx.ModelProto:
    """A copy with the constants at ``places`` (offset, length) in the file ``location``."""
    made = onnx.ModelProto()
    made.CopyFrom(part)
    del made.graph.initializer[:]
    for tensor in part.graph.initializer:
        place = places.get(_key(tensor, _bytes(tensor))) if tensor.ByteSize() >= SHARED else None
        if place is None:
            made.graph.initializer.append(tensor)
            continue
        outside = onnx.TensorProto(name=tensor.name, data_type=tensor.data_type, dims=tensor.dims)
        outside.data_location = onnx.TensorProto.EXTERNAL
        for key, value in zip(("location", "offset", "length"), (location, *place)):
            outside.external_data.add(key=key, value=str(value))
        made.graph.initializer.append(outside)
    return made
