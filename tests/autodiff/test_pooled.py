"""The pooled gradient equals the mean of the full one, by whichever identities it was computed."""

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from fastcam_export import export_model
from fastcam_export.autodiff.pooled import spatial_mean

CLASSES = 4


class Builder:
    """Grows a chain behind the feature map "map" [N, 5, 9, 9], which a first convolution makes."""

    def __init__(self, seed=0, batch="N"):
        self.rng = np.random.default_rng(seed)
        self.batch = batch
        self.nodes, self.tensors = [], []
        self.channels, self.value = 5, "image"
        self.conv(5, pads=[1, 1, 1, 1])
        self.node("Relu")
        self.nodes[-1].output[0] = self.value = "map"

    def weight(self, *shape, positive=False):
        array = self.rng.standard_normal(shape).astype(np.float32)
        name = f"w{len(self.tensors)}"
        self.tensors.append(numpy_helper.from_array(np.abs(array) + 0.5 if positive else array, name))
        return name

    def constant(self, values):
        name = f"w{len(self.tensors)}"
        self.tensors.append(numpy_helper.from_array(np.array(values, np.int64), name))
        return name

    def node(self, op_type, *others, **attributes):
        output = f"v{len(self.nodes)}"
        self.nodes.append(
            helper.make_node(op_type, [self.value, *others], [output], f"n{len(self.nodes)}", **attributes)
        )
        self.value = output
        return self

    def conv(self, outputs, kernel=3, group=1, **attributes):
        weight = self.weight(outputs, self.channels // group if self.value != "image" else 3, kernel, kernel)
        self.channels = outputs
        return self.node("Conv", weight, group=group, **attributes)

    def norm(self):
        c = self.channels
        return self.node(
            "BatchNormalization", self.weight(c), self.weight(c), self.weight(c), self.weight(c, positive=True)
        )

    def quantised(self, scale, zero):
        names = [f"w{len(self.tensors)}", f"w{len(self.tensors) + 1}"]
        self.tensors += [numpy_helper.from_array(a, n) for a, n in zip((np.float32(scale), np.uint8(zero)), names)]
        return self.node("QuantizeLinear", *names).node("DequantizeLinear", *names)

    def branch(self):
        """Concat of the value, its maximum pool of the same size, and the value again."""
        here = self.value
        self.node("MaxPool", kernel_shape=[3, 3], pads=[1, 1, 1, 1])
        self.channels *= 3
        return self.node("Concat", here, here, axis=1)

    def residual(self):
        here = self.value
        return self.conv(self.channels, kernel=1).node("Add", here)

    def flat(self, size):
        self.node("Flatten")
        hidden = self.weight(7, self.channels * size * size)
        return self.node("Gemm", hidden, transB=1, alpha=0.5).node("Relu").node("MatMul", self.weight(7, CLASSES))

    def mean(self, how="GlobalAveragePool"):
        if how.startswith("Reduce"):
            self.node(how, self.constant([2, 3]), keepdims=0)
        else:
            self.node(how).node("Flatten")
        return self.node("Gemm", self.weight(self.channels, CLASSES))

    def model(self):
        self.nodes[-1].output[0] = "logits"
        inputs = [helper.make_tensor_value_info("image", TensorProto.FLOAT, [self.batch, 3, 9, 9])]
        outputs = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [self.batch, CLASSES])]
        graph = helper.make_graph(self.nodes, "chain", inputs, outputs, self.tensors)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)])
        model.ir_version = 9
        onnx.checker.check_model(model)
        return model


def weights_and_mean(model):
    """``fastcam.weights`` of one export, and the mean of ``fastcam.gradients`` of another, for the same input."""
    found = []
    images = np.random.default_rng(5).standard_normal((2, 3, 9, 9)).astype(np.float32)
    for emit in ("weights", "gradients"):
        exported = export_model(model, layer="map", emit=emit, check=False).model
        options = ort.SessionOptions()
        options.log_severity_level = 4
        session = ort.InferenceSession(exported.SerializeToString(), options, providers=["CPUExecutionProvider"])
        feeds = {"image": images, "fastcam.targets": np.array([[-1, 2], [0, -3]])}
        found.append(session.run([f"fastcam.{emit}"], feeds)[0])
    weights, gradients = found
    assert np.abs(gradients).max() > 0
    return weights, gradients.mean((3, 4))


