"""Cases of index, scatter and selection operators, of Einsum and Det, and of operators that make values."""

import numpy as np
from onnx.reference.op_run import OpRun

from support.rules.case import IMAGE, C, Case, H, N, W, ints, one


def index(*shape, size=4, seed=0):
    return np.random.default_rng(seed).integers(-size, size, shape)


def places(*shape, axis, size):
    """Different indices along one axis."""
    rng = np.random.default_rng(6)
    return np.argsort(rng.random((*shape[:axis], size, *shape[axis + 1 :])), axis).take(range(shape[axis]), axis)


def gathers():
    return {
        "GatherElements": [
            one("GatherElements", x=(2, 4, H, W), i=index(2, 4, 5, 6), axis=1),
            one("GatherElements", x=(3, 4), i=index(5, 4, size=3)),
            one("GatherElements", x=(3, C, 5), i=index(2, 3, 7, size=5).astype(np.int32), axis=-1),
            one("GatherElements", x=(7,), i=index(4, size=7)),
        ],
        "GatherND": [
            one("GatherND", x=(3, C, W), i=ints(1, 2).reshape(1, 2)),
            one("GatherND", x=(2, 3, C, W), i=np.array([[[0, 1], [1, -2]], [[0, 1], [-1, 2]]])),
            one("GatherND", x=(2, 3, C), i=np.array([[0, 1, 2], [1, -1, -4], [0, 1, 2]])),
            one("GatherND", x=(2, 3, C, 5), i=index(2, 6, 1, size=3), batch_dims=1),
            one("GatherND", x=(2, 3, 4, W), i=index(2, 3, 2, 1), batch_dims=2),
            one("GatherND", x=(2, 3, 4), i=index(2, 3, 1), batch_dims=2),
            one("GatherND", x=(N, 3), i=np.array([[[0], [1]], [[-1], [0]]])),
        ],
    }


def element_scatters():
    same = {"x": (2, 4, H), "i": places(2, 3, 5, axis=1, size=4), "u": (2, 3, 5), "axis": 1}
    first = {"x": (4, W), "i": places(2, 5, axis=0, size=4), "u": (2, 5)}
    last = {"x": (N, 3, 4), "i": index(2, 2, 6), "u": (2, 2, 6), "axis": -1}
    line = {"x": (5,), "i": index(9, size=5).astype(np.int32), "u": (9,)}
    return [
        one("ScatterElements", **same),
        one("ScatterElements", **first),
        *(one("ScatterElements", **form, reduction=r) for r in REDUCTIONS for form in (same, last, line)),
    ]


def tuple_scatters():
    rows = {"x": (4, C, W), "u": (3, C, W)}
    cells = {"x": (3, 4, W), "u": (2, 3, W), "i": index(2, 3, 2, size=3)}
    single = {"x": (N, 3), "u": (4,), "i": index(4, 2, size=2)}
    return [
        one("ScatterND", x=(4, C, W), i=ints(2, 0, -1).reshape(3, 1), u=(3, C, W)),
        one("ScatterND", x=(3, 4, W), i=np.array([[0, 1], [2, -1]]), u=(2, W)),
        one("ScatterND", x=(N, 3), i=np.array([[0, 1], [1, -1]]), u=(2,)),
        *(
            one("ScatterND", x=form["x"], i=form.get("i", ints(1, -3, 0).reshape(3, 1)), u=form["u"], reduction=r)
            for r in REDUCTIONS
            for form in (rows, cells, single)
        ),
    ]


def tensor_scatters():
    cache = {"past": (2, 3, 6, 4), "u": (2, 3, 2, 4), "w": ints(1, 4), "opset": 24}
    return [
        one("TensorScatter", **cache),
        one("TensorScatter", **{**cache, "w": ints(5, 2)}, mode="circular"),
        one("TensorScatter", past=(N, 6, 3, W), u=(N, 2, 3, W), axis=1, opset=24),
    ]


REDUCTIONS = ("add", "mul", "max", "min")


