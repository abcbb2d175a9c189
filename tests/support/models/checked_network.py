"""A network of one convolution, of which tests choose what stands behind its ReLU; and gradients that are wrong."""

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from fastcam_export.outputs import cam

NODE, VALUE = helper.make_node, helper.make_tensor_value_info
K, SIDE, CLASSES = 4, 8, 3


def network(nodes, tensors=(), outputs=(("y", ["N", CLASSES]),), image=("N", 3, SIDE, SIDE), end="cut", opset=18):
    """image -> convolution -> ReLU "feat" -> ``nodes`` -> mean -> matrix "y"; ``end`` is what the mean is of."""
    rng = np.random.default_rng(0)
    weights = {"w": rng.standard_normal((K, 3, 3, 3)) / 3, "v": rng.standard_normal((K, CLASSES))}
    body = [NODE("Conv", ["image", "w"], ["c"], pads=[1] * 4), NODE("Relu", ["c"], ["feat"])]
    head = [NODE("GlobalAveragePool", [end], ["p"]), NODE("Flatten", ["p"], ["f"]), NODE("MatMul", ["f", "v"], ["y"])]
    constants = {name: array.astype(np.float32) for name, array in weights.items()} | dict(tensors)
    graph = helper.make_graph(
        [*body, *nodes, *(head if end else [])],
        "small",
        [VALUE("image", TensorProto.FLOAT, list(image))],
        [VALUE(name, TensorProto.FLOAT, shape) for name, shape in outputs],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def wrong_gradients(monkeypatch):
    """What makes every gradient too large by a share from then on."""
    genuine = cam.handed_back

    def by(share):
        def handed_back(op, *arguments):
            name, gradient = genuine(op, *arguments)
            return name, op.Mul(gradient, 1 + share)

        monkeypatch.setattr(cam, "handed_back", handed_back)

    return by
