"""The part of a model behind the target layer as a file of its own: activations in, the explained scores out.

What a method asks that changes the layer (Ablation-CAM, Recipro-CAM) is then a run of this part alone.

It is a copy of the model in which the layer is made of ``fastcam.activations``, whatever layout it has. What else of
the image its nodes read (a residual stream beside the layer's norm, a shortcut, sizes) becomes an input
``fastcam.kept.I`` with the axis of images in front; the tokens of a sequence that are no position are
``fastcam.tokens``. The model emits these, and a head of M changed activations takes the image's own M times. The number
of images, where a graph computes it from the image, is read off the activations. Model and head carry one digest; the
run time refuses another's.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
from onnx_ir.passes import common as common_passes

from fastcam import schema
from fastcam.schema import FastcamError, Head, Metadata
from fastcam_export.autodiff.core.builder import HALF, Builder
from fastcam_export.autodiff.core.shapes import product, reshape_to, sizes
from fastcam_export.autodiff.core.straight_through import unquantised
from fastcam_export.graph.query import dependents, dims_of, is_added, reads
from fastcam_export.graph.save import stamp
from fastcam_export.layers.layout import MAP_ORDER, Layout
from fastcam_export.outputs.cam import FLOAT, per_class
from fastcam_export.verify.equal_outputs import difference, output_tolerance
from fastcam_export.verify.sample import predicted_class
from fastcam_export.verify.session import quiet_session

Array = npt.NDArray[Any]
END = 1 << 62


def refuse(emit: str, cotangents: bool) -> None:
    """Raise where an export can have no head."""
    if emit == "cam":
        raise FastcamError("a head takes activations, which --emit cam leaves out; use --emit weights, or gradients")
    if cotangents:
        raise FastcamError("a head gives class scores, and there are none with --targets cotangent; leave --head out")


@dataclass(frozen=True)
class Kept:
    """A value that also leads to the score, by another way than the layer: it stays as the image's own pass made it.

    Attributes:
        name: of the export's output and the head's input, which have the axis of images first.
        value: in the model.
        axis: its axis of images; None of sizes, which are the same for all.
    """

    name: str
    value: str
    axis: int | None


@dataclass(frozen=True)
class ClassifierHead:
    """The part of a model behind a layer.

    Attributes:
        model: :data:`fastcam.schema.ACTIVATIONS` and what is kept in, :data:`fastcam.schema.SCORES` out.
        kept: other ways to the score.
        layer, layout: the target layer.
    """

    model: onnx.ModelProto
    kept: tuple[Kept, ...]
    layer: ir.Value
    layout: Layout

    @property
    def names(self) -> tuple[str, ...]:
        """What it takes beside the activations."""
        return (*((schema.TOKENS,) if has_tokens(self.layout) else ()), *(one.name for one in self.kept))

    def emitted(self, op: Builder) -> dict[str, ir.Value]:
        """What the export has to emit for it."""
        values = {value.name: value for node in op.graph for value in node.outputs}
        made = {schema.TOKENS: _tokens(op, self.layer, self.layout)} if has_tokens(self.layout) else {}
        for one in self.kept:
            value = values[one.value]
            if one.axis is None:
                images = op.shape(self.layer, *(self.layout.order.index("N") + i for i in (0, 1)))
                made[one.name] = op.Expand(op.Unsqueeze(value, [0]), op.concat([images, [1] * op.rank(value)]))
                continue
            first = _moved(op, value, one.axis, 0)
            wide = value.dtype in HALF
            made[one.name] = op.Cast(first, to=FLOAT) if wide else op.Identity(first)
        return made


def has_tokens(layout: Layout) -> bool:
    """Whether some of a sequence stands for no position."""
    return "L" in layout.order and (layout.prefix > 0 or layout.suffix != 0)


def _tokens(op: Builder, layer: ir.Value, layout: Layout) -> ir.Value:
    """float32 [N, P, K]: what stands for no position, first what is in front of them."""
    order, rest = layout.order, []
    axis = order.index("L")
    if layout.prefix:
        rest.append(op.Slice(layer, [0], [layout.prefix], [axis]))
    if layout.suffix != 0:
        area = product(op, layout.sides(op))
        first: Any = [layout.prefix + area] if isinstance(area, int) else op.Add(area, layout.prefix)
        rest.append(op.Slice(layer, first, [END], [axis]))
    joined = rest[0] if len(rest) == 1 else op.Concat(*rest, axis=axis)
    return op.Cast(op.Transpose(joined, perm=[order.index(letter) for letter in "NLC"]), to=FLOAT)


def _moved(op: Builder, value: ir.Value, axis: int, to: int) -> ir.Value:
    """One axis of a value in another place."""
    if axis == to:
        return value
    order = [i for i in range(op.rank(value)) if i != axis]
    return op.Transpose(value, perm=[*order[:to], axis, *order[to:]])


def head(model: ir.Model, layer: ir.Value, layout: Layout, score: ir.Value) -> ClassifierHead:
    """The nodes of ``model`` behind ``layer``, with :data:`fastcam.schema.ACTIVATIONS` in the layer's place.

    Args:
        model: as it was loaded; it stays as it is.
        layout: how the layer's positions lie.
        score: the explained score, before its own quantisation.

    Raises:
        FastcamError: what leads to the score by another way has no axis of images.
    """
    part = model.clone()
    graph = part.graph
    values = {value.name: value for value in (*graph.inputs, *(y for node in graph for y in node.outputs))}
    cut, explained = values[layer.name], values[unquantised(score).name]
    images = [value for value in graph.inputs if value.name not in graph.initializers]
    op = Builder(graph)
    batch = cut.shape[layout.order.index("N")] if cut.shape is not None else None
    inputs = [_input(schema.ACTIVATIONS, [batch, *_sides(cut, layout)])]
    if has_tokens(layout):
        inputs.append(_input(schema.TOKENS, [batch, None, cut.shape[layout.channels]]))  # type: ignore[index]
    graph.outputs.clear()  # the layer may be one of them
    ir.convenience.replace_all_uses_with(cut, _laid_out(op, inputs[0], inputs[-1], cut, layout))
    scores = per_class(op, explained)
    scores = op.Cast(scores, to=FLOAT) if scores.dtype != ir.DataType.FLOAT else op.Identity(scores)
    scores.name = schema.SCORES
    graph.outputs.append(scores)
    graph.inputs.extend(inputs)
    _tidy(part)
    _measure(op, graph, inputs, images)
    _tidy(part)
    kept = _keep(op, graph, inputs, images, layer)
    graph.inputs.extend(kept.values())
    _tidy(part)
    own = [value for value in graph.inputs if value.name in graph.initializers]
    del graph.inputs[:]
    graph.inputs.extend([*inputs, *kept.values(), *own])
    part.producer_name, part.producer_version = "fastcam", schema.__version__
    return ClassifierHead(ir.to_proto(part), tuple(kept), layer, layout)


def _tidy(part: ir.Model) -> None:
    part.graph.sort()
    common_passes.RemoveUnusedNodesPass()(part)


def _input(name: str, dims: Any, dtype: ir.DataType = ir.DataType.FLOAT) -> ir.Value:
    return ir.Value(name=name, type=ir.TensorType(dtype), shape=ir.Shape(dims))


def _sides(layer: ir.Value, layout: Layout) -> list[Any]:
    """K and the grid, of the layer's maps."""
    assert layer.shape is not None
    sides: list[Any]
    if "L" in layout.order:
        sides = [side if side is not None else f"side_{i}" for i, side in enumerate(layout.grid)]
    else:
        sides = [layer.shape[layout.order.index(letter)] for letter in MAP_ORDER[len(layout.order)][2:]]
    return [layer.shape[layout.channels], *sides]


