"""Exports of every element type and form: graphs as TensorFlow's exporters write them, sizes free, one or zero.

PyTorch's autograd on the same weights is the oracle, in float64.
"""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from fastcam import Explainer
from fastcam.schema import OUTPUTS
from fastcam_bench.oracles import kinks
from fastcam_export import export_model, inspect_model
from support.rules.runs import reference, run

torch = pytest.importorskip("torch", reason="PyTorch is the oracle of these tests")
F = torch.nn.functional

CLASSES = 4
ELEMENTS = {np.float16: TensorProto.FLOAT16, np.float32: TensorProto.FLOAT, np.float64: TensorProto.DOUBLE}
TOLERANCE = {np.float16: 2e-2, np.float32: 1e-5, np.float64: 1e-6}
"""As a share of the largest value. What the file gives is float32, also of a model in float64."""
MARGIN = {np.float16: 1e-3, np.float32: 1e-5, np.float64: 1e-5}
"""How far the numbers keep from kinks, where float16 rounds by up to 5e-4."""


class Graph:
    """Grows a chain of nodes, and beside it the same computation in PyTorch.

    The value is "NHWC" or "NCHW" as ``order`` says; PyTorch's is always NCHW.
    """

    def __init__(self, shape, order="NHWC", dtype=np.float32, opset=18, seed=0):
        self.rng, self.dtype, self.opset, self.order = np.random.default_rng(seed), dtype, opset, order
        self.shape, self.nodes, self.tensors, self.steps, self.value = shape, [], [], [], "input_1:0"
        self.channels = shape[order.index("C")]

    # ---- ONNX

    def constant(self, array, name=None):
        array = np.asarray(array)
        name = name or f"const_{len(self.tensors)}"
        self.tensors.append(
            numpy_helper.from_array(array.astype(self.dtype) if array.dtype.kind == "f" else array, name)
        )
        return name

    def weight(self, *shape):
        """Numbers that every element type holds, and their tensor for PyTorch."""
        array = (self.rng.standard_normal(shape) / np.sqrt(max(1, np.prod(shape[1:])))).astype(np.float16)
        return self.constant(array, f"model/weight_{len(self.tensors)}"), torch.tensor(array.astype(np.float64))

    def node(self, op_type, *others, name=None, **attributes):
        output = f"{name or f'model/{op_type.lower()}_{len(self.nodes)}'}:0"
        self.nodes.append(helper.make_node(op_type, [self.value, *others], [output], output[:-2], **attributes))
        self.value = output
        return self

    def to(self, order):
        """A Transpose, as exporters put around what only exists in NCHW."""
        if order != self.order:
            self.node("Transpose", perm=[self.order.index(axis) for axis in order])
            self.order = order
        return self

    # ---- both

    def conv(self, outputs, kernel=3, stride=1, same=True, depthwise=False, order=None):
        """A convolution between Transposes, then the bias where the value was, as TensorFlow's BiasAdd."""
        here = order or self.order
        w, weight = self.weight(outputs, 1 if depthwise else self.channels, kernel, kernel)
        groups, pad = self.channels if depthwise else 1, {"auto_pad": "SAME_UPPER" if same else "VALID"}
        self.to("NCHW").node("Conv", w, strides=[stride] * 2, group=groups, **pad)
        self.steps.append(
            lambda x: F.conv2d(padded(x, kernel, stride) if same else x, weight, None, stride, 0, 1, groups)
        )
        self.channels = outputs
        return self.to(here).bias()

    def bias(self):
        b, bias = self.weight(self.channels)
        if self.order == "NCHW":
            b = self.constant(bias.numpy().reshape(1, -1, 1, 1))
        self.steps.append(lambda x: x + bias.reshape(1, -1, 1, 1))
        return self.node("Add", b, name=f"model/conv2d_{len(self.nodes)}/BiasAdd")

    def scale(self):
        """What is left of a batch normalisation."""
        w, weight = self.weight(self.channels)
        self.steps.append(lambda x: x * weight.reshape(1, -1, 1, 1))
        return self.node("Mul", w if self.order == "NHWC" else self.constant(weight.numpy().reshape(1, -1, 1, 1)))

    def relu(self, keep=False):
        self.steps.append(keep_gradient if keep else torch.relu)
        return self.node("Relu", name=f"model/activation_{len(self.nodes)}/Relu")

    def relu6(self):
        self.steps.append(F.relu6)
        return self.node("Clip", self.constant(np.float32(0)), self.constant(np.float32(6)))

    def pad(self):
        """TensorFlow's explicit padding in front of a convolution with stride two."""
        self.steps.append(lambda x: F.pad(x, (0, 1, 0, 1)))
        ends = {"N": 0, "C": 0, "H": 1, "W": 1}
        pads = [0, 0, 0, 0, *(ends[axis] for axis in self.order)]
        return self.node("Pad", self.constant(pads))

    def max_pool(self, kernel=2, stride=2):
        here = self.order
        self.to("NCHW").node("MaxPool", kernel_shape=[kernel] * 2, strides=[stride] * 2, auto_pad="SAME_UPPER")
        self.steps.append(lambda x: F.max_pool2d(padded(x, kernel, stride, -np.inf), kernel, stride))
        return self.to(here)

    def squeeze_and_excite(self):
        c, spatial, one = self.channels, [self.order.index(axis) for axis in "HW"], np.ones(4, np.int64)
        one[self.order.index("N")], one[self.order.index("C")] = -1, c
        (w, weight), here = self.weight(c, c), self.value
        self.node("ReduceMean", self.constant(spatial), keepdims=0).node("MatMul", w).node("Sigmoid")
        self.node("Reshape", self.constant(one)).node("Mul", here)
        self.steps.append(lambda x: x * torch.sigmoid(x.mean((2, 3)) @ weight)[:, :, None, None])
        return self

    # ---- the end

    def mean(self, how="ReduceMean"):
        spatial = self.constant([self.order.index(axis) for axis in "HW"])
        if how == "ReduceMean":
            self.node("ReduceMean", spatial, keepdims=0)
        elif how == "Squeeze":
            self.node("ReduceMean", spatial, keepdims=1).node("Squeeze", spatial)
        elif how == "GlobalAveragePool, Squeeze":
            self.to("NCHW").node("GlobalAveragePool").node("Squeeze", self.constant([2, 3]))
        elif how == "GlobalAveragePool, Transpose, Reshape":
            self.to("NCHW").node("GlobalAveragePool").to("NHWC")
            self.node("Reshape", self.constant([-1, self.channels]))
        self.steps.append(lambda x: x.mean((2, 3)))
        return self.dense(self.channels)

    def flatten(self, *size):
        """Keras' Flatten: in the order of the axes as they are."""
        order, features = [dict(zip("NCHW", range(4)))[axis] for axis in self.order], self.channels * int(np.prod(size))
        self.node("Reshape", self.constant([-1, features]))
        self.steps.append(lambda x: x.permute(order).reshape(len(x), -1))
        return self.dense(features)

    def dense(self, features, classes=CLASSES):
        (w, weight), (b, bias) = self.weight(features, classes), self.weight(classes)
        self.steps.append(lambda x: x @ weight + bias)
        self.node("MatMul", w, name="model/dense/MatMul").node("Add", b, name="model/dense/BiasAdd")
        return self

    def softmax(self):
        return self.node("Softmax", axis=-1, name="model/predictions/Softmax")

    def model(self):
        element = ELEMENTS[self.dtype]
        image = helper.make_tensor_value_info("input_1:0", element, self.shape)
        scores = helper.make_tensor_value_info(self.value, element, [self.shape[0], CLASSES])
        graph = helper.make_graph(self.nodes, "tf2onnx", [image], [scores], self.tensors)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)], ir_version=8)
        onnx.checker.check_model(model, full_check=True)
        return model

    def gradient(self, images, classes):
        """(layer, gradient of the score of ``classes`` [N, T]) by autograd: [N, K, h, w], [N, T, K, h, w], float64."""
        order = [self.image_order.index(axis) for axis in "NCHW"]
        x = torch.tensor(images.astype(np.float64)).permute(order)
        with kinks.away(MARGIN[self.dtype]):
            for step in self.steps:
                x = step(x)
                if step is keep_gradient:
                    layer = x
        each = [
            torch.autograd.grad(x.gather(1, torch.tensor(classes[:, t : t + 1])).sum(), layer, retain_graph=True)[0]
            for t in range(classes.shape[1])
        ]
        return layer.detach().numpy(), torch.stack(each, 1).numpy()

    @property
    def image_order(self):
        return "NHWC" if self.shape[-1] == 3 else "NCHW"


