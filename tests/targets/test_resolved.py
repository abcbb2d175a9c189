"""What can be asked at run time: combinations of classes, lists of different length, cotangents; against PyTorch."""

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from fastcam import Explainer, FastcamError
from fastcam.cli import app
from fastcam.targets import cotangents
from fastcam.targets.classes import Targets, combined_name
from fastcam_export import export_model
from support.models.small_models import CLASSES, classifier, weights_of

torch = pytest.importorskip("torch", reason="PyTorch is the oracle of these tests")

LABELS = ("tabby, tabby cat", "tiger cat", "black-and-tan", "not a number", "golden retriever")


def images(n=3, seed=1):
    return np.random.default_rng(seed).standard_normal((n, 3, 8, 8)).astype(np.float32)


def maps(combinations, pictures):
    """Grad-CAM of sum_c a_c y_c by autograd, [N, T, h, w]: ``combinations`` are functions of the logits -> [N]."""
    w = {name: torch.from_numpy(array).float() for name, array in weights_of(classifier()).items()}
    conv = torch.nn.functional.conv2d
    layer = conv(conv(torch.from_numpy(pictures), w["w1"], padding=1).relu(), w["w2"], padding=1).relu().detach()
    layer.requires_grad_()
    logits = layer.mean((2, 3)) @ w["fc"] + w["bias"]
    made = []
    for one in combinations:
        (gradient,) = torch.autograd.grad(one(logits).sum(), layer, retain_graph=True)
        made.append((gradient.mean((2, 3), keepdim=True) * layer).sum(1).relu())
    return torch.stack(made, 1).detach().numpy()


@pytest.fixture(scope="module", params=["weights", "gradients"])
def explainer(request):
    made = export_model(classifier(), emit=request.param, labels=LABELS, check=False)
    return Explainer(made.model.SerializeToString(), batch_size=2)


COMBINATIONS = {
    "difference": ({"tabby": 1, "tiger cat": -1}, lambda y: y[:, 0] - y[:, 1], "tabby - tiger cat"),
    "as text": ("tabby - tiger cat", lambda y: y[:, 0] - y[:, 1], "tabby - tiger cat"),
    "counterfactual": ({"tabby": -1}, lambda y: -y[:, 0], "not tabby"),
    "not": ("not tiger cat", lambda y: -y[:, 1], "not tiger cat"),
    "a name with not": ("not a number", lambda y: y[:, 3], "not a number"),
    "weighted": ("0.5*golden retriever + 2 * tabby - black-and-tan", lambda y: 0.5 * y[:, 4] + 2 * y[:, 0] - y[:, 2],
                 "0.5 golden retriever + 2 tabby - black-and-tan"),
    "ranks": ({-1: 1, -2: -0.5}, lambda y: y.sort(1).values[:, -1] - 0.5 * y.sort(1).values[:, -2], None),
    "ranks as text": ("-1 - -2", lambda y: y.sort(1).values[:, -1] - y.sort(1).values[:, -2], None),
    "indices as text": ("4 - 0", lambda y: y[:, 4] - y[:, 0], "golden retriever - tabby"),
}  # fmt: skip


@pytest.mark.parametrize("case", COMBINATIONS)
def test_combinations_of_classes_equal_autograd(case, explainer):
    target, scalar, name = COMBINATIONS[case]
    e = explainer(images(), targets=[target, -1])
    expected = maps([scalar, lambda y: y.max(1).values], images())
    np.testing.assert_allclose(e.maps, expected, atol=2e-5 * expected.max())
    for i in range(3):
        logits = torch.from_numpy(e.scores[i : i + 1])
        assert e.score(i) == pytest.approx(float(scalar(logits)), rel=1e-5)
        assert name is None or e.label(i) == name
    assert np.array_equal(e.classes[:, 1], e.scores.argmax(1))


def test_each_image_has_its_own_list_of_any_length(explainer):
    e = explainer(images(), targets=[["tabby"], [1, "not tabby", -1], ["2 - 3", 4]])
    logit = [lambda y, c=c: y[:, c] for c in range(CLASSES)]
    alone = maps([*logit, lambda y: -y[:, 0], lambda y: y[:, 2] - y[:, 3]], images())
    best = int(e.scores[1].argmax())
    expected = [(0, 0, 0), (1, 0, 1), (1, 1, 5), (1, 2, best), (2, 0, 6), (2, 1, 4)]
    for i, t, which in expected:
        np.testing.assert_allclose(e.maps[i, t], alone[i, which], atol=2e-5 * alone.max())
    assert [e.asked(i) for i in range(3)] == [1, 3, 2]
    assert [row.count("not_asked") for row in e.status] == [2, 0, 1]
    assert e.classes.tolist() == [[0, -1, -1], [1, 0, best], [2, 4, -1]]
    assert not e.maps[0, 1:].any() and not e.heatmaps[2, 2].any()
    assert [len(image["targets"]) for image in e.to_dict()["images"]] == [1, 3, 2]
    with pytest.raises(FastcamError, match="no target 1: 1 were explained"):
        e.overlay(0, 1)
    assert [x.label(0, 0) for x in (e[1], e[2:])] == ["tiger cat", "black-and-tan - not a number"]


