"""Small classifiers written by hand, for tests of the exporter."""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

CLASSES = 5


def classifier(opset=18, batch="N", size=8, end=None, listed_weights=False, seed=0):
    """image [N, 3, size, size] -> two convolutions with ReLU -> mean -> fc [N, 5] -> maybe an activation ``end``."""
    rng = np.random.default_rng(seed)
    weights = {
        "w1": rng.standard_normal((4, 3, 3, 3)),
        "w2": rng.standard_normal((6, 4, 3, 3)),
        "fc": rng.standard_normal((6, CLASSES)),
        "bias": rng.standard_normal(CLASSES),
    }
    nodes = [
        helper.make_node("Conv", ["image", "w1"], ["c1"], "block1/conv", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c1"], ["r1"], "block1/relu"),
        helper.make_node("Conv", ["r1", "w2"], ["c2"], "block2/conv", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c2"], ["r2"], "block2/relu"),
        helper.make_node("GlobalAveragePool", ["r2"], ["mean"], "head/mean"),
        helper.make_node("Flatten", ["mean"], ["flat"], "head/flatten"),
        helper.make_node("Gemm", ["flat", "fc", "bias"], ["logits"], "head/fc"),
    ]
    output = "logits"
    if end is not None:
        axis = {"axis": 1} if end != "Sigmoid" else {}
        nodes.append(helper.make_node(end, ["logits"], ["scores"], "head/end", **axis))
        output = "scores"
    tensors = [numpy_helper.from_array(array.astype(np.float32), name) for name, array in weights.items()]
    inputs = [helper.make_tensor_value_info("image", TensorProto.FLOAT, [batch, 3, size, size])]
    if listed_weights:  # as exporters did up to IR version 3
        inputs += [helper.make_tensor_value_info(t.name, TensorProto.FLOAT, list(t.dims)) for t in tensors]
    outputs = [helper.make_tensor_value_info(output, TensorProto.FLOAT, [batch, CLASSES])]
    graph = helper.make_graph(nodes, "classifier", inputs, outputs, tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    model.ir_version = 3 if listed_weights else 8
    return model


def weights_of(model):
    """The initializers by name, float64."""
    return {t.name: numpy_helper.to_array(t).astype(np.float64) for t in model.graph.initializer}


def save(model, path, external=False):
    """Write the model, its weights beside it where ``external``."""
    if external:
        copy = onnx.ModelProto()  # onnx.save takes the weights out of what it is given
        copy.CopyFrom(model)
        onnx.save(copy, path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    else:
        onnx.save(model, path)
    return path


def many_classes(count=100):
    """A classifier of ``count`` classes; 100 are more than are ranked in any case."""
    model = classifier(size=16)
    rng = np.random.default_rng(1)
    for tensor in model.graph.initializer:
        if tensor.name in ("fc", "bias"):
            shape = (6, count) if tensor.name == "fc" else (count,)
            tensor.CopyFrom(numpy_helper.from_array(rng.standard_normal(shape).astype(np.float32), tensor.name))
    model.graph.output[0].type.tensor_type.shape.dim[1].dim_value = count
    return model


def channels_last(size: int) -> onnx.ModelProto:
    """The classifier with an image [N, size, size, 3]."""
    model = classifier(size=size)
    last = onnx.helper.make_tensor_value_info("image", onnx.TensorProto.FLOAT, ["N", size, size, 3])
    model.graph.input[0].CopyFrom(last)
    model.graph.node.insert(0, onnx.helper.make_node("Transpose", ["image"], ["first"], perm=[0, 3, 1, 2]))
    model.graph.node[1].input[0] = "first"
    return model
