"""A small network with any outputs behind its feature map, and the pooled gradient of a class in closed form."""

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from fastcam_export.verify.session import quiet_session

SIZE, CHANNELS = 8, 6
FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64


def value(name, shape, kind=FLOAT):
    return helper.make_tensor_value_info(name, kind, shape)


def node(op_type, inputs, outputs, **attributes):
    return helper.make_node(op_type, inputs.split(), outputs.split(), **attributes)


def network(ends, outputs, batch="N", opset=18, domains=(), **constants):
    """image [batch, 3, 8, 8] -> convolution, ReLU "feat" -> mean "g" [batch, 6] -> ``ends`` -> ``outputs``.

    ``wN`` in ``ends`` is a matrix [6, N]; further ``constants`` by name.
    """
    rng = np.random.default_rng(0)
    weights = {"w": rng.standard_normal((CHANNELS, 3, 3, 3)).astype(np.float32)}
    weights |= {f"w{n}": matrix(n) for n in (1, 2, 3, 4, 10)}
    weights |= {name: np.asarray(array) for name, array in constants.items()}
    nodes = [
        node("Conv", "image w", "c", pads=[1] * 4),
        node("Relu", "c", "feat"),
        node("GlobalAveragePool", "feat", "mean"),
        node("Flatten", "mean", "g"),
        *ends,
    ]
    used = {name for one in nodes for name in one.input}
    tensors = [numpy_helper.from_array(array, name) for name, array in weights.items() if name in used]
    graph = helper.make_graph(nodes, "g", [value("image", [batch, 3, SIZE, SIZE])], list(outputs), tensors)
    opsets = [helper.make_opsetid("", opset), *(helper.make_opsetid(*domain) for domain in domains)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def matrix(classes):
    """The last layer of a head with so many classes; its columns have mean zero, so that scores have either sign."""
    made = np.random.default_rng(classes).standard_normal((CHANNELS, classes)).astype(np.float32)
    return made - made.mean(0)


def images(n=2, seed=1):
    return np.random.default_rng(seed).standard_normal((n, 3, SIZE, SIZE)).astype(np.float32)


def run(model, feeds):
    session = quiet_session(model)
    return dict(zip([value.name for value in session.get_outputs()], session.run(None, feeds)))
