"""Gradients that are swept in slices, or summed over positions on the way, equal those that are built in full."""

import functools
import itertools

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from hypothesis import assume, currently_in_test_context, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

pytest.importorskip("torch", reason="PyTorch builds the architectures of these tests")

import torch

from fastcam_bench.oracles import torch_oracle
from fastcam_export import export_model
from fastcam_export.autodiff.pooled import sparse_seeds, spatial_mean, spatial_sum
from fastcam_export.autodiff.pooled.axis_maps import groups
from fastcam_export.autodiff.rules import shape
from fastcam_export.outputs import class_targets
from fastcam_export.verify.session import quiet_session
from support.examples import examples
from support.models.narrow_heads import narrowed

CLASSES = 5
TARGETS = np.array([[-1, 2, 0], [4, -3, 1]])


def turn_off(patch):
    """The general path: no slices, no sums on the way, no rows in place of products."""
    patch.setattr(sparse_seeds, "of_class", lambda *args: None)
    patch.setattr(sparse_seeds, "of_token", lambda *args: None)
    patch.setattr(spatial_mean, "RULES", {})
    patch.setattr(spatial_sum._Plan, "_through", lambda *args: None)
    patch.setattr(class_targets, "gather_rows", lambda *args: {})
    patch.setattr(shape, "in_order", lambda node: False)


def run(model, emit, targets, images, **how):
    made = export_model(model, emit=emit, check=False, **how)
    session = quiet_session(made.model)
    feeds = {session.get_inputs()[0].name: images, "fastcam.targets": targets}
    return made, session.run([f"fastcam.{emit}"], feeds)[0]


def compare(model, images, targets=TARGETS, **how):
    """Weights and gradients by the short ways against the full gradient and its mean; the exports of both ways."""
    short = {emit: run(model, emit, targets, images, **how) for emit in ("weights", "gradients")}
    with pytest.MonkeyPatch.context() as patch:
        turn_off(patch)
        _, gradients = run(model, "gradients", targets, images, **how)
        general, weights = run(model, "weights", targets, images, **how)
    mean = gradients.mean(tuple(range(3, gradients.ndim)))
    alive = np.abs(gradients).max() > 0
    if currently_in_test_context():  # random chains may end in a Clip that nothing passes
        assume(alive)
    assert alive
    np.testing.assert_allclose(short["gradients"][1], gradients, atol=1e-5 * np.abs(gradients).max())
    np.testing.assert_allclose(weights, mean, atol=1e-5 * np.abs(mean).max())
    np.testing.assert_allclose(short["weights"][1], mean, atol=1e-5 * np.abs(mean).max())
    return short["weights"][0].model, general.model


def added(model):
    return [node for node in model.graph.node if node.name.startswith("fastcam.")]


class Grower:
    """Grows a classifier node by node from ``image``."""

    def __init__(self, seed, batch, size=8):
        self.rng = np.random.default_rng(seed)
        self.batch, self.size = batch, size
        self.nodes, self.tensors, self.value = [], [], "image"

    def weight(self, *shape):
        return self.tensor((self.rng.standard_normal(shape) / np.sqrt(shape[-1])).astype(np.float32))

    def tensor(self, array):
        name = f"w{len(self.tensors)}"
        self.tensors.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def node(self, op_type, *others, first=None, **attributes):
        output = f"v{len(self.nodes)}"
        inputs = [first or self.value, *others]
        self.nodes.append(helper.make_node(op_type, inputs, [output], f"n{len(self.nodes)}", **attributes))
        self.value = output
        return self

    def named(self, name):
        self.nodes[-1].output[0] = self.value = name
        return self

    def model(self, *kept):
        self.named("logits")
        inputs = [helper.make_tensor_value_info("image", TensorProto.FLOAT, [self.batch, 3, self.size, self.size])]
        outputs = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [self.batch, CLASSES, *kept])]
        graph = helper.make_graph(self.nodes, "grown", inputs, outputs, self.tensors)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)])
        model.ir_version = 9
        onnx.checker.check_model(model)
        return model


