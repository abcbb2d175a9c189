"""Files that cannot be explained, each named with its fault, and forms that can."""

from __future__ import annotations

import os

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from fastcam import Explainer, FastcamError
from fastcam.schema import METADATA_KEY
from support.models.contract_model import LABELS, ContractModel, batch, random_model


@pytest.fixture(scope="module")
def model():
    return random_model(end="Softmax", labels=LABELS)


def without_output(data, name):
    model = onnx.load_from_string(data)
    outputs = [output for output in model.graph.output if output.name != name]
    del model.graph.output[:]
    model.graph.output.extend(outputs)
    return model.SerializeToString()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda data: b"", "not an ONNX file, or cut short"),
        (lambda data: b"hello", "not an ONNX file, or cut short"),
        (lambda data: data[: len(data) // 2], "not an ONNX file, or cut short"),
        (lambda data: data[:-3], "not an ONNX file, or cut short"),
        (lambda data: without_output(data, "fastcam.weights"), "lacks fastcam.weights"),
        (lambda data: data.replace(b'"schema": 1', b'"schema": 9'), "metadata schema 9"),
        (lambda data: data.replace(b'"emit"', b'"time"'), "metadata is incomplete"),
        (lambda data: random_model().file(metadata=False), "was not exported by FastCAM; run: fastcam export"),
    ],
)
@pytest.mark.parametrize("as_path", [True, False])
def test_files_that_cannot_be_explained(model, tmp_path, change, words, as_path):
    given = change(model.file())
    if as_path:
        (tmp_path / "odd.onnx").write_bytes(given)
        given = tmp_path / "odd.onnx"
    with pytest.raises(FastcamError, match=words) as caught:
        Explainer(given)
    assert "\n" not in str(caught.value)
    if as_path and "metadata" not in words:
        assert str(given) in str(caught.value)


def test_missing_files_and_folders_are_named(tmp_path):
    with pytest.raises(FastcamError, match=r"absent\.onnx: no such file"):
        Explainer(tmp_path / "absent.onnx")
    with pytest.raises(FastcamError, match="not a file"):
        Explainer(tmp_path)


@pytest.mark.parametrize("as_path", [True, False])
def test_missing_external_data_is_named(model, tmp_path, as_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # where ONNX Runtime looks for the data of a model given as bytes
    path = tmp_path / "model.onnx"
    proto = onnx.load_from_string(model.file())
    onnx.save_model(proto, path, save_as_external_data=True, location="model.data", size_threshold=256)
    assert Explainer(path)(batch(1)).classes.shape == (1, 1)
    for damage, words in ((lambda file: os.truncate(file, 100), "cut short"), (os.unlink, "model.data, is missing")):
        damage(tmp_path / "model.data")
        with pytest.raises(FastcamError, match=f"external data.*{words}") as caught:
            Explainer(path if as_path else path.read_bytes())
        assert "\n" not in str(caught.value)


def test_further_required_inputs_are_named(model):
    proto = onnx.load_from_string(model.file())
    proto.graph.input.append(onnx.helper.make_tensor_value_info("extra", 1, [1]))
    proto.graph.node.append(onnx.helper.make_node("Add", ["logits", "extra"], ["unused"]))
    with pytest.raises(FastcamError, match=r"needs a value for its input 'extra' \(float \[1\]\)"):
        Explainer(proto.SerializeToString())(batch(1))


def test_a_failing_run_is_reported_in_one_line(model):
    proto = onnx.load_from_string(model.file())
    proto.graph.initializer.append(numpy_helper.from_array(np.array([7, 3]), "shape"))  # fits no batch of scores
    proto.graph.node.append(onnx.helper.make_node("Reshape", ["logits", "shape"], ["odd"]))
    proto.graph.output.append(onnx.helper.make_tensor_value_info("odd", 1, [7, 3]))
    broken = Explainer(proto.SerializeToString())
    with pytest.raises(FastcamError, match="ONNX Runtime could not run it") as caught:
        broken(batch(1))
    assert "\n" not in str(caught.value)


def test_half_precision_inputs_and_maps_are_read(model):
    proto = onnx.load_from_string(model.file())
    proto.graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.FLOAT16
    for node in proto.graph.node:
        node.input[:] = ["image32" if name == "image" else name for name in node.input]
    proto.graph.node.insert(0, onnx.helper.make_node("Cast", ["image"], ["image32"], to=1))
    found = Explainer(proto.SerializeToString())(batch(2))
    np.testing.assert_allclose(found.scores, model.scores(batch(2)), atol=2e-3)


def test_metadata_key_is_what_the_file_carries(model):
    proto = onnx.load_from_string(model.file())
    assert [entry.key for entry in proto.metadata_props] == [METADATA_KEY]
    assert isinstance(model, ContractModel)
