"""Adversarial noise: a picture of bytes within epsilon that the plain model takes for what is not there."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest

from fastcam.evaluation.data import open_data
from fastcam.preprocessing import preset
from fastcam_bench.paper.attack import NOTHING, SURE, Attack

MODEL = Path(__file__).parents[3] / "fastcam" / "data" / "scenes.onnx"


@pytest.fixture(scope="module")
def attack():
    return Attack(MODEL, "head/linear", preset("imagenet", size=(128, 128)), single=True)


def test_the_plain_model_sees_the_absent_class_and_none_that_is_there(attack):
    sample = next(iter(open_data("scenes:1,seed=7,size=128,objects=2").samples()))
    labels = open_data("scenes:1").labels
    present = sorted({labels.index(label) for label in sample.labels})
    absent = next(index for index in range(10) if index not in present)
    got = attack(sample.picture, absent, present, epsilon=16)
    assert got.done and got.picture.dtype == np.uint8
    assert np.abs(got.picture.astype(int) - sample.picture).max() <= 16
    x = (got.picture / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    session = ort.InferenceSession(str(MODEL), providers=["CPUExecutionProvider"])
    p = session.run(["probabilities"], {"image": x.transpose(2, 0, 1)[None].astype(np.float32)})[0][0]
    assert p[absent] > SURE - 1e-5 and p[present].max() < 1.05 * NOTHING


def test_without_room_for_noise_the_picture_stays_and_says_so(attack):
    picture = np.full((128, 128, 3), 128, np.uint8)
    got = attack(picture, 0, [1], epsilon=0, most=3)
    assert not got.done and got.steps == 3 and (got.picture == picture).all()
