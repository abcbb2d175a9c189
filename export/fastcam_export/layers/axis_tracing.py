"""Follows the axes of the image through a graph, node by node: which value is a map, and how it is laid out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import onnx_ir as ir

from fastcam_export.graph.constants import remembered
from fastcam_export.graph.query import in_default_domain, input_at, known_dims, subgraphs
from fastcam_export.layers.axis_semantics import (
    CHANNEL,
    CHANNELS,
    IMAGE,
    TOKENS,
    UNKNOWN,
    Atom,
    Axes,
    Axis,
    agreed,
    cut,
    first_two_merged,
    fresh,
    integers,
    is_spatial,
    joined,
    length,
    regroup,
    slices,
    vector,
)
from fastcam_export.layers.image_order import axis_kinds, image_order

POOLS = frozenset({"MaxPool", "AveragePool", "LpPool", "QLinearAveragePool"})
WINDOWS = POOLS | {"Conv", "FusedConv", "ConvTranspose", "DeformConv", "QLinearConv", "ConvInteger"}
WHOLE = frozenset({"GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool", "QLinearGlobalAveragePool"})
NORMS = frozenset({"BatchNormalization", "InstanceNormalization", "GroupNormalization", "LRN"})
RESAMPLED = frozenset({"Resize", "Upsample", "GridSample", "AffineGrid", "RoiAlign", "MaxUnpool", "Col2Im"})
CHANNELS_SECOND = WINDOWS | WHOLE | NORMS | RESAMPLED | {"DepthToSpace", "SpaceToDepth"}
"""Operators whose maps are [N, K, h, w] whatever the exporter's habit."""
SKIPS = frozenset({"SkipLayerNormalization", "SkipSimplifiedLayerNormalization"})
"""Norms of a sum, which is their fourth output."""
MAPS = {3: "NCW", 4: "NCHW", 5: "NCTHW"}

Known = dict[ir.Value, Axes]
Follow = Callable[[ir.Node, Known], "Axes | None"]
RULES: dict[str, Follow] = {}


def trace(graph: ir.Graph, image: ir.Value) -> Known:
    """The axes of every value whose axes are known, from the image on."""
    known: Known = {image: fresh(image, axis_kinds(image_order(image)))}
    with remembered():
        for _ in range(2):  # once more for what a later sum told about a branch
            for node in graph:
                _follow(node, known)
    return known


def _follow(node: ir.Node, known: Known) -> None:
    fused = node.domain == "com.microsoft" and any(value.shape is not None for value in node.outputs[:1])
    if not node.outputs or not (fused or in_default_domain(node)):
        return
    if node.op_type == "Split":
        _split(node, known)
        return
    value = node.outputs[0]
    if value in known:
        return
    axes = RULES.get(node.op_type, _same_shape)(node, known)
    axes = agreed(value, axes) if axes is not None else None
    if axes is None and _read_as_map(value):
        axes = _of_images(value, fresh(value, "NCHW"), known)
    if axes is not None:
        known[value] = axes
        if node.op_type in SKIPS and len(node.outputs) > 3:
            known[node.outputs[3]] = axes
        _tell_siblings(node, known)


def _read_as_map(value: ir.Value) -> bool:
    """Whether a convolution or pool says that a value of four axes is a map, where nothing else does."""
    dims = known_dims(value)
    if dims is None or len(dims) != 4:
        return False
    return any(node.op_type in CHANNELS_SECOND and index == 0 for node, index in value.uses())


def _tell_siblings(node: ir.Node, known: Known) -> None:
    """The axes of a sum are those of each summand of the same shape."""
    if node.op_type not in ("Add", "Sum", "Mul", "Where", "Sub", "Div"):
        return
    value = node.outputs[0]
    for other in node.inputs:
        dims = known_dims(other) if other is not None and other.producer() is not None else None
        if other is None or dims is None or dims != known_dims(value):
            continue
        if other not in known or (any(map(is_spatial, known[value])) and not any(map(is_spatial, known[other]))):
            known[other] = known[value]


def rule(*op_types: str) -> Callable[[Follow], Follow]:
    """Register how the output's axes follow from the inputs'."""

    def register(function: Follow) -> Follow:
        RULES.update(dict.fromkeys(op_types, function))
        return function

    return register


def _first(node: ir.Node, known: Known) -> Axes | None:
    return known.get(node.inputs[0]) if node.inputs and node.inputs[0] is not None else None


