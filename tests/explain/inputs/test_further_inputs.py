"""Inputs beside the picture: numbers, a second picture, one that nothing reads. PyTorch autograd is the oracle."""

from __future__ import annotations

import json

import cv2
import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from typer.testing import CliRunner

from fastcam import Explainer, FastcamError
from fastcam.batch.job import Job
from fastcam.cli import app
from fastcam.methods.perturbation import occlusion
from fastcam_export import export_model

F = torch.nn.functional
RNG = np.random.default_rng(0)
W = {
    "w": RNG.standard_normal((5, 3, 3, 3)).astype(np.float32) / 3,
    "fc": RNG.standard_normal((5, 4)).astype(np.float32),
    "m": RNG.standard_normal((2, 4)).astype(np.float32),
}
A, B = (RNG.random((3, 3, 10, 12), dtype=np.float32) for _ in range(2))
META = RNG.random((3, 2), dtype=np.float32) + 0.5
N = helper.make_node


def branch(x):
    names = [f"{x}_{part}" for part in ("conv", "map", "mean", "flat")]
    return [
        N("Conv", [x, "w"], [names[0]], pads=[1, 1, 1, 1]),
        N("Relu", [names[0]], [names[1]]),
        N("GlobalAveragePool", [names[1]], [names[2]]),
        N("Flatten", [names[2]], [names[3]]),
    ]


