"""Models whose exports lie in two files, how a pair is run, and pictures for them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

import fastcam
from fastcam_export.verify.session import quiet_session
from support.models.small_models import classifier

DATA = Path(fastcam.__file__).parent / "data"


def run(model, feeds):
    """Outputs by name, of a file or a ModelProto, in ONNX Runtime alone."""
    session = quiet_session(model)
    taken = {value.name for value in (*session.get_inputs(), *session.get_overridable_initializers())}
    names = [value.name for value in session.get_outputs()]
    return dict(zip(names, session.run(names, {name: feeds[name] for name in feeds if name in taken})))


def run_pair(forward, explanation, feeds):
    """Outputs of the explanation part, fed by name from the forward part's; and the forward part's."""
    first = run(forward, feeds)
    return run(explanation, feeds | first), first


def made(nodes, weights, batch, channels, size, output="logits", classes=5):
    """A model of ``nodes``: image -> ``output`` [N, classes]."""
    tensors = [numpy_helper.from_array(np.asarray(array), name) for name, array in weights.items()]
    inputs = [helper.make_tensor_value_info("image", TensorProto.FLOAT, [batch, channels, size, size])]
    outputs = [helper.make_tensor_value_info(output, TensorProto.FLOAT, [batch, classes])]
    graph = helper.make_graph(nodes, "net", inputs, outputs, tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def floats(rng, *shape):
    return (rng.standard_normal(shape) / np.sqrt(np.prod(shape[1:]) or 1)).astype(np.float32)


def squeezenet_form(batch="N"):
    """A classifier convolution, ReLU and mean: the last map has one channel per class."""
    rng = np.random.default_rng(1)
    weights = {"w1": floats(rng, 8, 3, 3, 3), "w2": floats(rng, 5, 8, 1, 1), "b2": floats(rng, 5, 1)[:, 0]}
    nodes = [
        helper.make_node("Conv", ["image", "w1"], ["c1"], pads=[1] * 4),
        helper.make_node("Relu", ["c1"], ["r1"]),
        helper.make_node("Conv", ["r1", "w2", "b2"], ["c2"]),
        helper.make_node("Relu", ["c2"], ["r2"]),
        helper.make_node("GlobalAveragePool", ["r2"], ["mean"]),
        helper.make_node("Flatten", ["mean"], ["logits"]),
    ]
    return made(nodes, weights, batch, 3, 8)


def residual(batch="N"):
    """Two blocks with a shortcut, a stride and a MaxPool; a matrix that is large enough to lie in a file of its own."""
    rng = np.random.default_rng(2)
    weights = {"w1": floats(rng, 32, 3, 3, 3), "w2": floats(rng, 32, 32, 3, 3), "w3": floats(rng, 32, 32, 3, 3)}
    weights |= {"fc": floats(rng, 5, 32 * 16 * 4), "bias": floats(rng, 5, 1)[:, 0]}
    nodes = [
        helper.make_node("Conv", ["image", "w1"], ["c1"], "b1/conv", pads=[1] * 4),
        helper.make_node("Relu", ["c1"], ["r1"], "b1/relu"),
        helper.make_node("Conv", ["r1", "w2"], ["c2"], "b2/conv", pads=[1] * 4),
        helper.make_node("Add", ["c2", "r1"], ["sum"], "b2/add"),
        helper.make_node("Relu", ["sum"], ["r2"], "b2/relu"),
        helper.make_node("Conv", ["r2", "w3"], ["c3"], "b3/conv", pads=[1] * 4, strides=[2, 2]),
        helper.make_node("Relu", ["c3"], ["r3"], "b3/relu"),
        helper.make_node("MaxPool", ["r2"], ["p"], "b3/pool", kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Add", ["r3", "p"], ["last"], "b3/add"),
        helper.make_node("Flatten", ["last"], ["flat"]),
        helper.make_node("Gemm", ["flat", "fc", "bias"], ["logits"], transB=1),
    ]
    return made(nodes, weights, batch, 3, 16)


def tokens(batch="N"):
    """Patches as a sequence [N, 16, 12], a softmax over its own products, a mean over the tokens and a matrix."""
    rng = np.random.default_rng(3)
    weights = {"patch": floats(rng, 12, 3, 4, 4), "q": floats(rng, 12, 12), "fc": floats(rng, 12, 5)}
    weights |= {"shape": np.array([0, 12, 16]), "one": np.array([1])}
    nodes = [
        helper.make_node("Conv", ["image", "patch"], ["maps"], strides=[4, 4]),
        helper.make_node("Reshape", ["maps", "shape"], ["rows"]),
        helper.make_node("Transpose", ["rows"], ["tokens"], perm=[0, 2, 1]),
        helper.make_node("MatMul", ["tokens", "q"], ["queries"]),
        helper.make_node("MatMul", ["queries", "rows"], ["products"]),
        helper.make_node("Softmax", ["products"], ["attention"], axis=-1),
        helper.make_node("MatMul", ["attention", "tokens"], ["mixed"]),
        helper.make_node("ReduceMean", ["mixed", "one"], ["mean"], keepdims=0),
        helper.make_node("MatMul", ["mean", "fc"], ["logits"]),
    ]
    return made(nodes, weights, batch, 3, 16)


def bundled(batch="N"):
    model = onnx.load(DATA / "scenes.onnx")
    dim = model.graph.input[0].type.tensor_type.shape.dim[0]
    if isinstance(batch, int):
        dim.Clear()
        dim.dim_value = batch
    return model


MODELS = {
    "bundled": (bundled, "auto"),
    "squeezenet form": (squeezenet_form, "auto"),
    "mean and matrix": (classifier, "auto"),
    "residual": (residual, "auto"),
    "middle": (residual, "r1"),
    "tokens": (tokens, "tokens"),
}


def pictures(model, count, seed=0):
    dims = [dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim]
    return np.random.default_rng(seed).standard_normal((count, *dims[1:])).astype(np.float32)