def _same_shape(node: ir.Node, known: Known) -> Axes | None:
    """An operator that gives the shape that its inputs broadcast to keeps the meaning of its axes."""
    value = node.outputs[0]
    dims = known_dims(value)
    candidates = [known[x] for x in node.inputs if x is not None and x in known]
    if not candidates:
        return None
    rank = len(dims) if dims is not None else max(map(len, candidates))
    candidates = [axes for axes in candidates if len(axes) <= rank]
    if not candidates or (dims is not None and not _broadcasts(node, dims)):
        return None
    made: list[Axis] = []
    for i in range(rank):
        here = [axes[i - rank] for axes in candidates if rank - i <= len(axes)]
        made.append(max(here, key=_informativeness, default=UNKNOWN))
    return tuple(made)


def _informativeness(axis: Axis) -> tuple[bool, bool, int]:
    """How much an axis says: positions before channels, of others no axis of length one."""
    size = max((atom.size or 2 for atom in axis), default=0)
    return size > 1 and is_spatial(axis), bool(axis) and size > 1, any(atom.kind == TOKENS for atom in axis)


def _broadcasts(node: ir.Node, dims: list[int | None]) -> bool:
    shapes = [known_dims(x) for x in node.inputs if x is not None]
    for i, dim in enumerate(reversed(dims)):
        have = [s[-1 - i] for s in shapes if s is not None and i < len(s)]
        if dim is not None and dim not in have and None not in have:
            return False
    return True


@rule(*CHANNELS_SECOND)
def _channels_second(node: ir.Node, known: Known) -> Axes | None:
    x, value = _first(node, known), node.outputs[0]
    if node.op_type in NORMS and x is not None:
        return x
    dims = known_dims(value)
    rank = len(dims) if dims is not None else len(x) if x is not None else 0
    if x is not None and len(x) == rank and is_pointwise(node):
        return (x[0], CHANNELS, *x[2:])
    signal = "L" in image_order(next(iter(known)))
    if rank not in (4, 5) and not (signal and rank == 3):
        return None
    if node.op_type in WHOLE:
        return (x[0] if x is not None else UNKNOWN, CHANNELS, *[UNKNOWN] * (rank - 2))
    over = [axis for axis in x[2:] if not (signal and _is_one(axis))] if x is not None else []
    if x is not None and len(x) == rank and not all(map(is_spatial, over)):
        return None  # windows over something else than positions
    made = fresh(value, MAPS[rank])
    return _of_images(value, made, known) if x is None or len(x) != rank else (x[0], *made[1:])


def _is_one(axis: Axis) -> bool:
    """Whether an axis was put in with length one, as exporters do around a signal for two-dimensional windows."""
    return len(axis) == 1 and axis[0].size == 1


def _of_images(value: ir.Value, axes: Axes, known: Known) -> Axes:
    """``axes`` of a map whose origin is unknown: its first axis is the images' only where it has their number."""
    image = next(iter(known))
    have, want = (v.shape[0] if v.shape is not None else None for v in (value, image))
    anonymous = isinstance(have, ir.SymbolicDim) and (have.value is None or have.value.startswith("unk__"))
    return axes if have == want or (anonymous and not isinstance(want, int)) else (UNKNOWN, *axes[1:])


def is_pointwise(node: ir.Node) -> bool:
    """Whether a convolution looks at one position only."""
    if node.op_type != "Conv" or len(node.inputs) < 2 or node.inputs[1] is None:
        return False
    dims = known_dims(node.inputs[1])
    one = dims is not None and all(dim == 1 for dim in dims[2:])
    others = [*node.attributes.get_ints("strides", ())], [*node.attributes.get_ints("pads", ())]
    return one and all(s == 1 for s in others[0]) and not any(others[1])


@rule("Transpose")
def _transpose(node: ir.Node, known: Known) -> Axes | None:
    x = _first(node, known)
    if x is None:
        return None
    perm = list(node.attributes.get_ints("perm", ())) or list(range(len(x)))[::-1]
    return tuple(x[i] for i in perm)


@rule("Reshape", "Flatten")
def _reshape(node: ir.Node, known: Known) -> Axes | None:
    x, dims = _first(node, known), known_dims(node.outputs[0])
    target = vector(node.inputs[1]) if node.op_type == "Reshape" else None
    if target is not None and x is not None and node.inputs[0] is not None:
        old = known_dims(node.inputs[0]) or [None] * len(x)
        said = [old[i] if d == 0 and i < len(old) else None if d == -1 else d for i, d in enumerate(target)]
        dims = [d if d is not None else s for d, s in zip(dims, said)] if dims is not None else said
    return first_two_merged(x, node) or (regroup(x, dims) if dims is not None else None) if x is not None else None


