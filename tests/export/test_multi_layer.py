"""Several target layers in one file: PyTorch autograd is the oracle at each of them."""

from __future__ import annotations

import json

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import helper, numpy_helper

from fastcam import schema
from fastcam.schema import FastcamError, Metadata
from fastcam_export import export_model, inspect_model, multi_layer
from fastcam_export.outputs import cam
from fastcam_export.steps import check
from fastcam_export.verify.check import Judgement
from fastcam_export.verify.finite_differences import Agreement
from support.models.pyramid_model import LAYERS, autograd, model_of, pyramid

pytest.importorskip("torch")
CONVOLUTIONS = ("Conv", "ConvTranspose")


def run(model, **feeds):
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_outputs()]
    return dict(zip(names, session.run(names, feeds)))


IMAGE = np.random.default_rng(1).standard_normal((2, 3, 8, 8)).astype(np.float32)
TARGETS = np.array([[0, 3], [4, 1]])


@pytest.mark.parametrize("options", [{}, {"targets": "required", "for_engine": "tensorrt"}], ids=["ort", "tensorrt"])
@pytest.mark.parametrize("emit", schema.EMITS)
def test_each_layer_is_what_autograd_says(emit, options):
    model, tensors = pyramid()
    made = export_model(model, layer=["r3", "r1", "r2"], emit=emit, **options)
    assert [one.value for one in made.metadata.layers] == list(LAYERS) and made.metadata.layer.value == "r3"
    found = run(made.model, image=IMAGE, **{schema.TARGETS: TARGETS})
    assert [name for name in found if name.startswith(schema.PREFIX)] == list(made.metadata.emitted())
    activations, gradients = autograd(tensors, IMAGE, TARGETS)
    for number, name in ((None, "r3"), (1, "r1"), (2, "r2")):
        weights = gradients[name].mean((3, 4))
        cam = np.maximum(np.einsum("ntk,nkhw->nthw", weights, activations[name]), 0)
        expected = {
            "fastcam.activations": activations[name],
            "fastcam.weights": weights,
            "fastcam.gradients": gradients[name],
            "fastcam.cam": cam,
        }
        for contract in schema.OUTPUTS[emit][1:]:
            np.testing.assert_allclose(
                found[schema.of_layer(contract, number)], expected[contract], rtol=1e-4, atol=1e-6, err_msg=name
            )


def test_the_passes_to_all_layers_share_their_nodes():
    model, _ = pyramid()

    def convolutions(layer):
        made = export_model(model, layer=layer, emit="gradients", check=False).model
        return sum(node.op_type in CONVOLUTIONS for node in made.graph.node)

    assert convolutions(["r3", "r2", "r1"]) == convolutions("r1") > convolutions("r3")