def test_plain_targets_stay_plain(explainer):
    e = explainer(images(), targets=[0, -1])
    assert e.targets == ()
    assert "target" not in e.to_dict()["images"][0]["targets"][0]


def test_a_prediction_is_explained_for_any_combination():
    made = export_model(classifier(), labels=LABELS, on_demand=True, check=False)
    explainer = Explainer(made.model.SerializeToString(), explanation=made.explanation.SerializeToString())
    prediction = explainer.predict(images())
    expected = maps([lambda y: y[:, 0] - y[:, 1]], images())
    e = explainer.explain(prediction, targets="tabby - tiger cat")
    np.testing.assert_allclose(e.maps, expected, atol=2e-5 * expected.max())


def test_what_was_asked_is_reported(explainer, tmp_path):
    e = explainer(images(1), targets=["tabby - tiger cat", -1])
    report = e.to_dict()["images"][0]["targets"][0]
    assert (report["target"], report["class"], report["label"]) == ("tabby - tiger cat", 0, LABELS[0])
    assert report["terms"] == [{"class": 0, "coefficient": 1.0}, {"class": 1, "coefficient": -1.0}]
    assert json.loads(json.dumps(report))["score"] == pytest.approx(float(e.scores[0, 0] - e.scores[0, 1]), rel=1e-5)
    assert e.save(tmp_path)[0].name == "image-1-tabby-tiger-cat.png"


def test_names_of_combinations():
    assert combined_name(((0, -2.0),), LABELS) == "not 2 tabby"
    assert combined_name(((0, -1.0), (1, 0.25)), LABELS) == "-tabby + 0.25 tiger cat"
    assert combined_name(((0, 1.0), (7, -1.0)), None) == "class 0 - class 7"


@pytest.mark.parametrize(
    ("targets", "words"),
    [
        ({}, "combination of no classes"),
        ({"tabby": 0}, "must be a number other than zero"),
        ({"tabby": float("nan")}, "must be a number other than zero"),
        ({"tabby": "1"}, "must be a number other than zero"),
        ({"taby": 1}, "no class 'taby'; did you mean 'tabby'"),
        ({9: 1}, "class 9 is out of range"),
        ("tabby - tigre cat", "no class 'tigre cat'; did you mean 'tiger cat'"),
        ("not tabby - tiger cat", "both not and a sign"),
        ("0*tabby", "zero times"),
        ("tabby - ", "no class 'tabby - '"),
        ([["tabby"], "tabby"], "both were given"),
    ],
)
def test_impossible_combinations(explainer, targets, words):
    with pytest.raises(FastcamError, match=words) as caught:
        explainer(images(2), targets=targets)
    assert "\n" not in str(caught.value)


def test_a_file_of_maps_refuses_sums():
    explainer = Explainer(export_model(classifier(), emit="cam", check=False).model.SerializeToString())
    for targets in ({0: 1, 1: -1}, [[0], [{1: 1, 2: 1}, 2]]):
        with pytest.raises(FastcamError, match="export with --emit weights"):
            explainer(images(2), targets=targets)


def test_classes_that_are_asked_twice_are_run_once():
    asked = Targets(5, LABELS).resolve([{"tabby": 1, 1: -1}, "tabby", "not tiger cat"], 1)
    assert asked.classes.tolist() == [[0, 1]]
    np.testing.assert_array_equal(asked.coefficients(1)[0], [[1, -1], [1, 0], [0, -1]])


def test_the_command_line_takes_combinations(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    export_model(classifier(), "m.onnx", labels=LABELS, preprocess="unit", check=False)
    import cv2

    cv2.imwrite("p.png", np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8))
    result = CliRunner().invoke(
        app, ["explain", "m.onnx", "p.png", "-t", "tabby - tiger cat", "-t", "not tabby", "-t", "-1"]
    )
    assert result.exit_code == 0, result.output
    assert "tabby - tiger cat" in result.output and "not tabby" in result.output
    assert (tmp_path / "fastcam-out" / "p-1-tabby-tiger-cat.png").exists()


# ---- cotangents


@pytest.fixture(scope="module", params=[False, True], ids=["one file", "on demand"])
def functional(request):
    made = export_model(classifier(), targets="cotangent", on_demand=request.param)
    explanation = made.explanation.SerializeToString() if request.param else None
    return Explainer(made.model.SerializeToString(), explanation=explanation, batch_size=2)


