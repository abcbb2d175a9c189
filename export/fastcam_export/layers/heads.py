"""The maps in front of a model's heads: where the gradient of a box, a region or a pixel still lies at its place.

A detector has heads at several resolutions, and each box is the work of one of them. Backwards from the outputs, the
first maps that are met are what the heads end with; per resolution all of them come out of one map, the last that lies
on every path to them. It is the level's, with all that the backbone and its pyramid have made of the picture. Of a
segmenter there is one: the map in front of the last convolution.

A cell of such a map may be larger than an object. Where it covers :data:`COARSE` pixels or more, the last map of a
finer resolution that all outputs hang on is taken beside them, and sharpens what they say
(:data:`fastcam.methods.layer_fusion.FUSIONS`, "place"). What this is worth: docs/benchmarks/localisation.md.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import onnx_ir as ir

from fastcam_export.autodiff.reverse import path, unsupported
from fastcam_export.graph.query import reads
from fastcam_export.layers import target_layer
from fastcam_export.layers.axis_tracing import trace
from fastcam_export.layers.token_liveness import live

COARSE = 64
"""Pixels of the picture, from which on a cell of a head's map is too large for small objects: 8 x 8."""
Grid = tuple[int, ...]
Sizes = Callable[[Sequence[target_layer.Layer]], Mapping[ir.Value, Grid]]


@dataclass(frozen=True)
class HeadMaps:
    """What lies in front of the heads.

    Attributes:
        levels: at most one map a resolution, in the graph's order. It has a convolution or matrix product on each way
            to an output, so that it is features and not yet an answer.
        finer: a map of a finer resolution than theirs, in front of all of them; or None.
    """

    levels: tuple[target_layer.Layer, ...]
    finer: target_layer.Layer | None = None


def head_maps(graph: ir.Graph, image: ir.Value, outputs: Sequence[ir.Value], sizes: Sizes, pixels: int) -> HeadMaps:
    """The maps in front of the heads that give ``outputs``.

    Args:
        graph: a loaded model's.
        image: its image input.
        outputs: what is explained.
        sizes: the sizes of maps that have no fixed ones; asked for only then.
        pixels: height times width of the picture for which ``sizes`` are.
    """
    known = trace(graph, image)
    nodes = path(graph, [image], outputs)
    maps = _Whole(graph, image, outputs[0], known, live(graph, known, *outputs), tuple(outputs))
    ends, answers = _ends(nodes, outputs, maps), _past_all_layers(nodes, outputs)
    shared = list(_in_front(maps, outputs, answers))
    grids = _grids([*ends, *shared], sizes)
    groups: dict[Grid | None, list[ir.Value]] = {}
    for one in ends:
        groups.setdefault(grids[one.value], []).append(one.value)
    levels: dict[ir.Value, target_layer.Layer] = {}
    for group in groups.values():
        *_, level = [None, *_in_front(maps, group, answers)]
        if level is not None:
            levels[level.value] = level
    order = {output: i for i, node in enumerate(nodes) for output in node.outputs}
    ordered = tuple(sorted(levels.values(), key=lambda one: order[one.value]))
    cells = max((math.prod(grid) if grid else pixels for grid in groups), default=pixels)
    coarse = bool(ordered) and cells * COARSE <= pixels
    finer = [one for one in shared if math.prod(grids[one.value] or ()) > cells] if coarse else []
    further = [one for one in finer[-1:] if one.value not in levels]  # a level may be as fine
    reached = [one for one in further if not unsupported(path(graph, [one.value], outputs))]
    return HeadMaps(ordered, reached[0] if reached else None)


class _Whole(target_layer.Maps):
    """Maps that are live only where they are so for every output that they reach: each has a gradient there or none."""

    @cached_property
    def _apart(self) -> list[tuple[target_layer.Maps, set[ir.Value]]]:
        each = []
        for output in self.others:
            maps = target_layer.Maps(self.graph, self.image, output, self.known, live(self.graph, self.known, output))
            reaching = {value for node in path(self.graph, [self.image], [output]) for value in reads(node)}
            each.append((maps, reaching | {output}))
        return each

    def live(self, value: ir.Value) -> bool:
        """As of one score."""
        return all(maps.live(value) for maps, reaching in self._apart if value in reaching)


def _ends(nodes: Sequence[ir.Node], outputs: Iterable[ir.Value], maps: target_layer.Maps) -> list[target_layer.Layer]:
    """The maps that are met first, backwards from the outputs; an output that is a map itself."""
    between = set(nodes)
    seen: set[ir.Value] = set()
    ends = []
    ahead = list(outputs)
    while ahead:
        value = ahead.pop()
        if value in seen:
            continue
        seen.add(value)
        layer = target_layer.layer_of(maps, value, None)
        node = value.producer()
        if layer is not None:
            ends.append(layer)
        elif node is not None and node in between:
            ahead += reads(node)
    return ends


def _past_all_layers(nodes: Sequence[ir.Node], outputs: Iterable[ir.Value]) -> set[ir.Value]:
    """Values from which a way leads to an output that passes no convolution and no matrix product."""
    plain = set(outputs)
    for node in reversed(nodes):
        if node.op_type not in target_layer.LINEAR and any(value in plain for value in node.outputs):
            plain.update(reads(node))
    return plain


def _grids(layers: Sequence[target_layer.Layer], sizes: Sizes) -> dict[ir.Value, Grid | None]:
    """The resolution of each map."""
    free = [one for one in layers if one.layout.fixed_grid is None]
    measured = sizes(free) if free else {}
    return {one.value: one.layout.fixed_grid or measured.get(one.value) for one in layers}


def _in_front(
    maps: target_layer.Maps, ends: Sequence[ir.Value], answers: set[ir.Value]
) -> Iterator[target_layer.Layer]:
    """The maps that every path from the image to each of ``ends`` passes: features, and no answers yet."""
    nodes = path(maps.graph, [maps.image], ends)
    learned = False
    for value in target_layer.passed(nodes, maps.image, ends, lambda node, value: True):
        node = value.producer()
        learned = learned or (node is not None and node.op_type in target_layer.LINEAR)
        layer = target_layer.layer_of(maps, value, None) if learned and value not in answers else None
        if layer is not None and not layer.pooled and maps.live(value):
            yield layer
