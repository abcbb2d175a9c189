"""The check that ends an export: what it confirms, what it refuses, and what it says it could not confirm.

Oracles are closed forms, PyTorch in float64, and gradients that are wrong by a known share.
"""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from typer.testing import CliRunner

import fastcam
from fastcam.cli import app
from fastcam.schema import FastcamError, Metadata
from fastcam_export import export_model
from fastcam_export.graph.load import load
from fastcam_export.verify import pictures
from fastcam_export.verify.double.float64 import in_double
from fastcam_export.verify.session import quiet_session
from fastcam_export.verify.tail import tail
from support.models.checked_network import CLASSES, NODE, SIDE, VALUE, K, network, wrong_gradients


def run(model, feeds, names=None):
    session = quiet_session(model)
    names = names or [value.name for value in session.get_outputs()]
    return dict(zip(names, session.run(names, feeds)))


@pytest.fixture
def wrong(monkeypatch):
    return wrong_gradients(monkeypatch)


# ---- what jumps behind the layer

HALF = {"half": np.float32(0.5), "many": np.float32(8)}
JUMPS = {
    "mask": [
        NODE("Greater", ["feat", "half"], ["m"]),
        NODE("Cast", ["m"], ["b"], to=1),
        NODE("Mul", ["feat", "b"], ["cut"]),
    ],
    "where": [NODE("Less", ["feat", "half"], ["m"]), NODE("Where", ["m", "half", "feat"], ["cut"])],
    "round": [NODE("Mul", ["feat", "many"], ["a"]), NODE("Round", ["a"], ["r"]), NODE("Mul", ["feat", "r"], ["cut"])],
    "floor": [NODE("Mul", ["feat", "many"], ["a"]), NODE("Floor", ["a"], ["r"]), NODE("Add", ["feat", "r"], ["cut"])],
    "best channel": [
        NODE("ArgMax", ["feat"], ["i"], axis=1, keepdims=1),
        NODE("GatherElements", ["feat", "i"], ["g"], axis=1),
        NODE("Mul", ["feat", "g"], ["cut"]),
    ],
    "branch": [NODE("ReduceMean", ["feat"], ["q"], keepdims=0), NODE("Greater", ["q", "half"], ["m"])],
}


def branch(name, factor):
    value = NODE("Constant", [], [f"{name}.k"], value=numpy_helper.from_array(np.float32(factor)))
    nodes = [value, NODE("Mul", ["feat", f"{name}.k"], [f"{name}.y"])]
    return helper.make_graph(nodes, name, [], [VALUE(f"{name}.y", TensorProto.FLOAT, ["N", K, SIDE, SIDE])])


JUMPS["branch"].append(NODE("If", ["m"], ["cut"], then_branch=branch("a", 2), else_branch=branch("b", 3)))


@pytest.mark.parametrize("kind", JUMPS)
def test_a_score_that_jumps_is_confirmed_between_its_jumps_and_a_gradient_wrong_by_a_thousandth_is_seen(kind, wrong):
    model = network(JUMPS[kind], HALF)
    found = export_model(model, layer="feat", emit="gradients").check
    assert found["gradient_error"] < 1e-4 and "unconfirmed" not in found
    wrong(1e-3)
    with pytest.raises(FastcamError, match="differs from central differences"):
        export_model(model, layer="feat", emit="gradients")


def test_a_mask_is_differentiated_as_it_is():
    """y = v mean(feat where feat > 1/2): its gradient is v / area there, by hand."""
    model = network(JUMPS["mask"], HALF)
    image = np.random.default_rng(1).standard_normal((2, 3, SIDE, SIDE)).astype(np.float32)
    found = run(export_model(model, layer="feat", emit="gradients").model, {"image": image})
    v = numpy_helper.to_array(model.graph.initializer[1])[:, found["fastcam.classes"][:, 0]].T
    expected = v[:, :, None, None] / SIDE**2 * (found["fastcam.activations"] > 0.5)
    np.testing.assert_allclose(found["fastcam.gradients"][:, 0], expected, atol=1e-7)


# ---- recurrent operators

RECURRENT = {
    "LSTM": {},
    "LSTM both ways": {"direction": "bidirectional"},
    "LSTM with peepholes": {"peepholes": True, "clip": 1.5},
    "LSTM backwards, of several lengths": {"direction": "reverse", "lengths": [3, 5]},
    "LSTM coupled": {
        "input_forget": 1,
        "activations": ["HardSigmoid", "Softsign", "Elu"],
        "activation_alpha": [0.3, 0.7],
    },
    "GRU": {},
    "GRU as PyTorch's": {"linear_before_reset": 1, "direction": "bidirectional", "lengths": [5, 2]},
    "RNN": {"activations": ["Relu"]},
    "RNN affine": {"activations": ["Affine"], "activation_alpha": [0.5], "activation_beta": [0.1]},
}