def selections():
    kept = np.array([True, False, True, True, False])
    values = {"outputs": ("y", "indices"), "cotangents": ("y",)}
    return {
        "TopK": [
            one("TopK", x=(N, 5), k=ints(2), **values),
            one("TopK", x=IMAGE, k=ints(3), axis=1, largest=0, **values),
            one("TopK", x=(5, W), k=ints(4), axis=0, sorted=0, **values, runtime=False),
            one("TopK", x=IMAGE, k=ints(1), axis=-2, **values),
        ],
        "Compress": [
            one("Compress", x=(N, 5, W), c=kept, axis=1),
            one("Compress", x=(N, 6), c=kept, axis=-1),
            one("Compress", x=(N, 3), c=kept),
            one("Compress", x=(N, C, 5), c=np.zeros(4, bool), axis=1),
            one("Compress", x=(5, W), c=kept, axis=0),
        ],
        "Unique": [
            one("Unique", x=(N, 5), outputs=("y",)),
            one("Unique", x=(N, 3, 2), outputs=("y", "indices", "inverse", "counts"), cotangents=("y",), sorted=0),
            one("Unique", x=(4, W), outputs=("y",), axis=0),
            one("Unique", x=(N, 4, 3), outputs=("y",), axis=-2),
        ],
        "ReverseSequence": [
            one("ReverseSequence", x=(5, 3, W), lengths=ints(1, 5, 3)),
            one("ReverseSequence", x=(3, H), lengths=ints(2, 7, 1), batch_axis=0, time_axis=1),
        ],
        "CenterCropPad": [
            one("CenterCropPad", x=(N, C, H, W), s=ints(4, 9), axes=[2, 3]),
            one("CenterCropPad", x=(N, C, H, W), s=ints(9, 10), axes=[-1, 1]),
            one("CenterCropPad", x=(3, 5), s=ints(6, 2)),
            one("CenterCropPad", x=(4,), s=ints(4)),
        ],
        "CumProd": [
            one("CumProd", x=IMAGE, axis=np.array(1), opset=26),
            one("CumProd", x=(N, 5), axis=np.array(-1), reverse=1, opset=26),
            one("CumProd", x=(N, 5), axis=np.array(0), exclusive=1, opset=26),
            one("CumProd", x=(N, 5), axis=np.array(1), exclusive=1, reverse=1, opset=26),
            Case(
                (("Mul", ["x", "mask"], ["z"], {}), ("CumProd", ["z", "axis"], ["y"], {})),
                {"x": (2, 7)},
                {"mask": np.array([[1.0, 1, 1, 0, 1, 1, 1], [1, 1, 0, 1, 1, 0, 1]]), "axis": np.array(1)},
                ("x",),
                opset=26,
            ),
        ],
    }


EQUATIONS = [
    ("ij,jk->ik", (N, 5), (5, W)), ("bij,bjk->bik", (N, H, 5), (N, 5, W)), ("bhid,bhjd->bhij", IMAGE, (N, C, 3, W)),
    ("ij,kj", (N, 5), (W, 5)), ("ij->ji", (N, W)), ("ij->", (N, W)), ("ij->j", (N, W)), ("bi,bi->b", (N, 5), (N, 5)),
    ("ii->i", (4, 4)), ("ii->", (4, 4)), ("iij,jk->ik", (3, 3, 4), (4, W)), ("iiji->j", (3, 3, 4, 3)),
    ("...ij,jk->...ik", (N, C, H, 5), (5, W)), ("...ij,...jk", (N, C, 2, 5), (N, 1, 5, W)), ("...ii->...i", (N, 4, 4)),
    ("i...->...", (3, N, W)), ("ij,kl->il", (N, 3), (4, W)), ("ij,jk,kl->il", (N, 3), (3, 4), (4, W)),
    ("ij,ij->", (N, W), (N, W)), ("i,j->ij", (N,), (W,)), (",i->i", (), (N,)), ("i,i->", (4,), (4,)),
    ("b i d , d -> b i", (N, H, 5), (5,)), ("nchw,kc->nkhw", IMAGE, (5, C)),
    ("nhwc,hkc->nhwk", (N, 7, W, 5), (7, 3, 5)), ("...i,...i->...", (3, 1, 5), (1, 4, 5)),
]  # fmt: skip


def einsums():
    operands = "abc"
    return [one("Einsum", **dict(zip(operands, shapes)), equation=equation) for equation, *shapes in EQUATIONS]


