"""Small models for every gradient rule: CASES, operator -> its cases."""

import numpy as np
import onnx

from support.rules.case import IMAGE, C, H, N, W, binary, ints, one, unary, weight
from support.rules.composite import CASES as COMPOSITE
from support.rules.control import CASES as CONTROL
from support.rules.convolution import SAME, averages, convolutions, maxima
from support.rules.indexing import CASES as INDEXING
from support.rules.normalization import CASES as NORMALIZATION
from support.rules.normalization import ONE, constant_pads
from support.rules.recurrent import CASES as RECURRENT
from support.rules.sampling import CASES as SAMPLING
from support.rules.shape import concats, gathers, moves, pads, shapes, slices, splits


def reductions(op_type):
    return [
        one(op_type, x=IMAGE, axes=ints(2, 3)),
        one(op_type, x=IMAGE, axes=ints(-1, 1), keepdims=0),
        one(op_type, x=IMAGE, axes=ints(3), keepdims=0),
        one(op_type, x=IMAGE, axes=ints(0)),
        one(op_type, x=IMAGE, axes=ints(0, 2), keepdims=0),
        one(op_type, x=IMAGE),
        one(op_type, x=IMAGE, keepdims=0),
        one(op_type, x=IMAGE, axes=ints()),
        one(op_type, x=IMAGE, axes=ints(), noop_with_empty_axes=1),
        one(op_type, x=IMAGE, noop_with_empty_axes=1),
        one(op_type, x=(N, 5), axes=ints(1), keepdims=0),
    ]


def gemms():
    made = []
    for trans_a in (0, 1):
        for trans_b in (0, 1):
            a, b = ((5, N) if trans_a else (N, 5)), ((3, 5) if trans_b else (5, 3))
            flags = {"transA": trans_a, "transB": trans_b}
            made += [one("Gemm", a=a, b=b, **flags), one("Gemm", a=a, b=b, c=(N, 3), alpha=0.5, beta=-2.0, **flags)]
    columns = [one("Gemm", a=(N, 5), b=weight(5, 3), c=c, alpha=1.5) for c in ((3,), (1,), (1, 3), (N, 1), ())]
    return [*made, *columns, one("Gemm", a=(N, 5), b=weight(7, 5), c=weight(7), transB=1)]


def matmuls():
    pairs = [
        ((N, 5), (5, 3)), ((N, H, 5), (5, 3)), ((N, C, H, 5), (5, 3)), ((H, 5), (N, 5, W)),
        ((N, C, H, 5), (N, C, 5, W)), ((N, C, H, 5), (C, 5, W)), ((N, 1, H, 5), (1, C, 5, W)), ((1, H, 5), (N, 5, W)),
        ((5,), (5,)), ((5,), (5, W)), ((N, 5), (5,)), ((5,), (N, 5, W)), ((N, H, 5), (5,)), ((5,), (N, C, 5, W)),
        ((N, C, H, 5), (5,)), ((N, C, 3, 5), (1, 1, 5, W)),
    ]  # fmt: skip
    return [one("MatMul", a=a, b=b) for a, b in pairs]


CONDITION = np.random.default_rng(3).random((4, 1, 1)) < 0.5