def test_cotangents_and_two_files_have_the_same_layers():
    model, tensors = pyramid()
    made = export_model(model, layer=["r3", "r1"], emit="gradients", targets="cotangent", output_name="logits")
    cotangent = np.random.default_rng(2).standard_normal((2, 1, 5)).astype(np.float32)
    found = run(made.model, image=IMAGE, **{schema.COTANGENT: cotangent})
    _, gradients = autograd(tensors, IMAGE, np.tile(np.arange(5), (2, 1)))
    expected = np.einsum("nuc,nckhw->nukhw", cotangent, gradients["r1"])
    np.testing.assert_allclose(found["fastcam.gradients.1"], expected, rtol=1e-4, atol=1e-6)
    pair = export_model(model, layer=["r3", "r1"], emit="gradients", on_demand=True)
    forward = run(pair.model, image=IMAGE)
    taken = {value.name: (forward | {"image": IMAGE}).get(value.name) for value in pair.explanation.graph.input}
    later = run(pair.explanation, **(taken | {schema.TARGETS: TARGETS}))
    _, gradients = autograd(tensors, IMAGE, TARGETS)
    np.testing.assert_allclose(later["fastcam.gradients.1"], gradients["r1"], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(later["fastcam.gradients"], gradients["r3"], rtol=1e-4, atol=1e-6)


def test_layers_with_one_gradient_have_outputs_of_their_own():
    model, _ = pyramid()
    model.graph.node[7].input[0] = "again"
    model.graph.node.insert(7, helper.make_node("Dropout", ["r3"], ["again"]))
    found = run(export_model(model, layer=["again", "r3"]).model, image=IMAGE)
    np.testing.assert_array_equal(found["fastcam.weights"], found["fastcam.weights.1"])


def test_a_file_with_one_layer_says_nothing_of_several():
    model, _ = pyramid()
    made = export_model(model, layer=["auto"])
    plain = export_model(model)
    assert made.model.SerializeToString(deterministic=True) == plain.model.SerializeToString(deterministic=True)
    assert "layers" not in json.loads(plain.metadata.to_json())
    both = export_model(model, layer=["r1", "r2"], check=False).metadata
    assert Metadata.from_json(both.to_json()) == both and both.layer.value == "r1"
    assert both.at(2).layer.value == "r2" and both.at(2).emitted() == plain.metadata.emitted()


@pytest.mark.parametrize("size", [8, None], ids=["fixed", "free"])
def test_all_is_the_last_map_of_each_resolution(size):
    model, _ = pyramid(size)
    made = export_model(model, layer="all").metadata.layers
    assert [one.value for one in made] == list(LAYERS) and made[0].reason == multi_layer.LAST
    found = inspect_model(model)
    assert [one.name for one in found.layers if one.in_all] == list(LAYERS)
    assert [one.name for one in found.layers if one.chosen] == ["r3"]


def test_all_of_one_resolution_is_the_residual_stream():
    rng = np.random.default_rng(0)
    tensors = {f"w{i}": (rng.standard_normal((4, 4, 1, 1)) / 2).astype(np.float32) for i in range(1, 14)}
    tensors |= {"w0": np.ones((4, 3, 1, 1), np.float32), "fc": np.ones((4, 3), np.float32)}
    nodes, x = [helper.make_node("Conv", ["image", "w0"], ["x0"])], "x0"
    for i in range(1, 14):
        nodes += [helper.make_node("Conv", [x, f"w{i}"], [f"b{i}"]), helper.make_node("Add", [x, f"b{i}"], [f"x{i}"])]
        x = f"x{i}"
    nodes += [helper.make_node("GlobalAveragePool", [x], ["mean"]), helper.make_node("Flatten", ["mean"], ["flat"])]
    nodes.append(helper.make_node("MatMul", ["flat", "fc"], ["logits"]))
    layers = export_model(model_of(nodes, tensors, [1, 3, 4, 4], 3), layer="all", check=False).metadata.layers
    assert len(layers) == 6 and layers[-1].value != layers[-2].value
    assert all(one.value.startswith("x") for one in layers)
    assert {one.reason for one in layers[:-1]} == {multi_layer.ALONG}


def test_the_check_looks_at_each_layer(monkeypatch):
    model, _ = pyramid()
    genuine = cam.handed_back

    def wrong(op, cotangents, sums, layer, layout, level):
        name, gradient = genuine(op, cotangents, sums, layer, layout, level)
        return name, op.Mul(gradient, 1.5) if layer.name == "r1" else gradient

    monkeypatch.setattr(cam, "handed_back", wrong)
    with pytest.raises(FastcamError, match="the gradient at layer 'r1' differs from central differences"):
        export_model(model, layer=["r3", "r1"], emit="gradients")


def dead_regions():
    """A map of which most is zero, and behind it a convolution without bias and a ReLU: most lie on its kink."""
    model, _ = pyramid(size=12)
    model.graph.node[0].input.append("b1")
    model.graph.initializer.append(numpy_helper.from_array(np.full(4, -2.0, np.float32), "b1"))
    return model


def test_pooled_gradients_are_checked_where_a_common_step_meets_kinks(monkeypatch):
    assert export_model(dead_regions(), layer="r1").check["gradient_error"] < 1e-3
    monkeypatch.setattr(check, "judge_whole", lambda *args: Judgement(Agreement(1.0, 4)))
    with pytest.raises(FastcamError, match="differs from central differences"):
        export_model(dead_regions(), layer="r1")


def test_a_wrong_pooled_gradient_is_refused_there_too(monkeypatch):
    genuine = cam.handed_back

    def wrong(op, cotangents, sums, layer, layout, level):
        name, gradient = genuine(op, cotangents, sums, layer, layout, level)
        return name, op.Mul(gradient, 1.05) if level == "weights" else gradient

    monkeypatch.setattr(cam, "handed_back", wrong)
    with pytest.raises(FastcamError, match="differs from central differences"):
        export_model(dead_regions(), layer="r1")


@pytest.mark.parametrize(
    ("layer", "said"),
    [
        ([], "no layer is named"),
        (["all", "r1"], "give it alone"),
        (["r1", "one/relu"], "named twice"),
        (["r3", "nothing"], "no value, node or scope is named 'nothing'"),
        (["r3", "logits"], "logits"),
        (["r3", "flat"], "not \\[N, K, h, w\\]"),
    ],
)
def test_layers_that_do_not_go_together_are_refused(layer, said):
    with pytest.raises(FastcamError, match=said):
        export_model(pyramid()[0], layer=layer)


def test_all_leaves_out_what_only_moves_a_map():
    model, _ = pyramid()
    model.graph.node.insert(5, helper.make_node("Identity", ["r2"], ["moved"]))
    model.graph.node[6].input[0] = "moved"
    assert [one.value for one in export_model(model, layer="all").metadata.layers] == list(LAYERS)


def test_the_models_own_outputs_stay():
    model, _ = pyramid()
    made = export_model(model, layer="all").model
    onnx.checker.check_model(made)
    np.testing.assert_array_equal(run(made, image=IMAGE)["logits"], run(model, image=IMAGE)["logits"])
