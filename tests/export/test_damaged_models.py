"""Files that are no sound model: one line that says what is wrong, exit code 2, nothing written, whatever raised it."""

import re
import sys

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from typer.testing import CliRunner

from fastcam import FastcamError
from fastcam.cli import app
from fastcam.errors import listed
from fastcam_export import export_model, inspect_model, vjp
from fastcam_export.graph import signed_codes
from support.models.many_outputs import node, value
from support.models.pieces import BODY, HEAD, MATRIX, model


def nan(weights):
    broken = weights.copy()
    broken.flat[0] = np.nan
    return broken


def no_text():
    return model().SerializeToString().replace(b"GlobalAveragePool", b"GlobalAverage\xcf\xffPl")


def optional():
    kind = helper.make_optional_type_proto(helper.make_tensor_type_proto(TensorProto.FLOAT, ["N", 3, 16, 16]))
    unwrapped = [node("OptionalGetElement", "x", "tensor"), node("Conv", "tensor w", "c", pads=[1] * 4), BODY[1]]
    return model([*unwrapped, *HEAD], inputs=[helper.make_value_info("x", kind)])


DAMAGED = {
    "names that are no text": (no_text, "is damaged: names in it are no text"),
    "no height": (lambda: model(image=["N", 3, 0, 16]), "input 'x' [N, 3, 0, 16] has a size of 0"),
    "no images": (lambda: model(image=[0, 3, 16, 16]), "input 'x' [0, 3, 16, 16] has a size of 0"),
    "no classes": (
        lambda: model(weights={"m": MATRIX[:, :0]}, outputs=[value("y", ["N", 0])]), "y (N x 0: of unknown meaning)"
    ),
    "a picture of any size": (lambda: model(image=["N", 3, 100000, 100000]), "Unable to allocate"),
    "an optional picture": (optional, "has no image input"),
    "types that differ": (lambda: model(weights={"m": MATRIX.astype(np.float64)}), "cannot load the model itself"),
    "sizes that differ": (lambda: model(weights={"m": MATRIX.T.copy()}), "cannot load the model itself"),
    "pads of two axes": (
        lambda: model([node("Conv", "x w", "c", pads=[1, 1]), BODY[1], *HEAD]), "cannot load the model itself"
    ),
    "NaN in a weight": (
        lambda: model(weights={"m": nan(MATRIX)}), "output 'y' of the model is NaN or infinite on every picture that "
        "the check tried, so that it has no gradient (weights with NaN or infinity: m)"
    ),
    "infinity in a weight": (
        lambda: model(weights={"m": np.where(np.arange(4) == 1, np.inf, MATRIX)}), "(weights with NaN or infinity: m)"
    ),
    "300 outputs": (
        lambda: model(
            [*BODY, *(node("Conv", "feat k", f"map{i}") for i in range(300))],
            weights={"k": np.ones((2, 6, 1, 1), "f")}, outputs=[value(f"map{i}", ["N", 2, 16, 16]) for i in range(300)],
        ), "and 290 more"
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", DAMAGED)
def test_one_line_says_what_is_wrong(name, tmp_path):
    make, words = DAMAGED[name]
    made = make()
    path, out = tmp_path / "m.onnx", tmp_path / "out.onnx"
    path.write_bytes(made if isinstance(made, bytes) else made.SerializeToString())
    how = [] if name != "300 outputs" else ["--targets", "cotangent"]
    result = CliRunner().invoke(app, ["export", str(path), "-o", str(out), *how])
    assert result.exit_code == 2 and not out.exists()
    said = result.output.strip()
    assert said.startswith("fastcam: ") and words in said and "\n" not in said and len(said) < 700
    assert "defect" not in said and "please report" not in said


@pytest.mark.parametrize("kind", ["map", "list", "text"])
def test_cotangents_of_what_stands_in_front_of_an_output_that_is_no_tensor(kind):
    """The check reads the value that the exported file has as an output, and the model has not."""
    ends = {
        "list": (
            node("SequenceConstruct", "y", "z"), helper.make_tensor_sequence_value_info("z", TensorProto.FLOAT, None)
        ),
        "text": (node("Cast", "y", "z", to=TensorProto.STRING), value("z", ["N", 4], TensorProto.STRING)),
        "map": (
            helper.make_node("ZipMap", ["y"], ["z"], domain="ai.onnx.ml", classlabels_strings=list("abcd")),
            helper.make_value_info("z", helper.make_sequence_type_proto(
                helper.make_map_type_proto(TensorProto.STRING, helper.make_tensor_type_proto(TensorProto.FLOAT, []))
            )),
        ),
    }  # fmt: skip
    end, output = ends[kind]
    made = model([*BODY, *HEAD, end], outputs=[output])
    if kind == "map":
        made.opset_import.append(helper.make_opsetid("ai.onnx.ml", 1))
    export = export_model(made, targets="cotangent")
    assert [one.output for one in export.metadata.cotangents] == ["y"] and export.check["bit_identical"]
    assert [one.name for one in export.model.graph.output][:2] == ["z", "y"]


@pytest.mark.parametrize("door", [export_model, inspect_model, vjp])
def test_what_nobody_foresaw_is_one_line_with_its_cause(door, monkeypatch):
    def broken(*_, **__):
        raise KeyError("a fault of ours")

    monkeypatch.setattr(sys.modules[door.__module__], "load", broken)
    words = r"KeyError at \w+.py:\d+: 'a fault of ours'\); this is a defect of FastCAM"
    with pytest.raises(FastcamError, match=words) as error:
        door(model())
    assert isinstance(error.value.__cause__, KeyError) and "\n" not in str(error.value)


def test_the_model_is_blamed_where_the_runtime_refuses_it(monkeypatch):
    def broken(*_):
        raise onnx.shape_inference.InferenceError("no shape")

    monkeypatch.setattr("fastcam_export.exporter.plan", broken)
    made = model(outputs=[value("y", ["N", 4], TensorProto.INT64)])
    with pytest.raises(FastcamError, match=r"ONNX Runtime cannot load the model itself .*; repair the model$"):
        export_model(made)


def test_int8_values_are_looked_for_beside_a_map():
    made = model([*BODY, *HEAD, helper.make_node("ZipMap", ["y"], ["z"], domain="ai.onnx.ml", classlabels_int64s=[0])])
    kind = helper.make_map_type_proto(TensorProto.INT64, helper.make_tensor_type_proto(TensorProto.FLOAT, []))
    made.graph.output.append(helper.make_value_info("z", helper.make_sequence_type_proto(kind)))
    made.graph.node.append(node("QuantizeLinear", "y one zero", "q"))
    made.graph.initializer.extend(
        [numpy_helper.from_array(np.float32(1), "one"), numpy_helper.from_array(np.int8(0), "zero")]
    )
    assert signed_codes.read_beside(made) == frozenset() and made.graph.output[-1].name == "z"


def test_names_for_an_error():
    assert listed("abc") == "a, b, c" and listed([]) == ""
    assert re.fullmatch(r"0, 1, .*, 9, and 290 more", listed(range(300)))
