"""Exports on demand: the pair says what the one file says, and what a user does with the pair."""

from __future__ import annotations

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import fastcam
from fastcam import Explainer, FastcamError, schema
from fastcam.schema import EMITS, OUTPUTS, Metadata
from fastcam_export import export_model
from fastcam_export.artifacts import on_demand
from fastcam_export.verify.session import quiet_session
from support.small_models import classifier, save

DATA = Path(fastcam.__file__).parent / "data"


def run(model, feeds):
    """Outputs by name, of a file or a ModelProto, in ONNX Runtime alone."""
    session = quiet_session(model)
    taken = {value.name for value in (*session.get_inputs(), *session.get_overridable_initializers())}
    names = [value.name for value in session.get_outputs()]
    return dict(zip(names, session.run(names, {name: feeds[name] for name in feeds if name in taken})))


def run_pair(forward, explanation, feeds):
    """Outputs of the explanation part, fed by name from the forward part's; and the forward part's."""
    first = run(forward, feeds)
    return run(explanation, feeds | first), first


def made(nodes, weights, batch, channels, size, output="logits", classes=5):
    """A model of ``nodes``: image -> ``output`` [N, classes]."""
    tensors = [numpy_helper.from_array(np.asarray(array), name) for name, array in weights.items()]
    inputs = [helper.make_tensor_value_info("image", TensorProto.FLOAT, [batch, channels, size, size])]
    outputs = [helper.make_tensor_value_info(output, TensorProto.FLOAT, [batch, classes])]
    graph = helper.make_graph(nodes, "net", inputs, outputs, tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def floats(rng, *shape):
    return (rng.standard_normal(shape) / np.sqrt(np.prod(shape[1:]) or 1)).astype(np.float32)


def squeezenet_form(batch="N"):
    """A classifier convolution, ReLU and mean: the last map has one channel per class."""
    rng = np.random.default_rng(1)
    weights = {"w1": floats(rng, 8, 3, 3, 3), "w2": floats(rng, 5, 8, 1, 1), "b2": floats(rng, 5, 1)[:, 0]}
    nodes = [
        helper.make_node("Conv", ["image", "w1"], ["c1"], pads=[1] * 4),
        helper.make_node("Relu", ["c1"], ["r1"]),
        helper.make_node("Conv", ["r1", "w2", "b2"], ["c2"]),
        helper.make_node("Relu", ["c2"], ["r2"]),
        helper.make_node("GlobalAveragePool", ["r2"], ["mean"]),
        helper.make_node("Flatten", ["mean"], ["logits"]),
    ]
    return made(nodes, weights, batch, 3, 8)


def residual(batch="N"):
    """Two blocks with a shortcut, a stride and a MaxPool; a matrix that is large enough to lie in a file of its own."""
    rng = np.random.default_rng(2)
    weights = {"w1": floats(rng, 32, 3, 3, 3), "w2": floats(rng, 32, 32, 3, 3), "w3": floats(rng, 32, 32, 3, 3)}
    weights |= {"fc": floats(rng, 5, 32 * 16 * 4), "bias": floats(rng, 5, 1)[:, 0]}
    nodes = [
        helper.make_node("Conv", ["image", "w1"], ["c1"], "b1/conv", pads=[1] * 4),
        helper.make_node("Relu", ["c1"], ["r1"], "b1/relu"),
        helper.make_node("Conv", ["r1", "w2"], ["c2"], "b2/conv", pads=[1] * 4),
        helper.make_node("Add", ["c2", "r1"], ["sum"], "b2/add"),
        helper.make_node("Relu", ["sum"], ["r2"], "b2/relu"),
        helper.make_node("Conv", ["r2", "w3"], ["c3"], "b3/conv", pads=[1] * 4, strides=[2, 2]),
        helper.make_node("Relu", ["c3"], ["r3"], "b3/relu"),
        helper.make_node("MaxPool", ["r2"], ["p"], "b3/pool", kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Add", ["r3", "p"], ["last"], "b3/add"),
        helper.make_node("Flatten", ["last"], ["flat"]),
        helper.make_node("Gemm", ["flat", "fc", "bias"], ["logits"], transB=1),
    ]
    return made(nodes, weights, batch, 3, 16)


def tokens(batch="N"):
    """Patches as a sequence [N, 16, 12], a softmax over its own products, a mean over the tokens and a matrix."""
    rng = np.random.default_rng(3)
    weights = {"patch": floats(rng, 12, 3, 4, 4), "q": floats(rng, 12, 12), "fc": floats(rng, 12, 5)}
    weights |= {"shape": np.array([0, 12, 16]), "one": np.array([1])}
    nodes = [
        helper.make_node("Conv", ["image", "patch"], ["maps"], strides=[4, 4]),
        helper.make_node("Reshape", ["maps", "shape"], ["rows"]),
        helper.make_node("Transpose", ["rows"], ["tokens"], perm=[0, 2, 1]),
        helper.make_node("MatMul", ["tokens", "q"], ["queries"]),
        helper.make_node("MatMul", ["queries", "rows"], ["products"]),
        helper.make_node("Softmax", ["products"], ["attention"], axis=-1),
        helper.make_node("MatMul", ["attention", "tokens"], ["mixed"]),
        helper.make_node("ReduceMean", ["mixed", "one"], ["mean"], keepdims=0),
        helper.make_node("MatMul", ["mean", "fc"], ["logits"]),
    ]
    return made(nodes, weights, batch, 3, 16)


def bundled(batch="N"):
    model = onnx.load(DATA / "scenes.onnx")
    dim = model.graph.input[0].type.tensor_type.shape.dim[0]
    if isinstance(batch, int):
        dim.Clear()
        dim.dim_value = batch
    return model


MODELS = {
    "bundled": (bundled, "auto"),
    "squeezenet form": (squeezenet_form, "auto"),
    "mean and matrix": (classifier, "auto"),
    "residual": (residual, "auto"),
    "middle": (residual, "r1"),
    "tokens": (tokens, "tokens"),
}


def pictures(model, count, seed=0):
    dims = [dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim]
    return np.random.default_rng(seed).standard_normal((count, *dims[1:])).astype(np.float32)


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


# --- Explainer --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """An export on demand, the same in one file, and others that do not fit."""
    folder = tmp_path_factory.mktemp("pair")
    for batch in ("N", 2):
        model = save(residual(batch), folder / f"net_{batch}.onnx")
        export_model(model, folder / f"pair_{batch}.cam.onnx", layer="r1", on_demand=True, check=False)
        export_model(model, folder / f"one_{batch}.cam.onnx", layer="r1", check=False)
    return folder


def same(found, expected):
    np.testing.assert_array_equal(found.scores, expected.scores)
    np.testing.assert_array_equal(found.classes, expected.classes)
    np.testing.assert_allclose(found.maps, expected.maps, rtol=0, atol=1e-6 * expected.maps.max())
    np.testing.assert_array_equal(found.boxes, expected.boxes)
    assert found.status == expected.status and found.outputs.keys() == expected.outputs.keys()
    for name, value in found.outputs.items():
        np.testing.assert_array_equal(value, expected.outputs[name])


PER_IMAGE = [[0, -1], [1, -2], [2, -1], [3, 0], [-1, 4]]


@pytest.mark.parametrize("batch", ["N", 2])
def test_predict_then_explain_is_explain(folder, batch):
    """Five images in runs of two, the last of them filled up where the batch is fixed."""
    images = pictures(residual(), 5)
    one = Explainer(folder / f"one_{batch}.cam.onnx", batch_size=2)
    for name in ("pair", "one"):
        explainer = Explainer(folder / f"{name}_{batch}.cam.onnx", batch_size=2)
        prediction = explainer.predict(images)
        np.testing.assert_array_equal(prediction.scores, run(residual(), {"image": images})["logits"])
        assert list(prediction.outputs) == ["logits"] and len(prediction) == 5
        for targets in (-1, [0, -2], PER_IMAGE):
            expected = one(images, targets=targets)
            same(explainer.explain(prediction, targets=targets), expected)
            same(explainer(images, targets=targets), expected)


@pytest.mark.parametrize("batch", ["N", 2])
@pytest.mark.parametrize("name", ["pair", "one"])
def test_some_images_of_a_prediction(folder, batch, name):
    images = pictures(residual(), 5)
    explainer = Explainer(folder / f"{name}_{batch}.cam.onnx", batch_size=2)
    prediction = explainer.predict(images)
    expected = explainer(images, targets=PER_IMAGE)
    for rows in (slice(0, 1), slice(1, 4), slice(3, 5)):
        part = prediction[rows]
        same(explainer.explain(part, targets=PER_IMAGE[rows]), expected[rows])
    same(explainer.explain(prediction[1:5][2], targets=PER_IMAGE[3]), expected[3])
    with pytest.raises(IndexError):
        prediction[5]
    with pytest.raises(FastcamError, match="without a step"):
        prediction[::2]


def test_explaining_never_runs_the_forward_part_again(folder, monkeypatch):
    explainer = Explainer(folder / "pair_N.cam.onnx")
    prediction = explainer.predict(pictures(residual(), 1))
    left = SimpleNamespace(get_providers=explainer._network._session.get_providers)  # nothing to run
    monkeypatch.setattr(explainer._network, "_session", left)
    first, second = explainer.explain(prediction, targets=0), explainer.explain(prediction, targets=1)
    assert (first.classes, second.classes) == ([[0]], [[1]])
    assert not np.array_equal(first.maps, second.maps)


def test_many_threads_share_an_explainer(folder):
    explainer = Explainer(folder / "pair_N.cam.onnx", threads=1)
    batches = [pictures(residual(), 2, seed) for seed in range(6)]
    expected = [[explainer(images, targets=target).maps for target in range(3)] for images in batches]
    predictions = [explainer.predict(images) for images in batches]
    jobs = [(i, target) for i in range(6) for target in range(3)] * 3

    def work(job):
        i, target = job
        fresh = explainer.explain(explainer.predict(batches[i]), targets=target).maps
        return np.array_equal(fresh, expected[i][target]) and np.array_equal(
            explainer.explain(predictions[i], targets=target).maps, expected[i][target]
        )

    with ThreadPoolExecutor(6) as pool:
        assert all(pool.map(work, jobs))


def test_top_classes(folder):
    model = residual()
    labels = ("n01440764 tench, Tinca tinca", "crane", "goldfish", "dog", "cat")
    prediction = Explainer(folder / "pair_N.cam.onnx", labels=labels).predict(pictures(model, 2))
    order = np.argsort(-prediction.scores[1], kind="stable")[:3]
    names = ["tench", *labels[1:]]
    assert prediction.top(1, 3) == [(k, names[k], pytest.approx(prediction.scores[1, k])) for k in order]
    assert prediction.classes.tolist() == prediction.scores.argmax(axis=1).tolist()
    unnamed = Explainer(folder / "pair_N.cam.onnx").predict(pictures(model, 2))
    assert unnamed.top(1, 1)[0][1] == f"class {order[0]}"


def test_a_pair_in_memory():
    made = export_model(residual(), on_demand=True, check=False)
    images = pictures(residual(), 2)
    forward, explanation = made.model.SerializeToString(), made.explanation.SerializeToString()
    found = Explainer(forward, explanation=explanation)(images, targets=[0, 3])
    same(found, Explainer(export_model(residual(), check=False).model.SerializeToString())(images, targets=[0, 3]))
    with pytest.raises(FastcamError, match="give the other one as explanation"):
        Explainer(forward)


def test_half_a_pair_is_refused(folder, tmp_path):
    def refused(match, model, **options):
        with pytest.raises(FastcamError, match=match) as caught:
            Explainer(model, **options)
        assert "\n" not in str(caught.value)

    for name in ("pair_N.cam.onnx", *(file.name for file in folder.glob("pair_N.cam.*.data"))):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    alone, beside = tmp_path / "pair_N.cam.onnx", tmp_path / "pair_N.cam.explain.onnx"
    refused("explanation part pair_N.cam.explain.onnx is not beside it", alone)
    for data in folder.glob("pair_N.cam.*.data"):
        Explainer(alone, explanation=folder / "pair_N.cam.explain.onnx")
        (tmp_path / data.name).unlink()
        refused(f"its external data, {data.name}, is missing", alone)
        (tmp_path / data.name).write_bytes(data.read_bytes())
    beside.write_bytes((folder / "pair_2.cam.explain.onnx").read_bytes())
    for data in folder.glob("pair_2.cam.*.data"):
        (tmp_path / data.name).write_bytes(data.read_bytes())
    refused("parts of different exports", alone)
    refused("is no explanation part", alone, explanation=folder / "one_N.cam.onnx")
    refused("is the explanation part.*give the forward part, pair_N.cam.onnx", folder / "pair_N.cam.explain.onnx")
    refused("export in one file; leave explanation out", folder / "one_N.cam.onnx", explanation=beside)
    with pytest.raises(FastcamError, match="already exported"):
        export_model(folder / "pair_N.cam.explain.onnx")


def test_a_prediction_of_another_file_is_refused(folder):
    prediction = Explainer(folder / "pair_N.cam.onnx").predict(pictures(residual(), 1))
    with pytest.raises(FastcamError, match=r"is not one of .*one_N\.cam\.onnx"):
        Explainer(folder / "one_N.cam.onnx").explain(prediction)
    with pytest.raises(FastcamError, match="out of range"):
        Explainer(folder / "pair_N.cam.onnx").explain(prediction, targets=99)


def test_metadata_of_files_from_before_is_read(folder):
    meta = Explainer(folder / "pair_N.cam.onnx").metadata
    assert Metadata.from_json(meta.to_json()) == meta and meta.pair.part == "forward"
    old = json.loads(meta.to_json())
    del old["pair"]
    assert Metadata.from_json(json.dumps(old)).pair is None


@pytest.mark.parametrize("targets", ["required", "constant"])
def test_targets_modes(targets):
    made = export_model(residual(), on_demand=True, targets=targets)
    parts = (made.model.SerializeToString(), made.explanation.SerializeToString())
    explainer = Explainer(parts[0], explanation=parts[1])
    prediction = explainer.predict(pictures(residual(), 1))
    assert explainer.explain(prediction).classes == prediction.classes
    if targets == "constant":
        with pytest.raises(FastcamError, match="constant targets"):
            explainer.explain(prediction, targets=2)


def test_nothing_is_written_when_one_file_cannot_be(tmp_path):
    (tmp_path / "net.cam.explain.onnx").mkdir()
    with pytest.raises(FastcamError, match=r"cannot write .*net\.cam\.explain\.onnx"):
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


# --- the command line -------------------------------------------------------------------------------------------


def command(*args, cwd):
    done = subprocess.run([sys.executable, "-m", "fastcam", *args], cwd=cwd, capture_output=True, text=True)
    return done.returncode, done.stdout, done.stderr


def test_the_command_line(tmp_path):
    source = [str(DATA / "scenes.onnx"), "--preprocess", "imagenet", "--labels", str(DATA / "scenes.labels.txt")]
    code, out, error = command("export", *source, "-o", "scenes.cam.onnx", "--on-demand", cwd=tmp_path)
    assert code == 0, error
    assert "scenes.cam.explain.onnx" in out
    picture = str(next(DATA.glob("scene.[jp]*g")))
    code, out, error = command("explain", "scenes.cam.onnx", picture, "--json", "-t", "-1", "-t", "-2", cwd=tmp_path)
    assert code == 0, error
    command("export", *source, "-o", "one.cam.onnx", cwd=tmp_path)
    _, expected, _ = command("explain", "one.cam.onnx", picture, "--json", "-t", "-1", "-t", "-2", cwd=tmp_path)
    assert json.loads(out)["images"] == json.loads(expected)["images"]
    code, out, _ = command("inspect", "scenes.cam.onnx", cwd=tmp_path)
    assert code == 0 and "the explanation part is scenes.cam.explain.onnx" in out and "warning" not in out
    (tmp_path / "scenes.cam.explain.onnx").unlink()
    code, out, _ = command("inspect", "scenes.cam.onnx", cwd=tmp_path)
    assert code == 0 and "not beside this file" in out
    code, out, _ = command("inspect", "one.cam.onnx", cwd=tmp_path)
    assert code == 0 and "layer" in out and "part " not in out
    code, _, error = command("explain", "scenes.cam.onnx", picture, cwd=tmp_path)
    assert code == 2 and "scenes.cam.explain.onnx is not beside it" in error and "Traceback" not in error
