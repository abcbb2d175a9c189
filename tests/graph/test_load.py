"""What load knows of a graph's shapes: right for every batch, and enough for files of torch's older exporter."""

import io
import math
import re

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from fastcam_bench.oracles import kinks
from fastcam_export import export_model, vjp
from fastcam_export.graph import symbolic_dims
from fastcam_export.graph.load import load
from fastcam_export.graph.symbolic_dims import from_dim, reshaped
from fastcam_export.verify.session import quiet_session
from support.examples import examples

SIZES = {"N": 3, "M": 5}


def value_of(dim, sizes=SIZES):
    """The number that a dimension says, None where it says none."""
    if dim is None or isinstance(dim, int):
        return dim
    known = from_dim(dim)
    if not isinstance(known, symbolic_dims.Product) or any(name not in sizes for name in known.names):
        return None
    return known.factor * math.prod(sizes[name] for name in known.names)


def session(model):
    return quiet_session(model)


def assert_shapes_hold(model, feeds):
    """Run all of a model's values: each inferred number is right, and a name stands for one size everywhere.

    Returns the loaded values by name.
    """
    loaded = load(model).model
    probe = onnx.ModelProto()
    probe.CopyFrom(onnx.shape_inference.infer_shapes(model))
    values = {value.name: value for node in loaded.graph for value in node.outputs if value.type is not None}
    there = {name for node in model.graph.node for name in node.output}
    names = sorted(name for name in there & values.keys())
    del probe.graph.output[:]
    probe.graph.output.extend(helper.make_tensor_value_info(n, int(values[n].dtype), None) for n in names)
    sizes = {}
    for value in model.graph.input:
        for dim, size in zip(value.type.tensor_type.shape.dim, feeds[value.name].shape):
            sizes[dim.dim_param or size] = size
    for name, array in zip(names, session(probe).run(names, feeds)):
        shape = values[name].shape
        if shape is None:
            continue
        assert len(shape) == array.ndim, name
        for dim, size in zip(shape, array.shape):
            dim = dim if isinstance(dim, int) else dim.value
            if isinstance(dim, str) and isinstance(from_dim(dim), symbolic_dims.Product) and re.fullmatch(r"\w+", dim):
                assert sizes.setdefault(dim, size) == size, (name, dim)
            assert value_of(dim, sizes) in (None, size), (name, dim)
    return values


def exported(module, image, opset=17):
    """The module by torch's older exporter, its batch free."""
    file = io.BytesIO()
    axes = {"image": {0: "N"}, "scores": {0: "N"}}
    torch.onnx.export(
        module.eval(), (image,), file, dynamo=False, opset_version=opset, dynamic_axes=axes,
        input_names=["image"], output_names=["scores"],
    )  # fmt: skip
    return onnx.load_from_string(file.getvalue())