def _laid_out(op: Builder, activations: ir.Value, rest: ir.Value, layer: ir.Value, layout: Layout) -> ir.Value:
    """The layer's value again, of its maps and tokens."""
    order, made = layout.order, activations
    if "L" in order:
        n, k, *grid = sizes(op, activations)
        lie = op.Transpose(activations, perm=[0, 1, 3, 4, 2]) if layout.time_last else activations
        made = op.Transpose(reshape_to(op, lie, [n, k, product(op, grid)]), perm=[0, 2, 1])
        made = _joined(op, made, rest, layout) if has_tokens(layout) else made
        made = op.Transpose(made, perm=["NLC".index(letter) for letter in order])
    elif order not in ("NCHW", "NCTHW"):
        made = op.Transpose(activations, perm=[MAP_ORDER[len(order)].index(letter) for letter in order])
    assert layer.dtype is not None
    made = op.Cast(made, to=int(layer.dtype)) if layer.dtype != ir.DataType.FLOAT else op.Identity(made)
    made.shape = layer.shape
    return made


def _joined(op: Builder, rows: ir.Value, rest: ir.Value, layout: Layout) -> ir.Value:
    """The positions [N, L, K] between the tokens in front of them and those behind."""
    if layout.suffix == 0:
        return op.Concat(rest, rows, axis=1)
    behind = op.Slice(rest, [layout.prefix], [END], [1])
    if not layout.prefix:
        return op.Concat(rows, behind, axis=1)
    return op.Concat(op.Slice(rest, [0], [layout.prefix], [1]), rows, behind, axis=1)


