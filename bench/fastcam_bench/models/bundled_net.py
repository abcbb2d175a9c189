"""The bundled model's architecture, written once and run two ways: by PyTorch for training, as ONNX nodes for the file.

A residual network for 128 x 128 pictures: a strided stem, four stages of one block each, global average pooling, a
linear head, a sigmoid. The stages' maps are 32 x 32, 16 x 16, 16 x 16 and 16 x 16: the last two keep the resolution,
so that a heatmap of the last map is fine enough to tell neighbours apart.
"""

from __future__ import annotations

from typing import Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

SIZE = 128
STEM = 16
# name, channels, stride, kernel of the second convolution; 1 in the last stage keeps its map's outlines tight
STAGES = (("stage1", 32, 2, 3), ("stage2", 48, 2, 3), ("stage3", 64, 1, 3), ("stage4", 112, 1, 1))
BN_EPSILON = 1e-5

Parameters = dict[str, npt.NDArray[np.float32]]
V = TypeVar("V")


class Ops(Protocol[V]):
    """The operators of :func:`network`; a name is that of the node and the prefix of its parameters."""

    def conv(self, name: str, x: V, kernel: int, stride: int) -> V: ...
    def batch_norm(self, name: str, x: V) -> V: ...
    def relu(self, name: str, x: V) -> V: ...
    def add(self, name: str, x: V, y: V) -> V: ...
    def linear_of_mean(self, x: V) -> V: ...


def network(ops: Ops[V], x: V) -> V:
    """Logits [N, classes] of normalised pictures [N, 3, 128, 128]."""
    x = ops.relu("stem/relu", ops.batch_norm("stem/bn", ops.conv("stem/conv", x, 3, 2)))
    for name, _, stride, kernel in STAGES:
        y = ops.relu(f"{name}/relu1", ops.batch_norm(f"{name}/bn1", ops.conv(f"{name}/conv1", x, 3, stride)))
        y = ops.batch_norm(f"{name}/bn2", ops.conv(f"{name}/conv2", y, kernel, 1))
        x = ops.batch_norm(f"{name}/shortcut_bn", ops.conv(f"{name}/shortcut", x, 1, stride))
        x = ops.relu(f"{name}/relu2", ops.add(f"{name}/add", y, x))
    return ops.linear_of_mean(x)


def initial_parameters(classes: int, seed: int) -> Parameters:
    """He initialisation of the convolutions (fan out), identity BatchNormalization, a head that expects absence."""
    rng = np.random.default_rng(seed)
    found: Parameters = {}

    def conv_bn(conv: str, norm: str, channels_in: int, channels: int, kernel: int) -> None:
        scale = np.sqrt(2 / (channels * kernel * kernel))
        weight = scale * rng.standard_normal((channels, channels_in, kernel, kernel))
        found[f"{conv}.weight"] = weight.astype(np.float32)
        for part, value in (("scale", 1), ("bias", 0), ("mean", 0), ("var", 1)):
            found[f"{norm}.{part}"] = np.full(channels, value, np.float32)

    conv_bn("stem/conv", "stem/bn", 3, STEM, 3)
    before = STEM
    for name, channels, _, kernel in STAGES:
        conv_bn(f"{name}/conv1", f"{name}/bn1", before, channels, 3)
        conv_bn(f"{name}/conv2", f"{name}/bn2", channels, channels, kernel)
        conv_bn(f"{name}/shortcut", f"{name}/shortcut_bn", before, channels, 1)
        before = channels
    found["head/linear.weight"] = (rng.standard_normal((classes, before)) / np.sqrt(before)).astype(np.float32)
    found["head/linear.bias"] = np.full(classes, -1, np.float32)
    return found


class TorchOps:
    """The operators on torch tensors; ``training`` decides whether BatchNormalization uses the batch's statistics."""

    def __init__(self, parameters: dict[str, Any], training: bool) -> None:
        self.parameters, self.training = parameters, training

    def conv(self, name: str, x: Any, kernel: int, stride: int) -> Any:
        from torch.nn import functional

        return functional.conv2d(x, self.parameters[f"{name}.weight"], stride=stride, padding=kernel // 2)

    def batch_norm(self, name: str, x: Any) -> Any:
        from torch.nn import functional

        mean, var, scale, bias = (self.parameters[f"{name}.{part}"] for part in ("mean", "var", "scale", "bias"))
        return functional.batch_norm(x, mean, var, scale, bias, self.training, momentum=0.05, eps=BN_EPSILON)

    def relu(self, name: str, x: Any) -> Any:
        return x.relu()

    def add(self, name: str, x: Any, y: Any) -> Any:
        return x + y

    def linear_of_mean(self, x: Any) -> Any:
        return x.mean((2, 3)) @ self.parameters["head/linear.weight"].T + self.parameters["head/linear.bias"]


class OnnxOps:
    """The operators as ONNX nodes: a value carries the name of its node."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []

    def emit(self, operator: str, name: str, inputs: list[str], **attributes: Any) -> str:
        """Append a node; its only output has its name."""
        from onnx import helper

        self.nodes.append(helper.make_node(operator, inputs, [name], name, **attributes))
        return name

    def conv(self, name: str, x: str, kernel: int, stride: int) -> str:
        shape = {"kernel_shape": [kernel] * 2, "strides": [stride] * 2, "pads": [kernel // 2] * 4}
        return self.emit("Conv", name, [x, f"{name}.weight"], **shape)

    def batch_norm(self, name: str, x: str) -> str:
        parts = [f"{name}.{part}" for part in ("scale", "bias", "mean", "var")]
        return self.emit("BatchNormalization", name, [x, *parts], epsilon=BN_EPSILON)

    def relu(self, name: str, x: str) -> str:
        return self.emit("Relu", name, [x])

    def add(self, name: str, x: str, y: str) -> str:
        return self.emit("Add", name, [x, y])

    def linear_of_mean(self, x: str) -> str:
        pooled = self.emit("Flatten", "head/flatten", [self.emit("GlobalAveragePool", "head/pool", [x])], axis=1)
        parts = ["head/linear.weight", "head/linear.bias"]
        return self.emit("Gemm", "head/linear", [pooled, *parts], transB=1)


def to_onnx(parameters: Parameters, classes: int, ops: OnnxOps | None = None) -> bytes:
    """The file: input ``image`` [N, 3, 128, 128], output ``probabilities`` [N, classes], opset 18, IR version 8.

    ``ops``: with another head.
    """
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    ops = ops or OnnxOps()
    logits = network(ops, "image")
    nodes = [*ops.nodes, helper.make_node("Sigmoid", [logits], ["probabilities"], "head/sigmoid")]
    graph = helper.make_graph(
        nodes,
        "fastcam_scenes",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 3, SIZE, SIZE])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["N", classes])],
        [numpy_helper.from_array(np.ascontiguousarray(value), name) for name, value in parameters.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    model.producer_name = "fastcam_bench.train_bundled"
    onnx.checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString())
