"""Weights stay in files during an export: the same bytes come out, and what one file cannot hold lies beside it."""

import hashlib

import numpy as np
import onnx
import onnxruntime
import pytest

from fastcam import FastcamError
from fastcam_export import export_model
from fastcam_export.graph import load, weights
from tests.support.models.small_models import classifier, save

IMAGES = np.random.default_rng(3).standard_normal((2, 3, 8, 8)).astype(np.float32)


def located():
    """A model whose weights say that they lie in it, as those read from another file do."""
    model = classifier()
    for tensor in model.graph.initializer:
        tensor.data_location = onnx.TensorProto.DEFAULT
    return model


def make_all_large(monkeypatch):
    monkeypatch.setattr(weights, "APART", 1)
    monkeypatch.setattr(weights, "MANY", 1)
    monkeypatch.setattr(load, "LARGE", 0)


@pytest.fixture
def apart(monkeypatch):
    """Every weight is a large one."""
    make_all_large(monkeypatch)


def files(folder, source, **options):
    folder.mkdir()
    made = export_model(source, folder / "x.cam.onnx", **options)
    return {path.name: path.read_bytes() for path in made.files}


@pytest.mark.parametrize("form", [{}, {"head": True, "on_demand": True}, {"frames": True, "preprocess": "imagenet"}])
@pytest.mark.parametrize("where", ["memory", "file", "beside", "located"])
def test_the_files_are_those_of_an_export_in_memory(tmp_path, monkeypatch, where, form):
    source = located() if where == "located" else classifier()
    if where in ("file", "beside"):
        source = save(source, tmp_path / "model.onnx", external=where == "beside")
    before = files(tmp_path / "before", source, **form)
    moved = []
    put = weights._point
    monkeypatch.setattr(weights, "_point", lambda *given: moved.append(given) or put(*given))
    make_all_large(monkeypatch)
    assert files(tmp_path / "after", source, **form) == before
    assert moved


@pytest.mark.usefixtures("apart")
@pytest.mark.parametrize("form", [{}, {"head": True, "on_demand": True}])
def test_what_one_file_cannot_hold_lies_beside_it(tmp_path, monkeypatch, form):
    source = save(classifier(), tmp_path / "model.onnx", external=True)
    whole = export_model(source).model
    monkeypatch.setattr(weights, "FULL", 1)
    made = export_model(source, tmp_path / "x.cam.onnx", **form)
    data = made.files[0]
    content = data.read_bytes()
    assert data.name == f"x.cam.{hashlib.sha256(content).hexdigest()[:8]}.data"
    for tensor in classifier().graph.initializer:
        assert content.count(tensor.raw_data) == 1  # once for all files
    source.unlink()
    (tmp_path / "weights.bin").unlink()
    expected = onnxruntime.InferenceSession(whole.SerializeToString()).run(["logits"], {"image": IMAGES})
    session = onnxruntime.InferenceSession(str(tmp_path / "x.cam.onnx"))
    np.testing.assert_array_equal(session.run(["logits"], {"image": IMAGES}), expected)
    for path in made.files[1:]:
        onnx.checker.check_model(str(path))


@pytest.mark.usefixtures("apart")
def test_weights_that_cannot_be_put_aside_stay(tmp_path, monkeypatch):
    monkeypatch.setattr(weights, "PUT_ASIDE", "no/such/folder")
    assert export_model(classifier()).check["bit_identical"]


@pytest.mark.usefixtures("apart")
@pytest.mark.parametrize("damage", ["gone", "cut", "elsewhere"])
def test_what_is_wrong_with_a_file_beside_the_model_is_said(tmp_path, damage):
    source, data = save(classifier(), tmp_path / "model.onnx", external=True), tmp_path / "weights.bin"
    if damage == "cut":
        data.write_bytes(data.read_bytes()[:50])
    else:
        other = tmp_path / ".." / f"{tmp_path.name}.bin"
        data.rename(other)
        if damage == "elsewhere":
            data.symlink_to(other)
    with pytest.raises(FastcamError, match=r"model\.onnx keeps weights in another file that cannot be read"):
        export_model(source)


@pytest.mark.usefixtures("apart")
def test_a_folder_that_leads_elsewhere_is_not_followed(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "elsewhere").mkdir()
    source = save(classifier(), tmp_path / "model" / "model.onnx", external=True)
    (tmp_path / "model" / "weights.bin").rename(tmp_path / "elsewhere" / "weights.bin")
    (tmp_path / "model" / "link").symlink_to(tmp_path / "elsewhere")
    model = onnx.load(source, load_external_data=False)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            entry.value = "link/weights.bin" if entry.key == "location" else entry.value
    source.write_bytes(model.SerializeToString())
    with pytest.raises(FastcamError, match="keeps weights in another file that cannot be read"):
        export_model(source)
