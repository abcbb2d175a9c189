"""The table of other people's files: what counts as a hit, and that every file of the assets stands in it."""

from types import SimpleNamespace

import numpy as np
import pytest

from fastcam.image.preprocess import fit
from fastcam.schema import preset
from fastcam_bench.accuracy import deployed
from fastcam_bench.accuracy.deployed import Question


def explanation(heat, boxes=(), scores=(), labels=()):
    """Of one picture of 20 x 40 that a network of 20 x 20 saw, a map for each target."""
    return SimpleNamespace(
        heatmaps=np.asarray(heat, np.float32)[None],
        status=(("ok",) * len(heat),),
        scores=np.array([scores or [1.0] * len(heat)], np.float32),
        targets=(tuple(SimpleNamespace(box=box) for box in boxes),),
        images=(np.zeros((20, 40, 3), np.uint8),),
        geometry=(fit((20, 40), (20, 20), preset("raw", size=(20, 20))),),
        asked=lambda image: len(heat),
        label=lambda image, target: labels[target],
    )


def spot(row, column):
    heat = np.zeros((20, 20), np.float32)
    heat[row, column] = 1
    return heat


def judged(found, boxes):
    return deployed.judged(lambda picture, targets: found, Question(found.images[0], -1, boxes))


def test_a_maximum_inside_the_objects_box_is_a_hit():
    inside, outside = (
        judged(explanation([spot(5, 5)]), [(8, 2, 14, 8)]),
        judged(explanation([spot(5, 15)]), [(8, 2, 14, 8)]),
    )
    assert inside[0]["pointing_hit"] and inside[0]["energy_inside"] > 0.9
    assert not outside[0]["pointing_hit"] and outside[0]["energy_inside"] < 0.1
    assert inside[0]["box_area"] == pytest.approx(36 / 800)


def test_a_detectors_own_boxes_are_those_of_the_network_and_of_scores_that_count():
    found = explanation([spot(5, 5), spot(5, 5)], [(4, 2, 7, 8), (4, 2, 7, 8)], [0.9, 0.4])
    (row,) = judged(found, None)
    assert row["pointing_hit"] and row["box_area"] == pytest.approx(36 / 800)  # 6 x 6 in the picture's pixels


def test_characters_that_are_read_otherwise_are_left_out():
    places = [(0, 0, 10, 20), (20, 0, 30, 20)]
    read = explanation([spot(5, 2), spot(5, 0), spot(5, 12)], labels=("text a", "text space", "text b"))
    assert [row["pointing_hit"] for row in judged(read, places)] == [True, True]
    assert judged(explanation([spot(5, 2)], labels=("text a",)), places) == []


def test_a_summary_counts_targets_without_a_map_apart():
    rows = [
        [{"status": "ok", "pointing_hit": True, "energy_inside": 0.5, "box_area": 0.2}],
        [{"status": "zero_gradient"}],
        [],
    ]
    found = deployed.summary(rows)
    assert found == {
        "pictures": 2, "targets": 2, "without_map": 1, "pointing_hit": 1.0, "energy_inside": 0.5, "box_area": 0.2
    }  # fmt: skip


def test_every_file_of_the_assets_is_in_the_table(assets):
    models = assets / "models"
    files = {str(path.relative_to(models)) for path in models.rglob("*.onnx")}
    assert files == {subject.file for subject in deployed.SUBJECTS}
