"""Quantised graphs: which integers stand for real numbers, and where the real numbers are to be read.

A quantised file says DequantizeLinear, operator, QuantizeLinear, and a runtime makes one integer kernel of the three,
with other roundings than the float operator has. It does so only while nothing else reads the float values between, and
then these never exist. So a backward pass must not read them, or the outputs of the file change: it reads what the next
layer reads, the dequantised value.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from fastcam_export.graph.constants import Array, constant_array
from fastcam_export.graph.query import in_default_domain, input_at, is_added, only_consumer, qualified_op_type

QUANTIZE, DEQUANTIZE, DYNAMIC = "QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear"
RESCALED: dict[str, tuple[int, int]] = {
    "QLinearConv": (6, 7),
    "QLinearMatMul": (6, 7),
    "com.microsoft.QGemm": (7, 8),
    "com.microsoft.QLinearAdd": (6, 7),
    "com.microsoft.QLinearAveragePool": (3, 4),
    "com.microsoft.QLinearConcat": (0, 1),
    "com.microsoft.QLinearConv": (6, 7),
    "com.microsoft.QLinearGlobalAveragePool": (3, 4),
    "com.microsoft.QLinearLeakyRelu": (3, 4),
    "com.microsoft.QLinearMul": (6, 7),
    "com.microsoft.QLinearReduceMean": (3, 4),
    "com.microsoft.QLinearSigmoid": (3, 4),
    "com.microsoft.QLinearSoftmax": (3, 4),
    "com.microsoft.QLinearWhere": (7, 8),
}
"""Operators that give integers of a scale and zero point of their own, and which inputs these are."""
COUNTS = frozenset({"ConvInteger", "MatMulInteger"})
"""Operators that give int32 counts, whose scale lies in float operators behind."""
LIMITS = {
    ir.DataType.UINT4: (0, 15),
    ir.DataType.INT4: (-8, 7),
    ir.DataType.UINT8: (0, 255),
    ir.DataType.INT8: (-128, 127),
    ir.DataType.UINT16: (0, 65535),
    ir.DataType.INT16: (-32768, 32767),
    ir.DataType.INT32: (-(2**31), 2**31 - 1),
}
"""Integer types that stand for real numbers, and what they can hold."""
MOVES = frozenset({"Concat", "Expand", "Flatten", "Gather", "Identity", "Reshape", "Slice", "Split", "Squeeze"})
MOVES |= {"Transpose", "Unsqueeze"}
"""Operators that hand elements on as they are, integers too."""
SELECTIONS = frozenset(
    {"Clip", "DepthToSpace", "GatherElements", "GatherND", "Max", "MaxPool", "Min", "Pad", "ReduceMax"}
)
SELECTIONS |= {"ReduceMin", "Resize", "SpaceToDepth", "Tile", "Upsample", "Where"}
"""Operators that hand on some of their elements, integers too, or means of them that they round."""
ACTIVATIONS = frozenset({"Clip", "Elu", "HardSigmoid", "LogSoftmax", "Relu", "Selu", "Sigmoid", "Softmax", "Tanh"})
"""Activations whose derivative can be taken at the dequantised value in place of the float one."""
LAST = frozenset({"ArgMax", "Cast", "Flatten", "Identity", "LogSoftmax", "QLinearSigmoid", "QLinearSoftmax", "Reshape"})
LAST |= {DEQUANTIZE, QUANTIZE, "Sigmoid", "Softmax", "Squeeze", "TopK"}
"""What stands between scores and outputs."""
WITHIN = {"Sigmoid": (0.0, 1.0), "HardSigmoid": (0.0, 1.0), "Softmax": (0.0, 1.0), "Tanh": (-1.0, 1.0)}
KEEPS_BOUNDS = frozenset({"GlobalAveragePool", "GlobalMaxPool", "MaxPool", "ReduceMax", "ReduceMean", "ReduceMin"})
KEEPS_BOUNDS |= MOVES - {"Concat"}


def is_code(value: ir.Value) -> bool:
    """Whether an integer value stands for real numbers: what QuantizeLinear gives, and what is computed from that."""
    node = value.producer()
    if node is None or value.dtype not in LIMITS:
        return False
    if node.op_type == DYNAMIC:
        return value is node.outputs[0]
    if node.op_type == QUANTIZE or qualified_op_type(node) in RESCALED:
        return True
    return any(x is not None and is_code(x) for x in node.inputs)


def is_step(value: ir.Value) -> bool:
    """Whether a value is the scale or zero point that a DynamicQuantizeLinear chose: constants to a gradient."""
    node = value.producer()
    return node is not None and node.op_type == DYNAMIC and value is not node.outputs[0]


@dataclass(frozen=True)
class Coding:
    """What integers stand for: (code - zero) * scale. Without a scale they are counts, which stand for themselves.

    Attributes:
        node: what made them.
        scale, zero: its values.
    """

    node: ir.Node
    scale: ir.Value | None = None
    zero: ir.Value | None = None

    def same(self, scale: ir.Value | None, zero: ir.Value | None) -> bool:
        """Whether a scale and a zero point are this one's, as far as is known at export."""
        pairs = ((self.scale, scale), (self.zero, zero))
        return all(_known_equal(a, b) for a, b in pairs if a is not b)


