"""Maps that say little or nothing, and marks without pixels: every protocol gives what its definition gives by hand."""

from __future__ import annotations

import itertools
import json
import warnings

import cv2
import numpy as np
import pytest
from scipy import ndimage

from fastcam.evaluation import faithfulness as f
from fastcam.evaluation.protocols.energy import Energy
from fastcam.evaluation.protocols.localization import GroundTruthLocalization, Localization
from fastcam.evaluation.protocols.pointing import Pointing, PointingRecall, PointingTorchray
from fastcam.evaluation.protocols.pxap import PxAP
from fastcam.evaluation.protocols.seeds import SeedQuality
from fastcam.evaluation.protocols.wsol import Wsol
from support.evaluation_cases import case, figures, mark, present

SIDE = 32
BOX = (4.0, 6.0, 20.0, 24.0)


def hot(side, y, x, value=1.0):
    one = np.zeros((side, side), np.float32)
    one[y, x] = value
    return one


MAPS = {
    "constant": np.full((4, 4), 3.0),
    "zero": np.zeros((4, 4)),
    "negative": np.full((4, 4), -2.0),
    "nan": np.full((4, 4), np.nan),
    "one nan": np.where(hot(4, 1, 1) > 0, np.nan, hot(4, 2, 2)),
    "infinite": hot(4, 1, 2, np.inf),
    "one cell": np.ones((1, 1)),
    "one pixel": hot(SIDE, 10, 7),
    "one corner": hot(SIDE, 0, 0),
    "two far apart": hot(SIDE, 2, 30) + hot(SIDE, 12, 9),
    "tiny": hot(4, 1, 1, 1e-38),
    "huge": hot(4, 1, 1, 3e38),
    "nearly constant": np.float32(1) + hot(4, 1, 1, 1e-2),
}


def of(name, mask=None, box=BOX):
    marked = [present("x", 3, mark("x", box, mask))]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        return case([MAPS[name]], [3], marked, (SIDE, SIDE), network=(SIDE, SIDE))


def scaled(one):
    """Between 0 and 1 at the network's input; zeros of what is not finite, not positive, or the same everywhere."""
    heat = one.explanation.heatmaps[0, 0].astype(np.float64)
    spread = heat.max() - heat.min()
    good = one.explanation.status[0][0] == "ok" and spread > 0
    return (heat - heat.min()) / (heat.max() - heat.min()) if good else np.zeros_like(heat)


def inclusive_iou(a, b):
    shared = max(0, min(a[2], b[2]) - max(a[0], b[0]) + 1) * max(0, min(a[3], b[3]) - max(a[1], b[1]) + 1)
    union = sum((box[2] - box[0] + 1) * (box[3] - box[1] + 1) for box in (a, b)) - shared
    return shared / union


@pytest.mark.parametrize("name", MAPS)
def test_box_accuracies_at_every_threshold(name):
    one, steps = of(name), 255
    heat = scaled(one) * 255
    row = Wsol(steps=steps).measure(one)["x"]
    truth = [int(end) for end in BOX]
    for step in range(steps):
        level = int(step * (1 / steps) * 255)
        if np.abs(heat - level - 1).min() < 3e-3:  # a pixel on the edge of a step, where float32 rounds
            continue
        labels, count = ndimage.label(np.floor(heat) > level, np.ones((3, 3)))
        sizes = ndimage.sum_labels(np.ones(heat.shape), labels, range(1, count + 1))
        boxes = [
            [xs.start, ys.start, min(xs.stop, SIDE - 1), min(ys.stop, SIDE - 1)]
            for ys, xs in ndimage.find_objects(labels)
        ] or [[0, 0, 0, 0]]
        overlaps = [inclusive_iou(box, truth) for box in boxes]
        largest = overlaps[int(np.argmax(sizes))] if count else overlaps[0]
        want = [largest >= 0.5, *(max(overlaps) >= share for share in (0.3, 0.5, 0.7))]
        assert [row[key][step] for key in ("largest", "0.3", "0.5", "0.7")] == ["01"[one] for one in want], step


@pytest.mark.parametrize("truth", ["some", "none", "all"])
@pytest.mark.parametrize("name", MAPS)
def test_pxap_by_every_threshold(name, truth):
    mask = {"some": np.random.default_rng(0).random((SIDE, SIDE)) < 0.3, "none": np.zeros((SIDE, SIDE), bool)}.get(
        truth, np.ones((SIDE, SIDE), bool)
    )
    one = of(name, mask)
    heat, area, before = scaled(one).astype(np.float32), 0.0, 0.0
    for threshold in [*(np.arange(1000) * 0.001), 1.0][::-1]:
        above = heat >= threshold
        right, count = (above & mask).sum(), above.sum()
        if count and mask.any():
            recall = right / mask.sum()
            area, before = area + right / count * (recall - before), recall
    figure = figures(PxAP(), json.loads(json.dumps(PxAP().measure(one))))["PxAP"]
    assert figure.value == pytest.approx(area, abs=1e-6) if mask.any() else np.isnan(figure.value)


