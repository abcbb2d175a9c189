"""Exports in two files: the pair says what the one file says, and holds each constant once."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from fastcam import FastcamError, schema
from fastcam.schema import EMITS, OUTPUTS
from fastcam_export import export_model
from fastcam_export.artifacts import on_demand
from support.models.small_models import classifier, save
from support.models.split_models import MODELS, floats, made, pictures, residual, run, run_pair


@pytest.mark.parametrize("emit", EMITS)
@pytest.mark.parametrize("name", MODELS)
def test_the_pair_gives_what_the_one_file_gives(name, emit):
    make, layer = MODELS[name]
    model = make(batch="N")
    whole = export_model(model, layer=layer, emit=emit, check=False).model
    made = export_model(model, layer=layer, emit=emit, on_demand=True)
    assert made.check["bit_identical"] and made.check["pair_difference"] <= 1e-6
    images = pictures(model, 3)
    for targets in ([[-1]], [[-1, 0, 2]], [[1, -2], [0, 1], [-3, 2]]):
        feeds = {model.graph.input[0].name: images, schema.TARGETS: np.array(targets)}
        expected, (found, first) = run(whole, feeds), run_pair(made.model, made.explanation, feeds)
        own = model.graph.output[0].name
        assert first[own].tobytes() == run(model, feeds)[own].tobytes()
        assert set(found) == set(OUTPUTS[emit])
        for output, value in found.items():
            np.testing.assert_allclose(value, expected[output], rtol=0, atol=1e-6 * np.abs(expected[output]).max())


@pytest.mark.parametrize("name", MODELS)
def test_the_forward_part_is_the_source_with_more_outputs(name):
    make, layer = MODELS[name]
    made = export_model(make(), layer=layer, on_demand=True, check=False)
    source = export_model(make(), layer=layer, check=False).model.graph
    own = [node for node in source.node if not node.name.startswith(schema.PREFIX)]
    ours = [node for node in made.model.graph.node if not node.name.startswith(schema.PREFIX)]
    assert ours == own
    assert {node.op_type for node in made.model.graph.node if node not in ours} <= {"Shape", "Size"}
    assert [value.name for value in made.model.graph.input] == ["image" if name != "bundled" else own[0].input[0]]
    onnx.checker.check_model(made.model, full_check=True)
    onnx.checker.check_model(made.explanation, full_check=True)


def test_files_hold_each_large_constant_once_and_belong_together(tmp_path):
    source = save(residual(), tmp_path / "net.onnx")
    made = export_model(source, tmp_path / "net.cam.onnx", layer="r1", on_demand=True)
    data, explanation, forward = made.files
    assert (forward.name, explanation.name) == ("net.cam.onnx", "net.cam.explain.onnx") and data.suffix == ".data"
    assert sorted(tmp_path.iterdir()) == sorted([source, *made.files])
    assert data.stat().st_size >= 4 * (5 * 32 * 16 * 4 + 2 * 32 * 32 * 3 * 3)  # fc, w2 and w3
    assert explanation.stat().st_size < 20_000
    sizes = sum(file.stat().st_size for file in made.files)
    assert sizes - source.stat().st_size < 20_000
    feeds = {"image": pictures(residual(), 2)}
    found, first = run_pair(forward, explanation, feeds)
    expected = run(export_model(source, layer="r1", check=False).model, feeds)
    for name, value in {**found, "logits": first["logits"]}.items():
        np.testing.assert_allclose(value, expected[name], atol=1e-6)


def test_constants_are_neither_carried_nor_lost():
    """A matrix behind an Identity and a Transpose, as exporters write shared weights."""
    rng = np.random.default_rng(4)
    matrix = floats(rng, 5, 6)
    nodes = [
        helper.make_node("Identity", ["w"], ["again"]),
        helper.make_node("Conv", ["image", "again"], ["c"]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("GlobalAveragePool", ["r"], ["mean"]),
        helper.make_node("Flatten", ["mean"], ["flat"]),
        helper.make_node("Identity", ["matrix"], ["same"]),
        helper.make_node("Transpose", ["same"], ["fc"]),
        helper.make_node("MatMul", ["flat", "fc"], ["logits"]),
    ]
    model = made(nodes, {"w": floats(rng, 6, 3, 3, 3), "matrix": matrix}, "N", 3, 8)
    pair = export_model(model, on_demand=True)
    extra = [value.name for value in pair.model.graph.output][1:]
    assert "r" in extra and not {"same", "fc"} & set(extra)
    feeds = {"image": pictures(model, 2), schema.TARGETS: np.array([[3]])}
    found, _ = run_pair(pair.model, pair.explanation, feeds)
    np.testing.assert_allclose(found[schema.WEIGHTS], np.broadcast_to(matrix[3] / 36, (2, 1, 6)), rtol=1e-5)


def test_bodies_read_values_and_constants_of_the_other_part():
    """The gradient of an If is an If whose branches read from outside what the model's branches read."""
    rng = np.random.default_rng(5)
    branch = {
        name: helper.make_graph(
            [helper.make_node(op, ["r", other], [f"{name}_out"])],
            name,
            [],
            [helper.make_tensor_value_info(f"{name}_out", TensorProto.FLOAT, ["N", 4, 8, 8])],
        )
        for name, op, other in (("then", "Mul", "gain"), ("else", "Mul", "c"))
    }
    nodes = [
        helper.make_node("Conv", ["image", "w"], ["c"], pads=[1] * 4),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("ReduceSum", ["image"], ["sum"], keepdims=0),
        helper.make_node("Greater", ["sum", "zero"], ["bright"]),
        helper.make_node("If", ["bright"], ["y"], then_branch=branch["then"], else_branch=branch["else"]),
        helper.make_node("GlobalAveragePool", ["y"], ["mean"]),
        helper.make_node("Flatten", ["mean"], ["flat"]),
        helper.make_node("MatMul", ["flat", "fc"], ["logits"]),
    ]
    weights = {"w": floats(rng, 4, 3, 3, 3), "gain": floats(rng, 4, 8, 8), "fc": floats(rng, 4, 5)}
    model = made(nodes, weights | {"zero": np.float32(0)}, "N", 3, 8)
    whole = export_model(model, layer="r", emit="gradients", check=False).model
    pair = export_model(model, layer="r", emit="gradients", on_demand=True)
    for sign in (1, -1):
        feeds = {"image": sign * np.abs(pictures(model, 2))}
        found, _ = run_pair(pair.model, pair.explanation, feeds)
        np.testing.assert_allclose(found[schema.GRADIENTS], run(whole, feeds)[schema.GRADIENTS], rtol=1e-6)


