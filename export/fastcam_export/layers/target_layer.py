"""Which values can be explained, which one is chosen, and why."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import onnx_ir as ir

from fastcam.errors import listed
from fastcam.schema import FastcamError, TargetLayer
from fastcam_export.autodiff.core.builder import FLOATS
from fastcam_export.autodiff.core.straight_through import DEQUANTIZE, is_code, is_map, maker, seen
from fastcam_export.autodiff.reverse import OPTIMISED, UNOPTIMISED, path
from fastcam_export.graph.constants import is_constant
from fastcam_export.graph.query import ELEMENTS_KEPT, VIEWS, in_default_domain, reads
from fastcam_export.layers.axis_semantics import is_spatial
from fastcam_export.layers.axis_tracing import POOLS, Known, trace
from fastcam_export.layers.branches import ends
from fastcam_export.layers.layout import Layout, read, shape_text
from fastcam_export.layers.scopes import scopes
from fastcam_export.layers.token_liveness import live

REARRANGED = VIEWS | ELEMENTS_KEPT | {"Transpose", "Slice"}
LINEAR = frozenset({"Attention", "Conv", "Einsum", "Gemm", "MatMul"})
LINEAR |= {"FusedConv", "FusedGemm", "FusedMatMul", "MultiHeadAttention", "NhwcFusedConv", "QAttention"}
LINEAR |= {"ConvInteger", "DynamicQuantizeMatMul", "MatMulInteger", "MatMulIntegerToFloat", "QGemm", "QLinearConv"}
LINEAR |= {"QLinearMatMul"}
"""What ends a block's normalisation: behind it lie the projections of an attention."""
FIRST = VIEWS | ELEMENTS_KEPT | {"Clip", "Resize", "Slice", "Upsample"}
"""Operators whose first input alone is handed on."""
SAME_FORM = FIRST | {"Add", "Div", "Erf", "Exp", "HardSigmoid", "LeakyRelu", "Log", "LogSoftmax", "Mul", "Neg", "Relu"}
SAME_FORM |= {"Sigmoid", "Softmax", "Softplus", "Sqrt", "Sub", "Tanh", "Transpose"}


class NoLayer(FastcamError):
    """No value between image and score has spatial axes; also of a model whose sizes contradict each other."""


@dataclass(frozen=True)
class Layer:
    """A value that every path from the image to the score passes through and that has spatial axes; or, where there is
    none, the last one of a branch.

    In a quantised graph it is a dequantised value, which the next layer reads, or where that reads integers these: what
    is explained are the numbers that they stand for.

    Attributes:
        value: the graph's value.
        layout: how its positions lie.
        pooled: it only pools, rescales or rearranges the map before it, or is an attention's projection of it.
        per_class: it already has one channel per class, which nothing mixes any more.
        output: an output follows from it element by element: it is what is explained, in another form.
        flat: a run gives it one position, which the file does not say.
        live: the score depends on its positions; behind a vision transformer's last attention only on other tokens.
        other_branches: the last maps of the other branches, where it lies on one of several.
    """

    value: ir.Value
    layout: Layout
    pooled: bool
    per_class: bool
    live: bool = True
    output: bool = False
    flat: bool = False
    other_branches: tuple[str, ...] = ()

    @property
    def note(self) -> str:
        """What speaks against choosing it, in a few words."""
        if not self.live:
            return "its positions do not reach the score"
        if self.flat:
            return "one position in a run"
        if self.output:
            return "the output itself"
        return "one channel per class" if self.per_class else "pooled" if self.pooled else ""

    def and_of(self, other: Layer) -> Layer:
        """The same value as a layer of both what this one and what ``other`` is a layer of."""
        return replace(
            self,
            per_class=self.per_class or other.per_class,
            live=self.live and other.live,
            output=self.output or other.output,
            flat=self.flat or other.flat,
        )


