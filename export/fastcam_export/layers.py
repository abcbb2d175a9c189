"""Which values can be explained, which one is chosen, and why."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass

import onnx_ir as ir

from fastcam.schema import FastcamError, TargetLayer
from fastcam_export.autodiff.driver import path
from fastcam_export.autodiff.emitter import FLOATS
from fastcam_export.autodiff.quantized import is_code, maker, seen
from fastcam_export.score import VIEWS

POOLS = frozenset({"MaxPool", "AveragePool", "LpPool"})
CHANNELS_SECOND = POOLS | {"BatchNormalization", "Conv", "ConvTranspose", "DepthToSpace", "SpaceToDepth", "LRN"}
CHANNELS_SECOND |= {"GlobalAveragePool", "GlobalMaxPool", "InstanceNormalization"}
"""Operators whose maps are [N, K, h, w] whatever the exporter's habit."""
SCOPES = "pkg.torch.onnx.name_scopes"


@dataclass(frozen=True)
class Layer:
    """A value that every path from the image to the score passes through and that has spatial axes.

    In a quantised graph it is a dequantised value, which the next layer reads.

    Attributes:
        value: the graph's value, [N, K, h, w].
        pooled: it only pools, rescales or rearranges the map before it.
        per_class: it already has one channel per class.
    """

    value: ir.Value
    pooled: bool
    per_class: bool

    @property
    def note(self) -> str:
        """What speaks against choosing it, in a few words."""
        return "one channel per class" if self.per_class else "pooled" if self.pooled else ""


def find_image(graph: ir.Graph) -> ir.Value:
    """The model's image input: the first float (or uint8) input of four axes.

    Raises:
        FastcamError: there is none.
    """
    for value in graph.inputs:
        if value.dtype in (*FLOATS, ir.DataType.UINT8) and value.shape is not None and len(value.shape) == 4:
            return value
    names = ", ".join(str(value.name) for value in graph.inputs)
    raise FastcamError(
        f"the model has no image input, a tensor of four axes (inputs: {names}); nothing to draw a map on"
    )


def find_layers(graph: ir.Graph, image: ir.Value, score: ir.Value, classes: int | None) -> list[Layer]:
    """All layers between image and score, in the graph's order; see :class:`Layer`."""
    nodes = path(graph, [image], [score])
    if not nodes:
        raise FastcamError(
            f"the score {score.name!r} does not depend on the image {image.name!r} by a differentiable path"
            f"{_obstacle(graph, image)}; export the model before it is rounded, or name another output "
            "with --output-name"
        )
    last_use = {value: position for position, node in enumerate(nodes) for value in node.inputs}
    last_use[score] = len(nodes)
    layers = []
    reach = last_use.get(image, 0)  # how far along the list anything computed so far is still read
    for position, node in enumerate(nodes):
        value = node.outputs[0]
        if reach <= position and len([o for o in node.outputs if o in last_use]) <= 1 and _is_feature_map(value):
            per_class = classes is not None and value.shape is not None and value.shape[1] == classes
            made = maker(value)
            pooled = made is not None and made.op_type in VIEWS | POOLS | {"Transpose"}
            layers.append(Layer(value, pooled, per_class))
        reach = max([reach, *(last_use.get(output, -1) for output in node.outputs)])
    return layers


def _obstacle(graph: ir.Graph, image: ir.Value) -> str:
    """ ": Cast 'c1' gives INT32": the first node through which no derivative of the image flows."""
    reached = {image}
    for node in graph:
        if node.op_type not in ("Shape", "Size") and any(value in reached for value in node.inputs):
            if all(value.dtype not in (None, *FLOATS) and not is_code(value) for value in node.outputs):
                return f": {node.op_type} {node.name!r} gives {node.outputs[0].dtype}"
            reached.update(node.outputs)
    return ""


def choose(layers: Sequence[Layer]) -> tuple[Layer, str]:
    """The last layer before the head, and one sentence that says why.

    "Last" leaves out maps with one channel per class (their gradient is the same everywhere) and maps that only pool
    an earlier one (the same content at a lower resolution).
    """
    if not layers:
        raise FastcamError("no value between image and score has spatial axes; name one with --layer (fastcam inspect)")
    for found, reason in (
        (
            [layer for layer in layers if not (layer.pooled or layer.per_class)],
            "the last feature map with spatial extent before the head",
        ),
        (
            [layer for layer in layers if not layer.per_class],
            "the last map with spatial extent (all others have one channel per class)",
        ),
        (layers, "the last map with spatial extent; it has one channel per class"),
    ):
        if found:
            later = layers[layers.index(found[-1]) + 1 :]
            skipped = sorted({layer.note for layer in later if layer.note})
            return found[-1], reason + (f" (later ones skipped: {', '.join(skipped)})" if skipped else "")
    raise AssertionError("unreachable")


