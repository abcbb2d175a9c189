"""Cases of operators that normalise, limit or quantise."""

import numpy as np

from support.rules.case import IMAGE, Case, H, N, W, ints, one, weight

ONE = {"sample": "positive"}
BOUNDS = {"lo": np.array(-0.5), "hi": np.array(0.75)}
NORM = {"scale": weight(4), "b": weight(4, seed=6), "m": weight(4, seed=7), "v": np.abs(weight(4, seed=8)) + 0.1}
NORM_INPUTS = dict.fromkeys(("scale", "b", "m", "v"), (4,))


def layer_norms():
    layer = {"scale": (5,), "b": (5,)}
    three = {"outputs": ("y", "mean", "inv")}
    return [
        one("LayerNormalization", x=(N, H, 5), **layer),
        one("LayerNormalization", x=(N, H, 5), scale=(5,), epsilon=0.1),
        one("LayerNormalization", x=(N, 3, 4, 5), scale=(3, 4, 5), b=(4, 5), axis=1),
        one("LayerNormalization", x=(N, H, 4, 5), scale=(4, 5), b=(4, 5), axis=-2),
        one("LayerNormalization", x=(N, 5), **layer, **three, cotangents=("y",)),
        one("LayerNormalization", x=(N, W), scale=(W,)),
        one("LayerNormalization", x=(N, H, 5), **layer, **three),
        one("LayerNormalization", x=(N, 3, 4, 5), scale=(4, 5), axis=2, **three, cotangents=("mean",), wrt=("x",)),
        one("LayerNormalization", x=(N, 3, 5), scale=(3, 5), axis=1, **three, cotangents=("inv",), wrt=("x",)),
        one("LayerNormalization", x=(N, H, W), scale=(W,), **three, cotangents=("mean", "inv"), wrt=("x",)),
        one("LayerNormalization", x=(3, 5), **layer, axis=0, outputs=("y", "", "inv"), cotangents=("y", "inv")),
    ]


def norms():
    scale, b = (4,), (4,)
    eight = {"x": (N, 8, H, W), "scale": (8,), "b": (8,), "opset": 21}
    return {
        "LayerNormalization": layer_norms(),
        "RMSNormalization": [
            one("RMSNormalization", x=(N, H, 5), scale=(5,), opset=23),
            one("RMSNormalization", x=(N, H, 4, 5), scale=(4, 5), axis=2, epsilon=0.1, opset=23),
            one("RMSNormalization", x=(N, 5), scale=(1,), opset=23),
        ],
        "GroupNormalization": [
            one("GroupNormalization", **eight, num_groups=2),
            one("GroupNormalization", **eight, num_groups=8, epsilon=0.1),
            one("GroupNormalization", x=(N, 4, W), scale=scale, b=b, num_groups=1, opset=21),
            one("GroupNormalization", x=(N, 8, H, W), scale=(2,), b=(2,), num_groups=2, opset=20, runtime=False),
        ],
        "InstanceNormalization": [
            one("InstanceNormalization", x=IMAGE, scale=scale, b=b),
            one("InstanceNormalization", x=(N, 4, W), scale=scale, b=b, epsilon=0.1),
            one("InstanceNormalization", x=(N, 4, H, W, 2), scale=scale, b=b),
        ],
        "MeanVarianceNormalization": [
            one("MeanVarianceNormalization", x=IMAGE),
            one("MeanVarianceNormalization", x=IMAGE, axes=[1, 2, 3]),
            one("MeanVarianceNormalization", x=IMAGE, axes=[2, 3]),
        ],
        "LpNormalization": [
            one("LpNormalization", x=shape, p=p, axis=axis)
            for p in (2, 1)
            for shape, axis in ((IMAGE, 1), (IMAGE, -1), ((N, 5), 0))
        ],
        "BatchNormalization": [
            *(one("BatchNormalization", x=x, **NORM) for x in (IMAGE, (N, 4), (N, 4, W), (N, 4, H, W, 2))),
            one("BatchNormalization", x=IMAGE, **NORM, epsilon=0.1),
            *(one("BatchNormalization", x=x, **NORM_INPUTS, **ONE) for x in (IMAGE, (N, 4), (N, 4, H, W, 2))),
            one("BatchNormalization", x=(N, 4, W), **NORM_INPUTS, epsilon=0.1, wrt=("scale", "v"), **ONE),
        ],
        "LRN": [
            *(one("LRN", x=(N, 6, H, W), size=size, alpha=0.5, beta=0.75, bias=1.0) for size in (1, 3, 5)),
            *(one("LRN", x=(N, 6, H, W), size=size, alpha=0.5, runtime=False) for size in (2, 4)),
            one("LRN", x=(N, 3, W), size=5, alpha=2.0, beta=0.5, bias=2.0, runtime=False),
            one("LRN", x=(N, 4, H, W), size=3),
        ],
    }


