"""What a file says about itself: JSON that lies about the graph beside it."""

from __future__ import annotations

import functools
import json
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from fastcam import Explainer
from fastcam.errors import FastcamError
from fastcam.schema import METADATA_KEY, Metadata
from fastcam_bench.fuzz import WrongAnswer
from fastcam_export import export_model

NAME = "Metadata"
SIZE, CLASSES = 12, 3
PICTURE = np.random.default_rng(0).integers(0, 256, (15, 20, 3), np.uint8)
SIGNAL = np.random.default_rng(0).normal(size=(1, 2, 16)).astype(np.float32)
VALUES: list[Any] = [None, True, 0, -1, 1, 2, 3, 5, 1e308, float("nan"), 2**31, 2**63, 10**30, "", "x", "NCTHW", "NCL"]
VALUES += ["../x", "y", "a1", [], {}, [0], [1, 2], [1, 2, 3], [-1], ["N", 3, 12, 12], ["N", 2, 16], [[1]], {"y": [1]}]
VALUES += ["NHWC", "NTCHW", "NDHW", "cam", "gradients", "weights", "logit", "box", "words", "region", "hirescam", "max"]


def _model(signal: bool = False) -> onnx.ModelProto:
    """Two layers, a mean and a matrix."""
    rng = np.random.default_rng(0)
    kernel = (3,) if signal else (3, 3)
    weights = {
        "w1": rng.standard_normal((4, 2 if signal else 3, *kernel)),
        "w2": rng.standard_normal((4, 4, *kernel)),
        "fc": rng.standard_normal((4, CLASSES)),
    }
    pads = [1, 1] if signal else [1, 1, 1, 1]
    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["c1"], pads=pads),
        helper.make_node("Relu", ["c1"], ["a1"]),
        helper.make_node("Conv", ["a1", "w2"], ["c2"], pads=pads),
        helper.make_node("Relu", ["c2"], ["a2"]),
        helper.make_node("GlobalAveragePool", ["a2"], ["g"]),
        helper.make_node("Flatten", ["g"], ["f"]),
        helper.make_node("MatMul", ["f", "fc"], ["y"]),
    ]
    shape: list[str | int] = ["N", 2, 16] if signal else ["N", 3, SIZE, SIZE]
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", CLASSES])],
        [numpy_helper.from_array(array.astype(np.float32), name) for name, array in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@functools.cache
def files() -> tuple[onnx.ModelProto, ...]:
    """Exports of several kinds."""
    shared: dict[str, Any] = {"preprocess": "imagenet", "labels": ["a", "b", "c"], "check": False}
    exports = [
        export_model(_model(), **shared),
        export_model(_model(), **shared, layer=["a1", "a2"], emit="gradients", input_gradient="gradient"),
        export_model(_model(), preprocess="unit", check=False, targets="cotangent"),
        export_model(_model(), **shared, frames=True),
        export_model(_model(signal=True), check=False),
        export_model(_model(), preprocess="unit", check=False, emit="cam"),
    ]
    return tuple(one.model for one in exports)


def seeds() -> list[bytes]:
    """What the exports say, each behind the number of its file."""
    return [bytes([i]) + _entry(model).value.encode() for i, model in enumerate(files())]


def _entry(model: onnx.ModelProto) -> Any:
    return next(one for one in model.metadata_props if one.key == METADATA_KEY)


def mutate(data: bytes, random: np.random.Generator) -> bytes:
    """Values changed, dropped or doubled anywhere in the JSON."""
    try:
        raw = json.loads(data[1:])
    except ValueError:
        return data
    for _ in range(int(random.choice([1, 1, 1, 2, 3]))):
        raw = _changed(raw, random, 4)
    which = bytes([int(random.integers(6))]) if random.random() < 0.1 else data[:1]
    return which + json.dumps(raw).encode()


def _changed(value: Any, random: np.random.Generator, depth: int) -> Any:
    if depth and random.random() < 0.85 and isinstance(value, dict) and value:
        key = list(value)[int(random.integers(len(value)))]
        if random.random() < 0.05:
            return {name: one for name, one in value.items() if name != key}
        return value | {key: _changed(value[key], random, depth - 1)}
    if depth and random.random() < 0.7 and isinstance(value, list) and value:
        at = int(random.integers(len(value)))
        kind = random.random()
        if kind < 0.15:
            return value[:at] + value[at + 1 :]
        if kind < 0.3:
            return [*value, value[at]]
        return [*value[:at], _changed(value[at], random, depth - 1), *value[at + 1 :]]
    if isinstance(value, int | float) and not isinstance(value, bool) and random.random() < 0.5:
        return value + int(random.integers(-3, 4)) if random.random() < 0.5 else value * float(random.normal())
    return VALUES[int(random.integers(len(VALUES)))]


def attempt(data: bytes) -> str:
    """Read it, and explain with the file that says it; what comes out must be sound."""
    which, text = (data[:1] or b"\0")[0] % 6, data[1:].decode(errors="replace")
    try:
        meta = Metadata.from_json(text)
        if Metadata.from_json(meta.to_json()) != meta:
            raise WrongAnswer("it is not read as it is written")
        model = onnx.ModelProto()
        model.CopyFrom(files()[which])
        _entry(model).value = text
        explainer = Explainer(model.SerializeToString(), "cpu", threads=1)
        given: Any = SIGNAL if which == 4 else [PICTURE, PICTURE]
        explanation = explainer(given, **({"cotangent": "class:1"} if meta.cotangents else {"targets": [-1, 0]}))
    except FastcamError as error:
        if "\n" in str(error) or len(str(error)) > 3000:
            raise WrongAnswer(f"a message of several lines: {error}") from error
        raise
    _sound(explanation, which)
    return "accepted"


def _sound(explanation: Any, which: int) -> None:
    """Boxes lie in the picture, heatmaps in 0..1, rows are those of the pictures."""
    boxes, heat = explanation.boxes, explanation.heatmaps
    if which != 4 and (
        len(explanation) != 2
        or boxes.min() < 0
        or (boxes[..., [0, 2]] > PICTURE.shape[1]).any()
        or (boxes[..., [1, 3]] > PICTURE.shape[0]).any()
    ):
        raise WrongAnswer(f"boxes {boxes.tolist()} of {len(explanation)} pictures")
    if not (np.isfinite(heat).all() and heat.min() >= 0 and heat.max() <= 1):
        raise WrongAnswer(f"heat from {heat.min()} to {heat.max()}")
    json.dumps(explanation.to_dict(), allow_nan=False)
    explanation.overlay()