CHAINS = {
    "mean": lambda b: b.mean(),
    "reduce mean": lambda b: b.mean("ReduceMean"),
    "reduce max": lambda b: b.mean("ReduceMax"),
    "global max": lambda b: b.mean("GlobalMaxPool"),
    "flatten": lambda b: b.flat(9),
    "pool, flatten": lambda b: b.node("MaxPool", kernel_shape=[2, 2], strides=[2, 2]).flat(4),
    "overlapping padded pool": lambda b: b.node(
        "MaxPool", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1], ceil_mode=1
    ).mean(),
    "average pool": lambda b: b.node("AveragePool", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]).mean(),
    "average pool that counts padding": lambda b: b.node(
        "AveragePool", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1], count_include_pad=1
    ).mean(),
    "average pool with ceil_mode": lambda b: b.node(
        "AveragePool", kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1
    ).mean(),
    "norm": lambda b: b.norm().node("Dropout").mean(),
    "1x1 convolution with stride": lambda b: b.conv(6, kernel=1, strides=[2, 2]).mean(),
    "convolution without padding": lambda b: b.conv(6, dilations=[2, 2], strides=[2, 2]).mean(),
    "convolution with padding": lambda b: b.conv(6, pads=[1, 1, 1, 1]).mean(),
    "grouped convolution": lambda b: b.conv(5, group=5, kernel=1).mean(),
    "concat": lambda b: b.branch().mean(),
    "residual": lambda b: b.residual().mean(),
    "activation": lambda b: b.norm().node("Sigmoid").flat(9),
    "quantised, may saturate": lambda b: b.norm().quantised(0.02, 128).mean(),
    "quantised, may saturate at one position": lambda b: b.node("GlobalAveragePool").quantised(0.008, 0).mean(),
    "quantised, cannot saturate": lambda b: (
        b.quantised(0.05, 0).node("AveragePool", kernel_shape=[3, 3], strides=[2, 2]).quantised(0.05, 0).mean()
    ),
    "all of it": lambda b: b.branch().norm().residual().node("MaxPool", kernel_shape=[3, 3], strides=[3, 3]).flat(3),
}


@pytest.mark.parametrize("chain", CHAINS)
@pytest.mark.parametrize("batch", ["N", 2])
def test_equals_the_mean_of_the_gradient(chain, batch):
    builder = Builder(batch=batch)
    CHAINS[chain](builder)
    weights, mean = weights_and_mean(builder.model())
    np.testing.assert_allclose(weights, mean, atol=1e-5 * np.abs(mean).max())


STEPS = {
    "conv": lambda b: b.conv(4),
    "1x1": lambda b: b.conv(4, kernel=1),
    "same": lambda b: b.conv(b.channels, pads=[1, 1, 1, 1]),
    "norm": lambda b: b.norm(),
    "relu": lambda b: b.node("Relu"),
    "pool": lambda b: b.node("MaxPool", kernel_shape=[2, 2], pads=[0, 0, 1, 1]),
    "average": lambda b: b.node("AveragePool", kernel_shape=[2, 2], pads=[1, 1, 0, 0]),
    "branch": lambda b: b.branch(),
    "residual": lambda b: b.residual(),
}


@settings(max_examples=30, deadline=None, derandomize=True)
@given(st.lists(st.sampled_from(sorted(STEPS)), max_size=4), st.integers(0, 100))
def test_random_chains(steps, seed):
    builder = Builder(seed)
    for step in steps:
        STEPS[step](builder)
    weights, mean = weights_and_mean(builder.mean().model())
    np.testing.assert_allclose(weights, mean, atol=1e-5 * np.abs(mean).max())


def test_the_whole_gradient_is_not_built_where_an_identity_holds():
    builder = Builder().node("MaxPool", kernel_shape=[3, 3], strides=[3, 3]).flat(3)
    added = [n for n in export_model(builder.model(), layer="map").model.graph.node if n.name.startswith("fastcam.")]
    assert not {"ArgMax", "Col2Im"} & {node.op_type for node in added}


def test_every_identity_is_used_by_a_chain_above(monkeypatch):
    used = set()
    for op_type, rule in list(spatial_mean.RULES.items()):

        def spy(op, node, index, channels, op_type=op_type, rule=rule):
            how = rule(op, node, index, channels)
            used.update([op_type] if how is not None else [])
            return how

        monkeypatch.setitem(spatial_mean.RULES, op_type, spy)
    for chain in CHAINS.values():
        builder = Builder()
        chain(builder)
        export_model(builder.model(), layer="map", check=False)
    never = {
        "Identity",
        "Sum",
        "Reshape",
        "MatMul",
        "ReduceMin",
    }  # registered with Dropout, Add, Flatten, Gemm, ReduceMax
    assert set(spatial_mean.RULES) - used == never
