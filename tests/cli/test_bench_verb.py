"""``fastcam bench``: an exported file beside its own plain forward part, and what it refuses."""

import json
import sys

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper
from typer.testing import CliRunner

from fastcam.cli import app
from fastcam.cli.bench import cut_added
from fastcam_export import export_model, write_slim
from support.models.small_models import classifier, many_classes, save


def call(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def exported(tmp_path):
    path = tmp_path / "model.cam.onnx"
    export_model(classifier(), path, check=False)
    return path


def test_it_says_time_throughput_ratio_and_memory_of_both(exported):
    result = call("bench", exported, "--batch", 1, "--batch", 3, "--seconds", 0.05, "--threads", 1, "--json")
    assert result.exit_code == 0, result.output
    report = json.loads(result.output)
    assert report["threads"] == 1 and report["versions"]["onnxruntime"] == ort.__version__
    assert [row["batch"] for row in report["results"]] == [1, 3]
    for row in report["results"]:
        assert row["same_outputs"]
        assert list(row["contestants"]) == ["plain", "explained", "explained, top 5"]
        plain = np.array(row["contestants"]["plain"]["samples_ms"])
        for found in row["contestants"].values():
            taken = np.array(found["samples_ms"])
            assert len(taken) == len(plain) >= 10
            assert found["median_ms"] == pytest.approx(np.median(taken), abs=2e-3)
            assert found["images_per_second"] == pytest.approx(1e3 * row["batch"] / found["median_ms"], abs=0.1)
            assert found["ratio_95"][0] <= found["ratio"] <= found["ratio_95"][1]
        assert row["memory_mb"]["plain"] > 0 and row["memory_mb"]["explained"] > 0


def test_it_measures_the_start_of_a_fresh_process(exported, no_processes):
    result = call("bench", exported, "--seconds", 0.05, "--json")
    start = json.loads(result.output)["start"]
    assert list(start) == ["numpy_onnxruntime", "fastcam", "session", "first_map", "peak_mb"]
    assert all(value > 0 for value in start.values())
    assert start["peak_mb"] > 30  # Python and the two packages alone take that
    printed = call("bench", exported, "--seconds", 0.05).output.replace("\n", " ")
    assert "first map" in printed and "its peak is" in printed


def test_a_file_in_onnxruntimes_format_is_measured_without_a_plain_one(exported, no_processes):
    slim, _ = write_slim(exported)
    result = call("bench", slim, "--seconds", 0.05, "--json")
    assert result.exit_code == 0, result.output
    report = json.loads(result.output)
    [row] = report["results"]
    assert list(row["contestants"]) == ["explained", "explained, top 5"] and report["start"]["session"] > 0
    assert "ratio" not in row["contestants"]["explained"] and list(row["memory_mb"]) == ["explained"]
    assert "plain: not measured" in call("bench", slim, "--seconds", 0.05).output


def test_a_file_that_takes_uint8_pictures_starts_too(tmp_path, no_processes):
    export_model(classifier(), tmp_path / "f.cam.onnx", check=False, preprocess="imagenet", frames=(30, 40))
    start = json.loads(call("bench", tmp_path / "f.cam.onnx", "--seconds", 0.05, "--json").output)["start"]
    assert start["first_map"] > 0


@pytest.mark.parametrize("moved", [False, True])
def test_a_model_that_takes_bytes_starts_too(tmp_path, no_processes, moved):
    source = classifier()
    graph, shape = source.graph, ["N", 8, 8, 3] if moved else ["N", 3, 8, 8]
    begin = [helper.make_node("Transpose", ["pixels"], ["turned"], perm=[0, 3, 1, 2])] if moved else []
    begin.append(helper.make_node("Cast", [begin[0].output[0] if moved else "pixels"], ["image"], to=TensorProto.FLOAT))
    for node in reversed(begin):
        graph.node.insert(0, node)
    graph.input[0].CopyFrom(helper.make_tensor_value_info("pixels", TensorProto.UINT8, shape))
    export_model(source, tmp_path / "b.cam.onnx", check=False, preprocess="raw")
    start = json.loads(call("bench", tmp_path / "b.cam.onnx", "--seconds", 0.05, "--json").output)["start"]
    assert start.get("first_map", 0) > 0, start


@pytest.mark.parametrize(
    ("classes", "runs"), [(1, ["plain", "explained"]), (2, ["plain", "explained", "explained, top 2"])]
)
def test_a_model_of_few_classes_is_asked_for_no_more(tmp_path, no_processes, classes, runs):
    export_model(many_classes(classes), tmp_path / "few.cam.onnx", check=False)
    result = call("bench", tmp_path / "few.cam.onnx", "--seconds", 0.05, "--json")
    assert result.exit_code == 0, result.output
    assert list(json.loads(result.output)["results"][0]["contestants"]) == runs


def test_why_a_start_is_not_measured_is_said(exported, no_processes, monkeypatch):
    monkeypatch.setattr("fastcam.cli.bench.START", "import sys; sys.exit('no map of that')")
    result = call("bench", exported, "--seconds", 0.05)
    assert result.exit_code == 0 and "start: not measured (no map of that)" in result.output


@pytest.fixture
def no_processes(monkeypatch):
    """Without the fresh processes whose memory is measured."""
    monkeypatch.setattr("fastcam.runtime.timing.peak_memory", lambda *_: {"imports": 40.0, "peak": 52.5})


def test_it_prints_a_table_for_people(exported, no_processes):
    result = call("bench", exported, "--seconds", 0.05)
    assert result.exit_code == 0, result.output
    lines = result.output.splitlines()
    assert "images/s" in lines[0] and "95 % interval" in lines[0]
    assert [line.split()[1] for line in lines[1:4]] == ["plain", "explained", "explained,"]
    assert [line.split()[-1] for line in lines[1:3]] == ["12.5", "12.5"]
    assert "random input" in result.output


def test_the_plain_part_is_the_source(exported):
    source, cut = classifier(), onnx.load(exported)
    added = [node.name for node in cut.graph.node if node.name.startswith("fastcam.")]
    assert added
    cut_added(cut)
    onnx.checker.check_model(cut)
    assert [node.op_type for node in cut.graph.node] == [node.op_type for node in source.graph.node]
    assert {tensor.name for tensor in cut.graph.initializer} == {tensor.name for tensor in source.graph.initializer}
    images = np.random.default_rng(0).standard_normal((2, 3, 8, 8)).astype(np.float32)
    outputs = [
        ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"]).run(None, {"image": images})
        for model in (source, cut)
    ]
    assert len(outputs[0]) == len(outputs[1]) == 1
    np.testing.assert_array_equal(*(found[0] for found in outputs))


def test_what_a_branch_reads_from_outside_stays():
    inner = helper.make_graph(
        [helper.make_node("Relu", ["early"], ["then"])],
        "then",
        [],
        [helper.make_tensor_value_info("then", TensorProto.FLOAT, None)],
    )
    other = helper.make_graph([], "else", [], [helper.make_tensor_value_info("late", TensorProto.FLOAT, None)])
    nodes = [
        helper.make_node("Neg", ["x"], ["early"]),
        helper.make_node("Abs", ["x"], ["late"]),
        helper.make_node("If", ["which"], ["y"], then_branch=inner, else_branch=other),
        helper.make_node("Exp", ["x"], ["fastcam.weights"]),
    ]
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2]) for name in ("x", "y", "fastcam.weights")]
    which = helper.make_tensor_value_info("which", TensorProto.BOOL, [])
    model = helper.make_model(helper.make_graph(nodes, "g", [values[0], which], values[1:]))
    cut_added(model)
    assert [node.op_type for node in model.graph.node] == ["Neg", "Abs", "If"]
    assert [value.name for value in model.graph.output] == ["y"]