@dataclass(frozen=True)
class Maps:
    """Where the image's positions lie in the values of a graph, and which nodes carry them to the score.

    Attributes:
        graph, image, score: what was traced.
        others: further scores; positions that reach one of them are live, too.
        known: the axes of values, see :mod:`fastcam_export.layers.axis_tracing`.
        through: whether the score depends on a value's positions through a node that reads it.
    """

    graph: ir.Graph
    image: ir.Value
    score: ir.Value
    known: Known
    through: Callable[[ir.Node, ir.Value], bool]
    others: tuple[ir.Value, ...] = ()

    @staticmethod
    def of(graph: ir.Graph, image: ir.Value, score: ir.Value, *others: ir.Value) -> Maps:
        """Trace a graph."""
        known = trace(graph, image)
        return Maps(graph, image, score, known, live(graph, known, score, *others), others)

    @cached_property
    def output(self) -> frozenset[ir.Value]:
        """The score, and what it follows from element by element."""
        return _in_other_forms(self.score)

    def layout(self, value: ir.Value) -> Layout | None:
        """How the positions lie in ``value``; None if it is no map, as far as the graph tells."""
        return read(value, self.known.get(value), self.image)

    def live(self, value: ir.Value) -> bool:
        """Whether the score depends on the positions of ``value``."""
        ends = (self.score, *self.others)
        return value in ends or any(self.through(node, value) for node in self._readers(value))

    def mixed(self, value: ir.Value) -> bool:
        """Whether a matrix product or a convolution lies between ``value`` and the score: channels are no classes yet.

        A last map of as many channels as an embedding has numbers is one in front of a matrix.
        """
        return any(node.op_type in LINEAR for node in path(self.graph, [value], [self.score]))

    def _readers(self, value: ir.Value) -> list[ir.Node]:
        """The graph's nodes that read a value, themselves or in a body of theirs."""
        users = [node for node, _ in value.uses()]
        if all(node.graph is self.graph for node in users):
            return users
        return [node for node in self.graph if value in reads(node)]


def _in_other_forms(score: ir.Value) -> frozenset[ir.Value]:
    """The score, and the values that it is a view, an enlargement or a function element by element of."""
    found = [score]
    while (node := found[-1].producer()) is not None and (in_default_domain(node) and node.op_type in SAME_FORM):
        computed = [x for x in node.inputs[: 1 if node.op_type in FIRST else None] if not is_constant(x)]
        if len(computed) != 1 or computed[0] is None:
            break
        found.append(computed[0])
    return frozenset(found)


def find_layers(maps: Maps, classes: int | None) -> list[Layer]:
    """All layers between image and score, in the graph's order; see :class:`Layer`."""
    nodes = path(maps.graph, [maps.image], [maps.score])
    if not nodes:
        optimised = any(node.domain in OPTIMISED for node in maps.graph)
        advice = "export the model before it is rounded, or name another output with --output-name"
        raise FastcamError(
            f"the score {maps.score.name!r} does not depend on the image {maps.image.name!r} by a differentiable path"
            f"{_obstacle(maps.graph, maps.image)}; {UNOPTIMISED if optimised else advice}"
        )
    found = [
        layer_of(maps, value, classes) for value in passed(nodes, maps.image, [maps.score], lambda node, value: True)
    ]
    layers = [layer for layer in found if layer is not None]
    if any(layer.live for layer in layers) and not layers[-1].live:
        layers += [layer for layer in _narrowed(maps, nodes, layers, classes) if layer not in layers]
        order = {output: i for i, node in enumerate(nodes) for output in node.outputs}
        layers.sort(key=lambda layer: order[layer.value])
    return layers if any(_is_learned(maps, layer) for layer in layers) else _of_branches(maps, nodes, classes) or layers


def _is_learned(maps: Maps, layer: Layer) -> bool:
    """Whether a layer is more than the image itself, prepared."""
    return any(node.op_type in LINEAR for node in path(maps.graph, [maps.image], [layer.value]))


def _of_branches(maps: Maps, nodes: Sequence[ir.Node], classes: int | None) -> list[Layer]:
    """The last map of each branch, of a network whose branches are joined where positions are no more."""
    found = [layer_of(maps, value, classes) for node in nodes for value in node.outputs]
    layers = {
        layer.value: layer
        for layer in found
        if layer is not None and layer.live and not (layer.pooled or layer.output) and not _is_product(layer)
    }

    def spatial(value: ir.Value) -> bool:
        return any(map(is_spatial, maps.known.get(value, ())))

    def form(value: ir.Value) -> object:
        layout = layers[value].layout
        return layout.name, layout.grid, (value.shape or ())[layout.channels]

    last = [layers[value] for value in ends(nodes, list(layers), spatial, form)]
    last = [layer for layer in last if _is_learned(maps, layer)]
    names = [layer.value.name or "" for layer in last]
    return [replace(layer, other_branches=tuple(n for n in names if n != layer.value.name)) for layer in last]


