"""Exports for other engines than ONNX Runtime: equal results, by operators that the engine's published list has."""

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper

from fastcam import Explainer
from fastcam.schema import OUTPUTS, FastcamError, Metadata
from fastcam_export import export_model, inspect_model
from fastcam_export.artifacts import engines
from support.models.chains import CHAINS, Builder
from support.models.small_models import CLASSES, classifier, save
from support.rules.cases import CASES
from support.rules.checks import TARGETS, agree, cotangents, forms, stacked
from support.rules.explained import WANTED, execute, noise
from support.rules.runs import differentiate, run

LIGHT = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"
DIFFERENT = ("GatherElements", "GatherND", "MaxPool", "ScatterElements", "ScatterND", "TopK")
"""Operators whose gradient has a form of its own for engines."""


def compare(model, images, tolerance=1e-6, targets=WANTED, **options):
    """Export in both forms, hold their outputs equal, and hold what the engine form adds against the list."""
    usual = export_model(model, targets="required", check=False, **options)
    engine = export_model(model, for_engine="tensorrt", check=False, **options)
    expected, found = execute(usual.model, images, targets), execute(engine.model, images, targets)
    assert list(found) == list(expected)
    for name, array in expected.items():
        largest = np.abs(array).max()
        assert largest > 0 or name == "fastcam.classes"
        np.testing.assert_allclose(found[name], array, rtol=0, atol=tolerance * largest, err_msg=name)
    hold_against_the_list(engine.model)
    return engine


def hold_against_the_list(model):
    added = [node for node in model.graph.node if node.name.startswith("fastcam.")]
    known = engines.matrix("tensorrt")["operators"]
    assert added and {node.op_type for node in added} <= set(known)
    assert not {"Col2Im", "NonZero"} & {node.op_type for node in added}
    assert not [node for node in added if node.op_type.startswith("Scatter")]


# ---- rules


@pytest.mark.parametrize("case", [case for name in DIFFERENT for case in CASES[name] if case.runtime], ids=str)
def test_forms_of_a_rule_give_equal_gradients(case):
    feeds = case.feeds(np.float32)
    outputs = run(case.model(), feeds)
    each = [cotangents({name: outputs[name] for name in case.outputs}, seed) for seed in range(TARGETS)]
    lifted = {name: stacked([seeds[name] for seeds in each]) for name in each[0]} | {"copies": np.array([TARGETS])}
    for shapes in forms(case):
        if shapes == "unknown":
            continue  # engines know the rank and name of every dimension
        for seeds, several in ((each[0], False), (lifted, True)):
            model = case.model(shapes=shapes)
            usual = differentiate(model, case.outputs, case.wrt, several)
            engine = differentiate(model, case.outputs, case.wrt, several, engine="tensorrt")
            agree(run(engine, {**feeds, **seeds}), run(usual, {**feeds, **seeds}), 1e-6)
            added = Counter(node.op_type for node in engine.graph.node if node.name.startswith("fastcam."))
            assert not added["Col2Im"] and not added["ArgMax"]


@pytest.mark.parametrize("op_type", sorted(set(CASES) & set(engines.matrix("tensorrt")["operators"])))
def test_gradients_of_what_the_engine_reads_are_made_of_what_it_reads(op_type):
    """Of fixed shapes; of free ones some need sums over axes that only the run time knows, which is refused."""
    for case in CASES[op_type][:4]:
        model = case.model()
        if engines.refused(ir.from_proto(model).graph, "tensorrt"):
            continue
        made = differentiate(model, case.outputs, case.wrt, lifted=True, engine="tensorrt")
        added = engines.refused(ir.from_proto(made).graph, "tensorrt")
        assert [(node.op_type, why) for node, why in added if node.name.startswith("fastcam.")] == []


# ---- pools

