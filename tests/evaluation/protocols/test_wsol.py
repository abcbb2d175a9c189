"""MaxBoxAcc, MaxBoxAccV2 and PxAP against wsolevaluation's arithmetic, by brute force on full-size maps."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest
from scipy import ndimage

from fastcam.errors import FastcamError
from fastcam.evaluation.protocols.pxap import PxAP, pack, unpack
from fastcam.evaluation.protocols.sweep import swept
from fastcam.evaluation.protocols.wsol import Wsol, chosen
from fastcam.kernels import reference
from support.evaluation_cases import case, figures, mark, present

PICTURE, NETWORK = (75, 100), (64, 64)


def random_map(rng, side=5):
    """Smooth and of several hills; one in three is nowhere 0."""
    one = cv2.GaussianBlur(rng.normal(size=(side, side)), (3, 3), 0.6).astype(np.float32)
    return np.maximum(one, 0) if rng.random() < 2 / 3 else one - one.min() + np.float32(0.2)


def minmax_enlarged(one_map):
    heat = cv2.resize(one_map, NETWORK[::-1], interpolation=cv2.INTER_LINEAR)
    return (heat - heat.min()) / (heat.max() - heat.min())


def random_box(rng):
    """Somewhere in the picture, no side below 12 pixels."""
    x, y = rng.uniform(0, 80), rng.uniform(0, 55)
    return (x, y, x + rng.uniform(12, 100 - x), y + rng.uniform(12, 75 - y))


def resized_box(box):
    """int(x * new width / width), as wsolevaluation cuts down."""
    return [
        int(value * new / old)
        for value, new, old in zip(box, NETWORK[::-1] * 2, map(float, PICTURE[::-1] * 2), strict=True)
    ]


def inclusive_iou(a, b):
    shared = max(0, min(a[2], b[2]) - max(a[0], b[0]) + 1) * max(0, min(a[3], b[3]) - max(a[1], b[1]) + 1)
    union = sum((box[2] - box[0] + 1) * (box[3] - box[1] + 1) for box in (a, b)) - shared
    return shared / union


def brute_boxes(heat, threshold):
    """All components' boxes with their last row and column, the one of most pixels first."""
    steps = (heat * 255).astype(np.uint8)
    labels, count = ndimage.label(steps > int(threshold * steps.max()), np.ones((3, 3)))
    sizes = ndimage.sum_labels(np.ones(heat.shape), labels, range(1, count + 1))
    boxes = [
        [xs.start, ys.start, min(xs.stop, heat.shape[1] - 1), min(ys.stop, heat.shape[0] - 1)]
        for ys, xs in ndimage.find_objects(labels)
    ]
    return [boxes[i] for i in np.argsort(-sizes, kind="stable")] or [[0, 0, 0, 0]]


def made(rng, count):
    """Maps, boxes of each, and their cases."""
    maps, boxes = [random_map(rng) for _ in range(count)], [[random_box(rng), random_box(rng)] for _ in range(count)]
    cases = [
        case([one], [3], [present("x", 3, *(mark("x", box) for box in two))], PICTURE, network=NETWORK)
        for one, two in zip(maps, boxes, strict=True)
    ]
    return maps, boxes, cases


def test_both_accuracies_are_wsolevaluations():
    rng = np.random.default_rng(0)
    maps, boxes, cases = made(rng, 40)
    thresholds = np.arange(0, 1, 0.01)
    single, several = np.zeros((40, 100)), np.zeros((40, 100))
    for i, one in enumerate(maps):
        heat, truth = minmax_enlarged(one), [resized_box(box) for box in boxes[i]]
        for j, threshold in enumerate(thresholds):
            overlaps = [max(inclusive_iou(box, other) for other in truth) for box in brute_boxes(heat, threshold)]
            single[i, j], several[i, j] = overlaps[0], max(overlaps)
    protocol = Wsol()
    got = figures(protocol, *(json.loads(json.dumps(protocol.measure(one))) for one in cases))
    want = (single >= 0.5).mean(0)
    np.testing.assert_allclose(got["MaxBoxAcc"].value, want.max(), atol=1e-6)
    assert got["threshold of MaxBoxAcc"].value == pytest.approx(thresholds[want.argmax()])
    v2 = [(several >= share).mean(0).max() for share in (0.3, 0.5, 0.7)]
    np.testing.assert_allclose(got["MaxBoxAccV2"].value, np.mean(v2), atol=1e-6)
    np.testing.assert_allclose([got[f"MaxBoxAccV2 at IoU {share}"].value for share in (0.3, 0.5, 0.7)], v2, atol=1e-6)
    assert got["MaxBoxAcc"].n == 40 and 0 < got["MaxBoxAcc"].value < 1
    # chosen elsewhere: the same curves at other places
    elsewhere = (0.37, *chosen(got)[1:])
    given = figures(Wsol(thresholds=elsewhere), *(protocol.measure(one) for one in cases))
    np.testing.assert_allclose(given["BoxAcc"].value, want[37], atol=1e-6)
    assert given["BoxAccV2"].value == got["MaxBoxAccV2"].value and "MaxBoxAcc" not in given


def by_level(heat, levels, **options):
    """The components of rising levels, one list each."""
    rows, counts = swept(heat, levels[::-1], **options)
    return np.split(rows, np.cumsum(counts)[:-1])[::-1]


