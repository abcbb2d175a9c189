"""How long sizes are tried of an input that leaves them free."""

import itertools
import time

import pytest

from fastcam_export.graph.load import load
from fastcam_export.layers.image_input import find_image
from fastcam_export.verify import sample
from fastcam_export.verify.sample import FEW, that_runs
from support.models.pieces import model


@pytest.fixture
def tried():
    """The sizes that a model is tried at which runs at none, and the error."""
    graph = load(model(image=[1, 3, "h", "w"])).model.graph

    def trying():
        sizes = []

        def run(one):
            sizes.append(one.feeds["x"].shape[2:])
            raise RuntimeError("never")

        with pytest.raises(RuntimeError) as error:
            that_runs(graph, find_image(graph), (), run)
        return sizes, error.value.sizes_tried

    return trying


def test_all_are_tried_where_that_is_quick(tried, monkeypatch):
    monkeypatch.setattr(sample, "PATIENCE", 1e9)
    sizes, count = tried()
    assert len(sizes) == count > 20


def test_few_are_tried_where_it_takes_long(tried, monkeypatch):
    ticks = itertools.count(0, 60)
    monkeypatch.setattr(time, "monotonic", lambda: next(ticks))
    assert tried()[1] == FEW


def test_none_is_tried_that_takes_much_memory(tried, monkeypatch):
    monkeypatch.setattr(sample, "LARGEST", 2 * 3 * 128 * 128)
    first, *others = tried()[0]
    assert first == (224, 224) and others and max(a * b for a, b in others) <= 128 * 128


def test_a_second_search_has_what_the_first_in_vain_left(tried, monkeypatch):
    ticks = itertools.count(0, 60)
    monkeypatch.setattr(time, "monotonic", lambda: next(ticks))
    with sample.patience():
        assert [tried()[1] for _ in range(3)] == [FEW, 1, 1]
    assert tried()[1] == FEW
