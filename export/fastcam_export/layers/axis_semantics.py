"""What the axes of a value mean: image, channel, height, width, time, or the positions of a token sequence.

Exporters reorder, split and merge axes at will: a Swin block cuts [N, H, W, C] into windows and puts them together
again, a vision transformer flattens the map of its patch embedding and puts a class token in front. So an axis is a
product of :class:`Atom` s, which the graph's nodes split, merge, reorder, cut and extend, from the image on.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import onnx_ir as ir

from fastcam_export.graph.constants import constant_array
from fastcam_export.graph.query import known_dims

IMAGE, CHANNEL, TIME, HEIGHT, WIDTH, TOKENS = "N", "C", "T", "H", "W", "L"
SPATIAL = {1: (WIDTH,), 2: (HEIGHT, WIDTH), 3: (TIME, HEIGHT, WIDTH)}
"""The spatial axes of a map, by their number."""


@dataclass(frozen=True)
class Atom:
    """A factor of an axis.

    Attributes:
        kind: IMAGE, CHANNEL, TIME, HEIGHT, WIDTH; or TOKENS: positions with other tokens before or behind them.
        size: None where it is free.
        stride: of a part of a split axis: the product of the parts inside it.
        inner: of TOKENS: the positions' own atoms.
        before, after: of TOKENS: how many others there are; None where the file does not say.
        source: the value and axis where the size can be read at run time.
        added: of TOKENS: the node that added the others.
    """

    kind: str
    size: int | None
    stride: int = 1
    inner: tuple[Atom, ...] = ()
    before: int | None = 0
    after: int | None = 0
    source: tuple[ir.Value, int] | None = field(default=None, compare=False)
    added: ir.Node | None = field(default=None, compare=False)


Axis = tuple[Atom, ...]
Axes = tuple[Axis, ...]
UNKNOWN: Axis = ()
CHANNELS: Axis = (Atom(CHANNEL, None),)
LAST = (1 << 63) - 1


def is_spatial(axis: Axis) -> bool:
    """Whether positions of the image lie along ``axis``."""
    return any(atom.kind in (TIME, HEIGHT, WIDTH, TOKENS) for atom in axis)


def count(atoms: Sequence[Atom]) -> int | None:
    """Product of the sizes; None where one is free."""
    sizes = [atom.size for atom in atoms]
    return None if None in sizes else math.prod(size for size in sizes if size is not None)


def positions(axis: Axis) -> Axis:
    """The atoms of the positions along a token axis, without its other tokens."""
    return axis[0].inner if len(axis) == 1 and axis[0].kind == TOKENS else axis


def fresh(value: ir.Value, order: str) -> Axes:
    """The axes of a map that an operator makes, of one atom each: "NCHW"."""
    dims = known_dims(value) or [None] * len(order)
    return tuple((Atom(kind, dims[i], source=(value, i)),) for i, kind in enumerate(order))


def agreed(value: ir.Value, axes: Axes) -> Axes | None:
    """``axes`` with the sizes that the file gives for ``value``; None where the two contradict each other."""
    dims = known_dims(value)
    if dims is None:
        return axes
    if len(dims) != len(axes):
        return None
    return tuple(_agreed_axis(axis, dim, (value, i)) for i, (axis, dim) in enumerate(zip(axes, dims)))


def _agreed_axis(axis: Axis, dim: int | None, source: tuple[ir.Value, int]) -> Axis:
    if len(axis) != 1:
        have = count(axis)
        return axis if dim is None or have in (None, dim) else UNKNOWN
    atom = axis[0]
    if atom.kind == TOKENS:
        return (_agreed_tokens(atom, dim),) if dim is not None else axis
    if atom.size != dim or (atom.source is None and is_spatial(axis)):
        return (Atom(atom.kind, dim, atom.stride if atom.size == dim else 1, source=source),)
    return axis


def _agreed_tokens(atom: Atom, dim: int) -> Atom:
    inner = count(atom.inner)
    if inner is not None and atom.before is None and atom.after is not None:
        return replace(atom, size=dim, before=dim - inner - atom.after)
    if inner is not None and atom.after is None and atom.before is not None:
        return replace(atom, size=dim, after=dim - inner - atom.before)
    return replace(atom, size=dim)


def tokens(inner: Axis, before: int | None, after: int | None, added: ir.Node | None) -> Axis:
    """The axis of positions with others around them."""
    if before == 0 and after == 0:
        return inner
    area = count(inner)
    size = None if area is None or before is None or after is None else area + before + after
    return (Atom(TOKENS, size, 1, inner, before, after, added=added),)


# ---- reshapes


def first_two_merged(axes: Axes, node: ir.Node) -> Axes | None:
    """The axes of a Reshape that makes one axis of the first two and leaves the others, free ones by their names.

    Axes of length one may come and go. None where it does something else, or the file does not tell.
    """
    shapes = [value.shape if value is not None else None for value in (node.inputs[0], node.outputs[0])]
    if shapes[0] is None or shapes[1] is None or len(shapes[1]) < 4:
        return None
    old, new = ([side if isinstance(side, int) else side.value for side in shape] for shape in shapes if shape)
    kept = [i for i, side in enumerate(old) if side != 1 or i == 0]
    tail = [side for side in new[1:] if side != 1]
    if len(kept) < 2 or None in tail or [old[i] for i in kept[2:]] != tail or old[0] == new[0]:
        return None
    rest = iter(kept[2:])
    merged = axes[0] + axes[kept[1]]
    return (merged, *((Atom(CHANNEL, 1),) if side == 1 else axes[next(rest)] for side in new[1:]))


def regroup(axes: Axes, dims: Sequence[int | None]) -> Axes | None:
    """The axes of a Reshape to ``dims`` (None: free): atoms are split and merged as the sizes demand."""
    atoms = [atom for axis in axes for atom in axis]
    if any(not axis for axis in axes):  # an axis of unknown meaning: sizes can no longer be told apart
        return _regroup_known_ends(axes, dims)
    left: list[Axis] = []
    right: list[Axis] = []
    rest = list(dims)
    while rest and rest[0] is not None:
        taken = _take(atoms, rest.pop(0), first=True)
        if taken is None:
            return None
        left.append(taken)
    while rest and rest[-1] is not None:
        taken = _take(atoms, rest.pop(), first=False)
        if taken is None:
            return None
        right.insert(0, taken)
    middle = _middle(atoms, rest)
    return None if middle is None else tuple(map(_merged, [*left, *middle, *right]))


def _regroup_known_ends(axes: Axes, dims: Sequence[int | None]) -> Axes | None:
    """Where only the axes of known meaning in front or behind keep their sizes, they keep their meaning."""
    if len(axes) != len(dims):
        return None
    same = all(count(axis) in (None, dim) for axis, dim in zip(axes, dims) if axis)
    return axes if same else None


def _middle(atoms: list[Atom], rest: list[int | None]) -> list[Axis] | None:
    """The axes of those dimensions that begin and end with a free one."""
    if not rest:
        return [] if all(atom.size == 1 for atom in atoms) else None
    if len(rest) == 1:
        return [tuple(atoms)]
    if len(rest) == len(atoms):
        fits = all(dim is None or atom.size in (None, dim) for atom, dim in zip(atoms, rest))
        return [(atom,) for atom in atoms] if fits else None
    if atoms and atoms[0].kind == IMAGE and rest[0] is None:
        tail = regroup(tuple((atom,) for atom in atoms[1:]), rest[1:])
        return None if tail is None else [(atoms[0],), *tail]
    return None


def _take(atoms: list[Atom], dim: int | None, first: bool) -> Axis | None:
    """Remove atoms of product ``dim`` from the front or the back, splitting the last one if need be."""
    end = 0 if first else -1
    taken: list[Atom] = []
    have = 1
    while dim is not None and (have < dim or (dim == 1 and not taken and atoms and atoms[end].size == 1)):
        if not atoms or atoms[end].size is None:
            return None
        atom = atoms.pop(end)
        size = atom.size or 1
        if dim % (have * size):
            parts = _split(atom, dim // have, first) if (have * size) % dim == 0 and dim % have == 0 else None
            if parts is None:
                return None
            atom, remainder = parts
            atoms.insert(0 if first else len(atoms), remainder)
            size = atom.size or 1
        taken.insert(len(taken) if first else 0, atom)
        have *= size
    return tuple(taken)


def _split(atom: Atom, size: int, first: bool) -> tuple[Atom, Atom] | None:
    """(the part of ``size`` at the front or back, the rest)."""
    if atom.kind == TOKENS or atom.size is None:
        return None
    other = atom.size // size
    if first:
        return Atom(atom.kind, size, atom.stride * other), Atom(atom.kind, other, atom.stride)
    return Atom(atom.kind, size, atom.stride), Atom(atom.kind, other, atom.stride * size)


def _merged(axis: Axis) -> Axis:
    """Parts of one axis that lie side by side again are one atom."""
    made: list[Atom] = []
    for atom in axis:
        if made and made[-1].kind == atom.kind != TOKENS and atom.size is not None and made[-1].size is not None:
            outer = made[-1]
            if outer.stride == atom.stride * atom.size and outer.size is not None:
                made[-1] = Atom(atom.kind, outer.size * atom.size, atom.stride)
                continue
        made.append(atom)
    return tuple(made)


# ---- parts and sums of an axis


def cut(axis: Axis, start: int, stop: int | None, step: int) -> Axis:
    """The elements [start:stop:step] along ``axis``; UNKNOWN if they are not all of its positions."""
    if not is_spatial(axis):
        return tuple(replace(atom, size=None) for atom in axis[:1]) if len(axis) == 1 else UNKNOWN
    if len(axis) == 1 and axis[0].kind != TOKENS:
        return (Atom(axis[0].kind, None),)  # a row of the map's rows: still rows; their number is read off the shape
    inner, before, after = positions(axis), *_around(axis)
    area = count(inner)
    if before is None:
        return tokens(inner, None if start <= 1 else before, after, _added(axis)) if stop is None and start else UNKNOWN
    if step != 1 or start > before or (stop is not None and (area is None or stop < before + area)):
        return UNKNOWN
    dropped = None if after is None or stop is None or area is None else max(before + area + after - stop, 0)
    return tokens(inner, before - start, after if not dropped or after is None else after - dropped, _added(axis))


def without_positions(axis: Axis, start: int, stop: int | None) -> bool:
    """Whether the elements [start:stop] of a token axis hold none of its positions."""
    if len(axis) != 1 or axis[0].kind != TOKENS:
        return False
    before, area = axis[0].before, count(axis[0].inner)
    if stop is not None and stop <= (1 if before is None else before):
        return before is None or before > 0
    return before is not None and area is not None and start >= before + area


def joined(axes: Sequence[Axis], sizes: Sequence[int | None], node: ir.Node) -> Axis:
    """The axis along which a Concat joins ``axes``."""
    carriers = [i for i, axis in enumerate(axes) if is_spatial(axis)]
    if not carriers:
        return CHANNELS
    first = axes[carriers[0]]
    if len(carriers) > 1:
        kinds = {axis[0].kind if len(axis) == 1 else "" for axis in axes}
        return (Atom(first[0].kind, None),) if len(kinds) == 1 and kinds <= {TIME, HEIGHT, WIDTH} else UNKNOWN
    if len(axes) == 1:
        return first
    before, after = _around(first)
    here = carriers[0]
    return tokens(positions(first), _plus(before, sizes[:here]), _plus(after, sizes[here + 1 :]), node)


def _around(axis: Axis) -> tuple[int | None, int | None]:
    return (axis[0].before, axis[0].after) if len(axis) == 1 and axis[0].kind == TOKENS else (0, 0)


def _added(axis: Axis) -> ir.Node | None:
    return axis[0].added if axis else None


def _plus(number: int | None, more: Sequence[int | None]) -> int | None:
    return None if number is None or None in more else number + sum(size for size in more if size is not None)


def integers(value: ir.Value | None) -> list[int] | None:
    """The content of an integer input, where the file gives it."""
    array = constant_array(value)
    return None if array is None else [int(i) for i in array.reshape(-1)]


def vector(value: ir.Value | None) -> list[int | None] | None:
    """The elements of a shape that a graph computes, as far as the file gives them; None: not even their number."""
    known = integers(value)
    if known is not None or value is None:
        return list(known) if known is not None else None
    node, dims = value.producer(), known_dims(value)
    if node is not None and node.op_type == "Concat":
        parts = [vector(part) for part in node.inputs]
        if all(part is not None for part in parts):
            return [element for part in parts for element in part or ()]
    return [None] * dims[0] if dims is not None and len(dims) == 1 and dims[0] is not None else None


def length(value: ir.Value, axis: int, rank: int) -> int | None:
    """The size of one axis; of a class token repeated for every image that of the token. The check measures the sum."""
    size = (known_dims(value) or [None] * rank)[axis]
    node = value.producer()
    if size is None and node is not None and node.op_type in ("Expand", "Tile") and node.inputs[0] is not None:
        token = known_dims(node.inputs[0])
        return token[axis] if token is not None and len(token) == rank else None
    return size


def slices(node: ir.Node) -> dict[int, tuple[int, int | None, int]] | None:
    """axis -> (start, stop, step) of a Slice; None for a stop at the end. Negative indices count as unknown."""
    inputs = [integers(value) if value is not None else None for value in (*node.inputs[1:], None, None)]
    starts, stops = inputs[0], inputs[1]
    if starts is None or stops is None:
        return None
    which = inputs[2] or list(range(len(starts)))
    steps = inputs[3] or [1] * len(starts)
    dims = known_dims(node.inputs[0]) if node.inputs[0] is not None else None
    made: dict[int, tuple[int, int | None, int]] = {}
    for axis, start, stop, step in zip(which, starts, stops, steps):
        size = dims[axis] if dims is not None else None
        if (start < 0 or -LAST < stop < 0) and size is None:
            return None
        start = max(start + (size or 0), 0) if start < 0 else start
        end = None if stop >= LAST >> 32 or (size is not None and stop >= size) else stop + (size or 0) * (stop < 0)
        made[axis] = (start, end, step)
    return made
