"""What can be exported, what is explained, and what the exported file promises; formulas in NumPy are the oracle."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from fastcam.schema import METADATA_KEY, OUTPUTS, FastcamError, Metadata, Preprocessing
from fastcam_export import export_model, inspect_model
from fastcam_export.verify.session import quiet_session
from support.models.small_models import CLASSES, classifier, save, weights_of


def run(model, images, targets=None):
    session = quiet_session(model)
    feeds = {"image": images} | ({} if targets is None else {"fastcam.targets": np.array(targets)})
    return dict(zip([value.name for value in session.get_outputs()], session.run(None, feeds)))


def images(n=2, size=8):
    return np.random.default_rng(3).standard_normal((n, 3, size, size)).astype(np.float32)


def formula(model, classes, area=64):
    """The weights of the last layer before mean and fc: row of the fc matrix over the number of positions."""
    return weights_of(model)["fc"].T[classes] / area


# ---- reading


@pytest.mark.parametrize("opset", [7, 9, 11, 13, 17, 18, 20, 22, 24])
def test_any_opset(opset):
    model = classifier(opset)
    out = run(export_model(model).model, images(), [[-1, 2]])
    np.testing.assert_allclose(out["fastcam.weights"], formula(model, out["fastcam.classes"]), rtol=1e-5)


def test_the_newest_opset_that_onnx_knows_is_read():
    export_model(classifier(onnx.defs.onnx_opset_version()), check=False)  # runtimes may be older than onnx


def test_path_bytes_and_proto_give_the_same_file(tmp_path):
    model = classifier()
    path = save(model, tmp_path / "model.onnx")
    protos = [export_model(source).model for source in (path, str(path), path.read_bytes(), model)]
    graphs = [proto.graph.SerializeToString(deterministic=True) for proto in protos]
    assert graphs.count(graphs[0]) == 4


def test_external_data_is_read_from_beside_the_file(tmp_path):
    model = classifier()
    path = save(model, tmp_path / "model.onnx", external=True)
    assert (tmp_path / "weights.bin").stat().st_size > 0
    out = run(export_model(path).model, images())
    np.testing.assert_allclose(out["fastcam.weights"], formula(model, out["fastcam.classes"]), rtol=1e-5)


def test_weights_among_the_inputs_become_constants():
    model = classifier(9, listed_weights=True)
    exported = export_model(model).model
    assert [value.name for value in exported.graph.input] == ["image", "fastcam.targets"]
    out = run(exported, images(), [[1]])
    np.testing.assert_allclose(out["fastcam.weights"], formula(model, out["fastcam.classes"]), rtol=1e-5)


@pytest.mark.parametrize("batch", [1, 3, "N"])
def test_fixed_and_free_batch(batch):
    model = classifier(batch=batch)
    n = 2 if batch == "N" else batch
    out = run(export_model(model).model, images(n), [[-1, 0, -2]])
    assert out["fastcam.weights"].shape == (n, 3, 6)
    np.testing.assert_allclose(out["fastcam.weights"], formula(model, out["fastcam.classes"]), rtol=1e-5)


# ---- targets


def test_targets_are_indices_or_ranks_per_image_or_for_all():
    exported = export_model(classifier()).model
    out = run(exported, images(3), [[-1, 4], [0, -5], [-2, -3]])
    order = np.argsort(-out["logits"], axis=1)
    assert out["fastcam.classes"].tolist() == [[order[0, 0], 4], [0, order[1, 4]], [order[2, 1], order[2, 2]]]
    out = run(exported, images(3), [[-1, 4]])
    assert out["fastcam.classes"].tolist() == [[order[0, 0], 4], [order[1, 0], 4], [order[2, 0], 4]]
    assert run(exported, images(3))["fastcam.classes"].tolist() == order[:, :1].tolist()


@pytest.mark.parametrize("target", [CLASSES, 1000, -CLASSES - 1])
def test_a_target_out_of_range_is_an_error_of_the_runtime(target):
    with pytest.raises(Exception, match=r"(?i)out of (data )?bounds|range"):
        run(export_model(classifier()).model, images(), [[target]])


def test_targets_required_and_constant():
    required = export_model(classifier(), targets="required").model
    assert "fastcam.targets" not in {tensor.name for tensor in required.graph.initializer}
    assert run(required, images(), [[3]])["fastcam.classes"].tolist() == [[3], [3]]
    constant = export_model(classifier(), targets="constant").model
    assert [value.name for value in constant.graph.input] == ["image"]
    out = run(constant, images())
    assert out["fastcam.classes"].tolist() == out["logits"].argmax(1)[:, None].tolist()
    expected = run(required, images(), [[-1]])
    np.testing.assert_array_equal(out["fastcam.weights"], expected["fastcam.weights"])


def test_two_products_of_the_scores_seed_are_both_rows():
    """Logits that are a sum of two fully connected layers: each product of the one-hot seed becomes a Gather."""
    model = classifier()
    bias = numpy_helper.from_array(np.arange(6 * CLASSES, dtype=np.float32).reshape(6, CLASSES), "other")
    model.graph.initializer.append(bias)
    model.graph.node[-1].output[0] = "first"
    model.graph.node.extend(
        [
            helper.make_node("MatMul", ["flat", "other"], ["second"], "head/other"),
            helper.make_node("Add", ["first", "second"], ["logits"], "head/add"),
        ]
    )
    exported = export_model(model).model
    onnx.checker.check_model(exported)
    out = run(exported, images(), [[-1, 2]])
    weights = weights_of(model)
    expected = (weights["fc"] + weights["other"]).T[out["fastcam.classes"]] / 64
    np.testing.assert_allclose(out["fastcam.weights"], expected, rtol=1e-5)
    assert "ScatterElements" not in {node.op_type for node in exported.graph.node}


# ---- score


@pytest.mark.parametrize("end", ["Softmax", "LogSoftmax", "Sigmoid"])
@pytest.mark.parametrize("opset", [9, 18])
def test_the_logit_before_the_last_activation_is_explained(end, opset):
    model = classifier(opset, end=end)
    exported = export_model(model)
    assert exported.metadata.score.kind == "logit"
    out = run(exported.model, images(), [[-1, 1]])
    np.testing.assert_allclose(out["fastcam.weights"], formula(model, out["fastcam.classes"]), rtol=1e-5)


def test_the_probability_on_demand():
    model = classifier(end="Softmax")
    exported = export_model(model, score="probability")
    assert exported.metadata.score.kind == "probability"
    out = run(exported.model, images(), [[1]])
    p, w = out["scores"].astype(np.float64), weights_of(model)["fc"].T / 64
    expected = p[:, 1:2] * (w[1] - p @ w)  # d softmax_c = p_c (e_c - p)
    np.testing.assert_allclose(out["fastcam.weights"][:, 0], expected, rtol=1e-4, atol=1e-7)


def test_a_probability_that_the_model_does_not_give_is_refused():
    with pytest.raises(FastcamError, match="no probability"):
        export_model(classifier(), score="probability")


def test_output_by_name():
    model = classifier(end="Softmax")
    model.graph.output.append(helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", CLASSES]))
    assert export_model(model).metadata.score.output == "scores"
    assert export_model(model, output_name="logits").metadata.score.kind == "raw"
    with pytest.raises(FastcamError, match="nearest is 'logits'"):
        export_model(model, output_name="logit")


# ---- layer


@pytest.mark.parametrize(
    ("name", "value"), [("r1", "r1"), ("block1/relu", "r1"), ("block1", "r1"), ("auto", "r2"), ("c2", "c2")]
)
def test_layer_by_name(name, value):
    exported = export_model(classifier(), layer=name)
    assert exported.metadata.layer.value == value
    assert exported.metadata.layer.reason
    assert exported.check["gradient_error"] < 1e-3  # a convolution behind the layer: differences in float32


def test_a_map_with_one_channel_per_class_is_passed_over():
    model = classifier()
    nodes = {node.name: node for node in model.graph.node}
    for node in list(model.graph.node)[-3:]:
        model.graph.node.remove(node)
    weight = next(t for t in model.graph.initializer if t.name == "fc")
    weight.dims[:] = [CLASSES, 6, 1, 1]
    model.graph.node.extend(
        [
            helper.make_node("Conv", ["r2", "fc"], ["per_class"], "head/conv"),
            helper.make_node("GlobalAveragePool", ["per_class"], ["mean"], "head/mean"),
            helper.make_node("Flatten", ["mean"], ["logits"], "head/flatten"),
        ]
    )
    assert "head/fc" in nodes
    found = inspect_model(model)
    assert [(layer.name, layer.note) for layer in found.layers][-2:] == [
        ("r2", ""),
        ("per_class", "one channel per class"),
    ]
    assert [layer.name for layer in found.layers if layer.chosen] == ["r2"]
    assert "one channel per class" in found.reason


def test_a_transposed_map_is_read_with_its_channels_last():
    """As TensorFlow's exporters write it: convolutions in NCHW, the rest in NHWC."""
    model = classifier()
    nodes = model.graph.node
    nodes.insert(4, helper.make_node("Transpose", ["r2"], ["last"], "to_nhwc", perm=[0, 2, 3, 1]))
    nodes.insert(5, helper.make_node("LeakyRelu", ["last"], ["again"], "block2/nhwc", alpha=1.0))
    nodes.insert(6, helper.make_node("Transpose", ["again"], ["back"], "to_nchw", perm=[0, 3, 1, 2]))
    nodes[7].input[0] = "back"
    exported = export_model(model)
    layer = exported.metadata.layer
    assert (layer.value, layer.layout) == ("again", "NHWC")
    assert "NHWC [N, 8, 8, 6]" in layer.reason
    out = run(exported.model, images(), [[-1, 2]])
    np.testing.assert_allclose(out["fastcam.weights"], formula(model, out["fastcam.classes"]), rtol=1e-5)
    first = run(export_model(model, layer="r2").model, images(), [[-1, 2]])
    np.testing.assert_array_equal(out["fastcam.activations"], first["fastcam.activations"])


