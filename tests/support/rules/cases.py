"""Small models for every gradient rule: CASES, operator -> its cases."""

import numpy as np
import onnx

from support.rules.case import IMAGE, C, Case, H, N, W, binary, ints, one, unary, weight
from support.rules.composite import CASES as COMPOSITE
from support.rules.control import CASES as CONTROL
from support.rules.indexing import CASES as INDEXING
from support.rules.normalization import CASES as NORMALIZATION
from support.rules.normalization import ONE, constant_pads
from support.rules.recurrent import CASES as RECURRENT
from support.rules.sampling import CASES as SAMPLING

SAME = ("SAME_UPPER", "SAME_LOWER")


def convolutions():
    x, line, volume = IMAGE, (N, 4, W), (N, 2, H, W, 6)
    w = weight(6, 4, 3, 3)
    same = ("SAME_UPPER", "SAME_LOWER")
    return [
        one("Conv", x=x, w=w, b=weight(6)),
        Case((("Conv", ["x", "w", "b"], ["y"], {}),), {"x": x, "b": (6,)}, {"w": w}, ("x", "b")),
        one("Conv", x=x, w=w, pads=[1, 1, 1, 1]),
        one("Conv", x=x, w=(6, 4, 3, 2), b=(6,), strides=[2, 3], pads=[1, 0, 2, 1]),
        one("Conv", x=x, w=(6, 2, 2, 3), group=2, dilations=[2, 1]),
        one("Conv", x=x, w=(4, 1, 3, 3), group=4, strides=[2, 2], auto_pad="SAME_UPPER"),
        one("Conv", x=x, w=(5, 4, 1, 1), strides=[3, 4]),
        one("Conv", x=line, w=(3, 4, 3), strides=[2], pads=[0, 1]),
        one("Conv", x=volume, w=(3, 2, 3, 2, 3), strides=[2, 1, 2], pads=[1, 0, 1, 0, 1, 0]),
        one("Conv", x=x, w=w, strides=[2, 2]),
        one("Conv", x=x, w=w, strides=[2, 3], pads=[1, 0, 2, 1]),
        one("Conv", x=x, w=w, dilations=[2, 2], pads=[2, 2, 2, 2]),
        one("Conv", x=x, w=weight(6, 4, 3, 2), dilations=[2, 3], strides=[3, 2], pads=[0, 1, 2, 3]),
        one("Conv", x=x, w=weight(6, 2, 3, 3), group=2, pads=[1, 1, 1, 1]),
        one("Conv", x=x, w=weight(8, 1, 3, 3), group=4, strides=[2, 2], pads=[1, 1, 1, 1]),
        one("Conv", x=x, w=weight(4, 1, 2, 2), group=4, strides=[3, 3], dilations=[2, 1]),
        one("Conv", x=x, w=weight(5, 4, 1, 1)),
        one("Conv", x=x, w=weight(5, 4, 1, 1), strides=[2, 2]),
        one("Conv", x=x, w=weight(5, 4, 1, 1), strides=[3, 4]),
        one("Conv", x=x, w=w, auto_pad="VALID", strides=[2, 2]),
        *(one("Conv", x=x, w=weight(3, 4, 3, 2), auto_pad=pad, strides=s) for pad in same for s in ([1, 1], [2, 3])),
        *(one("Conv", x=x, w=weight(3, 4, 2, 4), auto_pad=pad, dilations=[2, 1], runtime=False) for pad in same),
        one("Conv", x=x, w=weight(3, 4, 5, 5), auto_pad="SAME_UPPER", strides=[4, 4]),
        one("Conv", x=line, w=weight(3, 4, 3), strides=[2], pads=[0, 1]),
        one("Conv", x=line, w=weight(4, 2, 2), group=2, dilations=[2]),
        one("Conv", x=line, w=weight(4, 4, 4), auto_pad="SAME_LOWER", strides=[2]),
        one("Conv", x=volume, w=weight(3, 2, 3, 2, 3), strides=[2, 1, 2], pads=[1, 0, 1, 0, 1, 0]),
        one("Conv", x=volume, w=weight(4, 1, 2, 2, 2), group=2, dilations=[2, 1, 2]),
        one("Conv", x=volume, w=weight(4, 2, 3, 3, 3), auto_pad="SAME_UPPER", strides=[2, 2, 2]),
    ]


