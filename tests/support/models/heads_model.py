"""One model with outputs of every kind, the same outputs in PyTorch, and their gradient at the layer."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from fastcam_export.verify.session import quiet_session

torch = pytest.importorskip("torch", reason="PyTorch is the oracle of these tests")

F = torch.nn.functional

C, D, A, L, V = 5, 6, 7, 3, 4  # classes, embedding, boxes, words, vocabulary

SHAPES = {
    "logits": ("N", C), "embedding": ("N", D), "map": ("N", C, 8, 8), "dense": ("N", A, 4 + C),
    "words": ("N", L, V), "numbers": ("N", 2),
}  # fmt: skip


def weights():
    rng = np.random.default_rng(0)
    shapes = {
        "w1": (4, 3, 3, 3), "w2": (D, 4, 3, 3), "fc": (D, C), "fm": (C, D, 1, 1), "fd": (D, A * (4 + C)),
        "fw": (D, L * V), "fr": (D, 2),
    }  # fmt: skip
    return {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


def heads(batch="N"):
    """image -> two convolutions -> the map "layer" -> outputs of every kind."""
    node, w = helper.make_node, weights()
    shape = {"sd": [-1, A, 4 + C], "sw": [-1, L, V]}
    nodes = [
        node("Conv", ["image", "w1"], ["c1"], "conv1", pads=[1] * 4),
        node("Relu", ["c1"], ["r1"], "relu1"),
        node("Conv", ["r1", "w2"], ["c2"], "conv2", pads=[1] * 4),
        node("Relu", ["c2"], ["layer"], "relu2"),
        node("GlobalAveragePool", ["layer"], ["mean"], "mean"),
        node("Flatten", ["mean"], ["embedding"], "flatten"),
        node("MatMul", ["embedding", "fc"], ["logits"], "fc"),
        node("Conv", ["layer", "fm"], ["map"], "map"),
        node("Softsign", ["embedding"], ["bounded"], "softsign"),
        node("MatMul", ["bounded", "fd"], ["d"], "fd"),
        node("Reshape", ["d", "sd"], ["dense"], "reshape_d"),
        node("MatMul", ["bounded", "fw"], ["w"], "fw"),
        node("Reshape", ["w", "sw"], ["words"], "reshape_w"),
        node("MatMul", ["bounded", "fr"], ["numbers"], "fr"),
    ]
    tensors = [numpy_helper.from_array(array, name) for name, array in w.items()]
    tensors += [numpy_helper.from_array(np.array(v, np.int64), k) for k, v in shape.items()]
    outputs = [helper.make_tensor_value_info(k, TensorProto.FLOAT, [batch, *v[1:]]) for k, v in SHAPES.items()]
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, [batch, 3, 8, 8])
    model = helper.make_model(
        helper.make_graph(nodes, "heads", [image], outputs, tensors), opset_imports=[helper.make_opsetid("", 18)]
    )
    model.ir_version = 8
    return model


def behind(layer):
    """The outputs by name, in PyTorch, of the layer's value."""
    w = {name: torch.from_numpy(array) for name, array in weights().items()}
    embedding = layer.mean((2, 3))
    bounded = F.softsign(embedding)
    return {
        "logits": embedding @ w["fc"], "embedding": embedding, "map": F.conv2d(layer, w["fm"]),
        "dense": (bounded @ w["fd"]).reshape(-1, A, 4 + C), "words": (bounded @ w["fw"]).reshape(-1, L, V),
        "numbers": bounded @ w["fr"],
    }  # fmt: skip


def run(model, feeds):
    session = quiet_session(model)
    return dict(zip([value.name for value in session.get_outputs()], session.run(None, feeds)))


def images(n=2, seed=1):
    return np.random.default_rng(seed).standard_normal((n, 3, 8, 8)).astype(np.float32)


def autograd(activations, scalars):
    """The gradient of each of T scalars [N] of the outputs: [N, T, K, h, w]."""
    layer = torch.from_numpy(activations).requires_grad_()
    outputs = behind(layer)
    made = [torch.autograd.grad(s.sum(), layer, retain_graph=True)[0] for s in scalars(outputs)]
    return torch.stack(made, 1).numpy()


MASK = np.zeros((8, 8), bool)


MASK[2:5, 1:7] = True


def rank(y, r):
    return y.detach().argsort(1, descending=True)[:, r - 1]


def pick(y, classes):
    return y.gather(1, classes[:, None])[:, 0]


def finer(y, others, detached):
    p = torch.softmax(y.detach() if detached else y, 1)
    q = torch.stack([pick(p, rank(y, r)) for r in others])
    against = torch.stack([pick(y, rank(y, 1)) - 0.6 * pick(y, rank(y, r)) for r in others])
    return [(q * against).sum(0) / q.sum(0)]


def _with(model, name):
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    copy.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, None))
    return copy


def detector():
    """One image's boxes [n, 4] and scores [n]: the k best of a grid, as many as reach a threshold."""
    node = helper.make_node
    rng = np.random.default_rng(6)
    nodes = [
        node("Conv", ["image", "w1"], ["c1"], "conv1", pads=[1] * 4),
        node("Relu", ["c1"], ["layer"], "relu1"),
        node("Conv", ["layer", "w2"], ["c2"], "conv2"),
        node("Reshape", ["c2", "s"], ["flat"], "reshape"),
        node("Transpose", ["flat"], ["rows"], "transpose", perm=[1, 0]),
        node("Slice", ["rows", "i4", "i5", "i1"], ["logit"], "scores_"),
        node("Sigmoid", ["logit"], ["p"], "sigmoid"),
        node("Squeeze", ["p", "i1"], ["each"], "squeeze"),
        node("Greater", ["each", "threshold"], ["over"], "over"),
        node("NonZero", ["over"], ["which"], "nonzero"),
        node("Squeeze", ["which", "i0"], ["index"], "squeeze_index"),
        node("Gather", ["each", "index"], ["scores"], "gather_scores"),
        node("Slice", ["rows", "i0", "i4", "i1"], ["raw"], "boxes_"),
        node("Gather", ["raw", "index"], ["boxes"], "gather_boxes", axis=0),
    ]
    arrays = {
        "w1": rng.standard_normal((6, 3, 3, 3)).astype(np.float32),
        "w2": rng.standard_normal((5, 6, 1, 1)).astype(np.float32) / 4,
        "s": np.array([5, -1]), "i0": np.array([0]), "i1": np.array([1]), "i4": np.array([4]), "i5": np.array([5]),
        "threshold": np.float32(0.6),
    }  # fmt: skip
    graph = helper.make_graph(
        nodes,
        "detector",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, 8, 8])],
        [
            helper.make_tensor_value_info("boxes", TensorProto.FLOAT, ["n", 4]),
            helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["n"]),
        ],
        [numpy_helper.from_array(np.asarray(v), k) for k, v in arrays.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
    model.ir_version = 8
    return model, arrays
