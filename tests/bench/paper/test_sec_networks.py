"""SEC's classifiers and measures: ONNX Runtime beside the trained head, IoU beside sets of pixels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
import torch

import fastcam
from fastcam_bench.models.train_bundled import normalise
from fastcam_bench.paper.sec.__main__ import make_scenes, measure, on_grid
from fastcam_bench.paper.sec.networks import Segmenter, read_parameters, with_new_head
from fastcam_bench.paper.sec.training import LOSSES, segment, train

BUNDLED = Path(fastcam.__file__).parent / "data" / "scenes.onnx"


@pytest.fixture(scope="module")
def scenes():
    return make_scenes(15, 3, read_parameters(BUNDLED))


@pytest.mark.parametrize("hidden", [True, False])
def test_a_file_with_a_new_head_is_the_trained_network(scenes, hidden):
    parameters, present = read_parameters(BUNDLED), scenes.inputs.present.numpy()
    file, head = with_new_head(parameters, scenes.inputs.coarse.repeat(4, 1, 1, 1), np.tile(present, (4, 1)), hidden, 2)
    found = ort.InferenceSession(file).run(None, {"image": normalise(scenes.images[:3])})[0]
    with torch.no_grad():
        wanted = head(scenes.inputs.coarse[:3]).sigmoid().numpy()
    np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_iou_is_that_of_sets_of_pixels(scenes):
    found = np.random.default_rng(0).integers(0, 11, scenes.truth.shape).astype(np.uint8)
    ious = []
    for number in range(11):
        ours, theirs = (set(np.flatnonzero(masks == number).tolist()) for masks in (found, scenes.truth))
        ious.append(len(ours & theirs) / len(ours | theirs))
    figures = measure(found, scenes)
    assert abs(figures["mean IoU"]["value"] - np.mean(ious)) < 1e-12
    assert abs(figures["IoU of the background"]["value"] - ious[0]) < 1e-12
    assert measure(scenes.truth, scenes)["mean IoU"]["value"] == 1


def test_training_lowers_the_losses_and_gives_a_class_to_each_pixel(scenes):
    seeds = on_grid(scenes.truth)
    assert seeds.shape == (15, 24, 24) and (seeds == scenes.truth[:, 2::5, 2::5][:, :24, :24]).mean() > 0.8
    net = train(scenes.inputs, seeds, LOSSES, 40)
    made = segment(net, scenes.inputs, 128, crf=True)
    assert made.shape == scenes.truth.shape and made.dtype == np.uint8
    untrained = segment(Segmenter(11), scenes.inputs, 128, crf=True)
    right, before = (measure(masks, scenes)["IoU of the background"]["value"] for masks in (made, untrained))
    assert right > max(before, 0.5)