def coding(code: ir.Value) -> Coding | None:
    """What ``code`` stands for, perhaps rearranged; None where it is not known."""
    value: ir.Value | None = code
    while value is not None and (node := value.producer()) is not None:
        rescaled = RESCALED.get(qualified_op_type(node))
        if node.op_type == QUANTIZE:
            return Coding(node, input_at(node, 1), input_at(node, 2))
        if rescaled is not None:
            return Coding(node, *(input_at(node, index) for index in rescaled))
        if node.op_type == DYNAMIC:
            return Coding(node, node.outputs[1], node.outputs[2])
        if node.op_type in COUNTS:
            return Coding(node)
        if node.op_type not in MOVES | SELECTIONS:
            return None
        value = next((x for x in node.inputs if x is not None and is_code(x)), None)
    return None


def is_map(value: ir.Value) -> bool:
    """Whether integers can be explained in the place of the numbers that they stand for: no float reads them alone."""
    known = coding(value) if is_code(value) else None
    readers = [node for node, _ in value.uses() if not is_added(node)]
    return known is not None and known.scale is not None and any(node.op_type != DEQUANTIZE for node in readers)


def same_scale(quantize: ir.Node, dequantize: ir.Node) -> bool:
    """Whether both have the same scale and zero point, known at export."""
    pairs = [(input_at(quantize, index), input_at(dequantize, index)) for index in (1, 2)]
    arrays = [(constant_array(a), constant_array(b)) for a, b in pairs]
    known = all((a is None) == (x is None) and (b is None) == (y is None) for (a, b), (x, y) in zip(pairs, arrays))
    axes = [node.attributes.get_int("axis", 1) for node in (quantize, dequantize)]
    blocks = [node.attributes.get_int("block_size", 0) for node in (quantize, dequantize)]
    return known and axes[0] == axes[1] and blocks[0] == blocks[1] and all(_equal(x, y) for x, y in arrays)


def seen(value: ir.Value) -> ir.Value:
    """What the next layer sees of a float value: its dequantised form where only its quantisation reads it.

    What lies before a Relu or Clip that only a quantisation reads is seen behind it as well: whether it passed can be
    read off there.
    """
    reader, node = only_consumer(value), value.producer()
    if reader is None or node is None or node.op_type == DEQUANTIZE:
        return value
    if reader.op_type == QUANTIZE:
        pairs = [node for node, _ in reader.outputs[0].uses() if node.op_type == DEQUANTIZE]
        return next((node.outputs[0] for node in pairs if same_scale(reader, node)), value)
    if reader.op_type == "Relu" or (reader.op_type == "Clip" and _has_constant_limits(reader)):
        behind = seen(reader.outputs[0])
        return value if behind is reader.outputs[0] else behind
    return value