def resolve(graph: ir.Graph, name: str) -> tuple[ir.Value, str]:
    """The value that ``name`` means: a value, a node (its first output) or a scope (the last value computed in it).

    Raises:
        FastcamError: nothing has this name (names the nearest), or the value is no feature map of four axes.
    """
    values: dict[str, ir.Value] = {}
    for node in graph:
        for output in node.outputs:
            values.setdefault(output.name or "", output)
    nodes = {node.name: node for node in graph if node.name}
    if name in values:
        value, reason = values[name], f"named as value {name!r}"
    elif name in nodes:
        value, reason = nodes[name].outputs[0], f"named as node {name!r}"
    else:
        inside = [node for node in graph if name in scopes(node)]
        if not inside:
            known = {*values, *nodes, *(scope for node in graph for scope in scopes(node))} - {""}
            near = [k for k in sorted(known, key=len) if k.startswith(name)]
            near = near or difflib.get_close_matches(name, sorted(known), 1, 0)
            raise FastcamError(
                f"no value, node or scope is named {name!r}; the nearest is {near[0]!r} "
                "(fastcam inspect lists the layers)"
            )
        floats = [node for node in inside if node.outputs[0].dtype in FLOATS]
        if not floats:
            raise FastcamError(f"scope {name!r} computes no floating point value; name another (fastcam inspect)")
        value, reason = floats[-1].outputs[0], f"the last value computed in scope {name!r}"
    if value.dtype not in FLOATS:
        raise FastcamError(f"layer {name!r} is {value.dtype}, not a floating point feature map; name another layer")
    if value.shape is None or len(value.shape) != 4:
        raise FastcamError(
            f"layer {name!r} has shape {_shape(value)}, not [N, K, h, w]; name a feature map "
            "(fastcam inspect lists them)"
        )
    if channel_axis(value) != 1:
        raise FastcamError(
            f"layer {name!r} is laid out with its channels at axis {channel_axis(value)}, not [N, K, h, w]; name the "
            "same map before its Transpose (fastcam inspect lists the layers)"
        )
    dequantised = seen(value)
    if dequantised is not value:
        return dequantised, f"{reason}, as the next layer reads it: dequantised"
    return value, reason


def describe(value: ir.Value, reason: str) -> TargetLayer:
    """The metadata of a chosen layer."""
    node = value.producer()
    named = list(scopes(node)) if node is not None else []
    return TargetLayer(
        value=value.name or "",
        node=(node.name or "") if node else "",
        op_type=node.op_type if node else "",
        scope=max(named, key=len) if named else "",
        reason=reason,
    )


def scopes(node: ir.Node) -> list[str]:
    """The module paths that ``node`` lies in, outermost first: "layer4", "layer4.2", ...

    Read from what torch writes: the dynamo exporter's metadata, or the older exporter's node names
    ("/layer4/layer4.2/conv1/Conv"); else from the name as other exporters build it ("layer4.2/conv1").
    """
    recorded = node.metadata_props.get(SCOPES)
    if recorded:
        parts = [part.strip().strip("'\"") for part in recorded.strip("[]").split(",")]
        return [part for part in parts[:-1] if part]
    name = node.name or ""
    if not name.startswith("/"):
        return [name[:end] for end, letter in enumerate(name) if letter in "./" and end]
    parts = name.strip("/").split("/")[:-1]
    paths: list[str] = []
    for part in parts:
        outer = paths[-1] if paths else ""
        last = outer.rsplit(".", 1)[-1]
        nested = not outer or part == outer or part.startswith(outer + ".")
        if nested:
            paths.append(part)
        elif part.startswith(last + "."):
            paths.append(outer[: len(outer) - len(last)] + part)
        else:
            paths.append(f"{outer}.{part}")
    return list(dict.fromkeys(paths))


def channel_axis(value: ir.Value) -> int:
    """The axis of a feature map of four axes that holds its channels, followed up to what fixes it.

    Convolutions, pools and BatchNormalization of ONNX have it at 1; TensorFlow's exporters transpose around these.
    """
    node = value.producer()
    if node is None:
        dims = list(value.shape or ())
        return 3 if len(dims) == 4 and dims[3] in (1, 3) and dims[1] not in (1, 3) else 1
    if node.op_type == "Transpose" and node.inputs[0] is not None:
        order = list(node.attributes.get_ints("perm", ())) or [3, 2, 1, 0]
        return order.index(channel_axis(node.inputs[0]))
    maps = [x for x in node.inputs if x is not None and x.shape is not None and len(x.shape) == 4]
    maps = [x for x in maps if x.producer() is not None or x.is_graph_input()]
    return channel_axis(maps[0]) if maps and node.op_type not in CHANNELS_SECOND else 1


def _is_feature_map(value: ir.Value) -> bool:
    if value.dtype not in FLOATS or value.shape is None or len(value.shape) != 4 or seen(value) is not value:
        return False
    return any(dim != 1 for dim in value.shape[2:]) and channel_axis(value) == 1


def _shape(value: ir.Value) -> str:
    if value.shape is None:
        return "unknown"
    return "[" + ", ".join(str(dim) for dim in value.shape) + "]"
