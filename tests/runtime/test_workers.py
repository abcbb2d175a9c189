"""What web servers and worker processes do: pictures as bytes, Explainers and results in pickles."""

from __future__ import annotations

import copy
import io
import pickle

import cv2
import numpy as np
import PIL.Image
import pytest
import torch

from fastcam import Explainer, FastcamError
from fastcam_export import export_model
from support.models.pyramid_model import pyramid

PICTURE = np.random.default_rng(0).integers(0, 256, (20, 24, 3)).astype(np.uint8)
PNG = cv2.imencode(".png", PICTURE[..., ::-1])[1].tobytes()


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    file = tmp_path_factory.mktemp("workers") / "m.cam.onnx"
    export_model(pyramid()[0], file, layer=["r3", "r2"], preprocess="unit")
    return file


@pytest.fixture(scope="module")
def explainer(path):
    return Explainer(path, threads=1, labels=[f"c{k}" for k in range(5)], batch_size=2)


@pytest.mark.parametrize(
    "image",
    [
        PNG,
        bytearray(PNG),
        memoryview(PNG),
        io.BytesIO(PNG),
        PIL.Image.fromarray(PICTURE),
        torch.from_numpy(PICTURE),
    ],
    ids=["bytes", "bytearray", "memoryview", "file object", "PIL", "DLPack"],
)
def test_a_picture_in_any_form_gives_what_its_pixels_give(explainer, image):
    wanted = explainer(PICTURE)
    found = explainer(image)
    np.testing.assert_array_equal(found.heatmaps, wanted.heatmaps)
    np.testing.assert_array_equal(found.image(), PICTURE)
    assert found.files == (None,)
    several = explainer([PICTURE, PNG])
    np.testing.assert_array_equal(several.heatmaps[1], wanted.heatmaps[0])


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (b"no picture", "the bytes given: not a picture"),
        (PNG[:99], "cut short"),
        (io.StringIO("x"), "open it as bytes"),
    ],
)
def test_what_holds_no_picture_is_refused(explainer, image, words):
    with pytest.raises(FastcamError, match=words):
        explainer(image)


def test_an_explainer_pickles_as_its_path_and_settings(explainer, path):
    for one in (explainer, explainer.at("r2")):
        data = pickle.dumps(one)
        assert len(data) < 2000  # no weights
        again = pickle.loads(data)
        assert again.batch_size == 2 and again.metadata == one.metadata
        np.testing.assert_array_equal(again(PICTURE).heatmaps, one(PICTURE).heatmaps)
        assert copy.deepcopy(one)._network is one._network  # nothing is opened again
    of_bytes = pickle.loads(pickle.dumps(Explainer(path.read_bytes())))
    assert of_bytes(PICTURE).classes.tolist() == explainer(PICTURE).classes.tolist()


def test_results_pickle_and_copy(explainer):
    prediction, explanation = explainer.predict(PICTURE), explainer(PICTURE, targets=[0, {1: 1, 2: -1}], layers="all")
    for again in (pickle.loads(pickle.dumps(prediction)), copy.deepcopy(prediction)):
        np.testing.assert_array_equal(explainer.explain(again, targets=[3]).maps, explainer(PICTURE, targets=[3]).maps)
    for copied in (pickle.loads(pickle.dumps(explanation)), copy.deepcopy(explanation)):
        assert copied.to_dict() == explanation.to_dict()
        np.testing.assert_array_equal(copied.overlay(0, 1), explanation.overlay(0, 1))
