"""Predict, then explain: a pair of files through Explainer says what the one file says."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest

from fastcam import Explainer, FastcamError
from fastcam.schema import Metadata
from fastcam_export import export_model
from support.models.small_models import save
from support.models.split_models import pictures, residual, run


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
