"""Files with pre- and postprocessing of onnxruntime-extensions, which is not there: cut, and said, or refused."""

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from fastcam.schema import FastcamError
from fastcam_export import export_model
from support.models.quantized import run_targets

NODE, VALUE = helper.make_node, helper.make_tensor_value_info
R = np.random.default_rng(0)
HEAD = R.standard_normal((8, 4)).astype(np.float32)
TENSORS = {"w": R.standard_normal((8, 3, 3, 3)).astype(np.float32), "v": HEAD, "first": np.array([0]),
           "sizes": np.array([1, 3, 32, 32])}  # fmt: skip
MODEL = [
    NODE("Conv", ["x", "w"], ["c"], pads=[1] * 4), NODE("Relu", ["c"], ["r"]), NODE("GlobalAveragePool", ["r"], ["p"]),
    NODE("Flatten", ["p"], ["f"]), NODE("MatMul", ["f", "v"], ["scores"]),
]  # fmt: skip
PREPARED = [
    NODE("Transpose", ["picture"], ["planes"], perm=[2, 0, 1]), NODE("Unsqueeze", ["planes", "first"], ["one"]),
    NODE("Cast", ["one"], ["floats"], to=TensorProto.FLOAT), NODE("Resize", ["floats", "", "", "sizes"], ["x"]),
]  # fmt: skip
PICTURE = R.integers(0, 256, (1, 3, 20, 24)).astype(np.uint8)


def model(nodes, inputs, outputs=("scores",), domain="com.microsoft.extensions", opset=18):
    used = {name for node in nodes for name in node.input}
    graph = helper.make_graph(
        nodes, "g", inputs, [VALUE(name, TensorProto.FLOAT, [1, 4]) for name in outputs],
        [numpy_helper.from_array(array, name) for name, array in TENSORS.items() if name in used],
    )  # fmt: skip
    imports = [helper.make_opsetid("", opset), helper.make_opsetid(domain, 1)]
    return helper.make_model(graph, opset_imports=imports, ir_version=9)


@pytest.mark.parametrize(
    ("op_type", "domain", "opset"),
    [
        ("DecodeImage", "com.microsoft.extensions", 18),
        ("ImageDecoder", "ai.onnx.contrib", 18),
        ("ImageDecoder", "", 20),
    ],
)
def test_a_file_that_decodes_its_picture_is_explained_behind_that(op_type, domain, opset):
    first = NODE(op_type, ["bytes"], ["picture"], domain=domain)
    given = [VALUE("bytes", TensorProto.UINT8, ["n"])]
    made = export_model(model([first, *PREPARED, *MODEL], given, domain=domain or "other", opset=opset), size=(20, 24))
    assert f"begins at 'one', behind {op_type}" in made.repairs[-1] and "raw" in made.repairs[-1]
    out = run_targets(made.model, {"one": PICTURE, "fastcam.targets": np.array([[1]])})
    np.testing.assert_allclose(out["fastcam.weights"][0, 0], HEAD[:, 1] / 32**2, rtol=1e-5)


@pytest.mark.parametrize("outputs", [("scores", "png"), ("png",)])
def test_what_draws_behind_the_model_is_left_out(outputs):
    last = NODE("EncodeImage", ["scores"], ["png"], domain="com.microsoft.extensions")
    given = [VALUE("x", TensorProto.FLOAT, [1, 3, 32, 32])]
    source = model([*MODEL, last], given, outputs)
    source.graph.value_info.append(VALUE("scores", TensorProto.FLOAT, [1, 4]))
    made = export_model(source)
    assert "left out EncodeImage" in made.repairs[-1] and made.metadata.score.output == "scores"
    assert made.model.graph.output[0].name == "scores" and "png" not in {
        value.name for value in made.model.graph.output
    }


def test_a_file_of_texts_is_refused_with_the_way():
    first = NODE("StringSplit", ["text"], ["ids"], domain="ai.onnx.contrib")
    rest = [NODE("Cast", ["ids"], ["f"], to=TensorProto.FLOAT), NODE("MatMul", ["f", "v"], ["scores"])]
    given = [VALUE("text", TensorProto.STRING, [1])]
    with pytest.raises(FastcamError, match=r"decodes its inputs itself \(StringSplit\).*before its preprocessing"):
        export_model(model([first, *rest], given, domain="ai.onnx.contrib"))