def ways(pictures):
    """The probability of the predicted class, as array and as function of the outputs."""
    plain = Explainer(export_model(classifier(), check=False).model.SerializeToString())(pictures).scores
    yield cotangents.probability(plain, -1)
    yield lambda outputs: cotangents.probability(outputs["logits"], -1)
    yield lambda outputs: {"logits": cotangents.probability(outputs["logits"], -1)}


@pytest.mark.parametrize("way", range(3))
def test_a_cotangent_equals_autograd(way, functional):
    expected = maps([lambda y: torch.softmax(y, 1).max(1).values], images())
    cotangent = list(ways(images()))[way]
    called = functional(images(), cotangent=cotangent)
    later = functional.explain(functional.predict(images()), cotangent=cotangent)
    for e in (called, later):
        np.testing.assert_allclose(e.maps, expected, atol=2e-5 * expected.max())
        assert e.label(2) == "target 1"
        y = e.outputs["logits"]
        np.testing.assert_allclose(e.scores[:, 0], (y * cotangents.probability(y, -1)[:, 0]).sum(1), rtol=1e-5)
    assert called.to_dict()["images"][0]["targets"][0]["class"] is None
    part = functional.explain(
        functional.predict(images())[1:3], cotangent=lambda o: cotangents.probability(o["logits"], -1)
    )
    np.testing.assert_allclose(part.maps, expected[1:], atol=2e-5 * expected.max())


def test_one_row_is_for_all_images(functional):
    row = np.eye(CLASSES, dtype=np.float32)[None]
    e = functional(images(), cotangent=row)
    expected = maps([lambda y, c=c: y[:, c] for c in range(CLASSES)], images())
    np.testing.assert_allclose(e.maps, expected, atol=2e-5 * expected.max())
    np.testing.assert_allclose(e.scores, e.outputs["logits"], rtol=1e-6)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"targets": "box"}, "'box': .* explains logits .*no boxes .*it answers class:NAME, probability:NAME"),
        ({"targets": 1, "cotangent": np.zeros((1, 1, CLASSES))}, "both given"),
        ({"cotangent": np.zeros((1, 1, 4))}, r"is \[N, T, 5\], got \[1, 1, 4\]"),
        ({"cotangent": np.zeros((1, 0, CLASSES))}, r"is \[N, T, 5\]"),
        ({"cotangent": np.zeros((2, 1, CLASSES))}, "for 2 images, there are 3"),
        ({"cotangent": np.full((1, 1, CLASSES), np.nan)}, "not finite"),
        ({"cotangent": {"boxes": np.zeros((1, 1, CLASSES))}}, "wanted of logits, given of boxes"),
    ],
)
def test_cotangents_that_do_not_fit(functional, options, words):
    with pytest.raises(FastcamError, match=words) as caught:
        functional(images(), **options)
    assert "\n" not in str(caught.value)


def test_a_file_of_classes_takes_no_cotangent(explainer):
    with pytest.raises(FastcamError, match="export the model again with --targets cotangent"):
        explainer(images(), cotangent=np.zeros((1, 1, CLASSES)))


def test_the_command_line_exports_cotangents_and_says_how_they_are_used(tmp_path, monkeypatch):
    import onnx

    monkeypatch.chdir(tmp_path)
    onnx.save(classifier(), "plain.onnx")
    result = CliRunner().invoke(app, ["export", "plain.onnx", "--targets", "cotangent", "--output-name", "logits"])
    assert result.exit_code == 0, result.output
    assert "what fastcam.cotangent says of logits" in result.output
    assert Explainer("plain.cam.onnx").metadata.cotangents[0].shape == (CLASSES,)


@pytest.mark.parametrize(
    "export", [{"emit": "cam"}, {"input_gradient": "guided"}, {"input_gradient": "lrp-epsilon"}], ids=str
)
def test_lists_of_different_length_where_nothing_adds_up(export):
    """One class a target is a choice, and no sum: maps after their ReLU and modes that are not linear allow it."""
    explainer = Explainer(export_model(classifier(), check=False, **export).model.SerializeToString(), batch_size=2)
    pictures, lists = images(3), [[4, -1], [2], [0, 3, 2]]
    together = explainer(pictures, targets=lists)
    for n, own in enumerate(lists):
        alone = explainer(pictures[n : n + 1], targets=own)
        np.testing.assert_allclose(together.maps[n, : len(own)], alone.maps[0], atol=1e-6)
        assert not together.maps[n, len(own) :].any()
        assert together.status[n][: len(own)] == alone.status[0] and set(together.status[n][len(own) :]) <= {
            "not_asked"
        }
        if "input_gradient" in export:
            np.testing.assert_allclose(together.input_gradients[n, : len(own)], alone.input_gradients[0], atol=1e-6)
            assert np.abs(alone.input_gradients).max() > 0
    if "emit" in export:
        with pytest.raises(FastcamError, match="do not add up"):
            explainer(pictures, targets=[{0: 1, 1: -1}])
