"""Several target layers in one file: which they are, and the numbers by which their outputs are told apart."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby, pairwise
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir

from fastcam.schema import FastcamError, TargetLayer
from fastcam_export.autodiff.reverse import path
from fastcam_export.layers import target_layer
from fastcam_export.layers.gap_head import is_averaged
from fastcam_export.layers.layout import Layout
from fastcam_export.outputs import cam, cotangent_targets
from fastcam_export.result import Export
from fastcam_export.verify import check, finite_differences

Array = npt.NDArray[np.generic]
Lies: TypeAlias = Callable[[ir.Value, Layout | None], Layout | None]
ALL = "all"
MOST = 6
"""How many layers "all" takes of a network with one resolution."""
SUMS = frozenset({"Add", "Sum"})
MOVED = target_layer.REARRANGED | {"Cast", "Dropout", "Identity", "Pad"}
LAST, ALONG = "the last map of its resolution", "a place along the residual stream"


@dataclass(frozen=True)
class Place:
    """A target layer: its value, how it lies, and what the metadata say of it."""

    value: ir.Value
    layout: Layout
    about: TargetLayer


def with_heads(
    maps: target_layer.Maps, places: Sequence[Place], functional: cotangent_targets.Functional | None
) -> list[Place]:
    """The places with what their metadata say of the head behind them."""
    scores = [maps.score] if functional is None else functional.explained
    made = []
    for place in places:
        at = (place.value, place.layout)
        averaged = all(is_averaged(maps.graph, maps.image, *at, score) for score in scores)
        made.append(replace(place, about=replace(place.about, averaged=averaged)))
    return made


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
    found: Sequence[target_layer.Layer],
    chosen: ir.Value,
    learned: Callable[[ir.Value], bool],
    sizes: Callable[[], Mapping[ir.Value, tuple[int, ...]]],
) -> tuple[list[target_layer.Layer], str]:
    """What "all" stands for, and why: the last map of each resolution, first to last, the chosen layer for its own.

    Maps that only pool, that have one channel per class, or whose positions do not reach the score are left out, as by
    :func:`fastcam_export.layers.target_layer.choose`. Of a network with one resolution, as vision transformers have: up
    to :data:`MOST` sums of its residual stream at equal distances, and the chosen layer.

    Args:
        found: all layers, in the graph's order.
        chosen: the default layer, one of them.
        learned: whether a convolution or matrix product has made a value of the image.
        sizes: the sizes of the maps that have no fixed ones; asked for only then.
    """
    at = [one.value for one in found].index(chosen)
    usable = [one for one in found[:at] if one.live and not (one.pooled or one.per_class) and learned(one.value)]
    usable.append(found[at])
    free = [one for one in usable if one.layout.fixed_grid is None]
    measured = sizes() if free else {}
    groups = [
        _made(list(group)) for _, group in groupby(usable, lambda one: one.layout.fixed_grid or measured.get(one.value))
    ]
    if len(groups) > 1:
        return [group[-1] for group in groups], LAST
    sums = [one for one in usable[:-1] if _is_sum(one.value)]
    count = min(MOST - 1, len(sums))
    return [sums[(i + 1) * len(sums) // (count + 1)] for i in range(count)] + usable[-1:], ALONG


def _made(group: list[target_layer.Layer]) -> list[target_layer.Layer]:
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
    model: ir.Model, maps: target_layer.Maps, found: Sequence[target_layer.Layer], chosen: ir.Value
) -> tuple[list[target_layer.Layer], str]:
    """:func:`every` of a loaded model."""
    learned = partial(cotangent_targets.is_learned, maps.graph, maps.image)
    return every(found, chosen, learned, lambda: measure(model, maps.image, found))


def if_known(
    model: ir.Model, maps: target_layer.Maps, found: Sequence[target_layer.Layer], chosen: ir.Value
) -> list[target_layer.Layer]:
    """:func:`all_of`, empty where the sizes of the maps cannot be found out."""
    try:
        return all_of(model, maps, found, chosen)[0]
    except FastcamError:
        return []


def measure(model: ir.Model, image: ir.Value, found: Sequence[target_layer.Layer]) -> dict[ir.Value, tuple[int, ...]]:
    """The grids of layers of a model that takes images of any size, for one of 224 x 224, by running it.

    Raises:
        FastcamError: the runtime refuses the model.
    """
    names = [one.value.name or "" for one in found]
    part = ir.to_proto(model)
    del part.graph.output[:]
    part.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in names)
    try:
        made = finite_differences.session(part).run(names, check.random_inputs(model.graph, image))
    except FastcamError:
        raise
    except Exception as error:  # onnxruntime's exceptions have no common base but Exception
        raise FastcamError(
            "which maps have which size could not be found out by running the model; name the layers in place of all"
        ) from error
    return {one.value: _grid(one.layout, np.asarray(array)) for one, array in zip(found, made)}


def find(
    model: ir.Model,
    names: Sequence[str],
    first: Place,
    maps: target_layer.Maps,
    classes: int | None,
    functional: cotangent_targets.Functional | None,
    lies: Lies,
) -> list[Place]:
    """The places that ``names`` mean, the default one, ``first``, in front.

    Args:
        model: a loaded model.
        names: see :func:`listed`.
        first: what the first of them means.
        maps, classes, functional: what is explained.
        lies: how a value lies, given what the graph tells: what the user says goes first.

    Raises:
        FastcamError: a name means no map between image and score.
    """
    if names == (ALL,):
        found = _found(maps, classes, functional)
        taken, reason = all_of(model, maps, found, first.value)
        others = [one for one in taken if one.value is not first.value]
        return [first] + [_of_stage(one, reason, lies) for one in others]
    return [first] + [_named(maps, name, classes, functional, lies) for name in names[1:]]


def _found(
    maps: target_layer.Maps, classes: int | None, functional: cotangent_targets.Functional | None
) -> list[target_layer.Layer]:
    """All layers."""
    if functional is None:
        return target_layer.find_layers(maps, classes)
    return cotangent_targets.learned_layers(maps.graph, maps.image, functional)


def _of_stage(one: target_layer.Layer, reason: str, lies: Lies) -> Place:
    layout = lies(one.value, one.layout) or one.layout
    return Place(one.value, layout, target_layer.describe(one.value, reason, layout))


def _named(
    maps: target_layer.Maps,
    name: str,
    classes: int | None,
    functional: cotangent_targets.Functional | None,
    lies: Lies,
) -> Place:
    if name == "auto":
        chosen, reason = target_layer.choose(_found(maps, classes, functional))
        value = chosen.value
    else:
        value, reason = target_layer.resolve(maps.graph, name)
    reached = functional.explained if functional is not None else [maps.score]
    refuse_behind(maps.graph, value, reached)
    usable = target_layer.usable(maps, name, value, lies(value, maps.layout(value)))
    if functional is not None:
        cotangent_targets.refuse_unreached(maps.graph, maps.image, value, functional)
    return Place(value, usable, target_layer.describe(value, reason, usable))


def refuse_behind(graph: ir.Graph, layer: ir.Value, scores: Sequence[ir.Value]) -> None:
    """Raise where no score depends on the layer."""
    if not path(graph, [layer], scores):
        raise FastcamError(
            f"the score {scores[0].name!r} cannot be reached from layer {layer.name!r}; "
            "name a layer between image and score (fastcam inspect lists them)"
        )


def examined(
    model: ir.Model,
    first: tuple[ir.Value, Layout, onnx.ModelProto],
    others: cam.Places,
    scores: Sequence[ir.Value],
    again: Callable[..., Export],
) -> list[check.Examined]:
    """What the check looks at.

    Args:
        model: the model, exported or not.
        first: the default layer and the part of the model behind it.
        others: the further layers.
        scores: what is explained.
        again: the same export of one layer.
    """

    def full(value: ir.Value) -> Callable[[], onnx.ModelProto]:
        return lambda: again(layer=value.name or "", emit="gradients", check=False).model

    value, layout, behind = first
    return [check.Examined(value, layout, lambda: behind, full(value))] + [
        check.Examined(value, layout, partial(check.tail, model, value, *scores), full(value), number, directions=1)
        for number, (value, layout) in others.items()
    ]


def _grid(layout: Layout, array: Array) -> tuple[int, ...]:
    return tuple(array.shape[axis] for axis in layout.spatial)


def numbered(graph: ir.Graph, places: Sequence[Place]) -> tuple[tuple[TargetLayer, ...], cam.Places]:
    """:attr:`fastcam.schema.Metadata.layers`, and the places beside the first, the default one, by their numbers there.

    Raises:
        FastcamError: a layer is named twice.
    """
    if len(places) == 1:
        return (), cam.NO_PLACES
    order = {output: i for i, node in enumerate(graph) for output in node.outputs}
    ordered = sorted(places, key=lambda place: order[place.value])
    for one, two in pairwise(ordered):
        if one.value is two.value:
            raise FastcamError(f"layer {one.about.value!r} is named twice ({two.about.reason}); name it once")
    others = {n: (place.value, place.layout) for n, place in enumerate(ordered, 1) if place is not places[0]}
    return tuple(place.about for place in ordered), others