@pytest.mark.parametrize("name", ["squeezenet1.1_fp16.onnx", "mobilenet_v1_0.25_128_quant.qdq.onnx"])
def test_real_half_and_quantised_files(assets, name):
    """Their forward parts keep the runtime's kernels, so that outputs stay the source's bit for bit."""
    made = export_model(assets / "models" / name, on_demand=True)
    assert made.check["bit_identical"] and made.check["pair_difference"] <= 1e-3


def test_nothing_is_written_when_one_file_cannot_be(tmp_path):
    (tmp_path / "net.cam.explain.onnx").mkdir()
    with pytest.raises(FastcamError, match=r"net\.cam\.explain\.onnx: cannot be written"):
        export_model(residual(), tmp_path / "net.cam.onnx", on_demand=True, check=False)
    assert [path.name for path in tmp_path.iterdir()] == ["net.cam.explain.onnx"]


def test_a_pair_that_differs_is_refused(monkeypatch):
    """A defect of the split, as the check must find it."""

    def broken(whole):
        parts = good(whole)
        for tensor in parts.explanation.graph.initializer:
            if tensor.data_type == TensorProto.FLOAT and len(tensor.dims) == 2:
                tensor.CopyFrom(numpy_helper.from_array(2 * numpy_helper.to_array(tensor), tensor.name))
        return parts

    good = on_demand.split
    monkeypatch.setattr(on_demand, "split", broken)
    with pytest.raises(FastcamError, match=r"in two files.*the explanation from the one file's by"):
        export_model(classifier(), on_demand=True)