def pools(op_type, *further):
    x, line, volume = IMAGE, (N, 3, W), (N, 2, H, W, 6)
    same = ("SAME_UPPER", "SAME_LOWER")
    return [
        one(op_type, x=x, kernel_shape=[2, 2], strides=[2, 2]),
        one(op_type, x=x, kernel_shape=[3, 3], strides=[2, 2]),
        one(op_type, x=x, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]),
        one(op_type, x=x, kernel_shape=[3, 2], strides=[1, 1], pads=[2, 0, 1, 1]),
        one(op_type, x=x, kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1),
        one(op_type, x=x, kernel_shape=[3, 3], strides=[3, 2], pads=[0, 1, 1, 1], ceil_mode=1),
        one(op_type, x=x, kernel_shape=[2, 3], strides=[4, 4]),
        one(op_type, x=x, kernel_shape=[1, 1], strides=[2, 2]),
        one(op_type, x=x, kernel_shape=[2, 2]),
        one(op_type, x=x, kernel_shape=[3, 3], strides=[2, 2], auto_pad="VALID"),
        *(one(op_type, x=x, kernel_shape=[3, 2], strides=s, auto_pad=pad) for pad in same for s in ([1, 1], [2, 2])),
        one(op_type, x=x, kernel_shape=[4, 4], strides=[3, 3], auto_pad="SAME_UPPER"),
        one(op_type, x=line, kernel_shape=[3], strides=[2], pads=[1, 1]),
        one(op_type, x=line, kernel_shape=[3], strides=[2], ceil_mode=1),
        one(op_type, x=line, kernel_shape=[2], strides=[2], auto_pad="SAME_LOWER"),
        one(op_type, x=volume, kernel_shape=[2, 3, 2], strides=[2, 2, 1], pads=[0, 1, 0, 0, 1, 1]),
        one(op_type, x=volume, kernel_shape=[3, 3, 3], strides=[2, 2, 2], ceil_mode=1),
        one(op_type, x=x, kernel_shape=[2, 2], dilations=[2, 3], opset=19),
        one(op_type, x=x, kernel_shape=[3, 2], strides=[2, 1], dilations=[2, 2], pads=[1, 1, 1, 1], opset=19),
        *further,
    ]


def averages():
    counted = {"count_include_pad": 1}
    return pools(
        "AveragePool",
        one("AveragePool", x=IMAGE, kernel_shape=[3, 3], pads=[1, 1, 1, 1], **counted),
        one("AveragePool", x=IMAGE, kernel_shape=[3, 2], strides=[2, 3], pads=[2, 0, 1, 1], **counted),
        one("AveragePool", x=IMAGE, kernel_shape=[3, 3], strides=[2, 2], auto_pad="SAME_UPPER", **counted),
        one("AveragePool", x=IMAGE, kernel_shape=[2, 3], auto_pad="SAME_LOWER", **counted),
        one(
            "AveragePool",
            x=IMAGE,
            kernel_shape=[3, 3],
            strides=[2, 2],
            ceil_mode=1,
            pads=[1, 1, 1, 1],
            opset=19,
            **counted,
        ),
        one("AveragePool", x=IMAGE, kernel_shape=[2, 2], dilations=[2, 2], pads=[1, 1, 1, 1], opset=19, **counted),
    )


def maxima():
    both = {"outputs": ("y", "indices"), "cotangents": ("y",)}
    return pools(
        "MaxPool",
        one("MaxPool", x=IMAGE, kernel_shape=[3, 3], strides=[2, 2], **both),
        one("MaxPool", x=IMAGE, kernel_shape=[2, 2], strides=[2, 2], dilations=[2, 2], ceil_mode=1),
        one("MaxPool", x=(N, 3, W), kernel_shape=[3], dilations=[2], pads=[1, 2]),
    )