def test_inspect_names_operators_without_a_rule():
    model = classifier()
    model.graph.node[1].op_type = "MyRelu"  # between conv1 and conv2
    model.graph.node[1].domain = "company.example"
    model.opset_import.append(helper.make_opsetid("company.example", 1))
    model.graph.value_info.append(helper.make_tensor_value_info("r1", TensorProto.FLOAT, ["N", 4, 8, 8]))
    found = inspect_model(model)
    assert ("MyRelu", 1) in found.missing
    assert [layer.name for layer in found.layers if layer.chosen] == ["r2"]


# ---- the file


@pytest.mark.parametrize("emit", OUTPUTS)
def test_outputs_names_and_metadata(emit, tmp_path):
    model = classifier(end="Softmax")
    path = tmp_path / "out.onnx"
    exported = export_model(model, path, emit=emit, preprocess="imagenet", labels=list("abcde"))
    written = onnx.load(path)
    onnx.checker.check_model(written, full_check=True)
    assert [value.name for value in written.graph.output] == ["scores", *OUTPUTS[emit]]
    assert {node.domain for node in written.graph.node} == {""}
    metadata = Metadata.from_json({p.key: p.value for p in written.metadata_props}[METADATA_KEY])
    assert metadata == exported.metadata
    assert metadata.labels == tuple("abcde")
    assert metadata.preprocessing == Preprocessing(
        size=(8, 8), scale=1 / 255, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)
    )
    assert [p.name for p in tmp_path.iterdir()] == ["out.onnx"]


def test_emit_levels_agree():
    model = classifier()
    outs = {emit: run(export_model(model, emit=emit, layer="r1").model, images(), [[-1, 2]]) for emit in OUTPUTS}
    gradients, activations = outs["gradients"]["fastcam.gradients"], outs["gradients"]["fastcam.activations"]
    assert np.abs(gradients).max() > 0
    np.testing.assert_allclose(outs["weights"]["fastcam.weights"], gradients.mean((3, 4)), rtol=1e-4, atol=1e-7)
    cam = np.maximum(np.einsum("ntk,nkhw->nthw", gradients.mean((3, 4)), activations), 0)
    np.testing.assert_allclose(outs["cam"]["fastcam.cam"], cam, rtol=1e-4, atol=1e-6)


def test_the_models_own_nodes_stay_as_they_are():
    model = classifier(18)
    exported = export_model(model).model
    ours = [node for node in exported.graph.node if node.name.startswith("fastcam.")]
    theirs = [node for node in exported.graph.node if not node.name.startswith("fastcam.")]
    assert ours
    assert [n.SerializeToString(deterministic=True) for n in theirs] == [
        n.SerializeToString(deterministic=True) for n in model.graph.node
    ]
