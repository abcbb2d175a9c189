"""A small dual encoder as ONNX files, pictures, texts or both, and its maps by PyTorch autograd."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper

from fastcam.language.word_level import write_word_level
from fastcam_export import export_model

RNG = np.random.default_rng(11)
WORDS = ["<pad>", "<unk>", "a", "red", "blue", "square", "star", ","]
SCALE, BIAS = 7.0, -1.5
W = {
    "w": RNG.standard_normal((6, 3, 3, 3)).astype(np.float32) / 3,
    "p": RNG.standard_normal((6, 5)).astype(np.float32),
    "table": RNG.standard_normal((len(WORDS), 4)).astype(np.float32),
    "q": RNG.standard_normal((4, 5)).astype(np.float32),
}
CONSTANTS = {
    "sides": np.array([2, 3]), "one": np.array([1]), "last": np.array([2]), "end": np.array([-1]),
    "scale": np.float32(SCALE), "bias": np.float32(BIAS),
}  # fmt: skip
N = helper.make_node
PICTURES = [
    N("Conv", ["image", "w"], ["conv"], pads=[1, 1, 1, 1]),
    N("Relu", ["conv"], ["map"]),
    N("ReduceMean", ["map", "sides"], ["seen"], keepdims=0),
    N("MatMul", ["seen", "p"], ["image_embeds"]),
]
TEXTS = [
    N("Gather", ["table", "input_ids"], ["vectors"]),
    N("Cast", ["attention_mask"], ["m"], to=TensorProto.FLOAT),
    N("Unsqueeze", ["m", "last"], ["mm"]),
    N("Mul", ["vectors", "mm"], ["kept"]),
    N("ReduceSum", ["mm", "one"], ["count"], keepdims=0),
    N("ReduceSum", ["kept", "one"], ["summed"], keepdims=0),
    N("Div", ["summed", "count"], ["mean"]),
    N("MatMul", ["mean", "q"], ["text_embeds"]),
]
PAIRS = [
    N("ReduceL2", ["image_embeds", "end"], ["il"], keepdims=1),
    N("Div", ["image_embeds", "il"], ["iu"]),
    N("ReduceL2", ["text_embeds", "end"], ["tl"], keepdims=1),
    N("Div", ["text_embeds", "tl"], ["tu"]),
    N("Transpose", ["tu"], ["tt"], perm=[1, 0]),
    N("MatMul", ["iu", "tt"], ["cosine"]),
    N("Mul", ["cosine", "scale"], ["scaled"]),
    N("Add", ["scaled", "bias"], ["logits_per_image"]),
]
IMAGE = ("image", TensorProto.FLOAT, ["N", 3, 10, 12])
IDS = [("input_ids", TensorProto.INT64, ["T", "L"]), ("attention_mask", TensorProto.INT64, ["T", "L"])]


def _model(nodes: list, inputs: list, output: str, shape: list) -> onnx.ModelProto:
    used = {name for node in nodes for name in node.input}
    tensors = [numpy_helper.from_array(a, name) for name, a in {**W, **CONSTANTS}.items() if name in used]
    values = [helper.make_tensor_value_info(*one) for one in inputs]
    y = helper.make_tensor_value_info(output, TensorProto.FLOAT, shape)
    graph = helper.make_graph(nodes, "dual", values, [y], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


def pictures() -> onnx.ModelProto:
    """image -> image_embeds [N, 5]."""
    return _model(PICTURES, [IMAGE], "image_embeds", ["N", 5])


def texts() -> onnx.ModelProto:
    """input_ids, attention_mask -> text_embeds [T, 5]."""
    return _model(TEXTS, IDS, "text_embeds", ["T", 5])


def pairs() -> onnx.ModelProto:
    """All of them -> logits_per_image [N, T] = 7 cosine - 1.5."""
    return _model([*PICTURES, *TEXTS, *PAIRS], [IMAGE, *IDS], "logits_per_image", ["N", "T"])


def scores_and_maps(x: np.ndarray, prompts: list[list[int]], factors: list[float]) -> tuple[np.ndarray, np.ndarray]:
    """The sum of factors times logits of prompts, [N], and its Grad-CAM [N, h, w], in float64."""
    t = {name: torch.tensor(array, dtype=torch.float64) for name, array in W.items()}
    maps = torch.nn.functional.conv2d(torch.tensor(x, dtype=torch.float64), t["w"], padding=1).relu().requires_grad_()
    seen = torch.nn.functional.normalize(maps.mean((2, 3)) @ t["p"], dim=-1)
    said = torch.stack([t["table"][row].mean(0) for row in prompts]) @ t["q"]
    logits = SCALE * seen @ torch.nn.functional.normalize(said, dim=-1).T + BIAS
    score = (logits * torch.tensor(factors)).sum(1)
    (slope,) = torch.autograd.grad(score.sum(), maps)
    found = (slope.mean((2, 3), keepdim=True) * maps).sum(1).relu()
    return score.detach().numpy(), found.detach().numpy()


def write(folder: Path) -> None:
    """The files, the tokenizer, and two exports: ``apart.cam.onnx`` of embeddings, ``pairs.cam.onnx`` of pairs."""
    write_word_level(folder / "tokenizer.json", WORDS)
    for name, model in (("pictures", pictures()), ("texts", texts()), ("pairs", pairs())):
        onnx.save(model, folder / f"{name}.onnx")
    how: dict[str, Any] = {"preprocess": "unit", "tokenizer": folder / "tokenizer.json"}
    export_model(
        folder / "pictures.onnx", folder / "apart.cam.onnx", targets="cotangent", output_name="image_embeds",
        text_encoder=folder / "texts.onnx", logit_scale=SCALE, logit_bias=BIAS, **how,
    )  # fmt: skip
    export_model(folder / "pairs.onnx", folder / "pairs.cam.onnx", **how)
