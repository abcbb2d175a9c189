"""Cases of operators that sample pictures at computed positions, or lay elements out over larger ones."""

import itertools

import numpy as np
from onnx.reference.op_run import OpRun

from support.rules.case import Case, Free, H, N, W, ints, one

R = Free("R", (5, 3))


class GridSample(OpRun):
    """From the definition, in the precision of its inputs, where ONNX's own computes positions in float32.

    Cubic positions outside of the picture stay where they are, as in ONNX Runtime and PyTorch, unlike in ONNX's own.
    """

    def _run(self, x, grid, align_corners=None, mode=None, padding_mode=None):
        mode = {"bilinear": "linear", "bicubic": "cubic"}.get(mode, mode)
        y = np.zeros((*x.shape[:2], *grid.shape[1:-1]), x.dtype)
        for n, *place in np.ndindex(grid.shape[0], *grid.shape[1:-1]):
            taps = [
                list(self.taps(g, size, align_corners, mode, padding_mode))
                for g, size in zip(grid[(n, *place)][::-1], x.shape[2:])
            ]
            for combination in itertools.product(*taps):
                index, weights = zip(*combination)
                if None not in index:
                    y[(n, slice(None), *place)] += np.prod(weights) * x[(n, slice(None), *index)]
        return (y,)

    def taps(self, g, size, aligned, mode, padding):
        low, high = (0, size - 1) if aligned else (-0.5, size - 0.5)
        p = (g + 1) / 2 * (size - 1) if aligned else ((g + 1) * size - 1) / 2
        p = np.rint(p) if mode == "nearest" else p
        if padding == "border" and mode != "cubic":
            p = min(max(p, 0), size - 1)
        if padding == "reflection" and mode != "cubic":
            p = self.fold(p, low, high)
        if mode == "nearest":
            near = [(int(np.rint(p)), 1.0)]
        else:
            k = int(np.floor(p))
            near = [
                (j, self.weight(abs(p - j), mode))
                for j in (range(k, k + 2) if mode == "linear" else range(k - 1, k + 3))
            ]
        for j, weight in near:
            if padding == "border":
                j = min(max(j, 0), size - 1)
            if padding == "reflection":
                j = int(np.rint(self.fold(j, low, high)))
            yield (j if 0 <= j < size else None), weight

    @staticmethod
    def fold(p, low, high):
        while high > low and not low <= p <= high:
            p = 2 * low - p if p < low else 2 * high - p
        return p if high > low else low

    @staticmethod
    def weight(d, mode, a=-0.75):
        if mode == "linear":
            return 1 - d
        return (a + 2) * d**3 - (a + 3) * d**2 + 1 if d <= 1 else a * d**3 - 5 * a * d**2 + 8 * a * d - 4 * a


