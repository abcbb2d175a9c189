"""The maps in front of heads, and what is made of them: on a detector of two levels, against PyTorch autograd."""

import io
import json
import warnings

import numpy as np
import onnx
import pytest

pytest.importorskip("torch", reason="PyTorch is the oracle of these tests")

import torch
from onnx import TensorProto as T
from onnx import helper as h
from onnx import numpy_helper as nh
from torch import nn
from torch.nn import functional as F

from fastcam import Explainer
from fastcam_export import export_model

SIDE, CLASSES = 32, 3


class Pyramid(nn.Module):
    """A stem, two levels with the way down and up of a pyramid, and heads of two branches at each."""

    def __init__(self, joined=True):
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, 2, 1)
        self.fine = nn.Conv2d(6, 8, 3, 4, 1)
        self.coarse = nn.Conv2d(8, 8, 3, 2, 1)
        self.up, self.down = nn.Conv2d(16, 8, 1), nn.Conv2d(8, 8, 3, 2, 1)
        self.both = nn.Conv2d(16, 8, 1)
        self.classes = nn.ModuleList(nn.Sequential(nn.Conv2d(8, 8, 3, 1, 1), nn.SiLU(), nn.Conv2d(8, CLASSES, 1))
                                     for _ in range(2))  # fmt: skip
        self.sides = nn.ModuleList(nn.Conv2d(8, 4, 1) for _ in range(2))
        self.joined = joined

    def forward(self, image):
        stem = self.stem(image).relu()
        return self.head(stem, *self.levels(stem))

    def levels(self, stem):
        fine = self.fine(stem).relu()
        coarse = self.coarse(fine).relu()
        p3 = self.up(torch.cat([fine, F.interpolate(coarse, scale_factor=2.0)], 1)).relu()
        return p3, self.both(torch.cat([self.down(p3).relu(), coarse], 1)).relu()

    def head(self, stem, p3, p4):
        each = [
            torch.cat([sides(p), classes(p)], 1).flatten(2)
            for sides, classes, p in zip(self.sides, self.classes, (p3, p4))
        ]
        rows = torch.cat(each, 2)
        rows = torch.cat([rows[:, :4], rows[:, 4:].sigmoid()], 1)
        return rows if self.joined else tuple(one.transpose(1, 2) for one in each)


def image():
    return np.random.default_rng(3).standard_normal((1, 3, SIDE, SIDE)).astype("f4")


def to_onnx(module, names):
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module, (torch.from_numpy(image()),), file, dynamo=False, opset_version=17, input_names=["image"],
            output_names=names,
        )  # fmt: skip
    return onnx.load_from_string(file.getvalue())


@pytest.fixture(scope="module")
def detector():
    torch.manual_seed(4)
    module = Pyramid().eval()
    made = export_model(to_onnx(module, ["rows"]), targets="cotangent", labels=["a", "b", "c"])
    return module, made, Explainer(made.model.SerializeToString())


def test_a_detector_is_explained_in_front_of_each_head_and_at_a_finer_map(detector):
    """The maps where both branches of a level begin, not their insides; the finer one is the stem."""
    _, made, explainer = detector
    said = json.loads(next(one.value for one in made.model.metadata_props if one.key == "fastcam"))
    assert [one["scope"] or one["node"] for one in said["layers"]] == ["/Relu", "/Relu_3", "/Relu_5"]
    assert [one["reason"] for one in said["layers"]] == [
        "the last map of a finer resolution that the heads share",
        *["the map in front of the heads of its resolution"] * 2,
    ]
    assert (said["method"], said["fuse"], said["emit"]) == ("hirescam", "place", "gradients")
    assert explainer.metadata.layer.value == said["layers"][1]["value"]


def normalised(m):
    return m / m.max() if m.max() > 0 else m


def enlarged(m, size):
    return F.interpolate(m[None, None], size, mode="bilinear")[0, 0]


def expected(module, c, box):
    """HiResCAM of a score at the stem and the levels, of its own level times the stem's: float64 [16, 16]."""
    module = module.double()
    stem = module.stem(torch.from_numpy(image()).double()).relu().detach().requires_grad_()
    p3, p4 = (p.detach().requires_grad_() for p in module.levels(stem))
    score = module.head(stem, *module.levels(stem))[0, 4 + c, box]
    (of_stem,) = torch.autograd.grad(score, stem)
    own = p3 if box < 16 else p4
    (of_own,) = torch.autograd.grad(module.head(stem, p3, p4)[0, 4 + c, box], own)
    maps = [normalised((g * a)[0].sum(0).relu()) for g, a in ((of_stem, stem), (of_own, own))]
    module.float()
    return (maps[0] * enlarged(maps[1], maps[0].shape)).detach().numpy()


@pytest.mark.parametrize("box", [5, 10, 17])
def test_by_default_a_box_keeps_its_place(detector, box):
    """Boxes of the finer level and of the coarser one."""
    module, _, explainer = detector
    e = explainer(image(), cotangent=f"box:b,box={box}")
    want = expected(module, 1, box)
    assert (e.method, e.fuse, e.status) == ("hirescam", "place", (("ok",),)) and want.max() > 0
    np.testing.assert_allclose(e.maps[0, 0], want, atol=1e-4 * want.max())
    assert not e.layers and e.to_dict()["fused"] == [one.value for one in explainer.metadata.layers]