def slices():
    least, most = -(2**63), 2**63 - 1
    x = IMAGE
    made = [
        one("Slice", x=x, s=ints(1), e=ints(4), axes=ints(2)),
        one("Slice", x=x, s=ints(0, 1, 2, 1), e=ints(1, 3, 6, 5)),
        one("Slice", x=x, s=ints(-3), e=ints(-1), axes=ints(-1)),
        one("Slice", x=x, s=ints(0, 0), e=ints(most, most), axes=ints(2, 3), steps=ints(2, 3)),
        one("Slice", x=x, s=ints(1, 2), e=ints(most, 100), axes=ints(2, 3), steps=ints(2, 2)),
        one("Slice", x=x, s=ints(-1), e=ints(least), axes=ints(3), steps=ints(-1)),
        one("Slice", x=x, s=ints(-1, most), e=ints(least, 1), axes=ints(3, 2), steps=ints(-2, -1)),
        one("Slice", x=x, s=ints(4), e=ints(0), axes=ints(2), steps=ints(-3)),
        one("Slice", x=x, s=ints(-100), e=ints(-2), axes=ints(2)),
        one("Slice", x=x, s=ints(1), e=ints(most), axes=ints(0)),
        one("Slice", x=x, s=ints(-1), e=ints(least), axes=ints(0), steps=ints(-1)),
        one("Slice", x=x, s=ints(0), e=ints(most), axes=ints(0), steps=ints(2)),
        one("Slice", x=x, s=np.array([1], np.int32), e=np.array([3], np.int32), axes=np.array([1], np.int32)),
        one("Slice", x=(9,), s=ints(7), e=ints(0), axes=ints(0), steps=ints(-2)),
    ]
    # the second half of the rows and every second column before the last: bounds computed from the image's size
    halves = (
        ("Shape", ["x"], ["rows"], {"start": 2, "end": 3}),
        ("Shape", ["x"], ["columns"], {"start": 3, "end": 4}),
        ("Div", ["rows", "two"], ["half"], {}),
        ("Sub", ["columns", "one"], ["last"], {}),
        ("Concat", ["half", "one"], ["starts"], {"axis": 0}),
        ("Concat", ["rows", "last"], ["ends"], {"axis": 0}),
        ("Slice", ["x", "starts", "ends", "axes", "steps"], ["y"], {}),
    )
    constants = {"one": ints(1), "two": ints(2), "axes": ints(2, 3), "steps": ints(1, 2)}
    back = {**constants, "steps": ints(1, -2), "last": ints(-1)}
    from_end = tuple(n for n in halves if "last" not in n[2])
    from_end = (*from_end[:3], ("Concat", ["half", "last"], ["starts"], {"axis": 0}), *from_end[4:])
    from_end = tuple((op, ["rows", "one"], o, a) if o == ["ends"] else (op, i, o, a) for op, i, o, a in from_end)
    return [*made, Case(halves, {"x": x}, constants, ("x",)), Case(from_end, {"x": x}, back, ("x",))]


def pads():
    computed = (
        ("Shape", ["x"], ["rows"], {"start": 2, "end": 3}),
        ("Mod", ["rows", "two"], ["odd"], {}),
        ("Concat", ["zero", "odd", "two", "one"], ["pads"], {"axis": 0}),
        ("Pad", ["x", "pads", "", "axes"], ["y"], {}),
    )
    constants = {"zero": ints(0), "one": ints(1), "two": ints(2), "axes": ints(2, 3)}
    return [
        one("Pad", x=IMAGE, pads=ints(0, 0, 1, 2, 0, 0, 3, 0)),
        one("Pad", x=IMAGE, pads=ints(1, 0, 0, 0, 0, 2, 0, 1), value=np.array(1.5)),
        one("Pad", x=IMAGE, pads=ints(0, 0, -1, 2, 0, 0, -2, -3)),
        one("Pad", x=IMAGE, pads=ints(1, -2, 0, 3), value=None, axes=ints(3, -2)),
        one("Pad", x=(N, 5), pads=ints(0, 2, 0, -1), value=np.array(-2.5)),
        *(one("Pad", x=IMAGE, pads=ints(0, 0, 1, 2, 0, 0, 3, 0), mode=mode) for mode in ("reflect", "edge")),
        *(
            one("Pad", x=IMAGE, pads=ints(*both), value=None, axes=ints(2, 3), mode=mode, opset=19)
            for mode in ("reflect", "edge", "wrap")
            for both in ((1, 2, 3, 4), (-1, 2, 3, -2), (-2, -1, 0, -1))
        ),
        one("Pad", x=(N, 4), pads=ints(0, 9, 0, 3), mode="wrap", opset=19),
        one("Pad", x=(N, 5), pads=ints(2, 1, 1, 0), mode="wrap", opset=19),
        one("Pad", x=IMAGE, pads=ints(1, 2, 3, 1), value=None, axes=ints(-1, 1), mode="reflect"),
        one("Pad", x=IMAGE, pads=ints(2, 1, 0, 1), value=None, axes=ints(0, 3), mode="edge"),
        Case(computed, {"x": IMAGE}, constants, ("x",)),
    ]


def gathers():
    return [
        one("Gather", x=IMAGE, i=ints(0, 2, 2, -1), axis=1),
        one("Gather", x=IMAGE, i=np.array(1), axis=2),
        one("Gather", x=IMAGE, i=np.array(-1), axis=-1),
        one("Gather", x=IMAGE, i=np.array([[0, 3], [3, -4], [1, 1]]), axis=1),
        one("Gather", x=IMAGE, i=np.array([[1, -1], [0, 0]], np.int32), axis=0),
        one("Gather", x=IMAGE, i=np.array([[[5], [0]]]), axis=3),
        one("Gather", x=(7,), i=ints(3, 3, -1)),
        one("Gather", x=(7,), i=np.array(2)),
        one("Gather", x=(N, 6), i=np.array([[0, 5], [1, 2]]), axis=-1),
        one("Gather", x=(N, 6), i=np.array(1), axis=0),
    ]


