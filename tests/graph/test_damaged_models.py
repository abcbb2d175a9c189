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


def grown(side=2**20):
    grow = [node("ConstantOfShape", "sizes", "b"), node("ReduceMax", "b", "r", keepdims=0), node("Add", "y r", "z")]
    sizes = np.array([side, side, 9])
    return model([*BODY, *HEAD, *grow], outputs=[value("z", ["N", 4])], weights={"sizes": sizes})


def tiled():
    grow = [node("Tile", "y sizes", "b"), node("ReduceMax", "b", "r", keepdims=0), node("Add", "y r", "z")]
    return model([*BODY, *HEAD, *grow], outputs=[value("z", ["N", 4])], weights={"sizes": np.array([2**63 - 1, 3])})


def broadcast():
    return model([*BODY, *HEAD, node("Add", "y six", "z")], outputs=[value("z", ["N", 4])], weights={"six": MATRIX})


def calling(*called):
    """F calls the first of the names twice, that one the next."""
    made = model([*BODY, *HEAD, helper.make_node("F", ["y"], ["z"], domain="own")], outputs=[value("z", ["N", 4])])
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("own", 1)]
    made.opset_import.append(opsets[1])
    for name, other in zip(["F", *called], [*called, "Relu"]):
        domain = "" if other == "Relu" else "own"
        nodes = [helper.make_node(other, [a], [b], domain=domain) for a, b in ("ab", "bc")]
        if name not in [one.name for one in made.functions]:
            made.functions.append(helper.make_function("own", name, ["a"], ["c"], nodes, opsets))
    return made


def versions(version, domain="ж"):
    made = model()
    made.opset_import.append(helper.make_opsetid(domain, version))
    return made


def twice(name):
    made = model()
    made.graph.initializer.extend([one for one in made.graph.initializer if one.name == name])
    return made


def sparse():
    made = model()
    dense = next(one for one in made.graph.initializer if one.name == "m")
    held = made.graph.sparse_initializer.add(dims=dense.dims)
    held.values.CopyFrom(numpy_helper.from_array(np.ones(2, np.float32), "m"))
    held.indices.CopyFrom(numpy_helper.from_array(np.array([0, 5])))
    made.graph.initializer.remove(dense)
    return made


def branch():
    def body(x):
        return helper.make_graph([node("Identity", x, f"of_{x}")], "b", [], [value(f"of_{x}", ["N", 4])])

    choose = node("If", "yes", "z", then_branch=body("gf"), else_branch=body("y"))
    return model([*BODY, *HEAD, choose], outputs=[value("z", ["N", 4])], weights={"yes": np.array(True)})


def loop():
    inputs = [value("i", [], TensorProto.INT64), value("e", [], TensorProto.BOOL), value("u", ["N", 4])]
    body = helper.make_graph(
        [node("Identity", "e", "o"), node("Add", "u u", "v")], "b", inputs,
        [value("o", [], TensorProto.BOOL), value("v", ["N", 4])],
    )  # fmt: skip
    weights = {"three": np.array(3), "yes": np.array(True)}
    return model(
        [*BODY, node("Loop", "three yes feat", "z", body=body)], outputs=[value("z", ["N", 4])], weights=weights
    )