def model(nodes, inputs):
    values = [helper.make_tensor_value_info(name, kind, shape) for name, kind, shape in inputs]
    used = {name for node in nodes for name in node.input}
    tensors = [numpy_helper.from_array(array, name) for name, array in W.items() if name in used]
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [inputs[0][2][0], 4])
    graph = helper.make_graph(nodes, "g", values, [y], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


def with_numbers(batch="N"):
    """y = (mean(relu(conv a)) fc) * (meta m): the gradient at the map depends on the numbers."""
    nodes = [*branch("a"), N("MatMul", ["a_flat", "fc"], ["i"]), N("MatMul", ["meta", "m"], ["j"])]
    nodes.append(N("Mul", ["i", "j"], ["y"]))
    float_ = TensorProto.FLOAT
    unused = ("unused", TensorProto.INT64, [1])
    return model(nodes, [("a", float_, [batch, 3, 10, 12]), ("meta", float_, [batch, 2]), unused])


def siamese():
    """y = (mean(relu(conv a)) * mean(relu(conv b))) fc."""
    nodes = [*branch("a"), *branch("b"), N("Mul", ["a_flat", "b_flat"], ["p"]), N("MatMul", ["p", "fc"], ["y"])]
    return model(nodes, [(name, TensorProto.FLOAT, ["N", 3, 10, 12]) for name in "ab"])


def scores_of(a, meta):
    t = {name: torch.tensor(array) for name, array in W.items()}
    maps = F.relu(F.conv2d(torch.tensor(a), t["w"], padding=1)).requires_grad_()
    return (maps.mean((2, 3)) @ t["fc"]) * (torch.tensor(meta) @ t["m"]), maps


def gradcam(scores, maps, target):
    (gradient,) = torch.autograd.grad(scores[:, target].sum(), maps, retain_graph=True)
    return F.relu((gradient.mean((2, 3), keepdim=True) * maps).sum(1)).detach().numpy()


@pytest.fixture(scope="module")
def numbers(tmp_path_factory):
    path = tmp_path_factory.mktemp("further") / "numbers.cam.onnx"
    assert not export_model(with_numbers(), path, preprocess="unit").check["gradient_error"] > 1e-3
    return path


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    path = tmp_path_factory.mktemp("further") / "pair.cam.onnx"
    export_model(siamese(), path, preprocess="unit", input_name="b")
    return path


@pytest.mark.parametrize("batch_size", [2, 16])
def test_numbers_beside_each_picture(numbers, batch_size):
    explainer = Explainer(numbers, batch_size=batch_size)
    scores, maps = scores_of(A, META)
    for images, inputs in ((A, {"meta": META}), ({"a": A, "meta": META}, None)):
        found = explainer(images, targets=1, inputs=inputs)
        np.testing.assert_allclose(found.scores, scores.detach(), rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(found.maps[:, 0], gradcam(scores, maps, 1), rtol=1e-3, atol=1e-6)
    later = explainer.explain(explainer.predict(A, {"meta": META})[1:3], targets=1)
    np.testing.assert_allclose(later.maps[:, 0], gradcam(scores, maps, 1)[1:3], rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("value", [META[0], META[:1], META[0].tolist(), torch.tensor(META[0])])
def test_one_value_for_all_pictures(numbers, value):
    scores, maps = scores_of(A, np.repeat(META[:1], 3, 0))
    for found in (
        Explainer(numbers, inputs={"meta": value})(A, targets=2),
        Explainer(numbers, inputs={"meta": np.zeros(2)})(A, targets=2, inputs={"meta": value}),
    ):
        np.testing.assert_allclose(found.maps[:, 0], gradcam(scores, maps, 2), rtol=1e-3, atol=1e-6)


def test_a_default_travels_in_the_file():
    made = export_model(with_numbers(), inputs={"meta": META[1]}).model.SerializeToString()
    scores, maps = scores_of(A, np.repeat(META[1:2], 3, 0))
    np.testing.assert_allclose(Explainer(made)(A, targets=0).maps[:, 0], gradcam(scores, maps, 0), rtol=1e-3, atol=1e-6)


def test_methods_that_run_again_repeat_the_picture_s_own_values(numbers):
    found = Explainer(numbers)(A, targets=1, method="occlusion", inputs={"meta": META})
    for i in range(3):

        def score(images, row=META[i : i + 1]):
            return scores_of(images, np.repeat(row, len(images), 0))[0].detach().numpy()

        expected = np.maximum(occlusion(score, A[i], [1]), 0)[0]
        np.testing.assert_allclose(found.maps[i, 0], expected, rtol=1e-3, atol=1e-6)


def test_two_files_and_fixed_batches_take_them_too():
    scores, maps = scores_of(A, META)
    expected = gradcam(scores, maps, 3)
    parts = export_model(with_numbers(), on_demand=True)
    explainer = Explainer(parts.model.SerializeToString(), explanation=parts.explanation.SerializeToString())
    np.testing.assert_allclose(explainer(A, 3, inputs={"meta": META}).maps[:, 0], expected, rtol=1e-3, atol=1e-6)
    fixed = export_model(with_numbers(batch=2)).model.SerializeToString()  # the third picture runs beside a copy
    found = Explainer(fixed)(A, targets=3, inputs={"meta": META})
    np.testing.assert_allclose(found.maps[:, 0], expected, rtol=1e-3, atol=1e-6)


def test_either_of_two_pictures_is_explained(pair):
    t = {name: torch.tensor(array) for name, array in W.items()}
    a, b = (F.relu(F.conv2d(torch.tensor(x), t["w"], padding=1)).requires_grad_() for x in (A, B))
    scores = (a.mean((2, 3)) * b.mean((2, 3))) @ t["fc"]
    expected = gradcam(scores, b, 2)
    found = Explainer(pair)({"a": A, "b": B}, targets=2)
    np.testing.assert_allclose(found.maps[:, 0], expected, rtol=1e-3, atol=1e-6)
    first = export_model(siamese()).model.SerializeToString()
    np.testing.assert_allclose(
        Explainer(first)(A, targets=2, inputs={"b": B}).maps[:, 0], gradcam(scores, a, 2), rtol=1e-3, atol=1e-6
    )


def test_the_other_picture_may_be_a_file(pair, tmp_path):
    pictures = RNG.integers(0, 256, (2, 20, 24, 3)).astype(np.uint8)
    for name, picture in zip(("one.png", "two.png"), pictures):
        cv2.imwrite(str(tmp_path / name), picture[..., ::-1])
    explainer = Explainer(pair)
    wanted = explainer(pictures[0], targets=1, inputs={"a": pictures[1]})
    tensor = cv2.resize(pictures[1], (12, 10), interpolation=cv2.INTER_AREA)
    given = (tensor / np.float32(255)).transpose(2, 0, 1)[None].astype(np.float32)
    np.testing.assert_allclose(explainer(pictures[0], 1, inputs={"a": given}).maps, wanted.maps, rtol=1e-4)
    asked = ["explain", str(pair), str(tmp_path / "one.png"), "-t", "1", "--json"]
    done = CliRunner().invoke(app, [*asked, "--input-value", f"a={tmp_path / 'two.png'}"])
    assert done.exit_code == 0, done.output
    target = json.loads(done.stdout)["images"][0]["targets"][0]
    np.testing.assert_allclose(target["score"], wanted.scores[0, 1], rtol=1e-5)
    frames = list(explainer.stream([tmp_path / "one.png"], targets=1, inputs={"a": tmp_path / "two.png"}))
    np.testing.assert_array_equal(frames[0].explanation.maps, wanted.maps)


def test_a_value_from_the_command_line(numbers, tmp_path):
    cv2.imwrite(str(tmp_path / "p.png"), RNG.integers(0, 256, (10, 12, 3)).astype(np.uint8))
    np.save(tmp_path / "meta.npy", np.float32([0.5, 2]))
    (tmp_path / "meta.json").write_text("[[0.5, 2.0]]")
    reports = []
    for value in ("0.5,2", "[0.5, 2]", str(tmp_path / "meta.npy"), str(tmp_path / "meta.json")):
        asked = ["explain", str(numbers), str(tmp_path / "p.png"), "--json", "--input-value", f"meta={value}"]
        done = CliRunner().invoke(app, asked)
        assert done.exit_code == 0, done.output
        reports.append(json.loads(done.stdout)["images"])
    assert all(report == reports[0] for report in reports)


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        ({}, r"needs a value for its input 'meta' \(float \[N, 2\]\): give inputs=.*--input-value meta="),
        ({"meat": 1}, "no further input 'meat'; it has 'meta'"),
        ({"meta": [1, 2, 3]}, r"got a value of shape \[1, 3\]"),
        ({"meta": META[:2]}, "got 2 rows for 3 images"),
        ({"meta": META, "unused": [0.5]}, "takes int64, and got other numbers"),
        ({"meta": b"x"}, "is no picture"),
        ({"meta": "no.npy"}, "no.npy: cannot be read"),
    ],
)
def test_a_value_that_does_not_fit_is_said(numbers, inputs, words):
    with pytest.raises(FastcamError, match=words):
        Explainer(numbers)(A, inputs=inputs)


def test_what_an_export_refuses(tmp_path):
    with pytest.raises(FastcamError, match="no input 'c'"):
        export_model(siamese(), input_name="c")
    with pytest.raises(FastcamError, match="holds no pictures"):
        export_model(with_numbers(), input_name="meta")
    with pytest.raises(FastcamError, match="give numbers that fit"):
        export_model(with_numbers(), inputs={"meta": [1, 2, 3]})
    with pytest.raises(FastcamError, match="no input 'mata'"):
        export_model(with_numbers(), inputs={"mata": 1})


def test_the_command_says_what_the_file_wants(tmp_path):
    onnx.save(with_numbers(), tmp_path / "m.onnx")
    done = CliRunner().invoke(app, ["export", str(tmp_path / "m.onnx"), "--preprocess", "unit"])
    assert done.exit_code == 0, done.output
    assert "a is explained" in done.stdout and "meta wants a value" in done.stdout
    assert "unused is read by nothing" in done.stdout and "PICTURE --input-value meta=VALUE" in done.stdout
    done = CliRunner().invoke(app, ["export", str(tmp_path / "m.onnx"), "--input-value", "meta=0.5,1"])
    assert "meta has a default" in done.stdout


@pytest.mark.parametrize(
    ("shape", "dtype", "expected"),
    [
        (["N", 1, 5, 6], "FLOAT", lambda p: cv2.cvtColor(p, cv2.COLOR_RGB2GRAY)[None] / 255),
        (["N", 5, 6, 3], "FLOAT", lambda p: p / 255),
        (["N", 5, 6, 3], "UINT8", lambda p: p),
        (["N", 4, 5, 6], "FLOAT", lambda p: np.concatenate([p / 255, np.ones((5, 6, 1))], 2).transpose(2, 0, 1)),
    ],
    ids=["grey", "channels last", "uint8", "alpha"],
)
def test_a_second_picture_takes_the_channels_of_its_own_input(tmp_path, shape, dtype, expected):
    kind = getattr(TensorProto, dtype)
    nodes = [*branch("a"), N("Cast", ["b"], ["bf"], to=1), N("ReduceMean", ["bf"], ["mb"], axes=[1, 2, 3], keepdims=0)]
    nodes += [N("Unsqueeze", ["mb", "one"], ["mm"]), N("MatMul", ["a_flat", "fc"], ["i"]), N("Mul", ["i", "mm"], ["y"])]
    made = model(nodes, [("a", TensorProto.FLOAT, ["N", 3, 10, 12]), ("b", kind, shape)])
    made.opset_import[0].version = 13
    made.graph.initializer.append(numpy_helper.from_array(np.array([1]), "one"))
    explainer = Explainer(export_model(made, preprocess="unit").model.SerializeToString())
    picture = RNG.integers(0, 256, (5, 6, 3), dtype=np.uint8)
    cv2.imwrite(str(tmp_path / "b.png"), picture[:, :, ::-1])
    given = RNG.integers(0, 256, (10, 12, 3), dtype=np.uint8)
    found = explainer(given, inputs={"b": tmp_path / "b.png"})
    by_hand = explainer(given, inputs={"b": np.asarray(expected(picture))[None].astype(np.float32)})
    np.testing.assert_allclose(found.scores, by_hand.scores, rtol=3e-3)


def test_a_picture_is_no_value_of_a_file(tmp_path):
    onnx.save(siamese(), tmp_path / "m.onnx")
    cv2.imwrite(str(tmp_path / "b.png"), np.zeros((4, 4, 3), np.uint8))
    run = CliRunner().invoke(app, ["export", str(tmp_path / "m.onnx"), "--input-value", f"b={tmp_path / 'b.png'}"])
    assert run.exit_code == 2 and "give pictures to explain, with --input-value b=b.png" in run.stderr


def test_a_batch_refuses_an_input_without_a_value_before_it_begins(numbers):
    assert Explainer(numbers).missing_inputs == ("meta",)
    assert Explainer(numbers, inputs={"meta": META[0]}).missing_inputs == ()
    with pytest.raises(FastcamError, match="input 'meta' has no value for a whole batch; give it one at the export"):
        Job(numbers).opened()
    assert Job(numbers, opening={"inputs": {"meta": META[0]}}).opened().missing_inputs == ()