class Col2Im(OpRun):
    def _run(self, x, image, block, dilations=None, pads=None, strides=None):
        axes = len(block)
        d, s, p = dilations or [1] * axes, strides or [1] * axes, pads or [0] * 2 * axes
        padded = [i + p[k] + p[k + axes] for k, i in enumerate(image)]
        windows = [(m - (b - 1) * e - 1) // t + 1 for m, b, e, t in zip(padded, block, d, s)]
        columns = x.reshape(x.shape[0], -1, *block, *windows)
        full = np.zeros((*columns.shape[:2], *padded), x.dtype)
        for tap in np.ndindex(*block):
            at = tuple(slice(k * e, k * e + (w - 1) * t + 1, t) for k, e, w, t in zip(tap, d, windows, s))
            full[(..., *at)] += columns[(slice(None), slice(None), *tap)]
        return (full[(..., *(slice(b, b + i) for b, i in zip(p, image)))],)


class MaxUnpool(OpRun):
    def _run(self, x, index, shape=None, kernel_shape=None, pads=None, strides=None):
        axes = x.ndim - 2
        s, p = strides or [1] * axes, pads or [0] * 2 * axes
        rows = zip(x.shape[2:], s, kernel_shape, p, p[axes:])
        size = [(n - 1) * t + k - b - e for n, t, k, b, e in rows] if shape is None else list(shape[2:])
        y = np.zeros((*x.shape[:2], *size), x.dtype)
        y.reshape(-1)[index.reshape(-1)] = x.reshape(-1)
        return (y,)


class DeformConv(OpRun):
    """From the definition, pixel by pixel, for any number of axes, in the precision of its inputs."""

    def _run(self, x, w, offset, b=None, mask=None, dilations=None, group=None, kernel_shape=None, offset_group=None,
             pads=None, strides=None):  # fmt: skip
        axes, kernel, out = x.ndim - 2, w.shape[2:], offset.shape[2:]
        strides, dilations, pads = strides or [1] * axes, dilations or [1] * axes, pads or [0] * 2 * axes
        moved = offset.reshape(x.shape[0], offset_group, *kernel, axes, *out)
        shares = np.ones(offset[:, ::axes].shape) if mask is None else mask
        shares = shares.reshape(x.shape[0], offset_group, *kernel, *out)
        read = np.zeros((*x.shape[:2], *kernel, *out), x.dtype)
        depth = x.shape[1] // offset_group
        for n, o, *rest in np.ndindex(*shares.shape):
            tap, place = rest[:axes], rest[axes:]
            at = [
                i * s - p + t * d + moved[(n, o, *tap, k, *place)]
                for k, (i, s, p, t, d) in enumerate(zip(place, strides, pads, tap, dilations))
            ]
            channels = slice(o * depth, (o + 1) * depth)
            read[(n, channels, *tap, *place)] = shares[(n, o, *rest)] * self.at(x[n, channels], at)
        grouped = read.reshape(x.shape[0], group, w.shape[1], -1, *out)
        rows = w.reshape(group, -1, w.shape[1], np.prod(kernel))
        y = np.einsum("gock,ngck...->ngo...", rows, grouped).reshape(x.shape[0], -1, *out)
        return (y if b is None else y + b.reshape(-1, *[1] * axes),)

    @staticmethod
    def at(picture, place):
        total = 0
        for corner in itertools.product(*((int(np.floor(p)), int(np.floor(p)) + 1) for p in place)):
            if all(0 <= c < size for c, size in zip(corner, picture.shape[1:])):
                total = total + np.prod([1 - abs(p - c) for p, c in zip(place, corner)]) * picture[(..., *corner)]
        return total


class MaxRoiPool(OpRun):
    def _run(self, x, rois, pooled_shape=None, spatial_scale=None):
        y = np.zeros((len(rois), x.shape[1], *pooled_shape), x.dtype)
        for r, (image, *corners) in enumerate(rois):
            x1, y1, x2, y2 = (int(np.sign(c) * np.floor(abs(c) * spatial_scale + 0.5)) for c in corners)
            for i, j in np.ndindex(*pooled_shape):
                rows = self.bin(i, y1, y2, pooled_shape[0], x.shape[2])
                columns = self.bin(j, x1, x2, pooled_shape[1], x.shape[3])
                if rows and columns:
                    y[r, :, i, j] = x[int(image)][:, rows][:, :, columns].max((1, 2))
        return (y,)

    @staticmethod
    def bin(i, first, last, bins, size):
        step = max(last - first + 1, 1) / bins
        at = range(first + int(np.floor(i * step)), first + int(np.ceil((i + 1) * step)))
        return [k for k in at if 0 <= k < size]


MENDED = [GridSample, Col2Im, MaxUnpool, DeformConv, MaxRoiPool]


def grids():
    """Of nearest neighbours the positions have no gradient at all; test_sampling.py compares that with PyTorch's."""
    x, grid = (N, 3, H, W), (N, 4, 5, 2)
    only_x = {"nearest": ("x",)}
    modes = ("linear", "nearest", "cubic")
    return [
        *(
            one(
                "GridSample",
                x=x,
                grid=grid,
                mode=mode,
                padding_mode=padding,
                align_corners=aligned,
                opset=20,
                wrt=only_x.get(mode),
            )
            for mode in modes
            for padding in ("zeros", "border", "reflection")
            for aligned in (0, 1)
        ),
        *(one("GridSample", x=x, grid=grid, mode=mode, padding_mode="border") for mode in ("bilinear", "bicubic")),
        *(
            one(
                "GridSample",
                x=(N, 2, 3, H, W),
                grid=(N, 2, 3, 4, 3),
                mode=mode,
                padding_mode=padding,
                opset=20,
                wrt=only_x.get(mode),
            )
            for mode in ("linear", "nearest")
            for padding in ("zeros", "border", "reflection")
        ),
        *(
            one(
                "GridSample",
                x=(2, 2, 3, 4, 5),
                grid=(2, 2, 2, 2, 3),
                mode="cubic",
                padding_mode=padding,
                align_corners=aligned,
                opset=20,
                runtime=False,  # ONNX Runtime knows cubic weights in two dimensions only
            )
            for padding, aligned in (("zeros", 0), ("border", 1), ("reflection", 0))
        ),
    ]


def columns():
    def case(c, image, block, **given):
        axes = len(block)
        d, s = given.get("dilations", [1] * axes), given.get("strides", [1] * axes)
        p = given.get("pads", [0] * 2 * axes)
        rows = zip(image, block, d, s, p, p[axes:])
        windows = [(i + b + e - (k - 1) * f - 1) // t + 1 for i, k, f, t, b, e in rows]
        x = (N, c * int(np.prod(block)), int(np.prod(windows)))
        return one("Col2Im", x=x, image=ints(*image), block=ints(*block), **given)

    return [
        case(3, (5, 6), (2, 3)),
        case(2, (5, 6), (2, 2), strides=[2, 3], pads=[1, 0, 1, 2]),
        case(2, (7, 6), (3, 2), dilations=[2, 1], strides=[1, 2]),
    ]


def unpooled():
    index = np.array([[[[5, 7], [13, 15]]], [[[16, 19], [29, 30]]]], np.int64)
    return [
        one("MaxUnpool", x=(2, 1, 2, 2), i=index, kernel_shape=[2, 2], strides=[2, 2]),
    ]


REGIONS = np.array([[0, 0, 4, 5], [1.25, 0.75, 3.125, 6.5], [-3, -2, 9.5, 9.5], [2, 2, 2.25, 2.375], [3, 3.5, 1, 1.25]])
BINS = {"output_height": 2, "output_width": 3}
IMAGES = {"rois": REGIONS, "images": ints(0, 1, 1, 0, 1)}


def computed(op_type, x, attributes, **options):
    """Regions and their images, as many as the run time says, from inputs."""
    nodes = (
        ("Greater", ["which", "zero"], ["second"], {}),
        ("Abs", ["size"], ["extent"], {}),
        ("Add", ["corner", "extent"], ["end"], {}),
        ("Cast", ["second"], ["images"], {"to": 7}),
        ("Concat", ["corner", "end"], ["rois"], {"axis": 1}),
        (op_type, ["x", "rois", "images"], ["y"], attributes),
    )
    if op_type == "MaxRoiPool":
        like = ("CastLike", ["second", "which"], ["number"], {})
        column = ("Unsqueeze", ["number", "one"], ["column"], {})
        whole = ("Concat", ["column", "corner", "end"], ["rois"], {"axis": 1})
        nodes = (*nodes[:3], like, column, whole, (op_type, ["x", "rois"], ["y"], attributes))
    inputs = {"x": x, "which": (R,), "corner": (R, 2), "size": (R, 2)}
    return Case(nodes, inputs, {"zero": np.array(0.0), "one": ints(1)}, ("x",), **options)


def aligned():
    def case(**given):
        return one("RoiAlign", x=(N, 3, H, W), **IMAGES, **BINS, **given)

    whole = {"coordinate_transformation_mode": "output_half_pixel"}
    return [
        case(sampling_ratio=2, spatial_scale=0.75),
        case(sampling_ratio=1, **whole),
        case(spatial_scale=1.5),
        case(**whole),
        case(mode="max", sampling_ratio=2),
        case(mode="max", sampling_ratio=1, **whole),
        case(mode="max", spatial_scale=0.75),
        case(mode="max", **whole),
        one("RoiAlign", x=(N, 3, H, W), **IMAGES, sampling_ratio=2, opset=22, runtime=False),
        *(
            computed("RoiAlign", (N, 3, H, W), {**BINS, "mode": mode, "sampling_ratio": ratio, "spatial_scale": 3.0})
            for mode in ("avg", "max")
            for ratio in (0, 2)
        ),
    ]


def pooled():
    rois = np.concatenate([IMAGES["images"][:, None], REGIONS], 1)
    return [
        one("MaxRoiPool", x=(N, 3, H, W), rois=rois, pooled_shape=[2, 3]),
        one("MaxRoiPool", x=(N, 3, H, W), rois=rois, pooled_shape=[3, 1], spatial_scale=0.75),
        one("MaxRoiPool", x=(N, 3, H, W), rois=rois, pooled_shape=[2, 2], opset=22, runtime=False),
        computed("MaxRoiPool", (N, 3, H, W), {"pooled_shape": [2, 3], "spatial_scale": 3.0}),
    ]


def deformed():
    def case(x, w, out, masked=True, bias=True, each=1, **given):
        taps = each * int(np.prod(w[2:]))
        more = {"b": w[:1] if bias else None, "mask": (x[0], taps, *out) if masked else None}
        offset = (x[0], taps * len(out), *out)
        return one("DeformConv", x=x, w=w, offset=offset, **more, offset_group=each, **given)

    return [
        case((N, 4, H, W), (3, 4, 3, 3), (H, W), pads=[1, 1, 1, 1], opset=19),
        case((N, 4, 6, 7), (6, 2, 3, 2), (3, 4), each=2, group=2, strides=[2, 2], pads=[1, 0, 1, 1], opset=19),
        case((N, 4, 7, 6), (2, 4, 2, 2), (5, 5), masked=False, dilations=[2, 1], opset=22),
        case((N, 6, 4, 5), (3, 2, 2, 2), (3, 4), bias=False, masked=False, each=2, group=3, opset=22),
        case((2, 2, 3, 4, 4), (3, 2, 2, 2, 2), (2, 3, 3), opset=22, runtime=False),
    ]


CASES: dict = {
    "GridSample": grids(),
    "Col2Im": columns(),
    "MaxUnpool": unpooled(),
    "RoiAlign": aligned(),
    "MaxRoiPool": pooled(),
    "DeformConv": deformed(),
}