@rule("Squeeze", "Unsqueeze")
def _squeeze(node: ir.Node, known: Known) -> Axes | None:
    x, which = _first(node, known), integers(input_at(node, 1))
    if x is None or which is None:
        return None
    if node.op_type == "Squeeze":
        return tuple(axis for i, axis in enumerate(x) if i not in {w % len(x) for w in which})
    made = list(x)
    for i in sorted(w % (len(x) + len(which)) for w in which):
        made.insert(i, _only_image(x, known) if i == 0 else (Atom(CHANNEL, 1),))
    return tuple(made)


def _only_image(axes: Axes, known: Known) -> Axis:
    """The axis that is put in front of a picture whose axis of images was taken away, as it had one image."""
    image = next(iter(known))
    lost = not any(atom.kind == IMAGE for axis in axes for atom in axis)
    return known[image][0] if lost and (known_dims(image) or [0])[0] == 1 else (Atom(CHANNEL, 1),)


@rule("Slice")
def _slice(node: ir.Node, known: Known) -> Axes | None:
    x, bounds = _first(node, known), slices(node)
    if x is None or bounds is None:
        return None
    made = list(x)
    for axis, (start, stop, step) in bounds.items():
        made[axis % len(x)] = cut(x[axis % len(x)], start, stop, step)
    return tuple(made)


@rule("Gather")
def _gather(node: ir.Node, known: Known) -> Axes | None:
    x, indices = _first(node, known), node.inputs[1]
    if x is None and indices in known:  # ids of words, looked up in a table
        table = known_dims(node.inputs[0]) if node.inputs[0] is not None else None
        first = node.attributes.get_int("axis", 0) == 0
        return (*known[indices], CHANNELS) if table is not None and len(table) == 2 and first else None
    rank = len(known_dims(indices) or []) if indices is not None and indices.shape is not None else None
    if x is None or rank is None or rank > 1:
        return None
    axis = node.attributes.get_int("axis", 0) % len(x)
    if rank == 0:
        return (*x[:axis], *x[axis + 1 :])
    which = integers(indices)
    run = which is not None and which == list(range(which[0], which[0] + len(which))) if which else False
    picked = cut(x[axis], which[0], which[0] + len(which), 1) if run and which is not None else UNKNOWN
    return (*x[:axis], picked, *x[axis + 1 :])


def _split(node: ir.Node, known: Known) -> None:
    x = _first(node, known)
    if x is None:
        return
    axis = node.attributes.get_int("axis", 0) % len(x)
    start = 0
    for value in node.outputs:
        dims = known_dims(value)
        size = dims[axis] if dims is not None else None
        axes = (*x[:axis], cut(x[axis], start, start + size, 1) if size else UNKNOWN, *x[axis + 1 :])
        told = agreed(value, axes)
        if told is not None:
            known.setdefault(value, told)
        start += size or 0


@rule("Concat", "QLinearConcat")
def _concat(node: ir.Node, known: Known) -> Axes | None:
    value = node.outputs[0]
    parted = node.inputs[2::3] if node.op_type == "QLinearConcat" else node.inputs
    inputs = [x for x in parted if x is not None]
    found = [known[x] for x in inputs if x in known]
    if not found:
        return None
    rank = len(found[0])
    axis = node.attributes.get_int("axis", 0) % rank
    parts = [known[x][axis] if x in known and len(known[x]) == rank else UNKNOWN for x in inputs]
    sizes = [length(x, axis, rank) for x in inputs]
    best = max(found, key=lambda axes: sum(map(is_spatial, axes)))
    along = joined(parts, sizes, node)
    made = (*best[:axis], along, *best[axis + 1 :])
    return made if agreed(value, made) is not None else None


