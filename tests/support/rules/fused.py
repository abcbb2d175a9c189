"""Operators of ONNX Runtime alone in a model, and their gradients beside differences of its own kernels."""

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from fastcam_export import vjp
from support.rules.runs import run


def fused(op_type, inputs, attributes, outputs=1, asked=0, rank=None):
    """A model of one such node, with nothing declared about its results.

    Args:
        op_type: of the domain com.microsoft.
        inputs: name -> the shape of a float input, a constant, or None for one that is left out.
        attributes: of the node.
        outputs: how many it has.
        asked: which is the model's output "out".
        rank: of that output; by default that of the first input.
    """
    results = [f"y{index}" for index in range(outputs)]
    names = [name if given is not None else "" for name, given in inputs.items()]
    node = helper.make_node(op_type, names, results, "fused", domain="com.microsoft", **attributes)
    shapes = {name: shape for name, shape in inputs.items() if isinstance(shape, tuple)}
    constants = {name: array for name, array in inputs.items() if isinstance(array, np.ndarray)}
    rank = len(next(iter(shapes.values()))) if rank is None else rank
    graph = helper.make_graph(
        [node, helper.make_node("Identity", [results[asked]], ["out"])],
        "g",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, [None] * rank)],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    imports = [helper.make_opsetid("", 18), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=imports, ir_version=8)


def equal_differences(model, seed=0, step=5e-3):
    """Compare the gradient of each input with differences of the runtime's kernel, along a random direction."""
    rng = np.random.default_rng(seed)
    shapes = {v.name: [d.dim_value for d in v.type.tensor_type.shape.dim] for v in model.graph.input}
    feeds = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    cotangent = rng.standard_normal(run(model, feeds)["out"].shape).astype(np.float32)
    made = run(vjp(model), {**feeds, "cotangent.out": cotangent})
    for name, x in feeds.items():
        v = rng.standard_normal(x.shape).astype(np.float32)
        up, down = (run(model, {**feeds, name: x + np.float32(h) * v})["out"] for h in (step, -step))
        expected = np.vdot(cotangent.astype(np.float64), up.astype(np.float64) - down) / (2 * step)
        gradient = made[f"grad.{name}"]
        assert abs(np.vdot(v, gradient) - expected) <= 2e-3 * np.linalg.norm(v) * np.linalg.norm(gradient) + 1e-3