CASES = {
    "Add": binary("Add"),
    "Sub": binary("Sub"),
    "Mul": binary("Mul"),
    "Div": binary("Div", **ONE),
    "Pow": [
        *binary("Pow", **ONE),
        *(one("Pow", x=IMAGE, p=np.array(p)) for p in (2.0, 3.0, 1.0, 0.0)),
        *(one("Pow", x=IMAGE, p=np.array(p)) for p in (2, 3, 0)),
        *(one("Pow", x=IMAGE, p=np.array(p), **ONE) for p in (0.5, -0.5, -1.0)),
    ],
    "Sum": [
        one("Sum", a=IMAGE),
        one("Sum", a=IMAGE, b=(C, 1, 1), c=(1, C, H, W)),
        one("Sum", a=(N, 1), b=(1, 5), c=(5,)),
    ],
    "Mean": [one("Mean", a=IMAGE), one("Mean", a=IMAGE, b=(C, 1, 1), c=(1, C, H, W)), one("Mean", a=(N, 1), b=(1, 5))],
    **{
        op_type: [*binary(op_type), one(op_type, a=IMAGE), one(op_type, a=IMAGE, b=(C, 1, 1), c=(N, C, H, 1))]
        for op_type in ("Max", "Min")
    },
    "Where": [
        one("Where", c=CONDITION, a=IMAGE, b=IMAGE),
        one("Where", c=CONDITION, a=(N, C, 1, 1), b=(H, W)),
        one("Where", c=CONDITION, a=IMAGE, b=np.array(2.0)),
        one("Where", c=np.array(True), a=(N, 5), b=(5,)),
    ],
    "Identity": unary("Identity"),
    "OptionalGetElement": unary("OptionalGetElement"),
    "Dropout": [
        one("Dropout", x=IMAGE),
        one("Dropout", x=IMAGE, ratio=np.array(0.5), training=np.array(False)),
        one("Dropout", x=IMAGE, outputs=("y", "mask"), cotangents=("y",)),
    ],
    "CastLike": [one("CastLike", x=IMAGE, t=np.array(1.0))],
    "Cast": [one("Cast", x=IMAGE, to=int(onnx.TensorProto.DOUBLE))],
    **{
        op_type: unary(op_type)
        for op_type in ("Neg", "Abs", "Exp", "Erf", "Sin", "Cos", "Ceil", "Floor", "Round", "Sign")
    },
    **{op_type: unary(op_type, **ONE) for op_type in ("Reciprocal", "Sqrt", "Log")},
    **{op_type: unary(op_type) for op_type in ("Relu", "Sigmoid", "Tanh", "Softplus", "Softsign", "HardSwish", "Mish")},
    "LeakyRelu": unary("LeakyRelu", {"alpha": 0.3}),
    "PRelu": [one("PRelu", x=IMAGE, slope=slope) for slope in ((C, 1, 1), (1,), IMAGE, weight(4, 1, 1))]
    + [one("PRelu", x=(2, 3, 4), slope=(3,), runtime=False)],
    "HardSigmoid": unary("HardSigmoid", {"alpha": 0.5, "beta": 0.25}),
    "Elu": unary("Elu", {"alpha": 0.5}),
    "Celu": unary("Celu", {"alpha": 0.5}),
    "Selu": unary("Selu", {"alpha": 1.25, "gamma": 0.75}),
    "ThresholdedRelu": unary("ThresholdedRelu", {"alpha": 0.25}),
    "Swish": unary("Swish", {"alpha": 1.5}, opset=24),
    "Gelu": unary("Gelu", {"approximate": "tanh"}, opset=20),
    **{op_type: unary(op_type)[:2] for op_type in ("Sinh", "Cosh", "Atan", "Asinh")},
    **{op_type: unary(op_type, sample="unit")[:2] for op_type in ("Tan", "Asin", "Acos", "Atanh")},
    "Acosh": unary("Acosh", sample="above one")[:2],
    "Mod": [
        one("Mod", a=IMAGE, b=IMAGE, fmod=1),
        one("Mod", a=IMAGE, b=(C, 1, 1), fmod=1),
        one("Mod", a=(5,), b=(N, 1), fmod=1, **ONE),
        one("Mod", a=IMAGE, b=IMAGE, opset=28, runtime=False),
    ],
    "Shrink": unary("Shrink", {"lambd": 0.25, "bias": 0.1})[1:],
    "ConvTranspose": [
        one("ConvTranspose", x=(N, 4, H, W), w=(4, 3, 3, 2), b=(3,)),
        one("ConvTranspose", x=(N, 4, H, W), w=(4, 2, 3, 3), group=2, strides=[2, 3], pads=[1, 0, 2, 1]),
        one("ConvTranspose", x=(N, 4, H, W), w=(4, 3, 2, 3), strides=[2, 3], output_padding=[1, 2], dilations=[2, 1]),
        one("ConvTranspose", x=(N, 4, W), w=(4, 1, 3), group=4, strides=[2], pads=[1, 1], output_padding=[1]),
        one("ConvTranspose", x=(N, 2, H, W, 3), w=(2, 3, 2, 3, 2), strides=[2, 1, 2], pads=[0, 1, 0, 0, 1, 0]),
        *(one("ConvTranspose", x=(N, 4, H, W), w=(4, 3, 3, 4), strides=[2, 3], auto_pad=pad) for pad in SAME),
        *(one("ConvTranspose", x=(N, 4, H, W), w=(4, 3, 4, 2), b=(3,), auto_pad=pad) for pad in SAME),
        one("ConvTranspose", x=(N, 4, H, W), w=(4, 3, 3, 3), strides=[2, 2], auto_pad="VALID"),
        *(
            one("ConvTranspose", x=(N, 4, 7, 6), w=(4, 2, 3, 3), strides=[2, 2], output_shape=[14, 11], **more)
            for more in ({}, {"auto_pad": "SAME_UPPER"}, {"auto_pad": "SAME_LOWER"}, {"output_padding": [1, 1]})
        ),
    ],
    **{
        op_type: [one(op_type, x=IMAGE, axis=axis) for axis in (-1, 0, 1, 2)]
        + [one(op_type, x=(N, 5)), one(op_type, x=(5,))]
        for op_type in ("Softmax", "LogSoftmax")
    },
    "Gemm": gemms(),
    "MatMul": matmuls(),
    "Conv": convolutions(),
    "AveragePool": averages(),
    "MaxPool": maxima(),
    "GlobalAveragePool": [one("GlobalAveragePool", x=x) for x in (IMAGE, (N, 3, W), (N, C, H, W, 2))],
    "GlobalMaxPool": [one("GlobalMaxPool", x=x) for x in (IMAGE, (N, 3, W), (N, C, H, W, 2))],
    **moves(),
    **{op_type: reductions(op_type) for op_type in ("ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin")},
    **{
        op_type: [*reductions(op_type)[2:5], *reductions(op_type)[6:10:3]]
        for op_type in ("ReduceL1", "ReduceL2", "ReduceSumSquare", "ReduceLogSumExp")
    },
    "ReduceProd": [
        one("ReduceProd", x=(N, 3, W), axes=ints(1)),
        one("ReduceProd", x=(N, 3, W), axes=ints(0, 1), keepdims=0),
        one("ReduceProd", x=(N, 3), keepdims=0),
        one("ReduceProd", x=(N, 3), noop_with_empty_axes=1),
    ],
    "ReduceLogSum": [
        one("ReduceLogSum", x=IMAGE, axes=axes, keepdims=k, **ONE) for axes, k in ((ints(2, 3), 1), (ints(0, 1), 0))
    ],
    "GlobalLpPool": [one("GlobalLpPool", x=x, p=p) for x, p in ((IMAGE, 2), (IMAGE, 1), ((N, 3, W), 3))],
    "LpPool": [
        one("LpPool", x=IMAGE, kernel_shape=[2, 2], strides=[2, 2]),
        one("LpPool", x=IMAGE, kernel_shape=[3, 2], strides=[1, 2], pads=[1, 0, 1, 1], p=1),
        one("LpPool", x=IMAGE, kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1, p=3),
        one("LpPool", x=IMAGE, kernel_shape=[3, 2], dilations=[2, 1]),
        one("LpPool", x=(N, 3, W), kernel_shape=[3], strides=[2], auto_pad="SAME_UPPER"),
        one("LpPool", x=(N, 2, H, W, 6), kernel_shape=[2, 3, 2], strides=[2, 2, 1]),
    ],
    **shapes(),
    "Concat": concats(),
    "Split": splits(),
    "Slice": slices(),
    "Pad": [*pads(), *constant_pads()],
    "Gather": gathers(),
}

CASES |= NORMALIZATION | INDEXING | SAMPLING | RECURRENT | COMPOSITE | CONTROL

ALL = [case for made in CASES.values() for case in made]