def splits():
    three = ("a", "b", "c")
    return [
        one("Split", x=(N, 6, H, W), axis=1, num_outputs=3, outputs=three),
        one("Split", x=(N, 7, H, W), axis=1, num_outputs=3, outputs=three),
        one("Split", x=(N, 6, H, W), s=ints(1, 3, 2), axis=1, outputs=three),
        one("Split", x=(N, 6, H, W), s=ints(1, 3, 2), axis=1, outputs=three, cotangents=("b",)),
        one("Split", x=(N, 6, H, W), s=ints(1, 3, 2), axis=-3, outputs=three, cotangents=("a", "c")),
        one("Split", x=(N, 6, H, 5), s=ints(2, 3), axis=-1, outputs=("a", "b"), cotangents=("b",)),
        one("Split", x=(6, H), num_outputs=2, outputs=("a", "b")),
        one("Split", x=(6, H), s=ints(4, 2), axis=0, outputs=("a", "b"), cotangents=("b",)),
        one("Split", x=(7,), s=ints(3, 4), outputs=("a", "b"), cotangents=("a",)),
    ]


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


def concats():
    return [
        one("Concat", a=(N, 2, H, W), b=(N, 3, H, W), axis=1),
        one("Concat", a=(N, 2, H, W), b=(N, 3, H, W), c=(N, 1, H, W), axis=-3, wrt=("a", "c")),
        one("Concat", a=(N, H, 5), b=(N, H, W), axis=2),
        one("Concat", a=(N, 5), b=(2, 5), c=(H, 5), axis=0),
        one("Concat", a=(3,), b=(W,), axis=0),
        one("Concat", a=(N, 5), axis=1),
    ]


def shapes():
    return {
        "Reshape": [
            one("Reshape", x=(N, 4, 6, 2), s=ints(0, -1)),
            one("Reshape", x=(N, 4, 6, 2), s=ints(-1, 2, 2, 12)),
            one("Reshape", x=IMAGE, s=ints(0, 0, -1)),
            one("Reshape", x=IMAGE, s=ints(0, 2, 2, 0, -1)),
            one("Reshape", x=IMAGE, s=ints(-1)),
            one("Reshape", x=(2, 3, H, 5), s=ints(2, 15, -1)),
            one("Reshape", x=(1,), s=ints()),
            one("Reshape", x=(0, 3, 4), s=ints(3, 4, 0), allowzero=1),
            one("Reshape", x=(2, 0, 3), s=ints(2, 0), allowzero=1),
        ],
        "Flatten": [one("Flatten", x=IMAGE, axis=axis) for axis in (0, 1, 2, -1, 4)] + [one("Flatten", x=(N, 5))],
        "Squeeze": [
            one("Squeeze", x=(N, 4, 1, 1), axes=ints(2, 3)),
            one("Squeeze", x=(N, 4, 1, W), axes=ints(-2)),
            one("Squeeze", x=(1, C, H), axes=ints(0)),
            one("Squeeze", x=(2, 1, 3, 1)),
            one("Squeeze", x=(3, 1, 0), axes=ints(1)),
        ],
        "Unsqueeze": [one("Unsqueeze", x=(N, H), axes=axes) for axes in (ints(1), ints(0), ints(-1, 1), ints(0, 3))],
        "Transpose": [
            one("Transpose", x=IMAGE),
            *(one("Transpose", x=IMAGE, perm=p) for p in ([0, 2, 3, 1], [0, 3, 1, 2], [2, 0, 3, 1], [0, 1, 3, 2])),
            one("Transpose", x=(N, 5)),
        ],
        "Expand": [
            one("Expand", x=(N, 1, 1), s=ints(1, 4, 5)),
            one("Expand", x=(4, 1), s=ints(3, 1, 5)),
            one("Expand", x=(N, 4), s=ints(1)),
            one("Expand", x=(1, 4), s=ints(3, 4)),
            one("Expand", x=(), s=ints(2, 3)),
        ],
    }


