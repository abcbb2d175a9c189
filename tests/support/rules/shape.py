"""Cases of operators that move, cut and join: shapes, slices, pads, gathers, splits, resizes."""

import numpy as np

from support.rules.case import IMAGE, C, Case, H, N, W, ints, one


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