def _measure(op: Builder, graph: ir.Graph, inputs: Sequence[ir.Value], images: Sequence[ir.Value]) -> None:
    """Read the number of images, which is another here, off the activations where it was read in front of the layer."""
    reached, from_image, batches = dependents(graph, inputs), dependents(graph, images), _batches(inputs, images)
    for node in list(graph):
        value = node.inputs[0] if node.op_type == "Shape" and not node.domain else None
        if value is None or value in reached or value not in from_image or value.shape is None:
            continue
        each = [
            op.shape(inputs[0], 0, 1)
            if str(dim) in batches
            else [dim]
            if isinstance(dim, int)
            else _size(op, value, axis)
            for axis, dim in enumerate(dims_of(value))
        ]
        start, end = node.attributes.get("start"), node.attributes.get("end")
        part = slice(start.as_int() if start is not None else 0, end.as_int() if end is not None else None)
        ir.convenience.replace_all_uses_with(node.outputs[0], op.concat(each[part]))


def _size(op: Builder, value: ir.Value, axis: int) -> ir.Value:
    return op.Shape(value, start=axis, end=axis + 1)


def _batches(inputs: Sequence[ir.Value], images: Sequence[ir.Value]) -> set[str]:
    """What the number of images is called, where it is free."""
    first = (dims_of(value)[0] for value in (*inputs[:1], *images) if value.shape)
    return {dim for dim in first if isinstance(dim, str)}


def _keep(
    op: Builder, graph: ir.Graph, inputs: Sequence[ir.Value], images: Sequence[ir.Value], layer: ir.Value
) -> dict[Kept, ir.Value]:
    """Make inputs of what leads from the image to the score by another way than the layer."""
    reached, from_image, batches = dependents(graph, inputs), dependents(graph, images), _batches(inputs, images)
    wanted = dict.fromkeys(
        value
        for node in graph
        if any(output in reached for output in node.outputs)
        for value in reads(node)
        if value in from_image and value not in reached
    )
    made: dict[Kept, ir.Value] = {}
    for i, value in enumerate(wanted):
        axis = _axis(value, batches, layer)
        dims, name = dims_of(value), f"{schema.KEPT}{i}"
        batch = dims_of(inputs[0])[0]
        assert value.dtype is not None
        dtype = ir.DataType.FLOAT if value.dtype in HALF else value.dtype
        first = [batch, *dims] if axis is None else [batch, *dims[:axis], *dims[axis + 1 :]]
        given = _input(name, first, dtype)
        if axis is None:
            inner = op.Squeeze(op.Slice(given, [0], [1], [0]), [0])
        else:
            inner = _moved(op, given, 0, axis)
            inner = op.Cast(inner, to=int(value.dtype)) if dtype != value.dtype else op.Identity(inner)
        ir.convenience.replace_all_uses_with(value, inner)
        made[Kept(name, value.name or "", axis)] = given
    return made


