"""Dropout that drops at inference is spelled out: each value is zero with the ratio's probability, else scaled."""

import numpy as np
import pytest
from onnx import TensorProto, helper

from fastcam import FastcamError
from fastcam_export import export_model
from support.models.many_outputs import node, run, value
from support.models.pieces import BODY, HEAD, model

YES = np.array(True)


def dropping(ratio=0.25, at="y", opset=18, flag=YES, mask=False, **attributes):
    """Dropout behind the scores, or behind the maps."""
    drop = node("Dropout", f"{at} ratio flag", "d mask" if mask else "d", **attributes)
    rest = [node("GlobalAveragePool", "d", "g"), *HEAD[1:], node("Identity", "y", "z")]
    if opset < 13:
        rest = [node("GlobalAveragePool", "d", "g"), node("Flatten", "g", "gf"), *HEAD[2:], node("Identity", "y", "z")]
    nodes = [*BODY, *HEAD, drop, node("Identity", "d", "z")] if at == "y" else [*BODY, drop, *rest]
    outputs = [value("z", ["N", 4])] + [value("mask", ["N", 4], TensorProto.BOOL)] * mask
    return model(nodes, weights={"ratio": np.float32(ratio), "flag": flag}, outputs=outputs, opset=opset)


@pytest.mark.parametrize("kind", ["scores", "maps", "mask", "seed", "opset 12"])
def test_the_check_confirms_the_gradient(kind):
    how = {
        "scores": {}, "maps": {"at": "feat"}, "mask": {"mask": True}, "seed": {"seed": 3},
        "opset 12": {"at": "feat", "opset": 12},
    }  # fmt: skip
    export = export_model(dropping(**how[kind]), output_name="z")
    assert export.check["bit_identical"] and export.check["gradient_error"] < 1e-3
    assert any("draws random numbers" in note for note in export.check["notes"])
    assert any("Dropout that drops at inference spelled out" in text for text in export.summary())


@pytest.mark.parametrize("ratio", [0.0, 0.25, 0.75])
def test_values_are_dropped_as_often_as_the_ratio_says(ratio):
    images = np.random.default_rng(0).standard_normal((500, 3, 16, 16)).astype(np.float32)
    whole = run(model(), {"x": images})["y"]
    found = run(export_model(dropping(ratio), check=False).model, {"x": images})["z"]
    dropped = found == 0
    np.testing.assert_allclose(found[~dropped], (whole / (1 - ratio))[~dropped], rtol=1e-5, atol=1e-6)
    assert abs(dropped.mean() - ratio) < 5 * np.sqrt(ratio * (1 - ratio) / found.size) + 1e-9


@pytest.mark.parametrize("kind", ["all dropped", "half precision", "asked at run time"])
def test_what_is_not_spelled_out_is_refused(kind):
    made = dropping(1.0 if kind == "all dropped" else 0.5)
    if kind == "half precision":
        cast = [node("Cast", "y", "h", to=TensorProto.FLOAT16), node("Dropout", "h ratio flag", "d")]
        cast.append(node("Cast", "d", "z", to=TensorProto.FLOAT))
        weights = {"ratio": np.float32(0.5), "flag": YES}
        made = model([*BODY, *HEAD, *cast], weights=weights, outputs=[value("z", ["N", 4])])
    if kind == "asked at run time":
        made.graph.initializer.remove(next(one for one in made.graph.initializer if one.name == "flag"))
        made.graph.input.append(helper.make_tensor_value_info("flag", TensorProto.BOOL, []))
    with pytest.raises(FastcamError, match="is in training mode; export the model in inference mode"):
        export_model(made)