# ---- one channel per class

CLASS_MAP = {
    "relu": lambda g: g.node("Relu"),
    "clip": lambda g: g.node("Clip", g.tensor(np.float32(-0.5)), g.tensor(np.float32(0.5))),
    "hard swish": lambda g: g.node("HardSwish"),
    "sigmoid": lambda g: g.node("Sigmoid"),
    "dropout": lambda g: g.node("Dropout"),
    "average": lambda g: g.node("AveragePool", kernel_shape=[2, 2], strides=[1, 1]),
    "maximum": lambda g: g.node("MaxPool", kernel_shape=[2, 2], strides=[1, 1]),
    "twice read": lambda g: g.node("Add", g.node("Relu", first=g.value).value),
    "channels last": lambda g: g.node("Transpose", perm=[0, 2, 3, 1]).node("Tanh").node("Transpose", perm=[0, 3, 1, 2]),
}
ENDS = {
    "global": lambda g: g.node("GlobalAveragePool").node("Flatten"),
    "global, kept": lambda g: g.node("GlobalAveragePool"),
    "reduced": lambda g: g.node("ReduceMean", g.tensor(np.array([2, 3])), keepdims=0),
    "reduced from channels last": lambda g: g.node("Transpose", perm=[0, 2, 3, 1]).node(
        "ReduceMean", g.tensor(np.array([1, 2])), keepdims=0
    ),
    "sum": lambda g: g.node("ReduceSum", g.tensor(np.array([-2, -1])), keepdims=0),
    "maximum": lambda g: g.node("ReduceMax", g.tensor(np.array([2, 3])), keepdims=0),
    "reshaped": lambda g: g.node("GlobalAveragePool").node("Reshape", g.tensor(np.array([-1, CLASSES]))),
}


