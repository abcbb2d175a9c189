"""Of what a file of several layers adds to the outputs, the part of one layer."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from fastcam.schema import OUTPUTS, RELEVANCE, Metadata, of_layer


def added_at(added: dict[str, Any], number: int | None, metadata: Metadata) -> dict[str, Any]:
    """Added outputs by name, those of the layer with this number under the plain names, without the other layers'.

    What a mode brings back to the default layer is left out for others.
    """
    at_other = number is not None and metadata.of_layer_alone()
    return {plain: added[name] for name, plain in _names(tuple(added), number, at_other)}


@lru_cache(maxsize=64)
def _names(added: tuple[str, ...], number: int | None, at_other: bool) -> tuple[tuple[str, str], ...]:
    """The added outputs of a layer, and how they are called there.

    Args:
        added: names of all added outputs.
        number: of the layer.
        at_other: whether what a mode brings back to the default layer is left out.
    """
    of_layers = {name for names in OUTPUTS.values() for name in names[1:]}
    mine = {of_layer(name, number): name for name in of_layers}
    others = tuple(f"{name}." for name in of_layers)
    left_out = of_layers | {RELEVANCE} if at_other else of_layers
    kept = {name: name for name in added if name not in left_out and not name.startswith(others)}
    return (*kept.items(), *((name, plain) for name, plain in mine.items() if name in added))
