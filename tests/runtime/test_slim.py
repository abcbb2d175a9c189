"""``fastcam export --slim``: ONNX Runtime's own format explains as the exported file does, also float16 and int8."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import cv2
import numpy as np
import onnx
import onnxruntime
import pytest
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_static
from typer.testing import CliRunner

import fastcam
from fastcam import Explainer, FastcamError, Settings
from fastcam.cli import app
from fastcam_export import export_model, write_slim
from support.models.half_models import FLOAT16, in_half

DATA = Path(fastcam.__file__).parent / "data"
SOURCE = DATA / "scenes.onnx"


class Pictures(CalibrationDataReader):
    """A few scenes, for the ranges of activations."""

    def __init__(self, name):
        scene = cv2.imread(str(DATA / "scene.jpg"))[:, :, ::-1]
        values = (cv2.resize(scene, (128, 128)) / 255 - (0.485, 0.456, 0.406)) / (0.229, 0.224, 0.225)
        tensor = values.transpose(2, 0, 1)[None].astype(np.float32)
        self.left = iter([{name: tensor}, {name: tensor[..., ::-1].copy()}])

    def get_next(self):
        return next(self.left, None)


@pytest.fixture(scope="module", params=["float32", "float16", "int8"])
def exported(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("slim")
    source = onnx.load(SOURCE)
    if request.param == "float16":
        source = in_half(source, FLOAT16)
    elif request.param == "int8":
        copy = shutil.copy(SOURCE, folder)  # the quantiser writes beside its source, where another worker does so too
        quantize_static(
            str(copy), str(folder / "int8.onnx"), Pictures(source.graph.input[0].name), quant_format=QuantFormat.QDQ
        )
        source = onnx.load(folder / "int8.onnx")
    path = folder / "net.cam.onnx"
    export_model(source, path, preprocess="imagenet", labels=DATA / "scenes.labels.txt")
    return request.param, path, *write_slim(path)


def types_of(path):
    """Element types of the weights in a file, with how many numbers have them."""
    found = {}
    for tensor in onnx.load(path).graph.initializer:
        kind = onnx.TensorProto.DataType.Name(tensor.data_type)
        found[kind] = found.get(kind, 0) + int(np.prod(tensor.dims))
    return max(found, key=found.get)


def test_the_maps_are_those_of_the_exported_file(exported):
    kind, path, slim, _ = exported
    assert types_of(path) == {"float32": "FLOAT", "float16": "FLOAT16", "int8": "INT8"}[kind]
    assert slim.name == "net.cam.ort" and slim.read_bytes()[4:8] == b"ORTM"
    pictures = [DATA / "scene.jpg", DATA / "two_objects.jpg"]
    wanted, found = (Explainer(one, threads=1)(pictures, [-1, -2]) for one in (path, slim))
    np.testing.assert_array_equal(found.classes, wanted.classes)
    assert found.status == wanted.status and "ok" in found.status[0]
    np.testing.assert_allclose(found.maps, wanted.maps, atol=1e-5 * wanted.maps.max())  # float32 sums in another order
    np.testing.assert_allclose(found.scores, wanted.scores, atol=1e-5)
    np.testing.assert_array_equal(found.boxes, wanted.boxes)


def test_small_numbers_explain_what_float32_explains(exported, tmp_path):
    _, _, slim, _ = exported
    export_model(SOURCE, tmp_path / "full.cam.onnx", preprocess="imagenet", check=False)
    wanted, found = (Explainer(one)(DATA / "scene.jpg") for one in (tmp_path / "full.cam.onnx", slim))
    assert found.classes.tolist() == wanted.classes.tolist()
    correlation = np.corrcoef(found.heatmaps.ravel(), wanted.heatmaps.ravel())[0, 1]
    assert correlation > 0.98


def test_the_metadata_and_the_labels_are_there(exported):
    _, path, slim, _ = exported
    ours, theirs = Explainer(slim), Explainer(path)
    assert ours.metadata == theirs.metadata
    assert ours(DATA / "scene.jpg").label() == theirs(DATA / "scene.jpg").label()


def test_the_list_holds_every_operator_that_the_file_runs(exported, tmp_path):
    _, path, _, operators = exported
    lines = [line for line in operators.read_text().splitlines() if not line.startswith("#")]
    assert all(re.fullmatch(r"[a-z.]+;\d+;\w+(,\w+)*", line) for line in lines), lines
    listed = {(line.split(";")[0], name) for line in lines for name in line.split(";")[2].split(",")}
    # ONNX Runtime's own account of the same graph, as an ONNX file
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    options.log_severity_level = 4
    left_out = ["NchwcTransformer"]
    onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"], disabled_optimizers=left_out)
    nodes = onnx.load(tmp_path / "optimized.onnx").graph.node
    assert listed == {(node.domain or "ai.onnx", node.op_type) for node in nodes}


def export(*options):
    return CliRunner().invoke(app, ["export", str(SOURCE), *map(str, options)])


def test_the_verb_writes_both_and_says_so(tmp_path):
    done = export("-o", tmp_path / "a.cam.onnx", "--preprocess", "imagenet", "--slim")
    assert done.exit_code == 0, done.output
    for name in ("a.cam.onnx", "a.cam.ort", "a.cam.required_operators.config"):
        assert (tmp_path / name).is_file() and name in done.output


def test_what_is_wrong_is_one_line(tmp_path):
    done = export("-o", tmp_path / "a.cam.onnx", "--slim", "--on-demand")
    assert done.exit_code == 2 and "--slim takes an export in one file" in done.output
    assert not list(tmp_path.iterdir())
    (tmp_path / "b.cam.onnx").write_bytes(b"no model")
    with pytest.raises(FastcamError, match="cannot write it in its own format"):
        write_slim(tmp_path / "b.cam.onnx")
    assert [file.name for file in tmp_path.iterdir()] == ["b.cam.onnx"]


def test_a_file_that_is_cut_short_or_cannot_be_read_back_is_said_to_be(exported, tmp_path):
    content = exported[2].read_bytes()
    (tmp_path / "cut.ort").write_bytes(content[: len(content) // 2])
    with pytest.raises(FastcamError, match="own format, or cut short"):
        Explainer(tmp_path / "cut.ort")
    (tmp_path / "whole.ort").write_bytes(content)
    with pytest.raises(FastcamError, match="own format, which nobody reads back"):
        export_model(tmp_path / "whole.ort", tmp_path / "out.onnx")


def test_settings_of_sessions_hold_for_it(exported, tmp_path):
    _, _, slim, _ = exported
    wanted = Explainer(slim)(DATA / "scene.jpg")
    settings = Settings(cache=tmp_path / "cache", keep_optimized=True)
    for _ in range(2):
        found = Explainer(slim, settings=settings)(DATA / "scene.jpg")
        np.testing.assert_array_equal(found.boxes, wanted.boxes)