def one_line(result, *words):
    lines = result.stderr.strip().splitlines()
    assert result.exit_code == 2 and len(lines) == 1, result.output
    for word in words:
        assert word in lines[0]


def test_bad_input_is_one_line(exported, tmp_path):
    one_line(call("bench", tmp_path / "no.onnx"), "no such file")
    one_line(call("bench", save(classifier(), tmp_path / "plain.onnx")), "was not exported by FastCAM")
    (tmp_path / "text.onnx").write_text("no model")
    one_line(call("bench", tmp_path / "text.onnx"), "text.onnx")
    one_line(call("bench", exported, "--seconds", 0), "--seconds")
    one_line(call("bench", exported, "--threads", 0), "--threads")
    one_line(call("bench", exported, "--batch", 0), "--batch")
    export_model(classifier(batch=2), tmp_path / "two.cam.onnx", check=False)
    one_line(call("bench", tmp_path / "two.cam.onnx", "--batch", 1), "fixed to 2")


def test_a_fixed_batch_is_the_default(tmp_path, no_processes):
    export_model(classifier(batch=2), tmp_path / "two.cam.onnx", check=False)
    result = call("bench", tmp_path / "two.cam.onnx", "--seconds", 0.02, "--json")
    assert json.loads(result.output)["results"][0]["batch"] == 2


def test_without_onnx_it_says_what_to_install(exported, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    one_line(call("bench", exported), "needs onnx", "pip install onnx")


def test_of_an_export_in_two_files_the_forward_part_is_measured(tmp_path, no_processes):
    export_model(classifier(), tmp_path / "pair.cam.onnx", check=False, on_demand=True, layer="r1")
    result = call("bench", tmp_path / "pair.cam.onnx", "--seconds", 0.02, "--json")
    assert result.exit_code == 0, result.output
    row = json.loads(result.output)["results"][0]
    assert row["same_outputs"] and list(row["contestants"]) == ["plain", "forward part"]
    (other,) = (path for path in tmp_path.glob("*.onnx") if path.name != "pair.cam.onnx")
    one_line(call("bench", other), "give the forward part, pair.cam.onnx")
