"""Inputs of a model's tail that its gradient treats as constants, although they may depend on the layer.

Central differences must not move them either. They are the regions that RoiAlign pools from, whose derivative is
declared zero as in the detectors' own training; what the user stops; and what jumps: masks, indices and rounded
numbers, whose derivative is zero wherever there is one. A score that jumps at each of many thresholds (ArgMax, Greater,
NonMaxSuppression, Round) is smooth with them held, and a gradient that is wrong still differs. What is drawn at random
is held as it was drawn, and what leads around the layer as it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
from onnx_ir.passes import common as common_passes

from fastcam_export.autodiff.core.stopped import is_stopped
from fastcam_export.autodiff.core.straight_through import is_code
from fastcam_export.graph.constants import RANDOM
from fastcam_export.graph.query import dependents, in_default_domain, reads
from fastcam_export.verify.finite_differences import STOPPED
from fastcam_export.verify.session import quiet_session

Array = npt.NDArray[Any]
REGIONS = {"RoiAlign": (1, 2)}
"""Operator -> inputs: regions, and the images that they are of."""
STEPS = frozenset({"Ceil", "Floor", "Round", "Sign"})
"""Operators whose results are floats that jump."""


def cut(graph: ir.Graph, layer: ir.Value) -> None:
    """Make each such value an input of a model's tail, named after the value that it takes the place of.

    Args:
        graph: the tail's.
        layer: its input that the differences move.
    """
    for value in _jumping(graph, layer):
        ir.convenience.replace_all_uses_with(value, _fed_input(graph, value))
    for node in graph:
        for i in REGIONS.get(node.op_type, ()):
            regions = node.inputs[i]
            if regions is not None and regions.producer() is not None:
                node.replace_input_with(i, _fed_input(graph, regions))


def cut_around(graph: ir.Graph, layer: ir.Value) -> None:
    """The same for what the image leads to around the layer, where it meets what the layer leads to.

    Nothing in front is run again. A vision transformer's class token passes around the last normalisation, and with it
    all blocks would be the tail's.
    """
    behind = dependents(graph, [layer])
    given = [value for value in graph.inputs if value.name not in graph.initializers]
    moving = dependents(graph, given) - behind - {layer}
    read = (value for node in graph if any(output in behind for output in node.outputs) for value in reads(node))
    for value in [value for value in dict.fromkeys(read) if value in moving and _can_be_fed(value)]:
        ir.convenience.replace_all_uses_with(value, _fed_input(graph, value))


def _fed_input(graph: ir.Graph, value: ir.Value) -> ir.Value:
    """The input that takes the place of a value; there is one."""
    name = f"{STOPPED}{value.name}"
    known = next((each for each in graph.inputs if each.name == name), None)
    if known is None:
        known = ir.Value(name=name, type=value.type, shape=value.shape)
        graph.inputs.append(known)
    return known


def _jumping(graph: ir.Graph, layer: ir.Value) -> list[ir.Value]:
    """The first values on each way from the layer that jump or are stopped, and what is drawn at random."""
    reached, found = {layer}, []
    for node in graph:
        drawn = in_default_domain(node) and node.op_type in RANDOM
        if not drawn and (node.op_type in ("Shape", "Size") or not any(value in reached for value in reads(node))):
            continue
        for value in node.outputs:
            if value.dtype is None or value.is_graph_output():
                reached.add(value)
            elif (
                drawn
                or is_stopped(value)
                or node.op_type in STEPS
                or not (value.dtype.is_floating_point() or is_code(value))
            ):
                found.append(value)
            else:
                reached.add(value)
    return [value for value in found if value.uses()]


def _can_be_fed(value: ir.Value) -> bool:
    return value.producer() is not None and value.dtype is not None and isinstance(value.type, ir.TensorType)


def fed(model: ir.Model, tail: onnx.ModelProto, feeds: Mapping[str, Array]) -> dict[str, Array]:
    """``feeds`` of a model, others with them, and the constants of its ``tail``, as the model gives them for these.

    Args:
        model: as it was loaded.
        tail: the part of it behind a layer, see :func:`fastcam_export.verify.tail.tail`.
        feeds: inputs of the model.
    """
    stopped = [value.name for value in tail.graph.input if value.name.startswith(STOPPED) and value.name not in feeds]
    names = [name.removeprefix(STOPPED) for name in stopped]
    return {**feeds, **dict(zip(stopped, values(model, names, feeds)))}


def drawn(graph: ir.Graph) -> list[str]:
    """The names of what is drawn at random on the way to an output."""
    nodes = (node for node in graph if in_default_domain(node) and node.op_type in RANDOM)
    return [value.name or "" for node in nodes for value in node.outputs]


def values(model: ir.Model, names: Sequence[str], feeds: Mapping[str, Array]) -> list[Array]:
    """Values of a model by name, where it is fed these inputs; one that is fed itself is what was fed."""
    asked = [name for name in names if name not in feeds]
    if not asked:
        return [feeds[name] for name in names]
    part = model.clone()
    for node in part.graph:
        for value in node.outputs:
            if value.name in feeds:
                _feed(part.graph, value)
    known = {value.name: value for node in part.graph for value in node.outputs}
    part.graph.outputs.clear()
    part.graph.outputs.extend(known[name] for name in asked)
    common_passes.RemoveUnusedNodesPass()(part)
    session = quiet_session(ir.to_proto(part))
    taken = {value.name for value in session.get_inputs()}
    run = dict(zip(asked, session.run(asked, {name: array for name, array in feeds.items() if name in taken})))
    return [np.asarray(run[name]) if name in run else feeds[name] for name in names]


def _feed(graph: ir.Graph, value: ir.Value) -> None:
    """Make an input of a value, under its name."""
    given = ir.Value(name=value.name, type=value.type, shape=value.shape)
    value.name = f"{STOPPED}unused.{value.name}"
    ir.convenience.replace_all_uses_with(value, given, replace_graph_outputs=True)
    graph.inputs.append(given)


def with_inputs(model: onnx.ModelProto, names: Sequence[str], outputs: Sequence[str] = ()) -> onnx.ModelProto:
    """A model that takes what it would draw as inputs, and gives further values; itself, where there are neither."""
    here = [node for node in model.graph.node if any(name in names for name in node.output)]
    if not here and not outputs:
        return model
    made = onnx.ModelProto()
    made.CopyFrom(model)
    types = {value.name: value for value in made.graph.value_info}
    for node in here:
        made.graph.node.remove(node)
        for name in node.output:
            made.graph.input.append(
                types.get(name) or onnx.helper.make_tensor_value_info(name, _drawn_type(node), None)
            )
    made.graph.output.extend(onnx.ValueInfoProto(name=name) for name in outputs)
    return made


def _drawn_type(node: onnx.NodeProto) -> int:
    """The element type that a node draws, where the file does not say it in another place."""
    given = {a.name: a.i for a in node.attribute}
    return int(given.get("dtype", onnx.TensorProto.INT32 if node.op_type == "Multinomial" else onnx.TensorProto.FLOAT))