def resizes():
    modes = ("half_pixel", "pytorch_half_pixel", "asymmetric", "align_corners")
    both = {"roi": None, "scales": np.float32([1, 1, 2, 3])}
    part = {"roi": None, "scales": np.float32([1.6, 0.65]), "axes": [2, 3]}
    to = {"roi": None, "scales": None, "sizes": ints(5, 11), "axes": [2, 3]}
    return [
        *(one("Resize", x=IMAGE, **both, mode="linear", coordinate_transformation_mode=m) for m in modes),
        *(one("Resize", x=IMAGE, **to, mode="linear", coordinate_transformation_mode=m) for m in modes),
        *(one("Resize", x=IMAGE, **to, mode="cubic", coordinate_transformation_mode=m) for m in modes),
        one("Resize", x=IMAGE, **both, mode="cubic", cubic_coeff_a=-0.5),
        *(
            one("Resize", x=IMAGE, **to, coordinate_transformation_mode=m, nearest_mode=n)
            for m, n in zip(modes, ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil"))
        ),
        one("Resize", x=IMAGE, **both, coordinate_transformation_mode="asymmetric", nearest_mode="floor"),
        *(one("Resize", x=IMAGE, **part, mode=mode) for mode in ("linear", "nearest")),
        one("Resize", x=IMAGE, roi=None, scales=None, sizes=ints(1, 1), axes=[2, 3], mode="linear",
            coordinate_transformation_mode="pytorch_half_pixel"),
        *(one("Resize", x=IMAGE, **to, mode=m, antialias=1) for m in ("linear", "cubic")),
        *(one("Resize", x=IMAGE, **part, mode=m, antialias=1) for m in ("linear", "cubic")),
        *(one("Resize", x=IMAGE, **part, mode="cubic", exclude_outside=1, antialias=a) for a in (0, 1)),
        *(one("Resize", x=IMAGE, **to, mode=m, coordinate_transformation_mode="half_pixel_symmetric", opset=19)
          for m in ("nearest", "linear", "cubic")),
        *(one("Resize", x=IMAGE, **{**to, "roi": np.float32(box)}, mode=m, extrapolation_value=1.5,
              coordinate_transformation_mode="tf_crop_and_resize")
          for m in ("nearest", "linear", "cubic") for box in ((0.1, -0.3, 0.8, 1.2), (0.9, 0.2, 0.1, 0.7))),
        one("Resize", x=(2, 4, 7, 6), roi=(4,), scales=None, sizes=ints(5, 3), axes=[2, 3], mode="linear", wrt=("x",),
            coordinate_transformation_mode="tf_crop_and_resize", sample="unit"),
        *(one("Resize", x=(2, 4, 7, 6), **{**to, "sizes": ints(*size)}, mode=m, keep_aspect_ratio_policy=policy)
          for m, size, policy in (("nearest", (5, 11), "not_larger"), ("linear", (9, 4), "not_smaller"),
                                  ("cubic", (5, 11), "not_larger"))),
        *(one("Resize", x=shape, roi=None, scales=np.float32(scales), mode=m) for m, shape, scales in (
            ("nearest", (H,), [1.7]), ("nearest", (N, 3, W), [1, 1, 0.6]), ("linear", (N, 3, W), [1, 1, 2.5]),
            ("linear", (N, 2, 3, 4, 5), [1, 1, 2, 1.5, 0.8]), ("linear", (N, H, W, 3), [1, 2, 1.5, 1]),
            ("linear", (H, W), [2, 1.5]), ("cubic", (H, W), [2, 1.5]))),
    ]  # fmt: skip


def moves():
    return {
        "Resize": resizes(),
        "DepthToSpace": [one("DepthToSpace", x=(N, 12, H, W), blocksize=2, mode=mode) for mode in ("DCR", "CRD")],
        "SpaceToDepth": [
            one("SpaceToDepth", x=(N, 3, 4, 6), blocksize=2),
            one("SpaceToDepth", x=(N, 2, 9, 6), blocksize=3),
        ],
        "Tile": [
            one("Tile", x=IMAGE, r=ints(1, 1, 2, 3)),
            one("Tile", x=IMAGE, r=ints(2, 1, 1, 2)),
            one("Tile", x=(N, 5), r=ints(1, 1)),
            one("Tile", x=(5,), r=ints(3)),
        ],
        "Trilu": [
            one("Trilu", x=IMAGE),
            one("Trilu", x=(N, H, W), k=np.array(1), upper=0),
            one("Trilu", x=(N, 5), k=np.array(-1)),
        ],
        "CumSum": [
            one("CumSum", x=IMAGE, axis=np.array(1)),
            one("CumSum", x=IMAGE, axis=np.array(-1), reverse=1),
            one("CumSum", x=(N, 5), axis=np.array(0), exclusive=1),
            one("CumSum", x=(N, 5), axis=np.array(1), exclusive=1, reverse=1),
        ],
    }


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