def recurrent(kind, given):
    """One node on x [5, 2, 3] with all of its inputs."""
    rng, op = np.random.default_rng(2), kind.split()[0]
    gates = {"LSTM": 4, "GRU": 3, "RNN": 1}[op] * 4
    ways = 2 if given.get("direction") == "bidirectional" else 1
    arrays = {
        "w": rng.standard_normal((ways, gates, 3)),
        "r": rng.standard_normal((ways, gates, 4)) / 2,
        "b": rng.standard_normal((ways, 2 * gates)) / 2,
        "h0": rng.standard_normal((ways, 2, 4)),
        "c0": rng.standard_normal((ways, 2, 4)),
        "p": rng.standard_normal((ways, 12)),
    }
    tensors = {name: array.astype(np.float32) for name, array in arrays.items()}
    names = ["x", "w", "r", "b", "n" if "lengths" in given else "", "h0"]
    if op == "LSTM":
        names += ["c0"] + (["p"] if given.get("peepholes") else [])
    tensors["n"] = np.array(given.get("lengths", [5, 5]), np.int32)
    attributes = {name: value for name, value in given.items() if name not in ("lengths", "peepholes")}
    outputs = ["all", "last"] + (["cell"] if op == "LSTM" else [])
    graph = helper.make_graph(
        [NODE(op, names, outputs, hidden_size=4, **attributes)],
        "one",
        [VALUE("x", TensorProto.FLOAT, [5, 2, 3])],
        [VALUE(name, TensorProto.FLOAT, None) for name in outputs],
        [numpy_helper.from_array(array, name) for name, array in tensors.items() if name in names],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


@pytest.mark.parametrize("kind", RECURRENT)
def test_recurrent_operators_in_float64_are_the_runtimes(kind):
    model = recurrent(kind, RECURRENT[kind])
    x = np.random.default_rng(3).standard_normal((5, 2, 3))
    double, single = run(in_double(model), {"x": x}), run(model, {"x": x.astype(np.float32)})
    for name, array in single.items():
        assert double[name].dtype == np.float64
        np.testing.assert_allclose(double[name], array, atol=2e-6, err_msg=name)


def columns(op, gates, steps):
    """A recurrent network over the columns of "feat"."""
    rng = np.random.default_rng(4)
    tensors = {
        "rows": np.array([steps, -1, K * SIDE]),
        "W": (rng.standard_normal((1, 5 * gates, K * SIDE)) / 4).astype(np.float32),
        "R": (rng.standard_normal((1, 5 * gates, 5)) / 2).astype(np.float32),
        "first": np.array([0]),
        "o": rng.standard_normal((5, CLASSES)).astype(np.float32),
    }
    nodes = [
        NODE("Transpose", ["feat"], ["t"], perm=[3, 0, 1, 2]),
        NODE("Reshape", ["t", "rows"], ["s"]),
        NODE(op, ["s", "W", "R"], ["", "last"], hidden_size=5),
        NODE("Squeeze", ["last", "first"], ["h"]),
        NODE("MatMul", ["h", "o"], ["y"]),
    ]
    return nodes, tensors


@pytest.mark.parametrize(("op", "gates"), [("LSTM", 4), ("GRU", 3), ("RNN", 1)])
def test_a_recurrent_head_is_checked_in_float64(op, gates, wrong):
    nodes, tensors = columns(op, gates, SIDE)
    model = network(nodes, tensors, end="")
    assert export_model(model, layer="feat").check["gradient_error"] < 1e-4
    wrong(1e-3)
    with pytest.raises(FastcamError, match="differs from central differences"):
        export_model(model, layer="feat")


# ---- Resize

RESIZES = {
    "linear": ({"mode": "linear"}, [1, 1, 2, 1.5], None),
    "corners": ({"mode": "linear", "coordinate_transformation_mode": "align_corners"}, None, [2, 3, 7, 9]),
    "cubic": ({"mode": "cubic", "cubic_coeff_a": -0.75}, [1, 1, 1, 3], None),
    "nearest": ({"mode": "nearest"}, None, [2, 3, 3, 11]),
    "smaller": ({"mode": "linear", "antialias": 1}, None, [2, 3, 2, 3]),
}


@pytest.mark.parametrize("kind", RESIZES)
def test_a_resize_in_float64_is_the_runtimes(kind):
    attributes, scales, sizes = RESIZES[kind]
    tensors = {"s": np.array(scales, np.float32)} if scales else {"z": np.array(sizes)}
    node = NODE("Resize", ["x", "", "s"] if scales else ["x", "", "", "z"], ["y"], **attributes)
    constants = [numpy_helper.from_array(array, name) for name, array in tensors.items()]
    x, y = VALUE("x", TensorProto.FLOAT, [2, 3, 4, 5]), VALUE("y", TensorProto.FLOAT, None)
    model = helper.make_model(
        helper.make_graph([node], "one", [x], [y], constants), opset_imports=[helper.make_opsetid("", 18)], ir_version=8
    )
    array = np.random.default_rng(0).standard_normal((2, 3, 4, 5))
    double, single = run(in_double(model), {"x": array}), run(model, {"x": array.astype(np.float32)})
    assert double["y"].dtype == np.float64
    np.testing.assert_allclose(double["y"], single["y"], atol=2e-6)


# ---- random numbers


def test_random_numbers_are_held_and_said():
    """Dropout as frameworks write it by hand: the mask is drawn anew at each run."""
    nodes = [
        NODE("RandomUniformLike", ["feat"], ["u"]),
        NODE("Greater", ["u", "half"], ["m"]),
        NODE("Cast", ["m"], ["b"], to=1),
        NODE("RandomNormalLike", ["feat"], ["noise"]),
        NODE("Add", ["feat", "noise"], ["n"]),
        NODE("Mul", ["n", "b"], ["cut"]),
    ]
    exported = export_model(network(nodes, HALF), layer="feat", on_demand=True)
    assert exported.check["bit_identical"] and exported.check["gradient_error"] < 1e-4
    assert any("draws random numbers (RandomNormalLike, RandomUniformLike)" in line for line in exported.summary())


# ---- detectors that find nothing


def detector(threshold):
    """Boxes of the cells of "feat" whose score is above a threshold, by NonMaxSuppression; [K, 4] and [K]."""
    rng = np.random.default_rng(5)
    tensors = {
        "wb": rng.standard_normal((4, K, 1, 1)).astype(np.float32),
        "ws": np.ones((1, K, 1, 1), np.float32),
        "r4": np.array([1, 4, -1]),
        "r1": np.array([1, 1, -1]),
        "most": np.array([5]),
        "iou": np.array([0.5], np.float32),
        "least": np.array([threshold], np.float32),
        "two": np.array(2),
        "axis": np.array([0]),
        "flat": np.array([-1]),
    }
    nodes = [
        NODE("Conv", ["feat", "wb"], ["b"]),
        NODE("Reshape", ["b", "r4"], ["b1"]),
        NODE("Transpose", ["b1"], ["every"], perm=[0, 2, 1]),
        NODE("Conv", ["feat", "ws"], ["k"]),
        NODE("Reshape", ["k", "r1"], ["ks"]),
        NODE("NonMaxSuppression", ["every", "ks", "most", "iou", "least"], ["picked"]),
        NODE("Gather", ["picked", "two"], ["at"], axis=1),
        NODE("Squeeze", ["every", "axis"], ["rows"]),
        NODE("Gather", ["rows", "at"], ["boxes"], axis=0),
        NODE("Reshape", ["ks", "flat"], ["line"]),
        NODE("Gather", ["line", "at"], ["scores"], axis=0),
    ]
    outputs = (("boxes", ["K", 4]), ("scores", ["K"]))
    return network(nodes, tensors, outputs, image=(1, 3, SIDE, SIDE), end="")


def test_a_detector_that_finds_nothing_in_noise_is_checked_on_another_picture():
    model = detector(20.0)
    noise = pictures.picture(0, np.random.default_rng(0), (1, 3, SIDE, SIDE), "NCHW", np.dtype(np.float32))
    assert run(model, {"image": noise})["scores"].size == 0
    found = export_model(model, targets="cotangent", output_name=["boxes", "scores"], layer="feat").check
    assert found["gradient_error"] < 1e-4 and "unconfirmed" not in found


def test_a_detector_that_finds_nothing_at_all_is_exported_and_says_so(tmp_path):
    model, how = detector(1e6), {"targets": "cotangent", "output_name": ["boxes", "scores"], "layer": "feat"}
    exported = export_model(model, tmp_path / "x.cam.onnx", **how)
    text = "\n".join(exported.summary())
    assert "gradient not confirmed:" in text and "boxes and scores empty on every picture" in text
    kept = Metadata.from_json(onnx.load(tmp_path / "x.cam.onnx").metadata_props[0].value).check
    assert kept["unconfirmed"] == exported.check["unconfirmed"] and kept["gradient_error"] is None
    with pytest.raises(FastcamError, match="cannot confirm the gradient: boxes and scores"):
        export_model(model, tmp_path / "y.cam.onnx", check="strict", **how)
    assert not (tmp_path / "y.cam.onnx").exists()


# ---- sizes


def test_a_file_whose_free_sizes_must_be_multiples_is_run_on_one_that_fits():
    """Two halves are put together again, which takes an even number of 48 rows: neither 224 nor the next sizes."""
    tensors = {"rows": np.array([0, K, 48, 2, -1]), "back": np.array([0, K, 96, -1])}
    nodes = [NODE("Reshape", ["feat", "rows"], ["a"]), NODE("Reshape", ["a", "back"], ["cut"])]
    found = export_model(network(nodes, tensors, image=("N", 3, "H", "W")), layer="feat").check
    assert found["bit_identical"] and found["gradient_error"] < 3e-4  # a sum of 50,000 numbers in float32


def test_a_file_that_runs_on_no_size_is_not_called_broken():
    tensors = {"rows": np.array([0, K, 1031, -1]), "back": np.array([0, K, 1031, -1])}
    nodes = [NODE("Reshape", ["feat", "rows"], ["a"]), NODE("Reshape", ["a", "back"], ["cut"])]
    with pytest.raises(FastcamError, match=r"nor on .* other sizes .*--no-check") as error:
        export_model(network(nodes, tensors, image=("N", 3, "H", "W")), layer="feat")
    assert "repair" not in str(error.value)


def test_a_branch_that_depends_on_the_whole_batch_is_checked_on_the_images_that_ran():
    """Of further layers one image is compared, in a run of its own: alone it may take the other branch."""
    nodes = [
        NODE("Shape", ["feat"], ["n"], start=0, end=1),
        NODE("Squeeze", ["n"], ["count"]),
        NODE("Greater", ["count", "one"], ["m"]),
        NODE("If", ["m"], ["both"], then_branch=branch("a", 2), else_branch=branch("b", 3)),
        NODE("Relu", ["both"], ["cut"]),
    ]
    found = export_model(network(nodes, {"one": np.array(1)}), layer=["cut", "feat"], emit="gradients").check
    assert found["gradient_error"] < 1e-4


# ---- the command line


def test_the_check_is_left_out_or_strict_on_the_command_line(tmp_path):
    onnx.save(network([], end="feat"), tmp_path / "plain.onnx")
    command = CliRunner().invoke(app, ["export", str(tmp_path / "plain.onnx"), "--no-check"])
    assert command.exit_code == 0 and "check " not in command.output
    assert fastcam.Explainer(tmp_path / "plain.cam.onnx", "cpu").metadata.check == {}
    onnx.save(detector(1e6), tmp_path / "none.onnx")
    options = ["--targets", "cotangent", "--output-name", "boxes", "--output-name", "scores", "--layer", "feat"]
    command = CliRunner().invoke(app, ["export", str(tmp_path / "none.onnx"), *options, "--check", "strict"])
    assert command.exit_code == 2 and "cannot confirm the gradient" in command.output
    assert not (tmp_path / "none.cam.onnx").exists()
    with pytest.raises(FastcamError, match="check is 'x'; it must be one of: strict"):
        export_model(network([], end="feat"), check="x")


def test_what_leads_around_the_layer_is_held_and_not_run_again():
    model = network(
        [NODE("Sigmoid", ["c"], ["around"]), NODE("Tanh", ["feat"], ["t"]), NODE("Add", ["t", "around"], ["cut"])]
    )
    graph = load(model).model
    values = {value.name: value for node in graph.graph for value in node.outputs}
    part = tail(graph, values["feat"], values["y"])
    assert [node.op_type for node in part.graph.node] == ["Tanh", "Add", "GlobalAveragePool", "Flatten", "MatMul"]
    assert "fastcam_check.stopped.around" in {value.name for value in part.graph.input}
    exported = export_model(model, layer="feat", emit="gradients")
    assert exported.check["gradient_error"] < 1e-6


@pytest.mark.parametrize(("share", "confirmed"), [(1e-9, True), (1e-25, False)])
def test_a_score_that_hardly_moves_is_told_by_wide_steps_or_said_not_to_be_confirmed(share, confirmed):
    nodes = [NODE("Mul", ["feat", "share"], ["less"]), NODE("Add", ["less", "much"], ["cut"])]
    model = network(nodes, {"share": np.float32(share), "much": np.float32(50)})
    check = export_model(model, layer="feat", emit="gradients").check
    if confirmed:
        assert check["gradient_error"] < 1e-3 and "unconfirmed" not in check
    else:
        assert check["gradient_error"] is None and "rounding hides it" in check["unconfirmed"]
