"""The maps that know nothing of a model, beside which faithfulness is measured."""

from __future__ import annotations

import numpy as np
import pytest

from fastcam import kernels
from fastcam_bench.accuracy.evaluation.faithfulness import centre, random_map
from fastcam_bench.report.faithfulness import SHOWN, known_bad_maps, quantus


def test_a_random_map_follows_from_the_name_and_is_as_coarse_as_the_layer():
    first = random_map("a.jpg", (64, 48), (4, 3))
    assert np.array_equal(first, random_map("a.jpg", (64, 48), (4, 3)))
    assert not np.array_equal(first, random_map("b.jpg", (64, 48), (4, 3)))
    assert first.shape == (64, 48) and first.min() >= 0 and first.max() <= 1
    coarse = first[8::16, 8::16]  # between two middles of cells the map is linear
    assert np.abs(kernels.get().upsample(np.ascontiguousarray(coarse), (64, 48)) - first).max() < 0.1


def test_the_central_map_is_highest_in_the_middle_and_alike_on_all_sides():
    heat = centre((20, 31))
    assert heat.argmax() in (9 * 31 + 15, 10 * 31 + 15) and heat.max() == pytest.approx(1, abs=0.01)
    np.testing.assert_allclose(heat, heat[::-1, ::-1], rtol=1e-6)


def test_tables_have_a_row_for_each_protocol_and_each_metric():
    assert all(f"| `{name}` |" in known_bad_maps() for name in SHOWN)
    assert quantus().count("\n| ") >= 9