def unquantised(score: ir.Value) -> ir.Value:
    """The float value whose quantisation ``score`` is, perhaps reshaped; ``score`` where it is not quantised.

    Quantisers put a pair around each reshape, so there may be several. A score is explained before it is quantised, as
    it is before a softmax: at the end of the integers' range, where the surest predictions lie, its derivative would be
    zero.
    """
    value = found = score
    while (node := value.producer()) is not None and node.inputs and node.inputs[0] is not None:
        if node.op_type == DEQUANTIZE:
            quantize = node.inputs[0].producer()
            if quantize is None or quantize.op_type != QUANTIZE or not same_scale(quantize, node):
                break
            before = quantize.inputs[0]
            if before is None or before.shape is None:
                break
            value = found = before
        elif node.op_type in ("Flatten", "Identity", "Reshape", "Squeeze"):
            value = node.inputs[0]
        else:
            break
    return found


def maker(value: ir.Value) -> ir.Node | None:
    """The operator that computed a value, looked for behind its quantisation."""
    node = value.producer()
    if node is not None and node.op_type == DEQUANTIZE and node.inputs[0] is not None:
        quantize = node.inputs[0].producer()
        if quantize is not None and quantize.op_type == QUANTIZE and quantize.inputs[0] is not None:
            return quantize.inputs[0].producer()
    return node


def limits(node: ir.Node) -> tuple[Array | None, Array | None] | None:
    """The codes at or beyond which a QuantizeLinear hands on no gradient, below and above.

    Scalars, or vectors along the axis of a scale per channel; None at an end that cannot be reached. None in place of
    both where the output is no integer.
    """
    if node.outputs[0].dtype not in LIMITS:
        return None
    ends = [np.asarray(float(end)) for end in LIMITS[node.outputs[0].dtype]]
    scale, zero = (constant_array(input_at(node, index)) for index in (1, 2))
    x = node.inputs[0]
    assert x is not None
    if scale is None or (zero is None and input_at(node, 2) is not None):
        return ends[0], ends[1]
    offset = 0.0 if zero is None else zero.astype(np.float64).reshape(-1)
    step = scale.astype(np.float64).reshape(-1)
    low, high = (np.asarray(end) / step + offset for end in bounds(x))
    clip = x.producer()
    if clip is not None and clip.op_type == "Clip" and seen(x) is not x:  # its rule then leaves the masking to us
        below, above = np.maximum(np.rint(low), ends[0]), np.minimum(np.rint(high), ends[1])
    else:
        below = ends[0] if np.any(low < ends[0] - 0.5) else None
        above = ends[1] if np.any(high > ends[1] + 0.5) else None
    return _scalar(below), _scalar(above)


def rescaled_limits(
    node: ir.Node, inner: tuple[float, float] = (-math.inf, math.inf)
) -> tuple[Array | None, Array | None]:
    """As :func:`limits` of an operator of :data:`RESCALED`, whose results lie between the numbers ``inner``."""
    code = node.outputs[0]
    if code.dtype not in LIMITS or is_last(code):
        return None, None
    ends = [np.asarray(float(end)) for end in LIMITS[code.dtype]]
    scale, zero = (constant_array(input_at(node, index)) for index in RESCALED[qualified_op_type(node)])
    if scale is None or scale.size != 1:
        return ends[0], ends[1]
    offset = 0.0 if zero is None else zero.astype(np.float64).reshape(())
    low, high = (end / scale.astype(np.float64).reshape(()) + offset for end in inner)
    return ends[0] if low < ends[0] - 0.5 else None, ends[1] if high > ends[1] + 0.5 else None


