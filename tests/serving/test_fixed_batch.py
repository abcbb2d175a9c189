"""A file with a fixed batch takes any number of rows: its runs are filled up, and several clients meet in one."""

from __future__ import annotations

import time

import numpy as np
import onnxruntime
import pytest

from fastcam import Explainer, FastcamError
from fastcam.serving.limits import Limits
from fastcam.serving.model import ServedModel
from fastcam.serving.parameters import Parameters
from fastcam_export import export_model
from support.models.small_models import save
from support.models.split_models import MODELS
from support.servers.served_model import PICTURES, PNGS


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fixed")
    make, layer = MODELS["residual"]
    source = save(make(batch=4), folder / "net.onnx")
    export_model(source, folder / "net.cam.onnx", layer=layer, check=False, preprocess="imagenet")
    return folder / "net.cam.onnx"


@pytest.fixture
def model(path):
    made = ServedModel("tiny", "1", Explainer(path), Limits())
    yield made
    made.close()


def tensor(rows):
    return np.random.default_rng(3).random((rows, 3, 16, 16), np.float32)


def soon():
    return time.monotonic() + 30


@pytest.mark.parametrize("rows", [1, 3, 4, 6])
def test_tensors_of_any_number_of_rows(model, path, rows):
    x, targets = tensor(rows), np.array([[0, -1]])
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_outputs()]
    found = model.infer({"image": x, "fastcam.targets": targets}, names, soon())
    for row in range(rows):
        four = {"image": np.repeat(x[row : row + 1], 4, 0), "fastcam.targets": targets}
        for name, wanted in zip(names, session.run(None, four), strict=True):
            np.testing.assert_allclose(found[name][row], wanted[0], rtol=1e-5, atol=1e-6, err_msg=name)
    assert {len(value) for value in found.values()} == {rows}


def test_pictures_that_do_not_fill_a_run(model, path):
    found = model.explain(PNGS[:3], Parameters((1, -1)), soon())
    for one, picture in zip(found, PICTURES, strict=False):
        wanted = Explainer(path)(picture, [1, -1])
        np.testing.assert_allclose(one.maps, wanted.maps, rtol=1e-5, atol=1e-6)
        assert one.boxes.tolist() == wanted.boxes.tolist()


@pytest.mark.parametrize("rows", [0, 2])
def test_rows_that_do_not_belong_to_images_are_refused(model, rows):
    """They would shift those of other clients in the same run."""
    other = np.zeros((1, 2), np.float32)
    with pytest.raises(FastcamError, match="one for each image" if not rows else "give as many"):
        model.infer({"image": tensor(rows), **({"other": other} if rows else {})}, (), soon())