POOLS = {
    "plain": {"strides": [2, 2]},
    "overlapping": {},
    "padded": {"strides": [2, 2], "pads": [1, 1, 1, 1]},
    "padded at the end": {"strides": [2, 2], "pads": [0, 0, 1, 1]},
    "unevenly padded": {"strides": [1, 2], "pads": [0, 2, 1, 0]},
    "ceil_mode": {"strides": [2, 2], "ceil_mode": 1},
    "padded, ceil_mode": {"strides": [3, 2], "pads": [1, 1, 0, 0], "ceil_mode": 1},
    "SAME_UPPER": {"strides": [2, 2], "auto_pad": "SAME_UPPER"},
    "SAME_LOWER": {"strides": [2, 2], "auto_pad": "SAME_LOWER"},
    "VALID": {"strides": [2, 2], "auto_pad": "VALID"},
    "dilated": {"dilations": [2, 2]},
    "dilated, padded, ceil_mode": {"dilations": [1, 2], "strides": [2, 2], "pads": [1, 1, 0, 0], "ceil_mode": 1},
    "stride wider than the window": {"strides": [4, 4]},
}


@pytest.mark.parametrize("pool", POOLS)
@pytest.mark.parametrize("kernel", [2, 3])
def test_max_pools(pool, kernel):
    """Of a ReLU map in whole numbers, most of whose windows have ties, at zero and above."""
    padding = POOLS[pool].get("pads", [0])
    if max(padding) >= kernel:
        pytest.skip("padding as wide as the window")
    builder = Builder().node("MaxPool", kernel_shape=[kernel, kernel], **POOLS[pool]).node("Sigmoid").mean()
    model = builder.model()
    model.graph.initializer[0].CopyFrom(whole_numbers(model.graph.initializer[0]))
    images = np.sign(noise(2, 3, 9, 9))
    compare(model, images, layer="map", emit="gradients")


def whole_numbers(tensor):
    return onnx.numpy_helper.from_array(np.sign(onnx.numpy_helper.to_array(tensor)), tensor.name)


# ---- networks


@pytest.mark.parametrize("emit", OUTPUTS)
@pytest.mark.parametrize("batch", ["N", 2])
@pytest.mark.parametrize("end", [None, "Softmax"])
def test_classifier_at_every_emit_level(emit, batch, end):
    compare(classifier(batch=batch, end=end), noise(2, 3, 8, 8), emit=emit)
    compare(classifier(batch=batch, end=end), noise(2, 3, 8, 8), emit=emit, layer="r1")


@pytest.mark.parametrize("chain", [name for name in CHAINS if not name.startswith("quantised")])
@pytest.mark.parametrize("emit", ["weights", "gradients"])
def test_pieces_of_networks(chain, emit):
    """Pools, norms, residuals, branches, fully connected layers, as torchvision's networks have them."""
    builder = Builder()
    CHAINS[chain](builder)
    compare(builder.model(), noise(2, 3, 9, 9), layer="map", emit=emit)


@pytest.mark.parametrize("name", ["light_bvlc_alexnet", "light_squeezenet", "light_inception_v1"])
def test_light_graphs(name):
    """The whole gradient through all pools; their weights are constants, so that ties are everywhere."""
    model = onnx.load(LIGHT / f"{name}.onnx")
    first = next(node.input[0] for node in model.graph.node if node.op_type == "MaxPool")
    compare(model, noise(1, 3, 224, 224), 1e-5, [[-1, 5]], layer=first, emit="gradients")


@pytest.mark.parametrize("name", ["mnist", "resnet20_cifar10", "squeezenet1.1"])
def test_real_networks(assets, name):
    """The whole gradient behind the first pool, or in the middle, and the map of the default layer."""
    path = assets / "models" / f"{name}.onnx"
    model = onnx.load(path)
    shape = [d.dim_value or 1 for d in model.graph.input[0].type.tensor_type.shape.dim]
    pools = [node.input[0] for node in model.graph.node if node.op_type == "MaxPool"]
    middle = pools[0] if pools else inspect_model(model).layers[2].name
    targets = [[-1, 2, -4]]
    compare(model, noise(*shape), 1e-5, targets, layer=middle, emit="gradients")
    compare(model, noise(*shape), 1e-5, targets, emit="cam")


# ---- what the file promises