def _is_product(layer: Layer) -> bool:
    """Whether tokens come from a matrix product, with or without a bias, as in attentions and perceptrons."""
    node = layer.value.producer()
    makers = [node, *(x.producer() for x in node.inputs if x is not None)] if node is not None else []
    linear = [made is not None and made.op_type in LINEAR for made in makers]
    return "L" in layer.layout.order and (linear[0] or (node is not None and node.op_type == "Add" and any(linear)))


def layer_of(maps: Maps, value: ir.Value, classes: int | None) -> Layer | None:
    """``value`` as a layer, if it is a map."""
    readable = value.dtype in FLOATS or is_map(value)
    layout = maps.layout(value) if readable and seen(value) is value else None
    if layout is None or all(side == 1 for side in layout.grid):
        return None
    channels = value.shape[layout.channels] if value.shape is not None else None
    return Layer(
        value,
        layout,
        _rearranged(maps, value, layout) or _projected(value, layout),
        classes not in (None, 0) and channels == classes and not maps.mixed(value),
        maps.live(value),
        value in maps.output,
    )


def _rearranged(maps: Maps, value: ir.Value, layout: Layout) -> bool:
    """Whether ``value`` only pools or rearranges a map before it."""
    made = maker(value)
    if made is None or made.op_type in POOLS:
        return made is not None
    while made is not None and made.op_type in REARRANGED and made.inputs[0] is not None:
        before = layout if made.inputs[0] is maps.image else maps.layout(made.inputs[0])
        if before is not None:
            return before.grid == layout.grid or made.op_type != "Slice"
        made = maker(made.inputs[0])
    return False


def _projected(value: ir.Value, layout: Layout) -> bool:
    """Whether ``value`` is an attention's queries, keys or values: a matrix product, then only cut into heads."""
    node = value.producer()
    if node is not None and node.op_type == "Add":  # of a bias
        node = next((made for x in node.inputs if x is not None and (made := x.producer()) is not None), None)
    if "L" not in layout.order or node is None or node.op_type not in LINEAR or not value.uses():
        return False
    readers = [reader for reader, _ in value.uses()]
    if readers[0].op_type == "Add" and len(readers) == 1:
        readers = [reader for reader, _ in readers[0].outputs[0].uses()]
    return bool(readers) and all(reader.op_type in REARRANGED | {"Split", "Gather"} for reader in readers)


def passed(
    nodes: Sequence[ir.Node], source: ir.Value, ends: Sequence[ir.Value], counts: Callable[[ir.Node, ir.Value], bool]
) -> list[ir.Value]:
    """The outputs of ``nodes`` that every path from ``source`` to each of ``ends`` passes, by edges that count."""
    last_use = {value: position for position, node in enumerate(nodes) for value in reads(node) if counts(node, value)}
    last_use |= dict.fromkeys(ends, len(nodes))
    made = []
    reach = last_use.get(source, 0)  # how far along the list anything computed so far is still read
    for position, node in enumerate(nodes):
        used = [output for output in node.outputs if output in last_use]
        if reach <= position and len(used) <= 1:
            made.append(used[0] if used else node.outputs[0])
        reach = max([reach, *(last_use.get(output, -1) for output in node.outputs)])
    return made


