"""inspect answers for every ONNX graph: inputs, outputs, what they are taken for, what blocks, a command that works."""

import shlex

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from typer.testing import CliRunner

from fastcam import FastcamError
from fastcam.cli import app
from fastcam_export import inspect_model
from support.models import detector_files
from support.models.many_outputs import node, value
from support.models.pieces import BODY, HEAD, MATRIX, model

STRANGE = [node("Frob", "feat", "strange", domain="my.ops"), node("Relu", "strange", "late")]


def custom():
    """An operator without a gradient between two maps; ONNX Runtime has none of it either."""
    made = model([*BODY, *STRANGE, node("GlobalAveragePool", "late", "g"), *HEAD[1:]])
    made.opset_import.append(helper.make_opsetid("my.ops", 1))
    return made


def two_scores():
    return model(
        [*BODY, *HEAD, node("MatMul", "gf m2", "z")], weights={"m2": MATRIX[::-1].copy()},
        outputs=[value("y", ["N", 4]), value("z", ["N", 4])],
    )  # fmt: skip


def vectors():
    """Rows of numbers of no known meaning."""
    rows = [node("Reshape", "feat rows", "y")]
    return model([*BODY, *rows], weights={"rows": np.array([0, 6, -1])}, outputs=[value("y", ["N", 6, 256])])


def labels():
    """The class of every pixel."""
    ends = [node("Conv", "feat k", "scores"), node("ArgMax", "scores", "y", axis=1, keepdims=0)]
    return model([*BODY, *ends], weights={"k": MATRIX.T[:, :, None, None].copy()},
                 outputs=[value("y", ["N", 16, 16], TensorProto.INT64)])  # fmt: skip


def beside():
    inputs = [value("x", ["N", 3, 16, 16]), value("age", ["N", 4]), value("unused", ["N"], TensorProto.INT64)]
    return model([*BODY, *HEAD[:-1], node("MatMul", "gf m", "s"), node("Add", "s age", "y")], inputs=inputs)


WORKS = {
    "a classifier": (model, "", "y: float N x 4: class scores"),
    "two outputs that may be scores": (two_scores, " --output-name y", "several outputs may be the class scores"),
    "rows of numbers": (vectors, "", "three axes, which may be boxes, words or positions"),
    "labels of a segmenter": (labels, " --output-name y", "a map in front of ArgMax"),
    "further inputs": (beside, "", "age: float N x 4: wants a value (--input-value)"),
}


@pytest.mark.parametrize("name", WORKS)
def test_the_command_works(name, tmp_path, monkeypatch):
    make, options, words = WORKS[name]
    monkeypatch.chdir(tmp_path)
    onnx.save(make(), "a model.onnx")
    shown = CliRunner().invoke(app, ["inspect", "a model.onnx"])
    assert shown.exit_code == 0
    command = shown.stdout.splitlines()[-1].removeprefix("next: fastcam ")
    assert words in shown.stdout and command == f"export 'a model.onnx'{options}"
    done = CliRunner().invoke(app, shlex.split(command))
    assert done.exit_code == 0, done.output


def test_what_inputs_and_outputs_are_taken_for():
    found = inspect_model(beside())
    assert [(one.name, one.explained) for one in found.inputs] == [("x", True), ("age", False), ("unused", False)]
    assert [one.taken_for for one in found.inputs] == [
        "pictures, NCHW",
        "wants a value (--input-value)",
        "is read by nothing",
    ]
    assert [(one.name, one.dtype, one.shape, one.explained) for one in found.outputs] == [
        ("y", "float", ("N", 4), True)
    ]


def test_a_segmenter_has_its_layers_and_no_question():
    made = model([*BODY, node("Conv", "feat k", "y")], weights={"k": np.ones((2, 6, 1, 1), np.float32)},
                 outputs=[value("y", ["N", 2, 16, 16])])  # fmt: skip
    found = inspect_model(made)
    assert "a map" in found.outputs[0].taken_for and found.outputs[0].explained and not found.blocks
    assert [layer.name for layer in found.layers if layer.chosen] == ["feat"] and found.command


def external():
    """A model whose weights lie in a file that is not there."""
    made = model()
    tensor = made.graph.initializer[0]
    onnx.external_data_helper.set_external_data(tensor, location="gone.bin", offset=0, length=len(tensor.raw_data))
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    return made


BLOCKED = {
    "its weights are missing": (external, "gone.bin", "float N x 3 x 16 x 16"),
    "an unknown operator": (custom, "my.ops", "pictures, NCHW; explained"),
    "an old opset": (lambda: model(opset=5), "has opset 5", "float N x 3 x 16 x 16"),
    "no picture": (lambda: model([node("MatMul", "x m", "y")], image=["N", 6]), "has no image input", "float N x 6"),
    "no layer": (
        lambda: model([node("Flatten", "x", "f"), node("MatMul", "f k", "y")], weights={"k": np.ones((768, 4), "f")}),
        "has spatial axes", "pictures, NCHW; explained",
    ),
    "a list": (
        lambda: model([node("SequenceConstruct", "x", "y")], outputs=[
            helper.make_tensor_sequence_value_info("y", TensorProto.FLOAT, None)
        ]), "no output", "float N x 3 x 16 x 16",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BLOCKED)
def test_it_answers_where_no_export_works(name, tmp_path):
    make, why, words = BLOCKED[name]
    path = tmp_path / "m.onnx"
    path.write_bytes(make().SerializeToString())
    shown = CliRunner().invoke(app, ["inspect", str(path)])
    assert shown.exit_code == 0, shown.output
    lines = shown.stdout.splitlines()
    assert (
        lines[0].startswith("input   x: ")
        and words in lines[0]
        and any(line.startswith("output  y: ") for line in lines)
    )
    assert lines[-1] == "next: none; no export of this file works"
    assert next(line for line in lines if why in line).startswith("blocked: ")


def test_what_is_no_graph_and_names_that_are_none_are_refused():
    for source in (b"no model", onnx.ModelProto()):
        with pytest.raises(FastcamError, match=r"is not an ONNX model|no operator"):
            inspect_model(source)
    with pytest.raises(FastcamError, match="no output 'nosuch'"):
        inspect_model(model(), output_name="nosuch")
    with pytest.raises(FastcamError, match="no input 'nosuch'"):
        inspect_model(model(), input_name="nosuch")


def test_the_maps_in_front_of_each_head_of_a_detector_are_listed():
    """Those of the two coarser levels lie on the way to some outputs alone."""
    found = inspect_model(detector_files.yunet())
    marks = {layer.name: (layer.chosen, layer.in_all) for layer in found.layers if layer.chosen or layer.in_all}
    heads = {layer.name for layer in found.layers if "in front of the heads" in layer.note}
    assert len(heads) == 3 and heads <= set(marks) and sum(chosen for chosen, _ in marks.values()) == 1
    assert found.taken_for.startswith("a detector: cls_8, ")