DAMAGED = {
    "names that are no text": (no_text, "is damaged: names in it are no text"),
    "no height": (lambda: model(image=["N", 3, 0, 16]), "input 'x' [N, 3, 0, 16] has a size of 0"),
    "no images": (lambda: model(image=[0, 3, 16, 16]), "input 'x' [0, 3, 16, 16] has a size of 0"),
    "no classes": (
        lambda: model(weights={"m": MATRIX[:, :0]}, outputs=[value("y", ["N", 0])]), "y (N x 0: of unknown meaning)"
    ),
    "a picture of any size": (
        lambda: model(image=["N", 3, 10**7, 10**7]), "'x' [N, 3, 10000000, 10000000] of the model would take 1.07 PiB"
    ),
    "a value of any size": (grown, "'b' [1048576, 1048576, 9] of the model would take 36 TiB of memory, and there are"),
    "sizes beyond any unit": (lambda: grown(2**62), "of sizes [4611686018427387904, 4611686018427387904, 9], more"),
    "sizes beyond any number": (tiled, "more than can be read"),
    "a loop whose body says another shape": (
        loop, "the file says that 'z' is [2, 4], and a run gives [2, 6, 16, 16]: correct that first (the rule of Add"
    ),
    "a batch that is no batch": (broadcast, "output 'z' has 6 rows for 1 images: correct that first"),
    "a function that calls itself": (lambda: calling("F"), "has a function that calls itself (F)"),
    "functions that call each other": (lambda: calling("G", "F"), "has a function that calls itself (G)"),
    "functions that double": (
        lambda: calling(*(f"F{i}" for i in range(1, 40))), "has 2.2e+12 nodes when its functions are written out"
    ),
    "versions beyond any number": (lambda: versions(2**32), "of impossible versions (ai.onnx 18, ж 4294967296)"),
    "pads beyond any picture": (
        lambda: model([node("Conv", "x w", "c", pads=[2**62, 1, 1, 1]), BODY[1], *HEAD], image=["N", 3, "h", "w"]),
        "has Conv '' with pads [4611686018427387904, 1, 1, 1], which no picture has"
    ),
    "more random numbers than there are bytes": (
        lambda: model([*BODY, helper.make_node("RandomNormal", [], ["r"], shape=[2**62]), *HEAD]),
        "has RandomNormal '' with shape [4611686018427387904], which no picture has"
    ),
    "a value made twice": (
        lambda: model([HEAD[0], *BODY, BODY[1], *HEAD[1:]]), "it is no valid graph (Output 'feat' is redeclared"
    ),
    "two versions of one domain": (lambda: versions(7, ""), "several opsets of one domain (ai.onnx 7, ai.onnx 18)"),
    "two weights of one name": (lambda: twice("w"), "has several weights of one name (w)"),
    "sparse weights": (sparse, "has weights in sparse form (m), which cannot be read; make them dense first"),
    "a branch that gives more than it says": (
        branch, "the file says that 'z' is [2, 4], and a run gives [2, 6]: correct that first (the check could not run"
    ),
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
    assert signed_codes.read_by_added_nodes(made) == frozenset() and made.graph.output[-1].name == "z"


def test_names_for_an_error():
    assert listed("abc") == "a, b, c" and listed([]) == ""
    assert re.fullmatch(r"0, 1, .*, 9, and 290 more", listed(range(300)))


def test_a_note_on_an_input_says_nothing():
    made = model()
    made.graph.value_info.append(value("x", [65536, 7, 2**31], TensorProto.STRING))
    assert export_model(made).metadata.input_shape == ("N", 3, 16, 16)


def test_an_element_of_a_list_keeps_its_name_as_an_output():
    ends = [node("SequenceConstruct", "y y", "q"), node("SequenceAt", "q one", "z")]
    made = model([*BODY, *HEAD, *ends], outputs=[value("z", ["N", 4])], weights={"one": np.array(1)})
    export = export_model(made)
    assert export.metadata.score.output == "z" and export.check["bit_identical"]


DIGITS = "9" * 5000
HUGE = {
    "frames": (
        ["--frames", "20000x20000", "--preprocess", "unit"],
        "frames of 20000 x 20000 would take about 14.9 GiB",
    ),
    "size": (["--size", "9999999x9999999"], "'x' [2, 3, 9999999, 9999999], would take 6.39 PiB of memory"),
    "digits of frames": (["--frames", f"{DIGITS}x3"], "give any, or height and width"),
    "digits of a size": (["--size", f"{DIGITS}x3"], "give sides like 48x320"),
    "digits of a grid": (["--grid", f"{DIGITS}x3"], "give rows and columns, like 14x14"),
    "digits of a mean": (["--mean", DIGITS], "give a finite number"),
}


@pytest.mark.parametrize("name", HUGE)
def test_numbers_without_measure_are_refused(name, tmp_path):
    how, words = HUGE[name]
    path, out = tmp_path / "m.onnx", tmp_path / "out.onnx"
    sides = [16, 16] if "frames" in name else ["h", "w"]
    onnx.save(model(image=["N", 3, *sides]), path)
    result = CliRunner().invoke(app, ["export", str(path), "-o", str(out), *how])
    said = result.output.strip()
    assert result.exit_code == 2 and not out.exists() and words in said and "\n" not in said and len(said) < 500


def test_a_message_is_one_line_whatever_name_is_in_it():
    said = str(FastcamError(f"a\nb \u202e\ud800 {'n' * 9000} {'m ' * 9000}, give another"))
    assert said.startswith(r"a\nb \u202e\ud800 nnn") and said.endswith("m , give another") and len(said) < 1300
    assert str(FastcamError("plain: ж × 'x'; do this")) == "plain: ж × 'x'; do this"


FILLED = {
    "NaN": (nan(np.zeros((4, 1, 1))), True),
    "an infinity": (np.where(np.arange(4) == 1, np.inf, 1.0), True),
    "minus infinity among numbers": (np.where(np.arange(4) == 1, -np.inf, 1.0), True),
    "a mask": (np.where(np.arange(4) == 1, -np.inf, 0.0), False),
    "a bound": (np.array(np.inf), False),
    "numbers": (np.ones(4), False),
}


@pytest.mark.parametrize("kind", FILLED)
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_weights_that_are_no_numbers_are_told_where_the_outputs_are(kind, dtype, tmp_path):
    array, told = FILLED[kind]
    beside = [node("Add", "k k", "twice")]
    made = model([*BODY, *HEAD, *beside], weights={"k": array.astype(dtype)}, outputs=[value("y", ["N", 4])])
    onnx.save(made, tmp_path / "m.onnx")
    for verb in ("inspect", "export"):
        result = CliRunner().invoke(app, [verb, str(tmp_path / "m.onnx")])
        assert result.exit_code == 0
        assert ("warning: weights with NaN or infinity: k" in result.output) is told


@pytest.mark.parametrize("kind", ["ConstantOfShape", "Expand", "Tile", "Range"])
def test_a_row_whose_elements_onnx_would_list_is_refused(kind):
    """ONNX's inference takes 80 bytes for each element of a row that is added to something."""
    operands = {"ConstantOfShape": "row", "Expand": "y row", "Tile": "y row", "Range": "zero many one"}[kind]
    many = np.array(2**24 + 1)
    numbers = {"row": many[None], "zero": np.array(0), "many": many, "one": np.array(1)}
    made = model(
        [
            *BODY,
            *HEAD,
            node(kind, operands, "b"),
            node("Cast", "b", "f", to=TensorProto.FLOAT),
            node("Add", "y f", "z"),
        ],
        outputs=[value("z", None)],
        weights=numbers,
    )
    with pytest.raises(FastcamError, match=rf"{kind} .* of sizes \[16777217\], more than can be read"):
        export_model(made)


def test_a_transpose_of_another_number_of_axes_is_a_line():
    turned = node("Transpose", "feat", "z", perm=[0, 2, 1])
    with pytest.raises(FastcamError, match=r"with perm \[0, 2, 1\], and its input has 4 axes"):
        export_model(model([*BODY, turned], outputs=[value("z", None)]))