def _narrowed(maps: Maps, nodes: Sequence[ir.Node], layers: Sequence[Layer], classes: int | None) -> list[Layer]:
    """Maps behind the last live layer that all that its positions do for the score passes through.

    In the last block of a vision transformer this is its first normalisation: around it, positions reach the score no
    longer. Behind the first matrix product lie projections, whose channels mean something else.
    """
    start = [layer for layer in layers if layer.live][-1]
    reached = {start.value}
    behind: list[ir.Node] = []
    for node in nodes:
        if any(value in reached and maps.through(node, value) for value in reads(node)):
            behind.append(node)
            reached.update(node.outputs)
    counted = passed(behind, start.value, [maps.score], lambda node, v: v in reached and maps.through(node, v))
    made = []
    for value in counted:
        producer = value.producer()
        if producer is None or producer.op_type in LINEAR:
            break
        layer = layer_of(maps, value, classes)
        if layer is not None and layer.live and layer.layout.name == start.layout.name:
            made.append(layer)
    return made


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

    "Last" leaves out maps with one channel per class (their gradient is the same everywhere), maps that only pool
    an earlier one (the same content at a lower resolution), and maps whose positions the score does not depend on.
    """
    if not layers:
        raise NoLayer("no value between image and score has spatial axes; name one with --layer (fastcam inspect)")
    working = [layer for layer in layers if layer.live and not layer.flat]
    for found, reason in (
        (
            [layer for layer in working if not (layer.pooled or layer.per_class or layer.output)],
            "the last feature map with spatial extent before the head",
        ),
        (
            [layer for layer in working if not (layer.per_class or layer.output)],
            "the last map with spatial extent (all others have one channel per class)",
        ),
        (
            [layer for layer in working if not layer.output],
            "the last map with spatial extent; it has one channel per class",
        ),
        (working, "the last map with spatial extent; it is the output itself"),
    ):
        if found:
            later = layers[layers.index(found[-1]) + 1 :]
            skipped = sorted({layer.note for layer in later if layer.note})
            if found[-1].other_branches:
                both = listed([found[-1].value.name or "", *found[-1].other_branches], 4)
                reason = f"the last map of one of the branches that lead to the score; they end in {both}"
            return found[-1], reason + (f" (later ones skipped: {listed(skipped, 4)})" if skipped else "")
    raise FastcamError("no map between image and score has positions that reach the score; name a layer with --layer")


def resolve(graph: ir.Graph, name: str) -> tuple[ir.Value, str]:
    """The value that ``name`` means: a value, a node (its first output) or a scope (the last value computed in it).

    Raises:
        FastcamError: nothing has this name (names the nearest), or the value holds no floating point numbers.
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
        value, reason = _of_scope(graph, name, {*values, *nodes})
    if is_code(value) and not is_map(value):
        value = next((node.outputs[0] for node, _ in value.uses() if node.op_type == DEQUANTIZE), value)
    if value.dtype not in FLOATS and not is_map(value):
        raise FastcamError(f"layer {name!r} is {value.dtype}, not a floating point feature map; name another layer")
    dequantised = seen(value)
    if dequantised is not value:
        return dequantised, f"{reason}, as the next layer reads it: dequantised"
    return value, reason


def _of_scope(graph: ir.Graph, name: str, others: set[str]) -> tuple[ir.Value, str]:
    inside = [node for node in graph if name in scopes(node)]
    if not inside:
        known = {*others, *(scope for node in graph for scope in scopes(node))} - {""}
        near = [k for k in sorted(known, key=len) if k.startswith(name)]
        near = near or difflib.get_close_matches(name, sorted(known), 1, 0)
        raise FastcamError(
            f"no value, node or scope is named {name!r}; the nearest is {near[0]!r} (fastcam inspect lists the layers)"
        )
    floats = [node for node in inside if node.outputs[0].dtype in FLOATS or is_map(node.outputs[0])]
    if not floats:
        raise FastcamError(f"scope {name!r} computes no floating point value; name another (fastcam inspect)")
    return floats[-1].outputs[0], f"the last value computed in scope {name!r}"


def usable(maps: Maps, name: str, value: ir.Value, layout: Layout | None) -> Layout:
    """The layout of a layer that the user named.

    Raises:
        FastcamError: it is no map, or the score does not depend on its positions (names the nearest that works).
    """
    if layout is None:
        rank = len(value.shape) if value.shape is not None else 0
        how = " or, if it is a map, say how it is laid out (--layout)" if rank in (3, 4, 5) else ""
        raise FastcamError(
            f"layer {name!r} has shape {shape_text(value)}, not [N, K, h, w] or another map; name a feature map "
            f"(fastcam inspect lists them){how}"
        )
    if not maps.live(value) and path(maps.graph, [value], [maps.score]):
        order = {output: i for i, node in enumerate(maps.graph) for output in node.outputs}
        works = [layer for layer in find_layers(maps, None) if layer.live]
        works = [layer for layer in works if order[layer.value] < order[value]] or works[:1]
        near = f"; the nearest layer that works is {works[-1].value.name!r}" if works else "; name an earlier layer"
        raise FastcamError(
            f"the score does not depend on the image positions of layer {name!r}, only on its other tokens, so its "
            f"gradient is zero everywhere{near}"
        )
    return layout


def describe(value: ir.Value, reason: str, layout: Layout | None = None) -> TargetLayer:
    """The metadata of a chosen layer."""
    node = value.producer()
    named = list(scopes(node)) if node is not None else []
    tokens = layout is not None and "L" in layout.order
    return TargetLayer(
        value=value.name or "",
        node=(node.name or "") if node else "",
        op_type=node.op_type if node else "",
        scope=max(named, key=len) if named else "",
        layout=layout.name if layout is not None else "NCHW",
        prefix_tokens=layout.prefix if layout is not None else 0,
        grid=layout.fixed_grid if layout is not None and tokens else None,
        reason=reason if layout is None or layout.name == "NCHW" else f"{reason}; {layout.description}",
    )
