"""Small quantised graphs by lines of text, their inputs, and the rounding in NumPy."""

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from fastcam_export import vjp
from fastcam_export.verify.session import quiet_session
from support.rules.runs import run

X = (3 * np.random.default_rng(0).standard_normal((2, 4, 5, 6))).astype(np.float32)


SEED = np.random.default_rng(1).standard_normal((2, 4, 5, 6)).astype(np.float32)


def graph(nodes, opset=18, **constants):
    """x [N, 4, 5, 6] -> the nodes "operator inputs -> output" -> y, and the constants of such a model."""
    made = []
    for line, attributes in nodes:
        left, output = line.split(" -> ")
        op_type, *names = left.split()
        made.append(helper.make_node(op_type, names, [output], f"{op_type}_{output}", **attributes))
    tensors = [numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items()]
    value = lambda name: helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 4, 5, 6])  # noqa: E731
    model = helper.make_graph(made, "quantised", [value("x")], [value("y")], tensors)
    return helper.make_model(model, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


def gradient(model, wrt="x"):
    return run(vjp(model, wrt=[wrt]), {"x": X, "cotangent.y": SEED})[f"grad.{wrt}"]


def quantise(x, scale, zero, low, high):
    return np.clip(np.rint(x / scale) + zero, low, high)


PAIR = [("QuantizeLinear a s z -> q", {}), ("DequantizeLinear q s z -> y", {})]


def run_targets(model, feeds):
    """All outputs by name; unlike ``run`` it feeds inputs that have a default."""
    session = quiet_session(model, threads=1)
    return dict(zip([output.name for output in session.get_outputs()], session.run(None, feeds)))
