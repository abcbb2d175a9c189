"""The soak: threads that share one Explainer find the answers of one thread, and what is wrong is seen."""

from __future__ import annotations

import gc
import itertools
import os

import numpy as np
import pytest

from fastcam import Explainer
from fastcam_bench.speed.soak.mixed import ROUNDS, Soak, questions
from fastcam_bench.speed.soak.process import growth, verdict
from fastcam_bench.speed.soak.repeated import repeated
from support.models.contract_model import random_model


@pytest.fixture(autouse=True)
def only_own_objects():
    """A soak looks for cycles in each of its rounds: among its own objects, not among those of a thousand tests."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


def test_many_threads_get_the_answers_of_one():
    soak = Soak(Explainer(random_model().file()), questions())
    result = soak.run(threads=8, seconds=1.0)
    assert result["calls"] > 8 * result["questions"]
    assert result["differences"] == 0 and result["failures"] == []
    assert len(result["rss_mib"]) == ROUNDS + 1
    assert result["growth"] < 0.25  # a second is too short for more; a leak of every answer would be far above


def test_an_answer_that_differs_in_one_bit_and_a_call_that_fails_are_seen():
    explainer, number = Explainer(random_model().file()), itertools.count()
    asked = [{"images": np.zeros((32, 32, 3), np.uint8)}]

    def explain(**question):
        n = next(number)
        if n == 5:
            raise OSError("gone")
        found = explainer(**question)
        if n == 7:
            found.heatmaps.view(np.uint32)[0, 0, 3, 3] ^= 1
        return found

    result = Soak(explain, asked).run(threads=2, seconds=0.2)
    assert result["differences"] == 1 and result["failures"] == ["OSError: gone"]
    assert "1 of" in verdict(result) and "OSError: gone" in verdict(result)


@pytest.mark.parametrize(("share", "flat"), [(0.0, True), (0.005, True), (0.03, False)])
def test_memory_that_grows_steadily_is_no_longer_flat_at_one_percent(share, flat):
    samples = list(400 * np.linspace(1, 1 + share, 21))
    assert growth(samples) == pytest.approx(share * 0.6, rel=0.2)
    result = {"calls": 1, "differences": 0, "failures": [], "growth": growth(samples)}
    assert (verdict(result) == "") is flat


def test_explainers_that_are_dropped_leave_no_files_and_threads():
    file = random_model().file()
    result = repeated(lambda **question: Explainer(file)(**question), questions()[:2], 6)
    assert result["differences"] == 0 and result["calls"] == 6
    assert (
        result["files"][1] <= result["files"][0] and result["threads_of_process"][1] <= result["threads_of_process"][0]
    )


def test_files_and_threads_that_are_left_are_seen():
    kept = []

    def explain(**question):
        kept.append(os.open(__file__, os.O_RDONLY))
        return explainer(**question)

    explainer = Explainer(random_model().file())
    result = repeated(explain, questions()[:1], 5)
    for number in kept:
        os.close(number)
    assert "5 files more" in verdict(result | {"growth": 0.0})
