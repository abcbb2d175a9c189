"""The target layers of an export: which they are, and the numbers by which the outputs of several are told apart."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby, pairwise

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir

from fastcam.schema import FastcamError, TargetLayer
from fastcam_export.autodiff.reverse import path
from fastcam_export.graph.query import known_dims
from fastcam_export.layers import target_layer
from fastcam_export.layers.explained_layer import ExplainedLayer
from fastcam_export.layers.gap_head import is_averaged
from fastcam_export.layers.heads import head_maps
from fastcam_export.layers.image_order import image_order
from fastcam_export.layers.layout import Layout, UserLayout
from fastcam_export.outputs import cotangent_targets
from fastcam_export.outputs.target import Target
from fastcam_export.verify.sample import FREE_SIZE, that_runs
from fastcam_export.verify.session import quiet_session

Array = npt.NDArray[np.generic]
ALL = "all"
MOST = 6
"""How many layers "all" takes of a network with one resolution."""
SUMS = frozenset({"Add", "Sum"})
MOVED = target_layer.REARRANGED | {"Cast", "Dropout", "Identity", "Pad"}
HEAD, HEADS = "the map in front of the heads", "the map in front of the heads of its resolution"
FINER = "the last map of a finer resolution that the heads share"
LAST, ALONG = "the last map of its resolution", "a place along the residual stream"


def listed(layer: str | Sequence[str]) -> tuple[str, ...]:
    """The ``layer`` argument of an export as names, the default layer's first.

    Raises:
        FastcamError: there is none, or "all" stands beside others.
    """
    names = (layer,) if isinstance(layer, str) else tuple(layer)
    if not names:
        raise FastcamError("no layer is named; give names, auto, or all")
    if ALL in names and len(names) > 1:
        raise FastcamError("layer all stands for several: give it alone, or name the layers")
    return names


def every(
    layers: Sequence[target_layer.Layer],
    chosen: ir.Value,
    learned: Callable[[ir.Value], bool],
    sizes: Callable[[], Mapping[ir.Value, tuple[int, ...]]],
) -> tuple[list[target_layer.Layer], str]:
    """What "all" stands for, and why: the last map of each resolution, first to last, the chosen layer for its own.

    Maps that only pool, that have one channel per class, or whose positions do not reach the score are left out, as by
    :func:`fastcam_export.layers.target_layer.choose`. Of a network with one resolution, as vision transformers have: up
    to :data:`MOST` sums of its residual stream at equal distances, and the chosen layer.

    Args:
        layers: all layers, in the graph's order.
        chosen: the default layer, one of them.
        learned: whether a convolution or matrix product has made a value of the image.
        sizes: the sizes of the maps that have no fixed ones; asked for only then.
    """
    at = [one.value for one in layers].index(chosen)
    usable = [one for one in layers[:at] if one.live and not (one.pooled or one.per_class) and learned(one.value)]
    usable.append(layers[at])
    free = [one for one in usable if one.layout.fixed_grid is None]
    measured = sizes() if free else {}
    by_grid = groupby(usable, lambda one: one.layout.fixed_grid or measured.get(one.value))
    groups = [_computed(list(group)) for _, group in by_grid]
    if len(groups) > 1:
        return [group[-1] for group in groups], LAST
    sums = [one for one in usable[:-1] if _is_sum(one.value)]
    count = min(MOST - 1, len(sums))
    return [sums[(i + 1) * len(sums) // (count + 1)] for i in range(count)] + usable[-1:], ALONG


def _computed(group: list[target_layer.Layer]) -> list[target_layer.Layer]:
    """Those of a group that are computed, not only padded or moved; all, if there are none."""
    nodes = ((one, one.value.producer()) for one in group)
    return [one for one, node in nodes if node is not None and node.op_type not in MOVED] or group


def _is_sum(value: ir.Value) -> bool:
    """Whether a value is the sum of two that are computed."""
    node = value.producer()
    return (
        node is not None and node.op_type in SUMS and all(x is not None and x.const_value is None for x in node.inputs)
    )


def all_of(
    model: ir.Model,
    maps: target_layer.Maps,
    layers: Sequence[target_layer.Layer],
    chosen: ir.Value,
    size: Sequence[int] | None = None,
) -> tuple[list[target_layer.Layer], str]:
    """:func:`every` of a loaded model; ``size`` is that of its image where it is free."""
    learned = partial(cotangent_targets.is_learned, maps.graph, maps.image)
    return every(layers, chosen, learned, lambda: measure(model, maps.image, layers, size))


def if_known(
    model: ir.Model,
    maps: target_layer.Maps,
    layers: Sequence[target_layer.Layer],
    chosen: ir.Value,
    size: Sequence[int] | None = None,
) -> list[target_layer.Layer]:
    """:func:`all_of`, empty where the sizes of the maps cannot be found out."""
    try:
        return all_of(model, maps, layers, chosen, size)[0]
    except FastcamError:
        return []


def measure(
    model: ir.Model, image: ir.Value, layers: Sequence[target_layer.Layer], size: Sequence[int] | None = None
) -> dict[ir.Value, tuple[int, ...]]:
    """The grids of layers of a model that takes images of any size, for one of ``size`` a usual size, by running it.

    Raises:
        FastcamError: the runtime refuses the model.
    """
    names = [one.value.name or "" for one in layers]
    part = ir.to_proto(model)
    del part.graph.output[:]
    part.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in names)
    try:
        session = quiet_session(part)
        sample = that_runs(model.graph, image, (), lambda one: session.run(names, dict(one.feeds)), size=size)
        arrays = session.run(names, dict(sample.feeds))
    except FastcamError:
        raise
    except Exception as error:  # onnxruntime's exceptions have no common base but Exception
        raise FastcamError(
            "which maps have which size could not be found out by running the model; name the layers in place of all"
        ) from error
    return {one.value: _grid(one.layout, np.asarray(array)) for one, array in zip(layers, arrays)}


def measured_sides(
    model: ir.Model, image: ir.Value, layers: list[target_layer.Layer], size: Sequence[int] | None = None
) -> list[target_layer.Layer]:
    """The layers, those marked that have one position in a run, where the file does not say how large they are.

    Args:
        size: of the image, where it is free; None tries usual ones.
    """
    try:
        chosen, _ = target_layer.choose(layers)
        if chosen.layout.fixed_grid is not None or math.prod(measure(model, image, [chosen], size)[chosen.value]) > 1:
            return layers
        free = [layer for layer in layers if layer.layout.fixed_grid is None]
        grids = measure(model, image, free, size)
    except FastcamError:  # it is said where the layer is chosen, or by the check
        return layers
    return [replace(one, flat=math.prod(grids[one.value]) == 1) if one.value in grids else one for one in layers]


def _grid(layout: Layout, array: Array) -> tuple[int, ...]:
    return tuple(array.shape[axis] for axis in layout.spatial)


@dataclass(frozen=True)
class Search:
    """Where target layers are looked for.

    Attributes:
        model: a loaded model.
        maps: the maps between its image and the explained output.
        target: what is explained.
        layout: what the user says of the layers' layout.
        size: of the image, where it is free.
    """

    model: ir.Model
    maps: target_layer.Maps
    target: Target
    layout: UserLayout
    size: Sequence[int] | None = None

    def find(self, names: Sequence[str]) -> tuple[ExplainedLayer, ...]:
        """The layers that ``names`` (see :func:`listed`) mean: the default one, then the others by their numbers.

        Raises:
            FastcamError: a name means no map between image and score, or two mean the same one.
        """
        heads = self._in_front_of_heads() if names == ("auto",) else []
        if heads:
            return _numbered(self.maps.graph, [self._with_head(layer) for layer in heads])
        first = self._named("auto" if names == (ALL,) else names[0])
        others = self._all_beside(first) if names == (ALL,) else [self._named(name) for name in names[1:]]
        layers = [first, *others]
        if self.target.functional is not None:
            values = [layer.value for layer in layers]
            cotangent_targets.refuse_unreached(self.maps.graph, self.maps.image, values, self.target.functional)
        return _numbered(self.maps.graph, [self._with_head(layer) for layer in layers])

    def _named(self, name: str) -> ExplainedLayer:
        """The layer that one name means."""
        graph = self.maps.graph
        if name == "auto":
            run = partial(measured_sides, self.model, self.maps.image, size=self.size)
            value, reason, derived = self.target.default_layer(self.maps, run)
            name = value.name or ""
        else:
            value, reason = target_layer.resolve(graph, name)
            derived = self.maps.layout(value)
        _refuse_unreached(graph, value, self.target.values)
        layout = target_layer.usable(self.maps, name, value, self.layout.completed(value, derived))
        return ExplainedLayer(value, layout, target_layer.describe(value, reason, layout))

    def _in_front_of_heads(self) -> list[ExplainedLayer]:
        """Of targets with a place the maps in front of the heads, and a finer one behind them; of others none."""
        if not self.target.has_places or {*"TDL"} & {*image_order(self.maps.image)}:
            return []
        image, sizes = self.maps.image, partial(measure, self.model, self.maps.image, size=self.size)
        dims = zip(image_order(image), known_dims(image) or ())
        pixels = math.prod(size or FREE_SIZE for axis, size in dims if axis in "HW")
        found = head_maps(self.maps.graph, image, self.target.differentiated, sizes, pixels)
        named = [(one, HEADS if len(found.levels) > 1 else HEAD) for one in found.levels]
        named += [(found.finer, FINER)] if found.finer is not None else []
        layers = []
        for one, reason in named:
            layout = self.layout.completed(one.value, one.layout) or one.layout
            layers.append(ExplainedLayer(one.value, layout, target_layer.describe(one.value, reason, layout)))
        return layers

    def _all_beside(self, first: ExplainedLayer) -> list[ExplainedLayer]:
        """The further layers that "all" stands for."""
        taken, reason = all_of(self.model, self.maps, self.target.layers(self.maps), first.value, self.size)
        others = []
        for one in taken:
            if one.value is not first.value:
                layout = self.layout.completed(one.value, one.layout) or one.layout
                others.append(ExplainedLayer(one.value, layout, target_layer.describe(one.value, reason, layout)))
        return others

    def _with_head(self, layer: ExplainedLayer) -> ExplainedLayer:
        """The layer with what its metadata say of the head behind it."""
        graph, image, at = self.maps.graph, self.maps.image, (layer.value, layer.layout)
        averaged = all(is_averaged(graph, image, *at, score) for score in self._scores())
        return replace(layer, about=replace(layer.about, averaged=averaged))

    def _scores(self) -> list[ir.Value]:
        """What the head computes; cotangents are of outputs before their own quantisation."""
        return self.target.differentiated if self.target.functional is not None else [self.maps.score]


def _refuse_unreached(graph: ir.Graph, layer: ir.Value, scores: Sequence[ir.Value]) -> None:
    """Raise where no score depends on the layer."""
    if not path(graph, [layer], scores):
        raise FastcamError(
            f"the score {scores[0].name!r} cannot be reached from layer {layer.name!r}; "
            "name a layer between image and score (fastcam inspect lists them)"
        )


def _numbered(graph: ir.Graph, layers: Sequence[ExplainedLayer]) -> tuple[ExplainedLayer, ...]:
    """The default layer, which is the first, and behind it the others with their numbers.

    Raises:
        FastcamError: a layer is named twice.
    """
    if len(layers) == 1:
        return tuple(layers)
    ordered = _in_order(graph, layers)
    for one, two in pairwise(ordered):
        if one.value is two.value:
            raise FastcamError(f"layer {one.about.value!r} is named twice ({two.about.reason}); name it once")
    others = (replace(layer, number=n) for n, layer in enumerate(ordered, 1) if layer is not layers[0])
    return (layers[0], *others)


def _in_order(graph: ir.Graph, layers: Sequence[ExplainedLayer]) -> list[ExplainedLayer]:
    """The layers in the graph's order."""
    order = {output: i for i, node in enumerate(graph) for output in node.outputs}
    return sorted(layers, key=lambda layer: order[layer.value])


def fusion(layers: Sequence[ExplainedLayer]) -> str | None:
    """How the maps in front of heads become one, see :mod:`fastcam.methods.layer_fusion`; None of other layers."""
    reasons = {layer.about.reason.partition(";")[0] for layer in layers}
    if FINER in reasons:
        return "place"
    return "last" if HEADS in reasons else None


def described(graph: ir.Graph, layers: Sequence[ExplainedLayer]) -> tuple[TargetLayer, ...]:
    """:attr:`fastcam.schema.Metadata.layers`: all layers in the graph's order, or none where there is only one."""
    return tuple(layer.about for layer in _in_order(graph, layers)) if len(layers) > 1 else ()