@pytest.mark.parametrize("name", MAPS)
def test_no_protocol_gives_a_figure_that_is_out_of_range_or_fails(name):
    mask = np.zeros((SIDE, SIDE), bool)
    mask[6:24, 4:20] = True
    for marks in (mask, np.zeros((SIDE, SIDE), bool), None):
        one = of(name, marks)
        ranked = of(name, marks)
        ranked.columns.update({-1: 0})
        for protocol in (
            GroundTruthLocalization(),
            Pointing(),
            PointingTorchray(),
            Energy(),
            SeedQuality(saliency="heatmap"),
            Wsol(),
        ):
            row = protocol.measure(one)
            for figure in figures(protocol, *([] if row is None else [json.loads(json.dumps(row))])).values():
                top = 1 if protocol.name != "energy" else 1e6
                assert not np.isfinite(figure.value) or 0 <= figure.value <= top, protocol.name
        for protocol in (Localization(), PointingRecall()):
            figures(protocol, json.loads(json.dumps(protocol.measure(ranked))))


@pytest.mark.parametrize("name", ["constant", "zero", "negative", "nan", "one nan", "infinite", "one cell"])
def test_what_says_nothing_points_at_the_middle_or_nowhere_and_finds_no_small_object(name):
    one = of(name, box=(26.0, 26.0, 30.0, 30.0))
    hit, _, _ = Pointing().measure(one)["x"]
    assert hit == (name in ("constant", "one cell"))  # 15 pixels from the middle
    far = case([MAPS[name]], [3], [present("x", 3, mark("x", (90.0, 90.0, 99.0, 99.0)))], (100, 100))
    assert Pointing().measure(far)["x"][0] == 0 and GroundTruthLocalization().measure(far)["iou"]["x"] < 0.5


@pytest.mark.parametrize("step", [0, 1, 7, 1000])
@pytest.mark.parametrize("heat", ["random", "constant", "nan", "ties", "infinite"])
def test_insertion_and_deletion_pixel_by_pixel(heat, step):
    """A model that looks at every pixel, and at pairs of them; pixels go one by one, of equals in raster order."""
    rng = np.random.default_rng(3)
    x, end = rng.normal(size=(3, 5, 6)).astype(np.float32), rng.normal(size=(3, 5, 6)).astype(np.float32)
    weights = rng.normal(size=(3, 5, 6))
    values = {
        "random": rng.random((5, 6)),
        "constant": np.ones((5, 6)),
        "nan": np.where(rng.random((5, 6)) < 0.3, np.nan, rng.random((5, 6))),
        "ties": rng.integers(0, 3, (5, 6)).astype(float),
        "infinite": np.where(rng.random((5, 6)) < 0.2, np.inf, rng.random((5, 6))),
    }[heat]

    def score(pictures):
        sums = (pictures * weights).sum((1, 2, 3))
        return sums + 0.1 * (pictures[:, 0, 1:] * pictures[:, 1, :-1]).sum((1, 2))

    order = sorted(range(30), key=lambda i: (np.isnan(values.flat[i]), -np.nan_to_num(values.flat[i], posinf=1e9), i))
    for formula, start, goal in ((f.deletion, x, end), (f.insertion, end, x)):
        now, curve = start.copy(), [score(start[None])[0]]
        for first in range(0, 30, step or 6):
            for pixel in order[first : first + (step or 6)]:
                now[:, pixel // 6, pixel % 6] = goal[:, pixel // 6, pixel % 6]
            curve.append(score(now[None])[0])
        found = formula(score, x, values, end, step, 4)
        np.testing.assert_allclose(found, curve, atol=1e-5)
        trapezoids = [(a + b) / 2 for a, b in itertools.pairwise(curve)]
        assert f.area(found) == pytest.approx(np.mean(trapezoids), abs=1e-5)
        np.testing.assert_allclose(found[-1], score(goal[None])[0], atol=1e-5)


def test_the_enlarged_map_of_one_pixel_has_its_peak_in_it():
    one = of("one pixel")
    y, x = np.unravel_index(one.explanation.heatmaps[0, 0].argmax(), (SIDE, SIDE))
    assert (y, x) == (10, 7) and one.explanation.peak(0, 0) == (7.5, 10.5)
    assert np.array_equal(cv2.resize(MAPS["one pixel"], (SIDE, SIDE)), one.explanation.heatmaps[0, 0])