def _axis(value: ir.Value, batches: set[str], layer: ir.Value) -> int | None:
    """The axis of images of a value; None of sizes."""
    dims = dims_of(value)
    found = [axis for axis, dim in enumerate(dims) if str(dim) in batches]
    if len(found) == 1:
        return found[0]
    if not found and value.dtype == ir.DataType.INT64 and value.shape is not None:
        return None
    if not batches and dims and dims[0] == 1:
        return 0
    raise FastcamError(
        f"the score also hangs on {value.name!r} {list(dims)}, which does not pass through layer {layer.name!r} and "
        "has no axis of images by which it could be kept; name another layer (fastcam inspect), or leave --head out"
    )


def check(exported: onnx.ModelProto, part: onnx.ModelProto, score: str, feeds: Mapping[str, Array]) -> dict[str, float]:
    """Compare the head of the activations with the scores of the same run, and of more rows than images ran.

    Args:
        exported: the export, in one file, that takes ``feeds``.
        part: the head.
        score: name of the explained score in ``exported``.
        feeds: inputs of the source model.

    Raises:
        FastcamError: they differ, or the head takes another number of rows only.
    """
    probe = onnx.ModelProto()
    probe.CopyFrom(exported)
    if score not in {value.name for value in probe.graph.output}:
        probe.graph.output.append(onnx.ValueInfoProto(name=score))
    names = [value.name for value in part.graph.input if is_added(value)]
    run = quiet_session(probe).run([*names, score], {**feeds, **predicted_class(exported)})
    *values, expected = run
    fixed = not part.graph.input[0].type.tensor_type.shape.dim[0].dim_param
    order = np.arange(len(values[0])) if fixed else np.arange(2 * len(values[0]) + 1) % len(values[0])
    expected = expected.astype(np.float64)[order]
    expected = expected.reshape(*expected.shape[:2], -1).sum(2)
    try:
        rows = {name: value[order] for name, value in zip(names, values)}
        (scores,) = quiet_session(part).run([schema.SCORES], rows)
    except Exception as error:  # onnxruntime's exceptions have no common base but Exception
        raise FastcamError(
            f"the check failed: what lies behind the layer does not run alone ({' '.join(str(error).split())[:160]}); "
            "leave --head out, or name another layer"
        ) from error
    _, worst = difference([expected], [scores.astype(np.float64)])
    if worst > output_tolerance(exported):
        raise FastcamError(
            f"the check failed: the scores of the head differ from the model's by {worst:.1e} of the largest value; "
            "leave --head out, or name another layer, and please report the model"
        )
    return {"head_difference": worst}


def summary_lines(check: Mapping[str, Any]) -> list[str]:
    """What the summary of an export says of it."""
    if "head_difference" not in check:
        return []
    same = "exactly" if not check["head_difference"] else f"within {check['head_difference']:.1e}"
    return [f"        the head of the activations gives the model's scores {same}"]


def with_head(part: ClassifierHead, metadata: Metadata) -> Metadata:
    """The metadata of the model that has this head, as long as nothing is written."""
    said = [metadata.to_json().encode(), part.model.SerializeToString(deterministic=True)]
    return replace(metadata, head=Head("model", "", part.names, hashlib.sha256(b"\0".join(said)).hexdigest()))


def head_path(output: Path) -> Path:
    """Where it lies: ``x.cam.head.onnx`` beside ``x.cam.onnx``."""
    return output.with_name(f"{output.stem}.head.onnx")


def named(part: onnx.ModelProto, metadata: Metadata, output: Path | None) -> Metadata:
    """Stamp the head; the metadata of the model, which names it."""
    ours = metadata.head
    assert ours is not None
    stamp(
        part,
        replace(metadata, head=replace(ours, part="head", other=output.name if output is not None else ""), pair=None),
    )
    return replace(metadata, head=replace(ours, other=head_path(output).name if output is not None else ""))
