"""Explanations at several layers of one file: which layers are meant, and what becomes of their explanations."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import replace
from numbers import Integral
from types import NoneType
from typing import Any

from numpy.typing import NDArray

from fastcam import kernels
from fastcam.errors import FastcamError, listed, shown, typed
from fastcam.explain.postprocess import View
from fastcam.explain.request import Layers, Request
from fastcam.render import peer_styles
from fastcam.results.explanation import OK, Explanation
from fastcam.runtime.run import Run
from fastcam.schema import Metadata, TargetLayer

NON_FINITE = kernels.STATUS_NAMES[kernels.NON_FINITE]


def layers_of(metadata: Metadata) -> tuple[TargetLayer, ...]:
    """The layers of a file, in the order in which an image passes them."""
    return metadata.layers or (metadata.layer,)


def numbers(metadata: Metadata, layers: Layers, file: str) -> tuple[int, ...]:
    """The numbers of layers, from 1, in the order in which an image passes them.

    Args:
        metadata: the file's.
        layers: "all"; or names (of the value, the node or its scope; of a scope around several the last is meant), or
            numbers; one, or a sequence.
        file: its name, for errors.

    Raises:
        FastcamError: the file has no such layer, or it is named twice.
    """
    known = layers_of(metadata)
    if not isinstance(layers, str | Integral | list | tuple | NoneType):
        raise FastcamError(f"layers is {shown(repr(layers))}; give names or numbers of layers, or all")
    if isinstance(layers, str) and layers == "all":
        if len(known) == 1:
            raise FastcamError(f"{file} explains at one layer, {known[0].value}; export it again with --layer all")
        return tuple(range(1, len(known) + 1))
    wanted = (layers,) if isinstance(layers, str | Integral) else tuple(layers or ())
    chosen = [_number(known, layer, file) for layer in wanted]
    if not chosen:
        raise FastcamError("no layer is named; give names, numbers, or all")
    if len(set(chosen)) < len(chosen):
        raise FastcamError(f"a layer is named twice in {', '.join(map(str, wanted))}; name it once")
    return tuple(sorted(chosen))


def _number(known: Sequence[TargetLayer], layer: str | int, file: str) -> int:
    typed("a layer", layer, str | Integral, "a name or a number")
    if isinstance(layer, Integral):
        if not 1 <= layer <= len(known):
            raise FastcamError(f"{file} has the layers 1 to {len(known)}, not {layer}")
        return int(layer)
    assert isinstance(layer, str)
    for names in ([one.value for one in known], [one.node for one in known], [one.scope for one in known]):
        if layer in names:
            return names.index(layer) + 1
    inside = [n for n, one in enumerate(known, 1) if one.scope.startswith(f"{layer}.")]
    if inside:
        return inside[-1]
    there = [one.value for one in known]
    near = difflib.get_close_matches(layer, there, 1, 0)[0]
    raise FastcamError(
        f"{file} does not explain at layer {layer!r}; it has {listed(there)} (the nearest is {near!r}); "
        "name one of those, or export it again with this layer"
    )


def together(run: Run, explanations: Sequence[Explanation], view: View, request: Request) -> Explanation:
    """Explanations of a run at several layers as one, which has them as its ``layers``.

    Args:
        explanations: in the order in which an image passes the layers.
        view: at the default layer: its explanation is the whole one's where nothing is fused, else that of the last.
        request: says how they are fused, if they are.

    Raises:
        FastcamError: no such fusion, or heatmaps of a style that has signs.
    """
    default = view.metadata.layer.value
    main = next((one for one in explanations if one.metadata.layer.value == default), explanations[-1])
    whole = main if request.fuse is None else _fused(run, main, explanations, view, request)
    layers = () if request.by_default else tuple(explanations)
    fused = tuple(one.metadata.layer.value for one in explanations) if request.fuse is not None else ()
    return replace(whole, layers=layers, fuse=request.fuse, fused=fused)


def _fused(
    run: Run, main: Explanation, explanations: Sequence[Explanation], view: View, request: Request
) -> Explanation:
    """``main`` with the maps of all explanations as one."""
    if peer_styles.signed(request.style):
        raise FastcamError(
            f"{request.style}'s heatmaps are signed, and what is fused is positive; leave style or fuse out"
        )
    placed = view.fused(run, request.fuse or "", [one.maps for one in explanations], request)
    status = _status(placed.status, [one.status for one in explanations], main.status)
    return replace(
        main,
        maps=placed.maps,
        heatmaps=placed.heatmaps,
        boxes=placed.boxes,
        components=placed.components,
        status=status,
    )


def _status(
    codes: NDArray[Any], each: Sequence[tuple[tuple[str, ...], ...]], main: tuple[tuple[str, ...], ...]
) -> tuple[tuple[str, ...], ...]:
    """[N, T]: "ok" where the fused map has positive values; else not finite if a layer is; else the main layer's, or
    that of the first layer that is not "ok"."""

    def word(n: int, t: int) -> str:
        if codes[n, t] in (kernels.OK, kernels.CONSTANT):
            return kernels.STATUS_NAMES[codes[n, t]]
        words = [main[n][t], *(status[n][t] for status in each)]
        return NON_FINITE if NON_FINITE in words else next((w for w in words if w != OK), "no_positive")

    return tuple(tuple(word(n, t) for t in range(codes.shape[1])) for n in range(len(codes)))
