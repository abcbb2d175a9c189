"""How a target layer is laid out, and the way between it and maps [N, K, h, w]."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from fastcam.schema import LAYOUTS, FastcamError, LayoutName
from fastcam_export.autodiff.core.builder import Builder, Operand
from fastcam_export.autodiff.core.shapes import Size, adopt_dims, product, reshape_to, sizes
from fastcam_export.graph.query import known_dims, readable_dims
from fastcam_export.layers.axis_semantics import (
    CHANNEL,
    HEIGHT,
    IMAGE,
    SPATIAL,
    TIME,
    TOKENS,
    WIDTH,
    Atom,
    Axes,
    Axis,
    is_spatial,
    positions,
)
from fastcam_export.layers.image_order import image_order

Array = npt.NDArray[Any]
ORDER: dict[LayoutName, str] = {
    "NCHW": "NCHW",
    "NHWC": "NHWC",
    "NCTHW": "NCTHW",
    "NTHWC": "NTHWC",
    "NTCHW": "NTCHW",
    "FCHW": "FCHW",
    "FHWC": "FHWC",
    "NCW": "NCW",
    "NWC": "NWC",
    "tokens": "NLC",
    "LNC": "LNC",
    "NCL": "NCL",
}
"""The axes of each layout: N images, C channels, L positions in rows and columns, T frames, H rows, W columns, F the
frames of all images one after the other."""


@dataclass(frozen=True)
class Layout:
    """How the positions of a map lie in a value.

    Attributes:
        name: see :data:`fastcam.schema.LAYOUTS`.
        prefix: tokens in front of the positions.
        suffix: tokens behind them; None where the file does not say.
        grid: (h, w) or (t, h, w); None where it is free.
        description: how it was found, for people.
        measured: for each side of the grid the value and axis where a free one is read at run time.
        time_last: of a sequence of a clip's positions: frames lie innermost, (h, w, t), not outermost.
        sequence: of pictures that are folded into the batch: the image input, and its axis of pictures.
    """

    name: LayoutName
    prefix: int = 0
    suffix: int | None = 0
    grid: tuple[int | None, ...] = ()
    description: str = ""
    measured: tuple[tuple[ir.Value, int] | None, ...] = ()
    time_last: bool = False
    sequence: tuple[ir.Value, int] | None = None

    @property
    def folded(self) -> bool:
        """Whether the batch holds the pictures of all sequences."""
        return self.order[0] == "F"

    @property
    def order(self) -> str:
        """Its axes, see :data:`ORDER`."""
        return ORDER[self.name]

    @property
    def fixed_grid(self) -> tuple[int, ...] | None:
        """The grid, where it is all numbers."""
        known = tuple(side for side in self.grid if side is not None)
        return known if len(known) == len(self.grid) else None

    @property
    def channels(self) -> int:
        """The axis of the channels."""
        return self.order.index("C")

    @property
    def spatial(self) -> list[int]:
        """The axes of the positions."""
        return [i for i, letter in enumerate(self.order) if letter not in "NCF"]

    def among(self, values: Mapping[str | None, ir.Value]) -> Layout:
        """The same layout in a copy of the graph, whose values are given by name."""
        sides = (side if side is None else (values[side[0].name], side[1]) for side in self.measured)
        sequence = self.sequence
        if sequence is not None:
            sequence = values[sequence[0].name], sequence[1]
        return replace(self, measured=tuple(sides), sequence=sequence)

    # ---- in the graph

    def maps(self, op: Builder, value: ir.Value, layer: ir.Value) -> ir.Value:
        """Nodes that bring ``layer``, or its gradient, into the form [N, K, h, w] (video: [N, K, t, h, w], signal:
        [N, K, l])."""
        order = self.order
        if order in ("NCHW", "NCTHW", "NCW"):
            return value
        if self.folded:
            apart = reshape_to(op, value, [*self._images(op), *sizes(op, layer)[1:]])
            return op.Transpose(apart, perm=[("NT" + order[1:]).index(letter) for letter in "NCTHW"])
        if "L" not in order:
            return op.Transpose(value, perm=[order.index(letter) for letter in MAP_ORDER[len(order)]])
        rows = op.Transpose(self.positions(op, value), perm=[order.index(letter) for letter in "NCL"])
        have, sides = sizes(op, layer), self.sides(op)
        lie = [*sides[1:], sides[0]] if self.time_last else sides
        made = reshape_to(op, rows, [have[order.index("N")], have[order.index("C")], *lie])
        return op.Transpose(made, perm=[0, 1, 4, 2, 3]) if self.time_last else made

    def by_image(self, op: Builder, value: ir.Value) -> ir.Value:
        """[N T, K], a row for each picture that is folded into the batch, as [N, K, T]."""
        channels = op.dims(value)[1]
        assert isinstance(channels, int)
        return op.Transpose(reshape_to(op, value, [*self._images(op), channels]), perm=[0, 2, 1])

    def _images(self, op: Builder) -> list[Size]:
        """How many sequences there are, and of how many pictures."""
        assert self.sequence is not None
        image, axis = self.sequence
        have = sizes(op, image)
        return [have[0], have[axis]]

    def positions(self, op: Builder, value: ir.Value) -> ir.Value:
        """The value without the tokens that are no positions."""
        if "L" not in self.order or (self.prefix == 0 and self.suffix == 0):
            return value
        axis = self.order.index("L")
        area = product(op, self.sides(op))
        end: Operand = [self.prefix + area] if isinstance(area, int) else op.Add(area, self.prefix)
        sliced = op.Slice(value, [self.prefix], end, [axis])
        return adopt_dims(
            op, sliced, tuple(area if i == axis and isinstance(area, int) else d for i, d in enumerate(op.dims(sliced)))
        )

    def sides(self, op: Builder) -> list[Size]:
        """The sides of the grid of a token sequence."""
        made: list[Size] = []
        for side, where in zip(self.grid, self.measured or (None,) * len(self.grid)):
            if side is None:
                assert where is not None
                made.append(op.shape(where[0], where[1], where[1] + 1))
            else:
                made.append(side)
        return made

    # ---- in arrays

    def write(self, raw: Array, maps: Array) -> Array:
        """``raw`` with its positions replaced by ``maps``, [N, K, h, w]."""
        order = self.order
        if self.folded:
            apart = maps.transpose(["NCTHW".index(letter) for letter in "NT" + order[1:]])
            return apart.reshape(raw.shape)
        if "L" not in order:
            return maps.transpose([MAP_ORDER[len(order)].index(letter) for letter in order])
        lie = np.moveaxis(maps, 2, -1) if self.time_last else maps
        flat = lie.reshape(*maps.shape[:2], -1)
        made = np.array(raw)
        where = [slice(None)] * 3
        where[order.index("L")] = slice(self.prefix, self.prefix + flat.shape[2])
        made[tuple(where)] = flat.transpose(["NCL".index(letter) for letter in order])
        return made

    def first(self, raw: Array, images: int) -> Array:
        """The rows of the first of so many images."""
        if self.folded:
            return raw[: len(raw) // images]
        return np.take(raw, [0], axis=self.order.index("N"))


MAP_ORDER = {3: "NCW", 4: "NCHW", 5: "NCTHW"}


def read(value: ir.Value, axes: Axes | None, image: ir.Value) -> Layout | None:
    """The layout of a value, as its axes tell it; None if it is no map.

    What lies along one axis is a map of a signal only: of a picture it is a row that lost its columns.
    """
    if axes is None or value.shape is None or len(value.shape) != len(axes):
        return None
    letters = "".join(_letter(axis) for axis in axes)
    if letters[:1] == "T" and (known_dims(image) or [None])[0] == 1:
        letters = "F" + letters[1:]  # the pictures of the one sequence that there is
    name = next((name for name, order in ORDER.items() if order == letters), None)
    signal = "L" in image_order(image)
    if name is None or (name in ("NCW", "NWC") and not signal):
        return None
    if signal and sum(side != 1 for i, side in enumerate(known_dims(value) or ()) if letters[i] not in "NCFL") > 1:
        return None  # a plane that the graph made of the signal
    if "L" not in letters:
        dims = known_dims(value) or [None] * len(axes)
        grid = tuple(dims[i] for i, letter in enumerate(letters) if letter not in "NCF")
        if letters[0] != "F":
            return Layout(name, grid=grid, description=f"{name} {shape_text(value)}")
        sequence = image, max(map(image_order(image).find, "TD"))
        return Layout(
            name,
            grid=grid,
            description=f"{shape_text(value)}, whose batch holds the pictures of a sequence",
            sequence=sequence,
        )
    axis = axes[letters.index("L")]
    inner = positions(axis)
    if len(inner) == 1 and not signal:
        return None
    around = axis[0] if axis[0].kind == TOKENS else None
    if around is not None and around.before is None:
        return None
    time_last = len(inner) == 3 and inner[-1].kind == TIME
    inner = (inner[-1], *inner[:-1]) if time_last else inner
    grid = tuple(atom.size for atom in inner)
    measured = tuple(atom.source for atom in inner)
    if any(side is None and where is None for side, where in zip(grid, measured)):
        return None
    prefix, suffix = (around.before or 0, around.after) if around is not None else (0, 0)
    return Layout(name, prefix, suffix, grid, _described(value, name, inner, around), measured, time_last)


def _letter(axis: Axis) -> str:
    """The letter of :data:`ORDER` for an axis; "?" for one that fits none."""
    if axis and all(atom.kind == IMAGE for atom in axis):
        return "N"
    if tuple(atom.kind for atom in axis) == (IMAGE, TIME) and all(atom.stride == 1 for atom in axis):
        return "F"
    if not is_spatial(axis):
        return "C"
    kinds = tuple(atom.kind for atom in positions(axis))
    if len(kinds) == 1 and axis[0].kind != TOKENS:
        return kinds[0]
    if kinds in SPATIAL.values() or kinds == (HEIGHT, WIDTH, TIME):
        return "L"
    return "C" if axis[-1].kind == CHANNEL or len(kinds) > 1 else "?"


def _described(value: ir.Value, name: str, inner: Axis, around: Atom | None) -> str:
    text = f"{name} {shape_text(value)}: "
    if around is not None:
        added = f" (added by {_node(around.added)})" if around.added is not None else ""
        text += "".join(f"{n} {where} token{'s' if n > 1 else ''}{added} + " for n, where in _others(around))
    made = next((atom.source[0].producer() for atom in inner if atom.source is not None), None)
    return (
        text + side_text([atom.size for atom in inner]) + (f" positions from {_node(made)}" if made else " positions")
    )


def _others(around: Atom) -> list[tuple[int, str]]:
    return [(n, where) for n, where in ((around.before or 0, "prefix"), (around.after or 0, "suffix")) if n]


def _node(node: ir.Node) -> str:
    return f"{node.op_type} {node.name!r}" if node.name else node.op_type


def side_text(sides: Sequence[int | None]) -> str:
    """ "14 x 14", a free side as "?"."""
    return " x ".join("?" if side is None else str(side) for side in sides)


def shape_text(value: ir.Value) -> str:
    """A shape for people: "[N, 197, 768]"; a free dimension without a name as "?"."""
    if value.shape is None:
        return "of unknown shape"
    return "[" + ", ".join(map(str, readable_dims(value))) + "]"


# ---- named by the user


@dataclass(frozen=True)
class UserLayout:
    """What the user says of a layer's layout; None leaves it to the graph.

    Attributes:
        name: see :data:`fastcam.schema.LAYOUTS`.
        prefix_tokens: tokens in front of the positions of a sequence.
        grid: the sides of its grid.
    """

    name: str | None = None
    prefix_tokens: int | None = None
    grid: Sequence[int] | None = None

    def completed(self, value: ir.Value, derived: Layout | None) -> Layout | None:
        """The layout of ``value``: what the user says, and for the rest ``derived``, what the graph tells.

        Raises:
            FastcamError: it does not fit the value.
        """
        if self.name is None and self.prefix_tokens is None and self.grid is None:
            return derived
        if derived is not None and derived.folded and self.name in (None, "NCHW", "NHWC", derived.name):
            return derived  # whose batch the user cannot see to hold several pictures
        tokens = len(value.shape or ()) == 3
        chosen = self.name or (derived.name if derived is not None else "tokens" if tokens else "NCHW")
        if chosen not in LAYOUTS:
            raise FastcamError(f"layout is {chosen!r}; it must be one of: {', '.join(LAYOUTS)}")
        order = ORDER[chosen]
        if order[0] == "F":
            raise FastcamError(
                f"the graph does not tell which pictures layer {value.name!r} holds; name an earlier one"
            )
        if value.shape is None or len(value.shape) != len(order):
            raise FastcamError(
                f"layout {chosen} ({', '.join(order)}) does not fit layer {value.name!r} {shape_text(value)}; give "
                "another"
            )
        if "L" not in order:
            if self.prefix_tokens or self.grid is not None:
                raise FastcamError(
                    f"prefix_tokens and grid are for token sequences; layout {chosen} has rows and columns"
                )
            dims = known_dims(value) or []
            sides = tuple(dims[i] for i, letter in enumerate(order) if letter not in "NC")
            return Layout(chosen, grid=sides, description=f"{chosen} {shape_text(value)}, as given")
        same = derived if derived is not None and derived.name == chosen else None
        return _of_tokens(value, same, chosen, self.prefix_tokens, self.grid)


def _of_tokens(
    value: ir.Value, derived: Layout | None, name: LayoutName, prefix: int | None, grid: Sequence[int] | None
) -> Layout:
    length = (known_dims(value) or [])[ORDER[name].index("L")]
    sides = tuple(int(side) for side in grid) if grid is not None else derived.fixed_grid if derived else None
    if (prefix is not None and prefix < 0) or (sides is not None and (len(sides) not in (2, 3) or min(sides) < 1)):
        raise FastcamError(f"prefix_tokens {prefix} and grid {side_text(sides or ())} must not be negative or empty")
    suffix = (derived.suffix or 0) if derived is not None else 0
    if sides is None and length is not None:
        side = math.isqrt(max(length - (prefix or 0) - suffix, 0))
        sides = (side, side) if side and side * side == length - (prefix or 0) - suffix else None
    if sides is None:
        if derived is not None and prefix in (None, derived.prefix):
            return derived
        raise FastcamError(
            f"the positions of layer {value.name!r} {shape_text(value)} make no square; give grid (--grid 14x14)"
        )
    if prefix is None:
        known = length is not None and derived is None
        prefix = max((length or 0) - math.prod(sides) - suffix, 0) if known else derived.prefix if derived else 0
    total = prefix + math.prod(sides) + suffix
    if length is not None and total != length:
        raise FastcamError(
            f"{prefix} prefix token{'s' * (prefix != 1)} and a grid of {side_text(sides)} make {total} tokens, but "
            f"layer {value.name!r} has {length}; give prefix_tokens and grid that fit"
        )
    found = (
        f"{name} {shape_text(value)}: {prefix} prefix token{'' if prefix == 1 else 's'} + {side_text(sides)}, as given"
    )
    return Layout(name, prefix, suffix, sides, found, (None,) * len(sides))
