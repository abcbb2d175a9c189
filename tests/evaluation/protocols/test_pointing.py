"""The three pointing games against their rules, written down anew over all pixels of the picture."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest

from fastcam.errors import FastcamError
from fastcam.evaluation.protocols.pointing import Pointing, PointingRecall, PointingTorchray, near
from support.evaluation_cases import case, figures, mark, present

SIZE = (60, 80)


def disc(rng, size=SIZE):
    """The pixels of an object, about one in four of them large."""
    y, x = np.mgrid[: size[0], : size[1]]
    radius = rng.uniform(3, 30)
    return (y - rng.uniform(0, size[0])) ** 2 + (x - rng.uniform(0, size[1])) ** 2 < radius**2


def boxed(mask):
    y, x = np.nonzero(mask)
    return (float(x.min()), float(y.min()), float(x.max() + 1), float(y.max() + 1)) if len(x) else (0.0, 0.0, 1.0, 1.0)


def torchray_hit(mask, point, tolerance=15):
    """PointingGame.evaluate: any pixel of the mask in the open disc around the pixel (u, v)."""
    v, u = np.meshgrid(np.arange(mask.shape[0]) - point[1], np.arange(mask.shape[1]) - point[0], indexing="ij")
    return bool((mask & (v**2 + u**2 < tolerance**2)).any())


def pictures(rng, count, masks=True):
    """Cases of two classes each, with their maps and masks."""
    for _ in range(count):
        maps = rng.random((2, 5, 5)).astype(np.float32)
        labels = rng.choice(4, 2, replace=False)
        insides = [disc(rng), disc(rng)]
        marked = [
            present(f"c{c}", int(c), mark(f"c{c}", boxed(m), m if masks else None))
            for c, m in zip(labels, insides, strict=True)
        ]
        yield maps, labels, insides, case(maps, labels, marked, SIZE, network=SIZE)


def test_torchray_s_formulas():
    rng = np.random.default_rng(0)
    hits, misses, rows = np.zeros(4), np.zeros(4), []
    for maps, labels, insides, one in pictures(rng, 60):
        rows.append(PointingTorchray().measure(one))
        for one_map, label, inside in zip(maps, labels, insides, strict=True):
            heat = cv2.resize(one_map, SIZE[::-1], interpolation=cv2.INTER_LINEAR)
            v, u = np.unravel_index(heat.argmax(), heat.shape)
            hit = torchray_hit(inside, (u, v))
            hits[label] += hit
            misses[label] += not hit
    got = figures(PointingTorchray(), *json.loads(json.dumps(rows)))
    np.testing.assert_allclose(got["pointing accuracy"].value, (hits / (hits + misses)).mean(), atol=1e-12)
    np.testing.assert_allclose(got["pointing accuracy, all objects alike"].value, hits.sum() / 120, atol=1e-12)
    assert got["pointing accuracy"].n == 120


@pytest.mark.parametrize("masks", [True, False])
def test_zhang_s_game_and_its_difficult_subset(masks):
    rng = np.random.default_rng(1)
    by_class, difficult, centre, rows = {}, {}, {}, []
    for maps, labels, insides, one in pictures(rng, 60, masks):
        rows.append(Pointing().measure(one))
        for one_map, label, inside in zip(maps, labels, insides, strict=True):
            x0, y0, x1, y1 = map(int, boxed(inside))
            if not masks:
                inside = np.zeros(SIZE, bool)
                inside[y0:y1, x0:x1] = True
            heat = cv2.resize(one_map, SIZE[::-1], interpolation=cv2.INTER_LINEAR)
            plateau = np.argwhere(heat >= heat.max() * np.float32(1 - 1e-6))
            y, x = plateau.mean(0)
            places = np.argwhere(inside)
            hit = bool((((places - (y, x)) ** 2).sum(1) <= 225).any())
            by_class.setdefault(label, []).append(hit)
            centre.setdefault(label, []).append(bool((((places + 0.5 - (30, 40)) ** 2).sum(1) <= 225).any()))
            if (x1 - x0) * (y1 - y0) < SIZE[0] * SIZE[1] / 4:
                difficult.setdefault(label, []).append(hit)
    got = figures(Pointing(), *rows)
    for name, want in {"": by_class, ", difficult": difficult, " of the centre": centre}.items():
        mean = np.mean([np.mean(hits) for hits in want.values()])
        np.testing.assert_allclose(got[f"pointing accuracy{name}"].value, mean, atol=1e-12)
        assert got[f"pointing accuracy{name}"].n == sum(map(len, want.values())) > 0


def test_exactly_the_tolerance_away():
    inside = np.zeros((40, 40), bool)
    inside[20, 30] = True
    assert near(inside, 15.5, 20.5) and not near(inside, 15.5, 20.5, open_end=True)
    assert not near(inside, 15.4, 20.5) and near(inside, 30.5, 35.4) and not near(np.zeros((40, 40), bool), 5, 5)


def test_a_class_alone_is_not_difficult_and_one_marked_difficult_is_left_out():
    rng = np.random.default_rng(2)
    alone = [present("a", 0, mark("a", (0, 0, 9, 9)))]
    assert Pointing().measure(case(rng.random((1, 5, 5)), [0], alone, SIZE))["a"][2] == 0
    left_out = [present("a", 0, mark("a", (0, 0, 9, 9), difficult=True)), present("b", 1, mark("b", (0, 0, 80, 60)))]
    assert set(Pointing().measure(case(rng.random((2, 5, 5)), [0, 1], left_out, SIZE))) == {"b"}
    mixed = [present("a", 0, mark("a", (0, 0, 80, 60), difficult=True), mark("a", (0, 0, 2, 2)))]
    assert Pointing().measure(case(rng.random((1, 5, 5)), [0], mixed, SIZE))["a"][0] == 1


def test_a_class_that_is_marked_nowhere_is_left_out_and_no_miss():
    one = case(np.ones((5, 5, 5)), range(5), [present("a", 0, mark("a"))], SIZE, columns=range(-1, -6, -1))
    assert Pointing().measure(one) is None and PointingTorchray().measure(one) is None
    shown = [row[0] for row in PointingRecall().measure(one)["predicted"]]
    assert shown == [0] * 4  # the first is class 0, which is somewhere


def test_a_map_without_heat_hits_nothing():
    marked = [present("a", 0, mark("a", (0, 0, 80, 60)))]
    for protocol in (Pointing(), PointingTorchray()):
        assert protocol.measure(case(-np.ones((1, 5, 5)), [0], marked, SIZE))["a"] == [0, 1, 0]


def test_wrong_predictions_are_to_be_rejected():
    """Every threshold between two maxima, one after the other."""
    rng = np.random.default_rng(3)
    predictions, rows = [], []
    for _ in range(50):
        maps = rng.random((5, 5, 5)).astype(np.float32) * rng.lognormal(size=(5, 1, 1)).astype(np.float32)
        classes = rng.choice(10, 5, replace=False)
        inside = disc(rng)
        truth = int(classes[rng.integers(5)]) if rng.random() < 0.8 else 99
        one = case(
            maps, classes, [present("x", truth, mark("x", boxed(inside), inside))], SIZE, columns=range(-1, -6, -1)
        )
        rows.append(PointingRecall().measure(one))
        for column, index in enumerate(classes):
            x, y = one.explanation.peak(0, column)
            hit = bool((((np.argwhere(inside) + 0.5 - (y, x)) ** 2).sum(1) <= 225).any())
            predictions.append((index == truth, hit, maps[column].max()))

    def accuracy(threshold):
        return np.mean([top >= threshold and hit if shown else top < threshold for shown, hit, top in predictions])

    got = figures(PointingRecall(), *json.loads(json.dumps(rows)))
    best = got["best threshold"].value
    grid = 2.0 ** np.arange(-40, 20.1, 0.25)
    np.testing.assert_allclose(
        got["accuracy with rejection at the best threshold"].value, max(map(accuracy, [0, *grid])), atol=1e-12
    )
    np.testing.assert_allclose(got["accuracy without rejection"].value, accuracy(0), atol=1e-12)
    assert accuracy(best) == pytest.approx(got["accuracy with rejection at the best threshold"].value)
    given = figures(PointingRecall(threshold=1.3), *rows)
    np.testing.assert_allclose(given["accuracy with rejection at the given threshold"].value, accuracy(1.3), atol=1e-12)
    assert given["given threshold"].value == 1.3


def test_a_threshold_below_0_is_refused():
    with pytest.raises(FastcamError, match="0 or more"):
        PointingRecall(threshold=-1)
