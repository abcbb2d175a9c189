"""What the axes of the explained input are, in order: as the user says, as the graph reads it, or by where few lie.

N images, C channels; H rows and W columns of a picture, T pictures of a video or sequence, D slices of a volume, L
samples of a signal.
"""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from fastcam.schema import ORDERS, FastcamError
from fastcam_export.graph.constants import constant_array
from fastcam_export.graph.query import ELEMENTS_KEPT, known_dims

SAID = "fastcam.order"
"""Key of a value's notes, which nobody writes into a file: the order that the user says."""
PLAIN = ELEMENTS_KEPT | {"Add", "Sub", "Mul", "Div", "Neg", "BatchNormalization", "QuantizeLinear", "DequantizeLinear"}
"""What leaves the axes where they are."""
CONVOLUTIONS = ("Conv", "FusedConv", "QLinearConv", "ConvInteger")
FEW = (1, 3)
"""Channels of a picture."""


def say(image: ir.Value, order: str | None) -> None:
    """Note what the user says.

    Raises:
        FastcamError: no such order, or one of another number of axes.
    """
    if order is None:
        return
    rank = len(image.shape) if image.shape is not None else 0
    if order not in ORDERS or len(order) != rank:
        fits = [name for name in ORDERS if len(name) == rank]
        raise FastcamError(
            f"order {order!r} does not fit input {image.name!r} of {rank} axes; there are: {', '.join(fits or ORDERS)}"
        )
    image.meta[SAID] = order


def image_order(image: ir.Value) -> str:
    """The axes of the explained input, one of :data:`fastcam.schema.ORDERS`."""
    said = image.meta.get(SAID)
    if said is not None:
        return str(said)
    dims = known_dims(image) or []
    if len(dims) == 5:
        return _of_five(image, dims)
    if len(dims) == 4:
        if _one_channel_added(image):
            return "NDHW"
        return "NHWC" if _last_has_few(dims) or _moved_last(image) else "NCHW"
    if len(dims) == 3:
        if _is_plane(image):
            return "NHW"
        return "NLC" if _samples_first(image, dims) else "NCL"
    return "NL"


def axis_kinds(order: str) -> str:
    """The same in the letters of :mod:`fastcam_export.layers.axis_semantics`: slices and times alike, samples in a
    row."""
    return order.replace("D", "T").replace("L", "W")


def guessed(dims: Sequence[int | str | None]) -> str:
    """What a run time without the file's word takes for granted."""
    last = len(dims) in (4, 5) and dims[-1] in FEW and dims[1] not in FEW
    return {4: "NHWC" if last else "NCHW", 5: "NTHWC" if last else "NCTHW"}.get(len(dims), "")


def _last_has_few(dims: Sequence[int | None]) -> bool:
    return dims[-1] in FEW and dims[1] not in FEW


def _of_five(image: ir.Value, dims: Sequence[int | None]) -> str:
    """A sequence of pictures, a video or a volume: of one channel, or of more than three, it is a volume."""
    folded = _folded(image)
    if folded is not None:
        return folded
    if dims[1] not in FEW and dims[-1] not in FEW and dims[2] in FEW:
        return "NTCHW"
    node = _first(image)
    if (
        node is not None
        and node.op_type == "Transpose"
        and list(node.attributes.get_ints("perm", ())) == [0, 2, 1, 3, 4]
    ):
        return "NTCHW"
    last = _last_has_few(dims) or _moved_last(image)
    channels = dims[-1] if last else dims[1]
    video = channels in (3, None)
    return ("NTHWC" if video else "NDHWC") if last else ("NCTHW" if video else "NCDHW")


def _is_plane(image: ir.Value) -> bool:
    """Whether the graph makes of [N, H, W] pictures of one channel, [N, 1, H, W], as of spectrograms."""
    node = _first(image)
    if node is None or node.op_type not in ("Unsqueeze", "Reshape"):
        return False
    made, dims = known_dims(node.outputs[0]), known_dims(image) or []
    if made is None or len(made) != 4 or made[1] != 1 or made[2:] != dims[1:]:
        return False
    reader = _first(node.outputs[0])
    if reader is None or reader.op_type not in CONVOLUTIONS or reader.inputs[1] is None:
        return False
    weight = known_dims(reader.inputs[1]) or []
    return len(weight) == 4 and weight[1] == 1


def _one_channel_added(image: ir.Value) -> bool:
    """Whether the graph makes of [N, D, H, W] volumes of one channel, [N, 1, D, H, W], or slices, [N D, 1, H, W]."""
    node, dims = _first(image), known_dims(image) or []
    if node is None or node.op_type not in ("Unsqueeze", "Reshape"):
        return False
    made = known_dims(node.outputs[0])
    if node.op_type == "Unsqueeze":
        axes = constant_array(node.inputs[1]) if len(node.inputs) > 1 else None
        return axes is not None and [int(axis) % 5 for axis in axes] in ([1], [2])
    if made is None or dims[1] == 1:
        return False
    return made[1] == 1 and (len(made) == 5 or (len(made) == 4 and made[2:] == dims[2:]))


def _folded(image: ir.Value) -> str | None:
    """The order of pictures that the graph folds into the batch, [N, T, ...] to [N T, ...]."""
    node = _first(image)
    if node is None or node.op_type not in ("Reshape", "Squeeze"):
        return None
    dims, made = known_dims(image) or [], known_dims(node.outputs[0])
    if node.op_type == "Squeeze" and (made is None or dims[0] != 1 or made[:1] != dims[1:2]):
        return None
    target = constant_array(node.inputs[1]) if node.op_type == "Reshape" else None
    sizes = [int(size) for size in target] if target is not None else made
    if sizes is None or len(sizes) != 4 or any(a != b for a, b in zip(sizes[1:], dims[2:]) if None not in (a, b)):
        return None
    inner = _first(node.outputs[0])
    moved = inner is not None and inner.op_type == "Transpose" and _perm(inner)[1:2] == [3]
    return "NTHWC" if moved else "NTCHW"


def _first(value: ir.Value) -> ir.Node | None:
    """The first node behind a value that does something with its axes, where there is one alone."""
    for _ in range(8):
        nodes = [node for node, _ in value.uses() if node.op_type not in ("Shape", "Size")]
        if len(nodes) != 1:
            return nodes[0] if nodes and all(node.op_type == nodes[0].op_type for node in nodes) else None
        if nodes[0].op_type not in PLAIN:
            return nodes[0]
        value = nodes[0].outputs[0]
    return None


def _perm(node: ir.Node) -> list[int]:
    return list(node.attributes.get_ints("perm", ()))


def _moved_last(image: ir.Value) -> bool:
    """Whether the graph begins by moving the last axis to where channels are."""
    node, rank = _first(image), len(image.shape or ())
    return node is not None and node.op_type == "Transpose" and _perm(node) == [0, rank - 1, *range(1, rank - 1)]


def _samples_first(image: ir.Value, dims: Sequence[int | None]) -> bool:
    """Whether a signal lies as [N, L, C]: the graph moves its last axis, or multiplies along it, or it is the shorter
    one."""
    node = _first(image)
    if node is not None and node.op_type in ("Conv", "QLinearConv", "ConvInteger"):
        return False
    if node is not None and node.op_type == "Transpose":
        return _perm(node) in ([0, 2, 1], [1, 0, 2])
    if node is not None and node.op_type in ("MatMul", "Gemm"):
        return True
    channels, samples = dims[1], dims[2]
    return (channels is None and samples is not None) or (None not in dims[1:] and (channels or 0) > (samples or 0))
