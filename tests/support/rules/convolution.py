"""Cases of convolutions and pools."""

from support.rules.case import IMAGE, Case, H, N, W, one, weight

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