def keep_gradient(x):
    """A ReLU whose result is the target layer."""
    return torch.relu(x).requires_grad_()


def padded(x, kernel, stride, value=0.0):
    """TensorFlow's SAME: as many windows as strides, an odd element of padding at the end."""
    pads = []
    for size in x.shape[:1:-1]:
        total = max(0, (-(-size // stride) - 1) * stride + kernel - size)
        pads += [total // 2, total - total // 2]
    return F.pad(x, pads, value=value)


def hold(graph, images, layer, targets=((-1, 2), (3, -2)), **options):
    """Export at all emit levels and hold what the files compute against autograd. The layer's description."""
    model, tolerance = graph.model(), TOLERANCE[graph.dtype]
    targets = np.array(targets[: 1 if len(images) != len(targets) else None], np.int64)
    for emit in OUTPUTS:
        double = graph.dtype is np.float64  # for which ONNX Runtime has no convolutions: neither export's check nor run
        made = export_model(model, layer=layer, emit=emit, targets="required", check=not double, **options)
        feeds = {"input_1:0": images, "fastcam.targets": targets}
        found = reference(made.model, feeds) if double else run(made.model, feeds)
        maps, gradient = graph.gradient(images, found["fastcam.classes"])
        assert gradient.size == 0 or np.abs(gradient).max() > 0
        weights = gradient.mean((3, 4))
        cam = np.maximum((weights[..., None, None] * maps[:, None]).sum(2), 0)
        expected = {"fastcam.weights": weights, "fastcam.gradients": gradient, "fastcam.cam": cam}
        expected["fastcam.activations"] = maps
        for name in OUTPUTS[emit][1:]:
            assert found[name].dtype == np.float32 and found[name].shape == expected[name].shape
            largest = np.abs(expected[name]).max(initial=0)
            np.testing.assert_allclose(found[name], expected[name], rtol=0, atol=tolerance * largest, err_msg=name)
    return made.metadata.layer


def noise(*shape, dtype=np.float32, seed=3):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float16).astype(dtype)


# ---- graphs of TensorFlow

TENSORFLOW = {
    "mean": lambda g: g.conv(6, stride=2).relu().conv(5).relu(True).mean(),
    "mean, Squeeze": lambda g: g.conv(6, stride=2).relu().conv(5).relu(True).mean("Squeeze"),
    "pool, Squeeze": lambda g: g.conv(6).relu().conv(5).relu(True).mean("GlobalAveragePool, Squeeze"),
    "pool, Transpose": lambda g: g.conv(5).relu(True).mean("GlobalAveragePool, Transpose, Reshape"),
    "Flatten": lambda g: g.conv(6, stride=2).relu().conv(5).relu(True).flatten(6, 5),
    "Flatten behind a pool": lambda g: g.conv(6, stride=2).relu(True).max_pool().flatten(3, 3),
    "padded by hand": lambda g: g.pad().conv(6, stride=2, same=False).relu6().conv(5).relu(True).mean(),
    "separable": lambda g: (
        g.conv(6, stride=2).relu().conv(6, depthwise=True).relu6().conv(5, kernel=1).relu(True).mean()
    ),
    "scaled in NHWC": lambda g: g.conv(6).scale().bias().relu().conv(5, stride=2).scale().relu(True).mean(),
    "squeeze and excite": lambda g: g.conv(6).relu().squeeze_and_excite().conv(5).relu(True).mean(),
    "layer in the middle": lambda g: g.conv(6).relu(True).max_pool(3).conv(5).relu().squeeze_and_excite().mean(),
    "NCHW inside": lambda g: g.to("NCHW").conv(6, stride=2).relu().conv(5).relu(True).mean(),
}


def layer_of(graph):
    """The output of the Relu that is the target layer."""
    number = graph.steps[: graph.steps.index(keep_gradient)].count(torch.relu)
    return [node.output[0] for node in graph.nodes if node.op_type == "Relu"][number]


@pytest.mark.parametrize("softmax", [False, True])
@pytest.mark.parametrize("name", TENSORFLOW)
def test_tensorflow_graphs(name, softmax):
    graph = TENSORFLOW[name](Graph(["N", 12, 10, 3]))
    graph = graph.softmax() if softmax else graph
    layer = hold(graph, noise(2, 12, 10, 3), layer_of(graph))
    assert layer.layout == ("NCHW" if name == "NCHW inside" else "NHWC")


@pytest.mark.parametrize("name", [name for name in TENSORFLOW if not name.startswith(("layer", "Flatten behind"))])
def test_the_last_convolution_of_a_tensorflow_graph_is_chosen(name):
    graph = TENSORFLOW[name](Graph(["N", 12, 10, 3]))
    found = inspect_model(graph.model())
    chosen = next(layer for layer in found.layers if layer.chosen)
    images = noise(2, 12, 10, 3)
    made = export_model(graph.model(), emit="gradients", targets="required")
    out = run(made.model, {"input_1:0": images, "fastcam.targets": np.array([[1]])})
    maps, gradient = graph.gradient(images, out["fastcam.classes"])
    assert (chosen.name, chosen.layout) == (layer_of(graph), "NCHW" if name == "NCHW inside" else "NHWC")
    np.testing.assert_allclose(out["fastcam.activations"], maps, atol=1e-5)
    np.testing.assert_allclose(out["fastcam.gradients"], gradient, atol=1e-5 * np.abs(gradient).max())


# ---- element types


@pytest.mark.parametrize("dtype", ELEMENTS)
@pytest.mark.parametrize("order", ["NHWC", "NCHW"])
def test_element_types(dtype, order):
    shape = ["N", 12, 10, 3] if order == "NHWC" else ["N", 3, 12, 10]
    graph = Graph(shape, order, dtype).conv(6, stride=2).relu().conv(5).relu(True).max_pool().conv(5).relu().mean()
    images = noise(2, *shape[1:], dtype=dtype, seed=98)  # of 150 the one that keeps away from kinks in float16
    hold(graph.softmax(), images, layer_of(graph))


def test_half_precision_in_the_explainer(tmp_path):
    graph = Graph(["N", 12, 10, 3], dtype=np.float16).conv(6, stride=2).relu(True).mean().softmax()
    path = tmp_path / "model.cam.onnx"
    made = export_model(graph.model(), path, preprocess="unit", layer=layer_of(graph))
    assert made.metadata.preprocessing.layout == "NHWC" and made.metadata.preprocessing.size == (12, 10)
    picture = np.random.default_rng(0).integers(0, 256, (12, 10, 3), np.uint8)
    images = (picture[None] / 255).astype(np.float16)
    maps, gradient = graph.gradient(images, np.array([[1, 2]]))
    expected = np.maximum((gradient.mean((3, 4))[..., None, None] * maps[:, None]).sum(2), 0)
    found = Explainer(path)(picture, [1, 2])
    assert expected.max() > 0
    np.testing.assert_allclose(found.maps, expected, rtol=0, atol=TOLERANCE[np.float16] * expected.max())


# ---- sizes


@pytest.mark.parametrize("order", ["NHWC", "NCHW"])
@pytest.mark.parametrize("size", [(12, 10), (7, 15)])
def test_free_height_and_width(order, size):
    shape = ["N", "H", "W", 3] if order == "NHWC" else ["N", 3, "H", "W"]
    sizes = dict(zip("NHWC", (2, *size, 3)))
    graph = Graph(shape, order).conv(6, stride=2).relu().conv(5).relu(True).max_pool().squeeze_and_excite().mean()
    hold(graph, noise(*(sizes[axis] for axis in order)), layer_of(graph))


@pytest.mark.parametrize("order", ["NHWC", "NCHW"])
def test_free_height_and_width_without_names(order):
    shape = [None, None, None, 3] if order == "NHWC" else [None, 3, None, None]
    graph = Graph(shape, order).conv(6, stride=2).relu(True).max_pool(3).conv(5, stride=2).relu().mean()
    hold(graph, noise(2, *(3 if d == 3 else 11 for d in shape[1:])), layer_of(graph))


@pytest.mark.parametrize("order", ["NHWC", "NCHW"])
@pytest.mark.parametrize("free", [True, False])
def test_no_images(order, free):
    """A batch of no images gives no maps, and no error."""
    shape = ["N", 12, 10, 3] if order == "NHWC" else ["N", 3, 12, 10]
    if free:
        shape = [d if d == 3 else "NHW"[i if i < 2 or order == "NHWC" else i - 1] for i, d in enumerate(shape)]
    graph = Graph(shape, order).conv(6, stride=2).relu(True).max_pool().conv(5).relu().mean()
    sizes = [d if isinstance(d, int) else {"N": 2, "H": 12, "W": 10}[d] for d in shape]
    hold(graph, noise(0, *sizes[1:]), layer_of(graph))


@pytest.mark.parametrize(("size", "free"), [((1, 1), False), ((1, 6), False), ((6, 1), False), ((1, 1), True)])
@pytest.mark.parametrize("order", ["NHWC", "NCHW"])
def test_maps_with_axes_of_one(size, order, free):
    sizes = dict(zip("NHWC", (1, *size, 3)))
    shape = [axis if free and axis != "C" else sizes[axis] for axis in order]
    graph = Graph(shape, order).conv(6).relu(True).max_pool().conv(5).relu().mean()
    known = {} if free else {"layout": order}  # an axis of length one could be any
    hold(graph, noise(*(sizes[axis] for axis in order)), layer_of(graph), **known)


def test_a_layer_of_one_channel():
    graph = Graph([2, 8, 6, 3]).conv(1).relu(True).max_pool().mean()
    hold(graph, noise(2, 8, 6, 3), layer_of(graph))