def clips():
    return [
        one("Clip", x=IMAGE, **BOUNDS),
        one("Clip", x=IMAGE, lo=np.array(0.0)),
        one("Clip", x=IMAGE, lo=None, hi=np.array(0.5)),
        one("Clip", x=IMAGE),
        one("Clip", x=(5,), **BOUNDS),
        one("Clip", x=IMAGE, lo=()),
        one("Clip", x=IMAGE, lo=None, hi=()),
        one("Clip", x=IMAGE, lo=(), hi=np.array(0.75)),
        one("Clip", x=(N, 5), lo=np.array(-0.5), hi=()),
        one("Clip", x=IMAGE, lo=(), hi=(), sample="unit"),
        one("Clip", x=IMAGE, lo=np.array(9.0), hi=()),
        one("Clip", x=(N, 5), lo=(), hi=np.array(-9.0), wrt=("lo",)),
    ]


def constant_pads():
    """By the number that fills the padding, too."""
    computed = (
        ("Shape", ["x"], ["rows"], {"start": 2, "end": 3}),
        ("Mod", ["rows", "two"], ["odd"], {}),
        ("Concat", ["zero", "odd", "two", "one"], ["pads"], {"axis": 0}),
        ("Pad", ["x", "pads", "value", "axes"], ["y"], {}),
    )
    constants = {"zero": ints(0), "one": ints(1), "two": ints(2), "axes": ints(2, 3)}
    return [
        one("Pad", x=IMAGE, pads=ints(0, 0, 1, 2, 0, 0, 3, 0), value=()),
        one("Pad", x=IMAGE, pads=ints(1, 0, -1, 0, 0, 2, 3, -2), value=()),
        one("Pad", x=IMAGE, pads=ints(1, -2, 0, 3), value=(), axes=ints(3, -2), wrt=("value",)),
        one("Pad", x=(5,), pads=ints(2, 0), value=()),
        one("Pad", x=(N, 5), pads=ints(0, -1, 0, 0), value=(), wrt=("value",)),
        one("Pad", x=IMAGE, pads=ints(0, 0, 1, 2, 0, 0, 3, 0), value=(), mode="edge", wrt=("x",)),
        Case(computed, {"x": IMAGE, "value": ()}, constants, ("x", "value")),
    ]


SATURATED = {"s": np.array(1e-3), "z": np.array(100, np.uint8)}
"""A scale at which every positive sample is saturated: elsewhere rounding has no derivative to compare with."""


def quantisations():
    pair = (("QuantizeLinear", ("x", "s", "z"), ("q",), {}), ("DequantizeLinear", ("q", "s", "z"), ("y",), {}))
    codes = np.random.default_rng(9).integers(-128, 128, (2, 3, 4)).astype(np.int8)
    blocks = {"outputs": ("y",), "wrt": ("s",), "opset": 21}
    return {
        "QuantizeLinear": [Case(pair, {"x": (N, 3, W)}, SATURATED, ("x",), **ONE, opset=19)],
        "DequantizeLinear": [
            one("DequantizeLinear", x=codes, s=(), z=np.array(5, np.int8), wrt=("s",), opset=19),
            one("DequantizeLinear", x=codes, s=(3,), z=codes[0, :, 0], wrt=("s",), opset=19),
            one("DequantizeLinear", x=codes, s=(4,), wrt=("s",), axis=-1, opset=19),
            one("DequantizeLinear", x=codes, s=(2, 3, 2), z=codes[:, :, :2], axis=2, block_size=2, **blocks),
            one("DequantizeLinear", x=codes, s=(2, 2, 4), axis=1, block_size=2, **blocks),
            one("DequantizeLinear", x=codes, s=(1, 3, 4), z=codes[:1], axis=0, block_size=2, **blocks),
            one("DequantizeLinear", x=codes[0, 0], s=(2,), axis=0, block_size=3, **blocks),
        ],
    }


CASES: dict = {**norms(), "Clip": clips(), **quantisations()}
