"""Which preprocessing an Explainer takes: the file's, the user's, and what does not fit the model."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from fastcam import Explainer, FastcamError
from fastcam.schema import PRESETS, Preprocessing, preset
from fastcam_export import export_model
from support.models.contract_model import LABELS, batch, brightness_model, noise, random_model
from support.models.small_models import classifier


@pytest.fixture(scope="module")
def model():
    return random_model(end="Softmax", labels=LABELS)


def test_grey_models_take_colour_pictures():
    how = preset("unit", size=(32, 32), color="GRAY")
    found = Explainer(brightness_model((32, 32), how).file())(np.full((32, 32, 3), 255, np.uint8), targets=0)
    np.testing.assert_allclose(found.maps[0, 0] * 64, 0.3, rtol=1e-5)


def test_without_preprocessing_pictures_are_refused_and_tensors_work(model):
    plain = replace(model, preprocessing=None).file()
    with pytest.raises(FastcamError, match="--preprocess, one of: imagenet, tf"):
        Explainer(plain)(noise())
    found = Explainer(plain)(batch(2))
    np.testing.assert_allclose(found.scores, model.scores(batch(2)), rtol=1e-5)
    assert found.overlay().shape == (32, 32, 3)


@pytest.mark.parametrize("given", ["imagenet", preset("imagenet", size=(32, 32)), preset("imagenet", size=None)])
def test_preprocessing_can_be_said_by_the_user(model, given):
    image = noise(32, 32)
    found = Explainer(replace(model, preprocessing=None).file(), preprocess=given)(image)
    x = (image / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    np.testing.assert_allclose(found.scores, model.scores(x.transpose(2, 0, 1)[None]), rtol=1e-4)


def test_a_preset_keeps_the_resize_rule_of_the_file(model):
    file = replace(model, preprocessing=preset("imagenet", size=(32, 32), resize="letterbox")).file()
    how = Explainer(file, preprocess="tf").metadata.preprocessing
    assert how == preset("tf", size=(32, 32), resize="letterbox")


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("imagnet", "no preprocessing preset 'imagnet'"),
        (Preprocessing(size=(64, 64)), r"the input of .* is \(32, 32\)"),
    ],
)
def test_preprocessing_that_does_not_fit_is_refused(model, given, words):
    with pytest.raises(FastcamError, match=words):
        Explainer(model.file(), preprocess=given)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"scale": 1 / 128, "mean": (127.0,)}, r"no pixel reaches the mean 127: .* end at 1\.992"),
        ({"scale": 1.0, "mean": (0.485, 0.456, 0.406), "std": (0.229,) * 3}, "give a scale of 1/255"),
        ({"scale": 1.0, "mean": (0.5,), "std": (0.5,)}, "give a scale of 1/255"),
    ],
)
def test_numbers_of_other_units_are_refused(model, changes, words):
    how = preset("raw", size=(32, 32), **changes)
    with pytest.raises(FastcamError, match=words):
        Explainer(model.file(), preprocess=how)
    with pytest.raises(FastcamError, match=words):
        export_model(classifier(), preprocess=changes, check=False)


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_is_of_one_unit(model, name):
    Explainer(model.file(), preprocess=preset(name, size=(32, 32)))


def test_a_grey_preprocessing_does_not_fit_a_colour_model(model):
    with pytest.raises(FastcamError, match=r"takes 3 channels, and GRAY makes 1; say its color"):
        Explainer(model.file(), preprocess=preset("unit", size=(32, 32), color="GRAY"))


def test_models_of_free_size_see_pictures_in_their_own():
    model = random_model(size=("H", "W"), preprocessing=preset("unit", size=None))
    explainer = Explainer(model.file())
    image = noise(48, 80)
    found = explainer(image, targets=1)
    x = image.transpose(2, 0, 1)[None] / 255
    np.testing.assert_allclose(found.maps, np.maximum(model.signed(x, np.array([[1]])), 0), rtol=1e-4, atol=1e-7)
    assert found.heatmaps.shape == (1, 1, 48, 80)
    with pytest.raises(FastcamError, match="one by one"):
        explainer([noise(48, 80), noise(48, 84)])
