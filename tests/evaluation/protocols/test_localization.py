"""Localization, GT-known and energy against their definitions, pixel by pixel on full-size maps."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy import ndimage

from fastcam.evaluation.protocols import PROTOCOLS
from fastcam.evaluation.protocols.energy import Energy
from fastcam.evaluation.protocols.localization import GroundTruthLocalization, Localization
from fastcam.evaluation.protocols.regions import best_overlap, box_pixels
from support.evaluation_cases import case, enlarged, figures, mark, present

SIZE = (32, 32)


def random_maps(rng, count, side=4):
    return rng.normal(size=(count, side, side)).astype(np.float32) + 0.3


def random_box(rng):
    x, y = np.sort(rng.choice(33, 2, replace=False)), np.sort(rng.choice(33, 2, replace=False))
    return tuple(map(float, (x[0], y[0], x[1], y[1])))


def largest_box(heat):
    """The box of the component with most pixels of what reaches 15 % of the maximum."""
    labels, count = ndimage.label(heat >= np.float32(0.15) * heat.max(), np.ones((3, 3)))
    sizes = ndimage.sum_labels(np.ones(heat.shape), labels, range(1, count + 1))
    y, x = np.nonzero(labels == 1 + int(np.argmax(sizes)))
    return x.min(), y.min(), x.max() + 1, y.max() + 1


def pixel_iou(a, b, size=SIZE):
    inside = [np.zeros(size, bool), np.zeros(size, bool)]
    for pixels, (x0, y0, x1, y1) in zip(inside, (a, b), strict=True):
        pixels[int(y0) : int(y1), int(x0) : int(x1)] = True
    return (inside[0] & inside[1]).sum() / max(1, (inside[0] | inside[1]).sum())


def overlaps(boxes, others):
    return [[best_overlap(box, other[None]) for other in others] for box in boxes]


def test_overlaps_count_pixels():
    rng = np.random.default_rng(1)
    a, b = [random_box(rng) for _ in range(40)], [random_box(rng) for _ in range(30)]
    want = [[pixel_iou(one, other) for other in b] for one in a]
    np.testing.assert_allclose(overlaps(np.array(a), np.array(b)), want, atol=1e-12)
    assert overlaps(np.zeros((1, 4)), np.zeros((1, 4))) == [[0]]
    assert [best_overlap(box, np.array(b)) for box in np.array(a)] == [
        max(row) for row in overlaps(np.array(a), np.array(b))
    ]
    assert best_overlap(np.array(a[0], np.float32), np.zeros((0, 4))) == 0
    mask = pytest.importorskip("pycocotools.mask", reason="pycocotools is not installed")
    corners = [np.concatenate([np.array(x)[:, :2], np.array(x)[:, 2:] - np.array(x)[:, :2]], 1) for x in (a, b)]
    np.testing.assert_allclose(overlaps(np.array(a), np.array(b)), mask.iou(*corners, [0] * 30), atol=1e-12)


def test_a_pixel_is_inside_a_box_of_fractions_where_its_corner_is():
    got = box_pixels(np.array([[1.5, 0.0, 3.0, 1.2]]), (3, 4))
    assert np.argwhere(got).tolist() == [[y, x] for y in range(2) for x in range(4) if 1.5 <= x < 3 and y < 1.2]


def test_the_four_errors_are_ilsvrcs():
    """e = mean over marked classes of min over predictions and boxes of max(wrong class, overlap < 0.5)."""
    rng = np.random.default_rng(2)
    protocol, rows, want = Localization(), [], []
    for _ in range(60):
        scores, maps = rng.normal(size=10), random_maps(rng, 5)
        ranked = np.argsort(-scores)
        truth = rng.choice(10, 2, replace=False)
        marked = [present(f"c{c}", c, *(mark(f"c{c}", random_box(rng)) for _ in range(3))) for c in truth]
        one = case(maps, ranked[:5], marked, SIZE, scores, columns=[-1, -2, -3, -4, -5])
        rows.append(json.loads(json.dumps(protocol.measure(one))))
        errors = []
        for most in (1, 5):
            wrong, missed = [], []
            for each in marked:
                d = [0 if ranked[j] == each.target else 1 for j in range(most)]
                f = [
                    min(
                        0 if pixel_iou(largest_box(enlarged(maps[j], SIZE)), m.box) >= 0.5 else 1
                        for m in each.annotations
                    )
                    for j in range(most)
                ]
                wrong.append(min(d))
                missed.append(min(max(pair) for pair in zip(d, f, strict=True)))
            errors += [np.mean(wrong), np.mean(missed)]
        want.append(errors)
    got = figures(protocol, *rows)
    names = [f"top-{k} {what} error" for k in (1, 5) for what in ("classification", "localization")]
    np.testing.assert_allclose([got[name].value for name in names], np.mean(want, 0), atol=1e-12)
    assert got[names[0]].n == 60
    assert got[names[1]].low <= got[names[1]].value <= got[names[1]].high


def test_several_classes_of_the_model_may_stand_for_a_label():
    map_ = np.zeros((4, 4))
    map_[1:3, 1:3] = 1
    marked = [present("dog", 3, mark("dog", (5, 5, 27, 27)), classes={7})]
    row = Localization().measure(case([map_] * 5, [7, 1, 3, 0, 2], marked, SIZE, columns=[-1, -2, -3, -4, -5]))
    assert row == {"ranks": [[1, 1]]}


def test_a_class_that_is_marked_difficult_alone_and_a_model_of_few_classes():
    marked = [present("a", 0, mark("a", (0, 0, 9, 9), difficult=True)), present("b", 1, mark("b", (0, 0, 32, 32)))]
    one = case(np.ones((2, 4, 4)), [1, 0], marked, SIZE, columns=[-1, -2])
    assert Localization().measure(one) == {"ranks": [[1, 1]]}
    only = [present("a", 0, mark("a", (0, 0, 9, 9), crowd=True))]
    assert Localization().measure(case(np.ones((2, 4, 4)), [1, 0], only, SIZE, columns=[-1, -2])) is None
    assert GroundTruthLocalization().measure(case(np.ones((1, 4, 4)), [0], only, SIZE)) is None


def test_the_true_class_s_box_whatever_was_predicted():
    rng = np.random.default_rng(3)
    protocol, rows, want = GroundTruthLocalization(), [], []
    for _ in range(40):
        maps = random_maps(rng, 1)
        boxes = [random_box(rng) for _ in range(4)]
        one = case(maps, [4], [present("x", 4, *(mark("x", box) for box in boxes))], SIZE)
        rows.append(protocol.measure(one))
        want.append(max(pixel_iou(largest_box(enlarged(maps[0], SIZE)), box) for box in boxes))
    got = figures(protocol, *rows)
    np.testing.assert_allclose(got["mean IoU of boxes"].value, np.mean(want), atol=1e-6)
    assert got["GT-known localization error"].value == np.mean(np.array(want) < 0.5)


def test_a_map_without_heat_localizes_nothing_and_has_no_heat_anywhere():
    marked = [present("x", 4, mark("x", (0, 0, 32, 32)))]
    one = case(-np.ones((1, 4, 4)), [4], marked, SIZE)
    assert GroundTruthLocalization().measure(one) == {"iou": {"x": 0.0}}
    assert Energy().measure(one) == {"box": {"x": [0.0, 1.0]}, "mask": {}}


def test_the_share_of_heat_is_that_of_the_full_size_map():
    rng = np.random.default_rng(4)
    size = (48, 64)
    maps = random_maps(rng, 1)
    mask = rng.random(size) < 0.2
    ignored = rng.random(size) < 0.1
    crowd = np.zeros(size, bool)
    crowd[:10] = True
    marks = [mark("x", (3.0, 4.0, 20.0, 30.0), mask), mark("x", None, crowd, crowd=True)]
    one = case(maps, [4], [present("x", 4, *marks)], size, network=size, ignored=ignored)
    heat = enlarged(maps[0], size)
    box = np.zeros(size, bool)
    box[4:30, 3:20] = True
    counts = ~((ignored | crowd) & ~mask)
    row = Energy().measure(one)
    for kind, inside in (("box", box), ("mask", mask)):
        want = [heat[inside & counts].sum() / heat[counts].sum(), (inside & counts).sum() / counts.sum()]
        np.testing.assert_allclose(row[kind]["x"], want, atol=1e-5)
    got = figures(Energy(), row)
    np.testing.assert_allclose(
        got["heat in masks, times an even map's"].value, row["mask"]["x"][0] / row["mask"]["x"][1], atol=1e-12
    )


def test_protocols_are_known_by_their_names():
    assert all(PROTOCOLS[name]().name == name and PROTOCOLS[name].title for name in PROTOCOLS)
    assert {"localization", "gt-known", "energy"} <= set(PROTOCOLS)
