"""A small model of a picture and a question, with its words, and the same in PyTorch."""

from __future__ import annotations

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper

RNG = np.random.default_rng(5)
WORDS = ["<pad>", "<unk>", "what", "colour", "is", "the", "cat", "dog", "?", "where"]
ANSWERS = ["red", "green", "blue", "two"]
W = {
    "w": RNG.standard_normal((6, 3, 3, 3)).astype(np.float32) / 3,
    "table": RNG.standard_normal((len(WORDS), 6)).astype(np.float32),
    "fc": RNG.standard_normal((6, len(ANSWERS))).astype(np.float32),
}
N = helper.make_node


def questions(length: int | str = 6, mask: bool = True, batch: str = "N") -> onnx.ModelProto:
    """logits = (mean(relu(conv picture)) * sum of the words' vectors / their number) fc.

    Args:
        length: of a question.
        mask: whether there is an input that says which words count.
        batch: the name of the first axis.
    """
    nodes = [
        N("Conv", ["image", "w"], ["conv"], pads=[1, 1, 1, 1]),
        N("Relu", ["conv"], ["map"]),
        N("ReduceMean", ["map", "sides"], ["seen"], keepdims=0),
        N("Gather", ["table", "input_ids"], ["vectors"]),
    ]
    if mask:
        nodes += [
            N("Cast", ["attention_mask"], ["m"], to=TensorProto.FLOAT),
            N("Unsqueeze", ["m", "last"], ["mm"]),
            N("Mul", ["vectors", "mm"], ["kept"]),
            N("ReduceSum", ["mm", "one"], ["count"], keepdims=0),
            N("ReduceSum", ["kept", "one"], ["summed"], keepdims=0),
            N("Div", ["summed", "count"], ["said"]),
        ]
    else:
        nodes.append(N("ReduceMean", ["vectors", "one"], ["said"], keepdims=0))
    nodes += [N("Mul", ["seen", "said"], ["both"]), N("MatMul", ["both", "fc"], ["logits"])]
    inputs = [helper.make_tensor_value_info("image", TensorProto.FLOAT, [batch, 3, 10, 12])]
    inputs.append(helper.make_tensor_value_info("input_ids", TensorProto.INT64, [batch, length]))
    if mask:
        inputs.append(helper.make_tensor_value_info("attention_mask", TensorProto.INT64, [batch, length]))
    constants = {**W, "sides": np.array([2, 3]), "one": np.array([1]), "last": np.array([2])}
    used = {name for node in nodes for name in node.input}
    tensors = [numpy_helper.from_array(array, name) for name, array in constants.items() if name in used]
    output = helper.make_tensor_value_info("logits", TensorProto.FLOAT, [batch, len(ANSWERS)])
    graph = helper.make_graph(nodes, "questions", inputs, [output], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


def grad_cam(pictures: np.ndarray, ids: list[list[int]], answer: int) -> np.ndarray:
    """[N, h, w] of questions without what fills them up, by autograd, and the scores [N]."""
    t = {name: torch.tensor(array, dtype=torch.float64) for name, array in W.items()}
    maps = torch.nn.functional.conv2d(torch.tensor(pictures, dtype=torch.float64), t["w"], padding=1).relu()
    maps.retain_grad() if maps.requires_grad else maps.requires_grad_()
    said = torch.stack([t["table"][row].mean(0) for row in ids])
    scores = (maps.mean((2, 3)) * said) @ t["fc"]
    (slope,) = torch.autograd.grad(scores[:, answer].sum(), maps)
    return (slope.mean((2, 3), keepdim=True) * maps).sum(1).relu().detach().numpy()