def is_last(code: ir.Value) -> bool:
    """Whether only the model's outputs are made of ``code``: scores, explained as if they could not saturate."""
    stack, entered = [code], {code}
    while stack:
        value = stack.pop()
        readers = [node for node, _ in value.uses() if not is_added(node)]
        if any(node.op_type not in LAST for node in readers):
            return False
        new = [y for node in readers for y in node.outputs if y not in entered]
        entered.update(new)
        stack += new
    return True


def saturation(node: ir.Node) -> tuple[Array | None, Array | None]:
    """The numbers at :func:`limits` of a QuantizeLinear with a constant scale, in a form that broadcasts with x."""
    scale, zero = (constant_array(input_at(node, index)) for index in (1, 2))
    x = node.inputs[0]
    found = limits(node)
    if found is None or scale is None or x is None or x.shape is None:
        return None, None
    axis, block = node.attributes.get_int("axis", 1) % max(len(x.shape), 1), node.attributes.get_int("block_size", 0)
    column = [-1] + [1] * (len(x.shape) - 1 - axis) if scale.size > 1 else []
    offset = np.zeros(scale.shape) if zero is None else zero.astype(np.float64)
    size = x.shape[axis] if block else 0
    if not isinstance(size, int):
        return None, None

    def number(code: Array | None) -> Array | None:
        if code is None:
            return None
        limit = ((code if code.ndim == 0 else code.reshape(scale.shape)) - offset) * scale.astype(np.float64)
        return limit.repeat(block, axis).take(range(size), axis) if block else limit.reshape(column)

    return number(found[0]), number(found[1])


def bounds(value: ir.Value | None) -> tuple[float, float]:
    """Numbers between which every element of ``value`` lies, as far as the graph tells."""
    node = value.producer() if value is not None else None
    if node is None or not in_default_domain(node):
        return -math.inf, math.inf
    if node.op_type in WITHIN:
        return WITHIN[node.op_type]
    if node.op_type in KEEPS_BOUNDS:
        return bounds(node.inputs[0])
    if node.op_type == "Relu":
        return 0.0, max(bounds(node.inputs[0])[1], 0.0)
    if node.op_type == "AveragePool":
        low, high = bounds(node.inputs[0])
        return min(low, 0.0), max(high, 0.0)
    if node.op_type == "Clip":
        ends = [constant_array(input_at(node, index)) for index in (1, 2)]
        infinite = (-math.inf, math.inf)
        low, high = (float(a.reshape(())) if a is not None else end for a, end in zip(ends, infinite))
        return low, high
    if node.op_type == DEQUANTIZE:
        return _representable(node)
    return -math.inf, math.inf


def _representable(node: ir.Node) -> tuple[float, float]:
    return representable(*(input_at(node, index) for index in range(3)))


def representable(code: ir.Value | None, scale: ir.Value | None, zero: ir.Value | None) -> tuple[float, float]:
    """The least and the largest number that integers of this type, scale and zero point stand for."""
    step, offset = constant_array(scale), constant_array(zero)
    dtype = code.dtype if code is not None else None
    if step is None or (offset is None and zero is not None) or dtype not in LIMITS:
        return -math.inf, math.inf
    shift = 0.0 if offset is None else offset.astype(np.float64)
    low, high = ((end - shift) * step.astype(np.float64) for end in LIMITS[dtype])
    return float(low.min()), float(high.max())


def _has_constant_limits(clip: ir.Node) -> bool:
    return all(constant_array(value) is not None for value in clip.inputs[1:] if value is not None)


def _equal(a: Array | None, b: Array | None) -> bool:
    if a is None or b is None:
        return a is b
    return a.dtype == b.dtype and np.array_equal(a.reshape(-1), b.reshape(-1))


def _known_equal(a: ir.Value | None, b: ir.Value | None) -> bool:
    x, y = constant_array(a), constant_array(b)
    return x is not None and y is not None and _equal(x, y)


def _scalar(array: Array | None) -> Array | None:
    return array.reshape(()) if array is not None and array.size == 1 else array