def class_map(seed, batch, steps, end, kernel=1):
    grower = Grower(seed, batch)
    grower.node("Conv", grower.weight(4, 3, 3, 3), pads=[1, 1, 1, 1]).node("Relu").named("layer")
    pads = [kernel // 2] * 4
    grower.node("Conv", grower.weight(CLASSES, 4, kernel, kernel), grower.weight(CLASSES), pads=pads)
    for step in steps:
        CLASS_MAP[step](grower)
    return ENDS[end](grower).model(*[1, 1] * (end == "global, kept"))


@settings(max_examples=examples(25), deadline=None, derandomize=True)
@given(
    st.lists(st.sampled_from(sorted(CLASS_MAP)), max_size=3),
    st.sampled_from(sorted(ENDS)),
    st.sampled_from([1, 3]),
    st.sampled_from(["N", 2]),
    st.integers(1, 3),
    st.integers(0, 100),
)
def test_class_maps(steps, end, kernel, batch, targets, seed):
    images = np.random.default_rng(seed).standard_normal((2, 3, 8, 8)).astype(np.float32)
    compare(class_map(seed, batch, steps, end, kernel), images, TARGETS[:, :targets], layer="layer")


@pytest.mark.parametrize("batch", ["N", 2])
@pytest.mark.parametrize("end", ENDS)
def test_one_channel_is_differentiated(batch, end):
    """Of a class map that ends in a mean, no tensor of all its channels is made."""
    images = np.random.default_rng(3).standard_normal((2, 3, 8, 8)).astype(np.float32)
    short, _ = compare(class_map(3, batch, ["relu"], end), images, layer="layer")
    assert ("GatherND" in {node.op_type for node in added(short)}) == (end != "maximum")


@pytest.mark.parametrize("steps", [["relu", "average"], ["hard swish", "channels last"]])
def test_class_maps_of_free_height_and_width(steps):
    model = class_map(3, "N", steps, "global")
    for dim, name in zip(model.graph.input[0].type.tensor_type.shape.dim[2:], "HW"):
        dim.dim_param = name
    compare(model, np.random.default_rng(3).standard_normal((2, 3, 8, 8)).astype(np.float32), layer="layer")


def test_a_class_map_itself_is_a_layer():
    images = np.random.default_rng(3).standard_normal((2, 3, 8, 8)).astype(np.float32)
    model = class_map(3, "N", ["relu"], "global")
    compare(model, images, layer="n2")


@pytest.mark.parametrize("target", [CLASSES, -CLASSES - 1])
def test_a_class_out_of_range_is_an_error(target):
    images = np.zeros((1, 3, 8, 8), np.float32)
    with pytest.raises(Exception, match=r"(?i)bounds|range|invalid ind"):
        run(class_map(0, "N", ["relu"], "global"), "weights", np.array([[target]]), images, layer="layer")


def test_the_predicted_class_as_a_constant():
    images = np.random.default_rng(3).standard_normal((2, 3, 8, 8)).astype(np.float32)
    model = class_map(3, "N", ["relu"], "global")
    session = ort.InferenceSession(export_model(model, layer="layer", targets="constant").model.SerializeToString())
    found = session.run(["fastcam.weights", "fastcam.classes", "logits"], {"image": images})
    _, expected = run(model, "weights", np.array([[-1]]), images, layer="layer")
    np.testing.assert_allclose(found[0], expected, rtol=1e-5)
    assert found[1].tolist() == found[2].reshape(2, -1).argmax(1)[:, None].tolist()


# ---- tokens

WIDTH, TOKENS = 6, 5


def mlp(g):
    here = g.value
    g.node("LayerNormalization", g.weight(WIDTH), g.weight(WIDTH))
    g.node("MatMul", g.weight(WIDTH, 8)).node("Add", g.weight(8)).node("Gelu").node("MatMul", g.weight(8, WIDTH))
    return g.node("Add", here)


def attention(g):
    """One head; queries, keys and values from one product, apart by Slice."""
    here = g.value
    qkv = g.node("MatMul", g.weight(WIDTH, 3 * WIDTH)).node("Add", g.weight(3 * WIDTH)).value
    parts = [
        g.node("Slice", *(g.tensor(np.array([i])) for i in (a * WIDTH, (a + 1) * WIDTH, 2)), first=qkv).value
        for a in range(3)
    ]
    keys = g.node("Transpose", first=parts[1], perm=[0, 2, 1]).value
    g.node("MatMul", keys, first=parts[0]).node("Softmax", axis=-1).node("MatMul", parts[2])
    return g.node("Add", here)


def merged(g):
    """Tokens first, and with the images one axis for a Gemm, as PyTorch's attention has its projection."""
    g.node("Transpose", perm=[1, 0, 2]).node("Reshape", g.tensor(np.array([-1, WIDTH])))
    g.node("Gemm", g.weight(WIDTH, WIDTH), g.weight(WIDTH), transB=1)
    return g.node("Reshape", g.tensor(np.array([TOKENS, -1, WIDTH]))).node("Transpose", perm=[1, 0, 2])


BLOCKS = {
    "mlp": mlp,
    "attention": attention,
    "merged": merged,
    "norm": lambda g: g.node("LayerNormalization", g.weight(WIDTH), g.weight(WIDTH)),
    "scale": lambda g: g.node("Mul", g.weight(WIDTH)),
    "place": lambda g: g.node("Add", g.weight(1, TOKENS, WIDTH)),
    "weighed": lambda g: g.node("Mul", g.weight(1, TOKENS, 1)),
    "gate": lambda g: g.node("Mul", g.node("Sigmoid", first=g.value).value),
    "split": lambda g: g.node("Reshape", g.tensor(np.array([0, 0, 2, 3]))).node(
        "Reshape", g.tensor(np.array([0, 0, WIDTH]))
    ),
}
HEADS = {
    "class token": lambda g: g.node("Gather", g.tensor(np.array(0)), axis=1),
    "last token": lambda g: g.node("Gather", g.tensor(np.array([-1])), axis=1).node("Flatten"),
    "sliced": lambda g: g.node("Slice", *(g.tensor(np.array([i])) for i in (0, 1, 1))).node("Flatten"),
    "mean": lambda g: g.node("ReduceMean", g.tensor(np.array([1])), keepdims=0),
    "all": lambda g: g.node("Flatten"),
}


def tokens(seed, batch, blocks, head):
    grower = Grower(seed, batch)
    grower.node("Conv", grower.weight(WIDTH, 3, 4, 4), strides=[4, 4])
    grower.node("Reshape", grower.tensor(np.array([0, WIDTH, 4]))).node("Transpose", perm=[0, 2, 1])
    grower.node("Pad", grower.tensor(np.array([0, 1, 0, 0, 0, 0])), grower.tensor(np.float32(0.3)))
    grower.node("LayerNormalization", grower.weight(WIDTH), grower.weight(WIDTH)).named("layer")
    for block in blocks:
        BLOCKS[block](grower)
    width = TOKENS * WIDTH if head == "all" else WIDTH
    HEADS[head](grower)
    return grower.node("Gemm", grower.weight(width, CLASSES), grower.weight(CLASSES)).model()


@settings(max_examples=examples(30), deadline=None, derandomize=True)
@given(
    st.lists(st.sampled_from(sorted(BLOCKS)), min_size=1, max_size=4),
    st.sampled_from(sorted(HEADS)),
    st.integers(0, 1),
    st.sampled_from(["N", 2]),
    st.integers(1, 3),
    st.integers(0, 100),
)
def test_tokens(blocks, head, prefix, batch, targets, seed):
    """With an attention in front, so that every token counts; of all tokens, or of those behind a prefix."""
    images = np.random.default_rng(seed).standard_normal((2, 3, 8, 8)).astype(np.float32)
    grid = [2, 2] if prefix else [1, 5]
    model = tokens(seed, batch, ["attention", *blocks], head)
    compare(model, images, TARGETS[:, :targets], layer="layer", layout="tokens", prefix_tokens=prefix, grid=grid)


def test_one_token_is_differentiated():
    """Behind the attention nothing that is added holds all tokens in all widths."""
    images = np.random.default_rng(1).standard_normal((2, 3, 8, 8)).astype(np.float32)
    model = tokens(1, 2, ["attention", "merged", "mlp", "mlp", "norm"], "class token")
    how = {"layer": "layer", "layout": "tokens", "prefix_tokens": 1, "grid": [2, 2]}
    short, full = compare(model, images, **how)

    def wide(made):
        values = onnx.shape_inference.infer_shapes(made).graph.value_info
        shapes = {v.name: [d.dim_value for d in v.type.tensor_type.shape.dim] for v in values}
        return [n.op_type for n in added(made) if 8 in shapes.get(n.output[0], []) and TOKENS in shapes[n.output[0]]]

    assert wide(full) and not wide(short)


# ---- shapes


def test_groups_of_axes_that_hold_the_same_elements():
    assert groups(("N", 49, 8), ("N", 7, 7, 8)) == [([0], [0]), ([1], [1, 2]), ([2], [3])]
    assert groups(("N", 12, 9, 4), ("12*N", 9, 4)) == [([0, 1], [0]), ([2], [1]), ([3], [2])]
    assert groups((None, 9, 8), (None, 9, 2, 4)) == [([0], [0]), ([1], [1]), ([2], [2, 3])]
    assert groups(("N", 4, "h"), ("N", "M")) == [([0], [0]), ([1, 2], [1])]


@pytest.mark.parametrize("offset", [0, 1])
def test_a_strided_view_of_memory_in_order_is_a_reshape(offset):
    """As exporters write ``torch.as_strided``; one that begins elsewhere is none."""
    grower = Grower(0, "N")
    grower.node("Conv", grower.weight(4, 3, 3, 3)).node("Relu").named("layer")
    flat = grower.node("GlobalAveragePool").node("Reshape", grower.tensor(np.array([-1]))).value
    images = grower.node("Shape", first="image", start=0, end=1).node("Squeeze").value
    start, step = grower.tensor(np.array(0)), grower.tensor(np.array(1))
    grower.nodes.append(helper.make_node("Range", [start, images, step], ["count"]))
    grower.node("Mul", grower.tensor(np.array(4)), first="count").node("Unsqueeze", grower.tensor(np.array([1])))
    inner = (np.arange(4) + offset) % 4
    index = grower.node("Add", grower.tensor(inner[None])).value
    view = grower.node("Gather", index, first=flat, axis=0).value
    grower.node("Gemm", grower.weight(4, CLASSES))
    model = grower.model()
    model.graph.value_info.append(helper.make_tensor_value_info(view, TensorProto.FLOAT, ["N", 4]))
    images = np.random.default_rng(0).standard_normal((2, 3, 8, 8)).astype(np.float32)
    short, _ = compare(model, images, layer="layer")
    assert ("Range" in {node.op_type for node in added(short)}) == bool(offset)


# ---- architectures

SMALL = {
    "squeezenet1_1": 64,
    "mobilenet_v3": 64,
    "shufflenet_v2": 64,
    "vit": 32,
    "swin": 32,
    "convnext": 32,
}
LARGE = (
    *("alexnet", "vgg16", "googlenet", "resnet50", "densenet121"),
    *("mobilenet_v2", "mobilenet_v3_large", "shufflenet_v2_x0_5", "efficientnet_b0"),
)


SLOW = {("swin", True), ("vgg16", False)}
"""The two that take longest; their other exporter or AlexNet has the same nodes."""

SIZES = {"alexnet": 128, "vgg16": 64}
"""Of pictures, where the head reads each position of the maps: there are several."""


def small(name):
    models = torch_oracle.torchvision.models
    torch.manual_seed(0)
    if name == "vit":
        return models.VisionTransformer(32, 8, 2, 2, 24, 48, num_classes=50)
    if name == "swin":
        return models.SwinTransformer([4, 4], 16, [2, 2], [2, 4], [4, 4], num_classes=50)
    if name == "convnext":
        block = models.convnext.CNBlockConfig
        return models.ConvNeXt([block(16, 24, 1), block(24, None, 1)], num_classes=50)
    if name == "mobilenet_v3":
        block = functools.partial(models.mobilenetv3.InvertedResidualConfig, dilation=1, width_mult=1.0)
        blocks = [block(16, 3, 16, 16, True, "RE", 2), block(16, 3, 72, 24, False, "HS", 2)]
        return models.MobileNetV3([*blocks, block(24, 5, 96, 40, True, "HS", 1)], 64, num_classes=50)
    if name == "shufflenet_v2":
        return models.ShuffleNetV2([2, 1, 1], [24, 48, 96, 192, 256], num_classes=50)
    if name == "googlenet":
        return models.googlenet(weights=None, aux_logits=False, init_weights=False)
    made = models.get_model(name, weights=None)
    return narrowed(made, SIZES[name], 50) if name in SIZES else made


@pytest.mark.parametrize(
    ("model", "dynamo"),
    [
        pytest.param(name, dynamo, marks=pytest.mark.slow if (name, dynamo) in SLOW else ())
        for name, dynamo in [*itertools.product(SMALL, (False, True)), *itertools.product(LARGE, (False,))]
    ],
)
def test_architectures(model, dynamo):
    """As torchvision builds and the exporters write them; no weight is stored a second time."""
    module, size = small(model).eval(), {**SMALL, **SIZES}.get(model, 64)
    torch_oracle.settle(module, torch_oracle.pictures(2, size, seed=1))
    proto = torch_oracle.to_onnx(module, size, dynamo)
    short, _ = compare(proto, torch_oracle.pictures(2, size))
    if proto.ByteSize() > 1 << 20:
        assert short.ByteSize() <= 1.03 * proto.ByteSize()