def test_gradcam_by_name_is_fused_and_one_layer_is_one_layer(detector):
    explainer = detector[2]
    layers = [one.value for one in explainer.metadata.layers]
    by_name = explainer(image(), cotangent="box:b,box=5", method="gradcam")
    assert (by_name.method, by_name.fuse) == ("gradcam", "place")
    alone = explainer(image(), cotangent="box:b,box=5", layers=layers[1])
    assert (alone.method, alone.fuse, len(alone.layers)) == ("hirescam", None, 1)
    strip = explainer(image(), cotangent="box:b,box=5", fuse="max")
    assert (strip.fuse, len(strip.layers)) == ("max", 3)
    assert explainer.at(layers[2])(image(), cotangent="box:b,box=5").fuse is None


def test_levels_in_outputs_of_their_own():
    """Each layer is in front of some of the outputs, none in front of all but the finer one."""
    torch.manual_seed(4)
    module = Pyramid(joined=False).eval()
    proto = to_onnx(module, ["p3", "p4"])
    made = export_model(proto, targets="cotangent", output_name=["p3", "p4"])
    assert [one.node for one in made.metadata.layers] == ["/Relu", "/Relu_3", "/Relu_5"]
    e = Explainer(made.model.SerializeToString())(image(), cotangent="element:10,5,output=p3")
    joined = Pyramid().eval()
    joined.load_state_dict(module.state_dict())
    logit = expected(joined, 1, 10)  # its sigmoid scales the map, and both are divided by their maximum
    np.testing.assert_allclose(normalised(e.maps[0, 0]), normalised(logit), atol=1e-4)


@pytest.mark.parametrize("channels", [5, 40])
def test_a_map_in_front_of_the_head_is_not_also_its_finer_map(channels):
    """Features that an output is: the map in front of their convolution already has the finer resolution."""
    torch.manual_seed(4)
    module = nn.Sequential(nn.Conv2d(3, 6, 4, 4), nn.Tanh(), nn.Conv2d(6, channels, 2, 2)).eval()
    made = export_model(to_onnx(module, ["features"]), targets="cotangent", emit="gradients")
    assert made.metadata.layers == () and made.metadata.layer.node == "/1/Tanh"
    assert made.check["gradient_error"] < 1e-4


def blobs():
    """A faint and a bright blob on a grid of 8 x 8, each with its own box; closed form."""
    w = np.zeros((4, 1, 4, 4), "f4")
    w[0], w[1], w[2, 0, :2], w[3, 0, 2:] = 1 / 16, -1 / 16, 1 / 8, 1 / 8
    v = np.zeros((6, 4, 1, 1), "f4")
    v[4, 0] = v[5, 0] = 6.0
    bias = np.array([0.5, 0.5, 1, 1, -2, -2], "f4")
    constants = {"w": w, "v": v, "b": bias, "s": np.array([1, 6, 64])}
    nodes = [
        h.make_node("Conv", ["x", "w"], ["c"], kernel_shape=[4, 4], strides=[4, 4]), h.make_node("Relu", ["c"], ["f"]),
        h.make_node("Conv", ["f", "v", "b"], ["o"], kernel_shape=[1, 1]), h.make_node("Reshape", ["o", "s"], ["r"]),
        h.make_node("Transpose", ["r"], ["t"], perm=[0, 2, 1]), h.make_node("Sigmoid", ["t"], ["boxes"]),
    ]  # fmt: skip
    graph = h.make_graph(
        nodes, "g", [h.make_tensor_value_info("x", T.FLOAT, [1, 1, 32, 32])],
        [h.make_tensor_value_info("boxes", T.FLOAT, [1, 64, 6])], [nh.from_array(a, n) for n, a in constants.items()],
    )  # fmt: skip
    x = np.zeros((1, 1, 32, 32), "f4")
    x[0, 0, 4:8, 4:8], x[0, 0, 20:24, 24:28] = 0.7, 1.0
    return h.make_model(graph, opset_imports=[h.make_opsetid("", 17)], ir_version=8), x


def test_a_box_does_not_light_up_other_objects():
    model, x = blobs()
    made = export_model(model, targets="cotangent")
    assert (made.metadata.layer.value, made.metadata.fuse, made.metadata.method) == ("f", None, "hirescam")
    e = Explainer(made.model.SerializeToString())(x, cotangent=["box:layout=v5", "box:layout=v5,box=-2"])
    assert [np.argwhere(one > 0).tolist() for one in e.maps[0]] == [[[5, 6]], [[1, 1]]]
    pooled = Explainer(made.model.SerializeToString())(x, cotangent="box:layout=v5,box=-2", method="gradcam")
    assert np.unravel_index(pooled.maps[0, 0].argmax(), (8, 8)) == (5, 6)  # what the default was


def test_a_file_of_pooled_gradients_keeps_gradcam():
    model, x = blobs()
    made = export_model(model, targets="cotangent", emit="weights", check=False)
    assert (made.metadata.method, made.metadata.emit) == ("gradcam", "weights")
    with pytest.warns(UserWarning, match=r"forgets where.*--emit gradients"):
        e = Explainer(made.model.SerializeToString())(x, cotangent="box:layout=v5")
    assert e.method == "gradcam"
