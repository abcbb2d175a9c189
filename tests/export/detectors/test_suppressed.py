"""Files whose outputs are what a NonMaxSuppression picked: the boxes and scores in front of it are explained."""

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from fastcam import Explainer
from fastcam_export import export_model, inspect_model
from support.models.many_outputs import node, run, value

ENDS = {
    "indices": ([], value("selected", ["n", 3], TensorProto.INT64)),
    "int32": ([node("Cast", "selected", "z", to=TensorProto.INT32)], value("z", ["n", 3], TensorProto.INT32)),
    "floats": ([node("Cast", "selected", "z", to=TensorProto.FLOAT)], value("z", ["n", 3])),
    "a column": ([node("Slice", "selected two three one", "z")], value("z", ["n", 1], TensorProto.INT64)),
}


def detector(end):
    """image [1, 3, 32, 32] -> 16 boxes around cells of 8 pixels and 3 scores each -> NonMaxSuppression -> an end."""
    rng = np.random.default_rng(0)
    more, output = ENDS[end]
    cells = np.stack(np.meshgrid(np.arange(4), np.arange(4)), -1).reshape(1, 16, 2) * 8 + 4
    weights = {
        "w": rng.standard_normal((7, 3, 8, 8)) * 0.1, "head": rng.standard_normal((7, 7, 1, 1)), "cells": cells,
        "pixels": 16, "overlap": [0.5], "least": [0.2],
    }  # fmt: skip
    counts = {"rows": [0, 7, 16], "parts": [4, 3], "most": [5], "one": [1], "two": [2], "three": [3]}
    nodes = [
        node("Conv", "image w", "c", strides=[8, 8]), node("Relu", "c", "feat"), node("Conv", "feat head", "maps"),
        node("Reshape", "maps rows", "flat"), node("Transpose", "flat", "table", perm=[0, 2, 1]),
        node("Split", "table parts", "raw logits", axis=2), node("Sigmoid", "raw", "shares"),
        node("Mul", "shares pixels", "sizes"), node("Split", "sizes", "before behind", axis=2, num_outputs=2),
        node("Sub", "cells before", "low"), node("Add", "cells behind", "high"),
        node("Concat", "low high", "boxes", axis=2), node("Sigmoid", "logits", "chances"),
        node("Transpose", "chances", "scores", perm=[0, 2, 1]),
        node("NonMaxSuppression", "boxes scores most overlap least", "selected"), *more,
    ]  # fmt: skip
    tensors = [numpy_helper.from_array(np.asarray(array, np.float32), name) for name, array in weights.items()]
    tensors += [numpy_helper.from_array(np.array(array), name) for name, array in counts.items()]
    graph = helper.make_graph(nodes, "g", [value("image", [1, 3, 32, 32])], [output], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


@pytest.mark.parametrize("end", ENDS)
def test_the_boxes_in_front_of_the_selection_are_explained(end):
    made = detector(end)
    assert inspect_model(made).command == "fastcam export MODEL.onnx"
    export = export_model(made, preprocess="unit")
    assert [(one.output, one.answer) for one in export.metadata.cotangents] == [("boxes", "box"), ("scores", "box")]
    assert export.check["bit_identical"] and export.check["gradient_error"] < 1e-4
    names = [one.name for one in export.model.graph.output]
    assert names[0] == made.graph.output[0].name and names[1:3] == ["boxes", "scores"]


def test_the_best_box_is_the_one_that_the_selection_puts_first():
    made = detector("indices")
    picture = np.random.default_rng(1).integers(0, 255, (32, 32, 3), np.uint8)
    made.graph.output.extend([value("boxes", [1, 16, 4]), value("scores", [1, 3, 16])])
    feeds = {"image": picture.transpose(2, 0, 1)[None].astype(np.float32) / 255}
    found = run(made, feeds)
    selected = found["selected"][np.argmax([found["scores"][0, c, k] for _, c, k in found["selected"]])]
    export = export_model(detector("indices"), preprocess="unit", check=False)
    (best, *_), = Explainer(export.model.SerializeToString())(picture).targets  # fmt: skip
    assert best.name == f"class {selected[1]} (box {selected[2]})"
    np.testing.assert_allclose(best.box, found["boxes"][0, selected[2]], rtol=1e-4)