def test_the_check_runs_on_the_engine_form_too():
    builder = Builder().node("MaxPool", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]).node("Sigmoid").mean()
    for emit in OUTPUTS:
        made = export_model(builder.model(), layer="map", emit=emit, for_engine="tensorrt")
        assert made.check["bit_identical"] and made.check["gradient_error"] < 1e-3


def test_file_and_summary_say_the_engine():
    made = export_model(classifier(), for_engine="tensorrt")
    (entry,) = (each.value for each in made.model.metadata_props if each.key == "fastcam")
    assert Metadata.from_json(entry).engine == "tensorrt" and made.engine == ()
    (line,) = (line for line in made.summary() if line.startswith("engine"))
    assert "TensorRT 10.15" in line and "no default" in line
    assert not [line for line in export_model(classifier()).summary() if line.startswith("engine")]


def test_targets_have_no_default():
    model = export_model(classifier(), for_engine="tensorrt").model
    assert [value.name for value in model.graph.input] == ["image", "fastcam.targets"]
    assert "fastcam.targets" not in {tensor.name for tensor in model.graph.initializer}


def test_constant_targets():
    made = export_model(classifier(), for_engine="tensorrt", targets="constant")
    model, (line,) = made.model, [line for line in made.summary() if line.startswith("engine")]
    assert line == "engine  added nodes are for TensorRT 10.15"
    usual = export_model(classifier(), targets="constant").model
    images = noise(2, 3, 8, 8)
    expected, found = run(usual, {"image": images}), run(model, {"image": images})
    for name in expected:
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-6)


@pytest.mark.parametrize("emit", OUTPUTS)
def test_a_target_that_is_no_class_is_never_a_plausible_result(emit):
    model = export_model(classifier(), for_engine="tensorrt", emit=emit, layer="r1").model
    found = execute(model, noise(2, 3, 8, 8), [[CLASSES, 1, -CLASSES - 1, -CLASSES, 2**40]])
    last = list(found)[-1]
    assert (found["fastcam.classes"] < 0).tolist() == [[True, False, True, False, True]] * 2
    assert (found["fastcam.classes"] >= -1).all()
    nothing = np.isnan(found[last]).reshape(2, 5, -1)
    assert nothing[:, [0, 2, 4]].all() and not nothing[:, [1, 3]].any()


def test_every_rank_is_resolved():
    model = export_model(classifier(), for_engine="tensorrt").model
    found = execute(model, noise(2, 3, 8, 8), [[-1, -2, -3, -4, -5]])
    assert found["fastcam.classes"].tolist() == np.argsort(-found["logits"], axis=1).tolist()


def test_ranks_end_where_the_engine_ends():
    """TensorRT's TopK finds fewer than 3840."""
    classes = 5000
    nodes = [
        helper.make_node("Relu", ["image"], ["map"]),
        helper.make_node("GlobalAveragePool", ["map"], ["mean"]),
        helper.make_node("Flatten", ["mean"], ["flat"]),
        helper.make_node("MatMul", ["flat", "w"], ["scores"]),
    ]
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 3, 4, 4])
    scores = helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["N", classes])
    weights = [onnx.numpy_helper.from_array(noise(3, classes), "w")]
    graph = helper.make_graph(nodes, "wide", [image], [scores], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    found = execute(export_model(model, for_engine="tensorrt").model, noise(1, 3, 4, 4), [[-1, -3839, -3840, 4999]])
    order = np.argsort(-found["scores"][0])
    assert found["fastcam.classes"].tolist() == [[order[0], order[3838], -1, 4999]]
    assert np.isnan(found["fastcam.weights"][0]).all(axis=1).tolist() == [False, False, True, False]


def test_explainer_reads_such_a_file(tmp_path):
    model, images = classifier(), noise(2, 3, 8, 8)
    made = [
        Explainer(save(export_model(model, for_engine=engine).model, tmp_path / f"{engine}.onnx"))(images, [-1, 3])
        for engine in ("onnxruntime", "tensorrt")
    ]
    np.testing.assert_allclose(made[1].heatmaps, made[0].heatmaps, atol=1e-6)
    explainer = Explainer(tmp_path / "tensorrt.onnx")
    with pytest.raises(FastcamError, match="class 5 is out of range"):
        explainer(images, [5])
