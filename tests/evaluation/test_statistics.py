"""Figures of shares: at 0 and at 1, where a bootstrap has no width, the interval is Wilson's."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import optimize

from fastcam.evaluation.protocols.faithfulness.subject import Means
from fastcam.evaluation.protocols.localization import Localization
from fastcam.evaluation.protocols.pointing import Pointing, PointingRecall
from fastcam.evaluation.protocols.wsol import CURVES, Wsol
from fastcam.evaluation.statistics import Ratio, Ratios, weights_of, wilson

Z = 1.959963984540054


def ends(share, n):
    """By its definition: the shares p at which the observed one lies 1.96 of their standard errors away."""

    def away(p):
        return (share - p) ** 2 - Z**2 * p * (1 - p) / n

    low = 0.0 if share == 0 else optimize.brentq(away, 1e-15, max(share - 1e-9, 2e-15))
    high = 1.0 if share == 1 else optimize.brentq(away, min(share + 1e-9, 1 - 2e-15), 1 - 1e-15)
    return low, high


@pytest.mark.parametrize("hits, n", [(0, 2), (0, 50), (3, 10), (499, 500), (7, 7), (2000, 2000)])
def test_wilson_is_the_score_intervals_definition(hits, n):
    assert wilson(hits / n, n) == pytest.approx(ends(hits / n, n), abs=1e-6)


def filled(ratio, values, objects=1):
    for n, value in enumerate(values):
        weights = weights_of(f"picture {n}")
        for _ in range(objects):
            ratio.add(value, weights)
    return ratio.figure()


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_where_all_or_none_are_hits_the_trials_are_pictures(value):
    for objects in (1, 3):  # in one picture, which say little more than one
        figure = filled(Ratio(share=True), [value] * 40, objects)
        assert (figure.value, figure.n) == (value, 40 * objects)
        assert (figure.low, figure.high) == pytest.approx(ends(value, 40), abs=1e-6)
    figure = filled(Ratio(), [value] * 40)  # a mean of what is no share, such as a correlation
    assert figure.low == figure.high == value


def test_between_them_the_interval_is_the_bootstraps_and_of_one_picture_there_is_none():
    values = [1.0] * 30 + [0.0] * 10
    assert filled(Ratio(share=True), values) == filled(Ratio(), values)
    assert np.isnan(filled(Ratio(share=True), [1.0]).low)


def test_a_mean_over_classes_has_the_trials_of_its_weights():
    """Kish: the sum of the pictures' weights, squared, over the sum of their squares."""
    ratios, sizes = Ratios(), {"a": 4, "b": 40, "c": 9}
    for label, size in sizes.items():
        for n in range(size):
            ratios.add(label, 1.0, weights_of(f"{label} {n}"), share=True)
    each = np.concatenate([np.full(size, 1 / (len(sizes) * size)) for size in sizes.values()])
    figure = ratios.mean()
    assert (figure.low, figure.high) == pytest.approx(ends(1.0, each.sum() ** 2 / (each**2).sum()), abs=1e-6)


def test_every_protocols_shares_have_a_width():
    """Ten pictures in which everything is missed."""
    curves = dict.fromkeys(CURVES.values(), "0" * 100)
    rows = {
        Localization(): {"ranks": [[0, 0]]},
        Pointing(): {"ring": [0, 0, 1]},
        PointingRecall(): {"predicted": [[1, 0, 0.5]]},
        Wsol(): {"ring": curves},
    }
    for protocol, row in rows.items():
        tally = protocol.tally()
        for n in range(10):
            tally.add(row, weights_of(str(n)))
        for name, figure in tally.figures().items():
            if ("threshold of" not in name and not name.endswith("best threshold")) or "accuracy" in name:
                width = figure.high - figure.low
                assert width == pytest.approx(np.diff(ends(0.0, 10))[0], abs=1e-6), (protocol.name, name)
    means = Means(("share", "accuracy without"))
    for n in range(10):
        means.add({"maps": [{"accuracy without": 1.0, "rank correlation": 1.0}]}, weights_of(str(n)))
    figures = means.figures()
    assert figures["accuracy without"].low < 1 == figures["rank correlation"].low