@rule("DynamicQuantizeMatMul", "MatMul", "MatMulInteger", "MatMulIntegerToFloat", "QLinearMatMul")
def _matmul(node: ir.Node, known: Known) -> Axes | None:
    second = 3 if node.op_type == "QLinearMatMul" else 1
    a, b = (known.get(x) if x is not None else None for x in (node.inputs[0], node.inputs[second]))
    if a is None and b is None:
        return None
    rank = len(known_dims(node.outputs[0]) or a or b or ())
    if a is None or b is None:
        own = a or b or ()
        made = (*own[:-1], CHANNELS) if a is not None else (*own[:-2], UNKNOWN, own[-1])
        return (*[UNKNOWN] * (rank - len(made)), *made)
    batch = a[:-2] if len(a) >= len(b) else b[:-2]
    return (*batch, a[-2] if len(a) > 1 else UNKNOWN, b[-1])


@rule("FusedMatMul", "TransposeMatMul")
def _fused_matmul(node: ir.Node, known: Known) -> Axes | None:
    seen: Known = {}
    flags = {flag for flag in ("transA", "transB", "transBatchA", "transBatchB") if node.attributes.get_int(flag, 0)}
    if len(set(node.inputs)) == 1 or flags & {"transBatchA", "transBatchB"}:
        return None
    for x, flag in zip(node.inputs, ("transA", "transB")):
        axes = known.get(x) if x is not None else None
        if x is not None and axes is not None:
            seen[x] = (*axes[:-2], *axes[:-3:-1]) if flag in flags else axes
    return _matmul(node, seen)


@rule("If")
def _if(node: ir.Node, known: Known) -> Axes | None:
    for inner in (inner for graph in subgraphs(node) for inner in graph):
        _follow(inner, known)
    first, second = (known.get(graph.outputs[0]) for graph in subgraphs(node))
    if first is None or second is None or len(first) != len(second):
        return None
    same = all([a.kind for a in x] == [b.kind for b in y] for x, y in zip(first, second))
    return tuple(x if x == y else _resized(x) for x, y in zip(first, second)) if same else None


@rule("Gemm", "FusedGemm", "QGemm")
def _gemm(node: ir.Node, known: Known) -> Axes | None:
    x = _first(node, known)
    if x is None or len(x) != 2:
        return None
    return (x[1] if node.attributes.get_int("transA", 0) else x[0], CHANNELS)


@rule("Einsum")
def _einsum(node: ir.Node, known: Known) -> Axes | None:
    terms, _, result = node.attributes.get_string("equation", "").replace(" ", "").partition("->")
    if not result or "." in terms:
        return None
    letters: dict[str, Axis] = {}
    for term, value in zip(terms.split(","), node.inputs):
        for letter, axis in zip(term, known.get(value, ()) if value is not None else ()):
            if letter not in letters or (is_spatial(axis) and not is_spatial(letters[letter])):
                letters[letter] = axis
    return tuple(letters.get(letter, UNKNOWN) for letter in result) if letters else None


@rule("Pad")
def _pad(node: ir.Node, known: Known) -> Axes | None:
    x, pads = _first(node, known), integers(input_at(node, 1))
    if x is None:
        return None
    which = integers(input_at(node, 3)) if input_at(node, 3) is not None else list(range(len(x)))
    if pads is None or which is None:
        return tuple(axis if i < len(x) - 2 and not is_spatial(axis) else _resized(axis) for i, axis in enumerate(x))
    made = list(x)
    for i, axis in enumerate(which):
        if pads[i] or pads[i + len(which)]:
            made[axis] = _resized(x[axis], pads[i] + pads[i + len(which)])
    return tuple(made)


def _resized(axis: Axis, more: int | None = None) -> Axis:
    """``axis`` with ``more`` elements, which are rows as well."""
    if len(axis) != 1 or axis[0].kind == TOKENS:
        return UNKNOWN
    size = axis[0].size
    return (replace(axis[0], size=None if size is None or more is None else size + more, stride=1, source=None),)


def reduced_axes(node: ir.Node, rank: int) -> list[int] | None:
    """The axes that a reduction removes; None where the file does not say."""
    if input_at(node, 1) is not None:
        which = integers(node.inputs[1])
    else:
        which = list(node.attributes.get_ints("axes", ())) or list(range(rank))
    return None if which is None else [w % rank for w in which]


@rule("ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceL1", "ReduceL2", "ReduceSumSquare", "ReduceLogSumExp")
def _reduce(node: ir.Node, known: Known) -> Axes | None:
    x = _first(node, known)
    which = reduced_axes(node, len(x)) if x is not None else None
    if x is None or which is None:
        return None
    if node.attributes.get_int("keepdims", 1):
        return tuple(UNKNOWN if i in which else axis for i, axis in enumerate(x))
    return tuple(axis for i, axis in enumerate(x) if i not in which)
