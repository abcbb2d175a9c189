"""A small classifier in pieces, for models that are like it but for one thing."""

import numpy as np
from onnx import helper, numpy_helper

from support.models.many_outputs import node, value

CONV = np.random.default_rng(0).standard_normal((6, 3, 3, 3)).astype(np.float32)
MATRIX = np.random.default_rng(1).standard_normal((6, 4)).astype(np.float32)
BODY = [node("Conv", "x w", "c", pads=[1] * 4), node("Relu", "c", "feat")]
HEAD = [node("GlobalAveragePool", "feat", "g"), node("Flatten", "g", "gf"), node("MatMul", "gf m", "y")]


def model(nodes=(*BODY, *HEAD), image=("N", 3, 16, 16), outputs=None, weights=None, inputs=None, opset=18):
    tensors = {"w": CONV, "m": MATRIX, **(weights or {})}
    graph = helper.make_graph(
        list(nodes), "g", inputs or [value("x", list(image))], outputs or [value("y", ["N", 4])],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in tensors.items()],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