class Attention(torch.nn.Module):
    """Heads; with a stride the queries are every other position of the grid, as in LeViT."""

    def __init__(self, width, heads, grid, stride=1):
        super().__init__()
        self.heads, self.grid, self.stride = heads, grid, stride
        self.q, self.kv = torch.nn.Linear(width, width), torch.nn.Linear(width, 3 * width)
        self.bias = torch.nn.Parameter(torch.randn(heads, (-(-grid // stride)) ** 2, grid**2))
        self.out = torch.nn.Linear(2 * width, width)

    def forward(self, x):
        n, length, width = x.shape
        k, v = self.kv(x).view(n, length, self.heads, -1).split([width // self.heads, 2 * width // self.heads], dim=3)
        every = x.view(n, self.grid, self.grid, width)[:, :: self.stride, :: self.stride]
        q = self.q(every.reshape(n, -1, width)).view(n, -1, self.heads, width // self.heads).permute(0, 2, 1, 3)
        scores = (q @ k.permute(0, 2, 3, 1) / 4 + self.bias).softmax(-1)
        return self.out((scores @ v.permute(0, 2, 1, 3)).transpose(1, 2).reshape(n, -1, 2 * width))


class Downsampling(torch.nn.Module):
    """Positions of a convolution, attention, strided attention, mean."""

    def __init__(self):
        super().__init__()
        self.stem = torch.nn.Conv2d(3, 8, 3, 2, 1)
        self.near, self.strided = Attention(8, 2, 7), Attention(8, 2, 7, stride=2)
        self.norm, self.head = torch.nn.BatchNorm1d(8), torch.nn.Linear(8, 5)

    def normalised(self, x):
        return self.norm(x.flatten(0, 1)).reshape_as(x)

    def forward(self, image):
        x = self.stem(image).flatten(2).transpose(1, 2)
        x = x + self.normalised(self.near(x))
        return self.head(self.normalised(torch.nn.functional.hardswish(self.strided(x))).mean(1))


class Windows(torch.nn.Module):
    """A map padded to windows of 4 x 4, mixed in each window, put together again and cropped, as in Swin."""

    def __init__(self):
        super().__init__()
        self.stem, self.mix, self.head = torch.nn.Conv2d(3, 6, 3, 2, 1), torch.nn.Linear(16, 16), torch.nn.Linear(6, 5)

    def forward(self, image):
        x = self.stem(image).permute(0, 2, 3, 1)
        n, h, w, c = x.shape
        x = torch.nn.functional.pad(x, (0, 0, 0, (4 - w % 4) % 4, 0, (4 - h % 4) % 4))
        _, height, width, _ = x.shape
        parts = x.view(n, height // 4, 4, width // 4, 4, c).permute(0, 1, 3, 2, 4, 5).reshape(-1, 16, c)
        mixed = torch.tanh(self.mix(parts.transpose(1, 2))).transpose(1, 2).view(-1, 4, 4, c)
        n = mixed.shape[0] // (height * width // 16)
        whole = mixed.view(n, height // 4, width // 4, 4, 4, c).permute(0, 1, 3, 2, 4, 5).reshape(n, height, width, c)
        return self.head(whole[:, :h, :w].contiguous().mean((1, 2)))


MODULES = {"attention with strides": Downsampling, "windows": Windows}


@pytest.fixture(scope="module", params=MODULES)
def case(request):
    torch.manual_seed(0)
    module = MODULES[request.param]().eval()
    return module, exported(module, torch.randn(2, 3, 14, 14))


@pytest.mark.parametrize("batch", [1, 2, 3])
def test_inferred_shapes_hold_for_every_batch(case, batch):
    _, model = case
    values = assert_shapes_hold(model, {"image": np.ones((batch, 3, 14, 14), np.float32)})
    floats = [value for value in values.values() if value.dtype.is_floating_point()]
    assert all(value.shape is not None for value in floats)
    assert all(isinstance(d, int) or re.fullmatch(r"(\d+\*)?N", d.value or "") for v in floats for d in v.shape)


def test_gradient_of_an_older_file_with_a_free_batch_is_autograds(case):
    module, model = case
    image = torch.randn(3, 3, 14, 14, generator=torch.Generator().manual_seed(1), requires_grad=True)
    weight = np.linspace(-1, 2, 15, dtype=np.float32).reshape(3, 5)
    with kinks.away():
        scores = module(image)
    (expected,) = torch.autograd.grad((scores * torch.from_numpy(weight)).sum(), image)
    feeds = {"image": image.detach().numpy(), "cotangent.scores": weight}
    (got,) = session(vjp(model)).run(["grad.image"], feeds)
    np.testing.assert_allclose(got, expected, atol=1e-6 * float(expected.abs().max()), rtol=1e-5)


def test_layer_of_an_older_file_with_a_free_batch_is_explained(case):
    module, model = case
    image = torch.randn(2, 3, 14, 14, generator=torch.Generator().manual_seed(2))
    made = export_model(model, layer="/stem/Conv_output_0", emit="gradients")
    kept = []
    handle = module.stem.register_forward_hook(lambda _module, _inputs, result: kept.append(result))
    with kinks.away():
        scores = module(image)
    handle.remove()
    feeds = {"image": image.numpy(), "fastcam.targets": np.array([[4, 0], [1, 2]])}
    (got,) = session(made.model).run(["fastcam.gradients"], feeds)
    for number, row in enumerate(feeds["fastcam.targets"].T):
        picked = scores.gather(1, torch.from_numpy(row.copy())[:, None]).sum()
        (expected,) = torch.autograd.grad(picked, kept[0], retain_graph=True)
        np.testing.assert_allclose(got[:, number], expected, atol=1e-6 * float(expected.abs().max()), rtol=1e-5)


def test_layers_of_an_older_vision_transformer_are_those_of_its_shapes():
    from fastcam_bench.oracles import torch_oracle  # before torchvision: it says what that may go without

    assert torch_oracle
    from torchvision.models.vision_transformer import VisionTransformer

    torch.manual_seed(0)
    module = VisionTransformer(32, 8, 2, 2, 16, 24, num_classes=5).eval()
    torch.nn.init.normal_(module.heads.head.weight)
    image = torch.randn(2, 3, 32, 32)
    made = export_model(exported(module, image), emit="gradients")
    kept = []
    module.encoder.layers[-1].ln_1.register_forward_hook(lambda _module, _inputs, result: kept.append(result))
    scores = module(image)
    (expected,) = torch.autograd.grad(scores[:, 3].sum(), kept[0])
    expected = expected[:, 1:].transpose(1, 2).reshape(2, 16, 4, 4)
    feeds = {"image": image.numpy(), "fastcam.targets": np.array([[3]])}
    (got,) = session(made.model).run(["fastcam.gradients"], feeds)
    np.testing.assert_allclose(got[:, 0], expected, atol=1e-6 * float(expected.abs().max()), rtol=1e-4)


# ---- the arithmetic of sizes


dims = st.lists(st.sampled_from([1, 2, 3, 4, 6, "N", "M", "2*N", "M*N"]), min_size=1, max_size=4)


@given(dims, dims, st.integers(-1, 3), st.booleans())
@settings(max_examples=examples(100), deadline=None)
def test_reshape_is_known_as_numpy_does_it(before, target, open_axis, hide):
    """Against np.empty(before).reshape(target), where NumPy allows that, for two choices of the free dimensions."""
    target = [(None if hide else -1) if axis == open_axis else dim for axis, dim in enumerate(target)]
    found = reshaped([from_dim(d) for d in before], [from_dim(d) for d in target])
    for sizes in (SIZES, {"N": 2, "M": 7}):
        shape = [value_of(d, sizes) for d in before]
        try:
            result = np.empty(shape).reshape([-1 if d is None else value_of(d, sizes) for d in target]).shape
        except ValueError:
            continue
        assert all(value_of(dim, sizes) in (None, size) for dim, size in zip(found, result))


def test_sizes_are_computed_as_the_graph_computes_them():
    """A shape vector by all kinds of operators, as exporters write them, against what the runtime computes."""
    ints = {"zero": 0, "two": 2, "minus": -1, "first": [0], "one": [1], "four": [4], "seven": [7], "flat": [-1]}
    scale = numpy_helper.from_array(np.float32(0.5), "half")
    nodes = [
        ("Shape", ["x"], "shape", {}),
        ("Gather", ["shape", "zero"], "n", {}),
        ("Gather", ["shape", "two"], "h", {}),
        ("Mul", ["n", "h"], "nh", {}),
        ("Div", ["nh", "two"], "nh2", {}),
        ("Unsqueeze", ["nh2", "first"], "a", {}),
        ("Cast", ["h"], "hf", {"to": TensorProto.FLOAT}),
        ("Mul", ["hf", "half"], "hh", {}),
        ("Floor", ["hh"], "hhf", {}),
        ("Cast", ["hhf"], "h2", {"to": TensorProto.INT64}),
        ("Sub", ["h2", "two"], "h3", {}),
        ("Unsqueeze", ["h3", "first"], "b", {}),
        ("Slice", ["shape", "one", "four"], "tail", {}),
        ("ReduceProd", ["tail"], "rest", {"keepdims": 1}),
        ("Concat", ["a", "flat", "b"], "target", {"axis": 0}),
        ("Reshape", ["x", "target"], "y", {}),
        ("Concat", ["flat", "rest"], "rows", {"axis": 0}),
        ("Reshape", ["y", "rows"], "z", {}),
        ("Equal", ["target", "flat"], "is_open", {}),
        ("ConstantOfShape", ["one_long"], "ones", {"value": numpy_helper.from_array(np.array([1]))}),
        ("Where", ["is_open", "ones", "target"], "wide", {}),
        ("Slice", ["wide", "one", "two_long"], "lead", {}),
        ("Concat", ["one", "lead", "one"], "expanded", {"axis": 0}),
        ("Expand", ["half", "expanded"], "e", {}),
        ("Add", ["z", "e"], "sum", {}),
        ("Unsqueeze", ["n", "first"], "images", {}),
        ("Concat", ["images", "one", "four"], "copies", {"axis": 0}),
        ("Tile", ["cell", "copies"], "tiled", {}),
        ("ReduceSum", ["tiled"], "all", {"keepdims": 0}),
        ("Add", ["sum", "all"], "result", {}),
    ]
    graph = helper.make_graph(
        [helper.make_node(op, inputs, [name], name=name, **attributes) for op, inputs, name, attributes in nodes],
        "sizes",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 6, 8, 5])],
        [helper.make_tensor_value_info("result", TensorProto.FLOAT, ["a", "b", "c"])],
        [scale, numpy_helper.from_array(np.ones((1, 1, 2), np.float32), "cell"),
         *(numpy_helper.from_array(np.array(v), k) for k, v in ints.items()),
         *(numpy_helper.from_array(np.array([v]), k) for k, v in (("one_long", 3), ("two_long", 2)))],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    for batch in (1, 4):
        values = assert_shapes_hold(model, {"x": np.ones((batch, 6, 8, 5), np.float32)})
    assert [str(d) for d in values["y"].shape] == ["4*N", "30", "2"]
    assert [str(d) for d in values["z"].shape] == ["N", "240"]
    assert [str(d) for d in values["tiled"].shape] == ["N", "1", "8"]


def test_scan_tells_the_shapes_of_its_results():
    """Its body reads axes from the graph around it, which ONNX's own inference does not see."""
    body = helper.make_graph(
        [
            helper.make_node("Unsqueeze", ["part", "axis"], ["column"]),
            helper.make_node("MatMul", ["column", "row"], ["outer"]),
            helper.make_node("Add", ["state", "outer"], ["next"]),
            helper.make_node("Squeeze", ["column", "axis"], ["again"]),
        ],
        "body",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("state", "part")],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("next", "again")],
    )
    graph = helper.make_graph(
        [
            helper.make_node("Scan", ["begin", "x"], ["end", "all"], body=body, num_scan_inputs=1),
            helper.make_node("Relu", ["end"], ["y"]),
            helper.make_node("Transpose", ["all"], ["z"]),
            helper.make_node("Concat", ["y", "y"], ["twice"], axis=1),
            helper.make_node("ReduceSum", ["z"], ["total"], keepdims=0),
        ],
        "scan",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [3, "N", 4]),
         helper.make_tensor_value_info("begin", TensorProto.FLOAT, ["N", 4, 5])],
        [helper.make_tensor_value_info("twice", TensorProto.FLOAT, ["N", 8, 5]),
         helper.make_tensor_value_info("total", TensorProto.FLOAT, [])],
        [numpy_helper.from_array(np.array([-1]), "axis"), numpy_helper.from_array(np.ones((1, 5), np.float32), "row")],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    feeds = {"x": np.ones((3, 2, 4), np.float32), "begin": np.ones((2, 4, 5), np.float32)}
    values = assert_shapes_hold(model, feeds)
    assert [str(d) for d in values["y"].shape] == ["N", "4", "5"]
    assert [str(d) for d in values["z"].shape] == ["4", "N", "3"]


# ---- nodes in training mode


def test_weights_may_be_standardised_by_a_node_in_training_mode():
    """As torch writes BiT's convolutions: no picture reaches the node, so nothing is trained."""
    text = """<ir_version: 8, opset_import: ["" : 18]> g (float[N, 3, 8, 8] image) => (float[N, 4] y)
        <float[4, 3, 3, 3] w> {
        form = Constant <value_ints = [1, 4, 27]> () back = Constant <value_ints = [4, 3, 3, 3]> ()
        flat = Reshape (w, form)
        one = Constant <value_floats = [1.0, 1.0, 1.0, 1.0]> () zero = Constant <value_floats = [0.0, 0.0, 0.0, 0.0]> ()
        s, mean, var = BatchNormalization <training_mode = 1, epsilon = 1e-8> (flat, one, zero, zero, one)
        standard = Reshape (s, back) c = Conv (image, standard) r = Tanh (c)
        axes = Constant <value_ints = [2, 3]> () y = ReduceMean <keepdims = 0> (r, axes) }"""
    model = onnx.parser.parse_model(text)
    w = np.random.default_rng(0).standard_normal((4, 3, 3, 3)).astype(np.float32)
    del model.graph.initializer[:]
    model.graph.initializer.append(numpy_helper.from_array(w, "w"))
    made = export_model(model, layer="c", emit="gradients")
    assert made.check["bit_identical"]
    image = np.random.default_rng(1).standard_normal((2, 3, 8, 8)).astype(np.float32)
    names = ["fastcam.activations", "fastcam.gradients", "fastcam.classes"]
    maps, found, classes = session(made.model).run(names, {"image": image})
    hot = np.eye(4)[classes[:, 0]][:, :, None, None]
    np.testing.assert_allclose(found[:, 0], hot * (1 - np.tanh(maps.astype(np.float64)) ** 2) / 36, atol=1e-6)


# ---- the runtime's own rewriting


def test_a_pad_between_transposes_runs_as_it_is():
    """ONNX Runtime moves a Transpose past a Pad and reorders the pads as if they were of all axes."""
    nodes = [
        helper.make_node("Transpose", ["x"], ["a"], perm=[0, 2, 1]),
        helper.make_node("Slice", ["a", "start", "end", "axis"], ["b"]),
        helper.make_node("Transpose", ["b"], ["y"], perm=[0, 2, 1]),
    ]
    graph = helper.make_graph(
        nodes, "pad",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, "L"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 3, "M"])],
        [numpy_helper.from_array(np.array([i]), name) for name, i in (("start", 1), ("end", -2), ("axis", 1))],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    dy = np.arange(12, dtype=np.float32).reshape(2, 3, 2)
    feeds = {"x": np.zeros((2, 3, 5), np.float32), "cotangent.y": dy}
    (got,) = session(vjp(model)).run(["grad.x"], feeds)
    np.testing.assert_array_equal(got, np.pad(dy, ((0, 0), (0, 0), (1, 2))))