def test_opencv_s_outlines_say_the_same_but_for_holes_and_equals():
    """The largest area inside an outline is nearly always that of the component with most pixels."""
    rng = np.random.default_rng(5)
    same = []
    for _ in range(30):
        one = random_map(rng)
        steps = (minmax_enlarged(one) * 255).astype(np.uint8)
        levels = np.floor(np.arange(0, 1, 0.05) * 255)
        ours = by_level(cv2.resize(one, NETWORK[::-1]), (levels + 1) / 255)
        for level, found in zip(levels, ours, strict=True):
            binary = (steps > level).astype(np.uint8)
            outlines = cv2.findContours(binary, cv2.RETR_TREE, cv2.CHAIN_APPROX_SIMPLE)[0]
            x, y, w, h = cv2.boundingRect(max(outlines, key=cv2.contourArea))
            same.append(found[found[:, 4].argmax(), :4].tolist() == [x, y, x + w, y + h])
    assert np.mean(same) > 0.98


@pytest.mark.parametrize("side", [3, 7, 40])
def test_the_sweep_is_thresholding_the_enlarged_map(side):
    rng = np.random.default_rng(side)
    for window in (None, (0, 8, 64, 56)):
        one = random_map(rng, side)
        heat = reference.upsample(reference.normalize(one), NETWORK)
        low, high = float(heat.min()), float(heat.max())
        levels = np.linspace(0.05, 1, 20)
        for level, found in zip(levels, by_level(heat, levels, window=window), strict=True):
            inside = heat >= np.float32((low + level * (high - low)) / high) * np.float32(high)
            x0, y0, x1, y1 = window or (0, 0, 64, 64)
            kept = np.zeros_like(inside)
            kept[y0:y1, x0:x1] = inside[y0:y1, x0:x1]
            labels, count = ndimage.label(kept, np.ones((3, 3)))
            want = [
                [xs.start, ys.start, xs.stop, ys.stop, (labels[ys, xs] == i).sum()]
                for i, (ys, xs) in enumerate(ndimage.find_objects(labels), 1)
            ]
            assert found.tolist() == want and count == len(want)


def test_a_map_that_says_nothing_hits_at_no_threshold():
    marked = [present("x", 3, mark("x", (0, 0, 100, 75)))]
    for one in (np.full((4, 4), -1.0), np.full((4, 4), 2.0)):
        row = Wsol(steps=10).measure(case([one], [3], marked, PICTURE, network=NETWORK))
        assert set("".join(row["x"].values())) == {"0"}


def test_pxap_is_wsolevaluations():
    rng = np.random.default_rng(1)
    protocol, rows = PxAP(), []
    edges = np.append(np.arange(0, 1, 0.001), [1.0, 2.0, 3.0])
    inner, outer = np.zeros(1002), np.zeros(1002)
    for i in range(12):
        one = random_map(rng)
        mask, ignored = rng.random(PICTURE) < 0.3, rng.random(PICTURE) < 0.2
        rows.append(
            protocol.measure(
                case(
                    [one],
                    [3],
                    [present("x", 3, mark("x", None, mask))],
                    PICTURE,
                    network=NETWORK,
                    ignored=ignored if i % 2 else None,
                )
            )
        )
        small = cv2.resize(mask.astype(np.uint8), NETWORK[::-1], interpolation=cv2.INTER_NEAREST) > 0
        void = cv2.resize((ignored & ~mask).astype(np.uint8), NETWORK[::-1], interpolation=cv2.INTER_NEAREST) > 0
        heat = minmax_enlarged(one)
        inner += np.histogram(heat[small], edges)[0]
        outer += np.histogram(heat[~small & ~void] if i % 2 else heat[~small], edges)[0]
    tp, fp = inner[::-1].cumsum(), outer[::-1].cumsum()
    precision, recall = tp / np.maximum(tp + fp, 1), tp / tp[-1]
    want = (precision[1:] * np.diff(recall))[(tp + fp != 0)[1:]].sum()
    got = figures(protocol, *json.loads(json.dumps(rows)))
    np.testing.assert_allclose(got["PxAP"].value, want, atol=1e-6)
    assert got["PxAP"].low < want < got["PxAP"].high and got["PxAP"].n == 12


def test_replicates_in_which_no_picture_counts_widen_no_interval():
    """Of two pictures alike one replicate in seven holds none: those are no figures of 0."""
    row = {"a": [pack(np.array([0, 0, 5])), pack(np.array([7, 0, 0]))]}
    got = figures(PxAP(steps=2), row, row)["PxAP"]
    assert (got.value, got.low, got.high) == (1, 1, 1)
    flags = {"largest": "0011", "0.3": "0011", "0.5": "0011", "0.7": "0011"}
    threshold = figures(Wsol(steps=4), {"a": flags}, {"a": flags})["threshold of MaxBoxAcc"]
    assert (threshold.low, threshold.value) == (0.5, 0.5)


def test_counts_are_packed_and_unpacked():
    counts = np.random.default_rng(2).integers(0, 2**31, 1001)
    assert (unpack(pack(counts)) == counts).all()


def test_a_threshold_that_is_none_is_refused():
    with pytest.raises(FastcamError, match="give numbers from 0 to below 1 for MaxBoxAcc"):
        Wsol(thresholds=(0.5,))
    with pytest.raises(FastcamError, match=r"pxap.steps is 0; give 1 or more"):
        PxAP(steps=0)
