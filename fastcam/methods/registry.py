"""What a method is: a name, what it needs of a file, what it costs, and one function; and the table of all of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from fastcam.errors import FastcamError
from fastcam.methods.context import Probe

Array = NDArray[Any]
Float = NDArray[np.float32]
Needs = Literal["weights", "gradients", "activations", "nothing"]
Runs = Literal["images", "layer", "gradients"]
PerImage = TypeVar("PerImage", bound="Callable[..., MethodResult]")


@dataclass(frozen=True, eq=False)
class MethodResult:
    """What a method says of one image with T targets: weights or maps, exactly one of the two.

    Attributes:
        weights: float32 [T, K], where the map is the weighted sum of the activations.
        maps: float32 [T, h, w], signed, of any resolution: the layer's, or the image's.
        attributions: float32 [T, C, H, W], a number for every element of the network's input, or None.
    """

    weights: Float | None = None
    maps: Float | None = None
    attributions: Float | None = None


@dataclass(frozen=True)
class Method:
    """A way from what a file says to heatmaps.

    Attributes:
        name, title: as an option and as it is printed.
        needs: what the file must emit of its layer: pooled gradients, gradients, activations alone, or nothing.
        formula, source: what is computed, and where it comes from.
        weights: (activations, gradients) -> weights, where the map is the weighted sum of the activations.
        maps: (activations, gradients) -> maps, where it is not.
        per_image: (probe, options) -> :class:`MethodResult`, of one image. Exactly one of these three is given.
        runs: what runs again: the network on changed images ("images"), what lies behind the layer on changed
            activations ("layer": the file must have been exported with its head), or the whole export on changed
            images, for their gradients ("gradients"). None: the image's own pass is enough.
        mode: the backward mode that the file must have been exported with (:data:`fastcam.schema.MODES`).
        at_image: whether the mode must have been read at the image.
        adds_up: whether its attributions share a score out, so that their sum over the channels is the map.
        cost: what it takes in forward passes, for people.
        options: what was set of :func:`fastcam.methods.options.parameters`.
        hides: whether it puts one value in place of others, which may be words: it runs on texts too.
        smooth: of weights: the map is the first principal component of the weighted activations, not their sum.
    """

    name: str
    title: str
    needs: Needs
    formula: str
    source: str
    weights: Callable[[Array, Array], Float] | None = None
    maps: Callable[[Array, Array | None], Float] | None = None
    per_image: Callable[..., MethodResult] | None = None
    runs: Runs | None = None
    mode: str | None = None
    at_image: bool = False
    adds_up: bool = False
    cost: str = "1"
    options: Mapping[str, Any] = field(default_factory=dict)
    smooth: bool = False
    hides: bool = False

    @property
    def of_class(self) -> bool:
        """Whether the map depends on what is explained."""
        return self.needs != "activations" or self.per_image is not None

    def __call__(self, probe: Probe) -> MethodResult:
        """What :attr:`per_image` says, with the options that were set."""
        assert self.per_image is not None
        return self.per_image(probe, **self.options)


METHODS: dict[str, Method] = {}
"""All methods by name."""
EIGEN = "+eigen"


def method(name: str) -> Method:
    """The method called ``name``; with "+eigen" behind it, smoothed.

    Raises:
        FastcamError: there is none of this name, or one that cannot be smoothed.
    """
    plain = name.lower().removesuffix(EIGEN)
    known = METHODS.get(plain)
    if known is None:
        raise FastcamError(f"no method {name!r}; use one of: {', '.join(METHODS)} (fastcam methods)")
    if plain == name.lower():
        return known
    if known.weights is None:
        smooth = ", ".join(one.name + EIGEN for one in METHODS.values() if one.weights is not None)
        raise FastcamError(f"{known.title} has no weights, whose products are smoothed; smoothed are {smooth}")
    return replace(known, name=plain + EIGEN, title=f"{known.title}, eigen-smoothed", smooth=True)


def register(
    name: str, title: str, formula: str, source: str, needs: Needs = "nothing", **more: Any
) -> Callable[[PerImage], PerImage]:
    """Register a function of a probe as the method ``name``; ``more`` as in :class:`Method`."""

    def register(function: PerImage) -> PerImage:
        METHODS[name] = Method(name, title, needs, formula, source, per_image=function, **more)
        return function

    return register