def generators():
    numbers = np.random.default_rng(0).integers(-4, 4, (2, 3))
    rolls = {"seed": 1.0, "runtime": False}
    roll = ("Bernoulli", ["p"], ["y"], {"seed": 1.0})
    return {
        "OneHot": [
            one("OneHot", i=numbers, depth=np.array(4), values=(2,)),
            one("OneHot", i=numbers, depth=ints(5), values=(2,), axis=0),
            one("OneHot", i=numbers, depth=np.array(3), values=(2,), axis=-2),
        ],
        "Range": [
            one("Range", start=(), limit=np.array(5.0), delta=np.array(0.75)),
            one("Range", start=np.array(0.5), limit=np.array(5.0), delta=(), sample="positive"),
        ],
        "EyeLike": [one("EyeLike", x=(3, 4)), one("EyeLike", x=(N, 5), k=1)],
        "RandomNormalLike": [one("RandomNormalLike", x=IMAGE, **rolls)],
        "RandomUniformLike": [one("RandomUniformLike", x=IMAGE, **rolls)],
        "Bernoulli": [Case((("Sigmoid", ["x"], ["p"], {}), roll), {"x": (N, 5)}, {}, ("x",), runtime=False)],
        "Hardmax": [one("Hardmax", x=IMAGE, axis=1), one("Hardmax", x=(N, 5))],
    }


def determinants():
    return [one("Det", x=shape) for shape in ((N, 3, 3), (4, 4), (N, C, 2, 2), (N, 1, 1))]


def spectra():
    real, pair = (N, 8, W, 1), (N, 8, W, 2)
    length = np.array(6)
    signal = {"x": (N, 20, 1), "step": np.array(3)}
    return {
        "DFT": [
            one("DFT", x=real, length=None, axis=np.array(1), opset=20),
            one("DFT", x=real, axis=1),
            one("DFT", x=pair, axis=2),
            one("DFT", x=pair, length=length, axis=1, inverse=1),
            one("DFT", x=real, length=np.array(11), axis=-3, onesided=1),
            one("DFT", x=pair, axis=1, inverse=1, onesided=1, runtime=False),
            one("DFT", x=pair, length=length, axis=np.array(-2), opset=20),
            one("DFT", x=pair, opset=20, inverse=1),
            one("DFT", x=(N, 9, 1), length=length, axis=np.array(1), opset=20, onesided=1),
        ],
        "STFT": [
            one("STFT", **signal, window=(8,), length=np.array(8), onesided=1),
            one("STFT", **signal, window=None, length=np.array(8), onesided=0),
            one("STFT", **{**signal, "x": (N, 20, 2)}, window=(7,), onesided=0),
        ],
        "MelWeightMatrix": [
            one("MelWeightMatrix", bins=np.array(8), dft=np.array(64), rate=np.array(8192), low=np.array(0.0),
                high=(), sample="above one", wrt=("high",)),
        ],
    }  # fmt: skip


class Einsum(OpRun):
    def _run(self, *inputs, equation=None):
        return (np.asarray(np.einsum(equation.replace(" ", ""), *inputs)),)


class GatherElements(OpRun):
    def _run(self, x, index, axis=None):
        axis %= x.ndim
        parts = tuple(slice(None) if at == axis else slice(size) for at, size in enumerate(index.shape))
        return (np.take_along_axis(x[parts], index, axis),)


class OneHot(OpRun):
    def _run(self, indices, depth, values, axis=None):
        hits = np.expand_dims(indices % int(depth.item()), -1) == np.arange(depth.item())
        hits &= np.expand_dims((-depth <= indices) & (indices < depth), -1)
        return (np.moveaxis(np.where(hits, values[1], values[0]), -1, axis),)


class Unique(OpRun):
    def _run(self, x, axis=None, sorted=None):
        y, first, inverse, counts = np.unique(x, True, True, True, axis=axis)
        order = np.arange(len(first)) if sorted else np.argsort(first)
        made = (np.take(y, order, axis or 0), first[order], np.argsort(order)[inverse.reshape(-1)], counts[order])
        return made[: len(self.output)]


MENDED = [Einsum, GatherElements, OneHot, Unique]

CASES = {
    **gathers(),
    "ScatterElements": element_scatters(),
    "ScatterND": tuple_scatters(),
    "TensorScatter": tensor_scatters(),
    **selections(),
    **generators(),
    **spectra(),
    "Einsum": einsums(),
    "Det": determinants(),
}
