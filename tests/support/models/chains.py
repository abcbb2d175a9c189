"""Chains of layers behind a feature map, of which the pooled gradient is taken."""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

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
