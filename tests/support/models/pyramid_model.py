"""A classifier with layers of three resolutions, and what PyTorch autograd says at each of them."""

import numpy as np
from onnx import TensorProto, helper, numpy_helper

LAYERS = ("r1", "r2", "r3")


def pyramid(size=8, seed=0):
    """image [N, 3, size, size] -> three convolutions with ReLU, each at half the resolution -> mean -> [N, 5]."""
    rng = np.random.default_rng(seed)
    shapes = {"w1": (4, 3, 3, 3), "w2": (6, 4, 3, 3), "w3": (7, 6, 3, 3), "fc": (7, 5)}
    tensors = {name: (rng.standard_normal(shape) / 3).astype(np.float32) for name, shape in shapes.items()}
    nodes = [
        helper.make_node("Conv", ["image", "w1"], ["c1"], "one/conv", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c1"], ["r1"], "one/relu"),
        helper.make_node("MaxPool", ["r1"], ["p1"], "two/pool", kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Conv", ["p1", "w2"], ["c2"], "two/conv", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c2"], ["r2"], "two/relu"),
        helper.make_node("Conv", ["r2", "w3"], ["c3"], "three/conv", pads=[1, 1, 1, 1], strides=[2, 2]),
        helper.make_node("Relu", ["c3"], ["r3"], "three/relu"),
        helper.make_node("GlobalAveragePool", ["r3"], ["mean"]),
        helper.make_node("Flatten", ["mean"], ["flat"]),
        helper.make_node("MatMul", ["flat", "fc"], ["logits"]),
    ]
    return model_of(nodes, tensors, ["N", 3, size, size], 5), tensors


def model_of(nodes, tensors, shape, classes):
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [shape[0], classes])],
        [numpy_helper.from_array(array, name) for name, array in tensors.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


def autograd(tensors, image, classes):
    """Layers by name [N, K, h, w], and the gradients [N, T, K, h, w] of the classes' scores with respect to them."""
    import torch

    from fastcam_bench.oracles import kinks

    F = torch.nn.functional
    w = {name: torch.tensor(array) for name, array in tensors.items()}
    with kinks.away():
        values = {"r1": F.relu(F.conv2d(torch.tensor(image), w["w1"], padding=1)).requires_grad_()}
        values["r2"] = F.relu(F.conv2d(F.max_pool2d(values["r1"], 2), w["w2"], padding=1))
        values["r3"] = F.relu(F.conv2d(values["r2"], w["w3"], padding=1, stride=2))
    scores = values["r3"].mean((2, 3)) @ w["fc"]
    order = list(values)
    found = {name: np.zeros((len(image), classes.shape[1], *values[name].shape[1:]), np.float32) for name in order}
    for n, t in np.ndindex(*classes.shape):
        score = scores[n, classes[n, t]]
        for name, gradient in zip(order, torch.autograd.grad(score, [values[k] for k in order], retain_graph=True)):
            found[name][n, t] = gradient[n]
    return {name: value.detach().numpy() for name, value in values.items()}, found
