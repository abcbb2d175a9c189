"""Pictures of a run lie beside each other: they are joined without a copy, and in any other case with one."""

from __future__ import annotations

import threading
from dataclasses import replace

import numpy as np
import pytest

from fastcam import Explainer
from fastcam.explain import streaming
from fastcam.image.preprocess import Geometry
from fastcam.runtime.inputs import batch
from fastcam.runtime.inputs.batch import Batch, Rows, join_batches
from support.models.contract_model import random_model

SHAPE = (1, 3, 4, 5)


def part(tensor):
    tensor[:] = np.random.default_rng(0).standard_normal(tensor.shape)
    return Batch(tensor, (tensor[0],), (Geometry.unchanged((4, 5)),), (None,))


def joined(tensors):
    parts = [part(one) for one in tensors]
    found = join_batches(parts)
    np.testing.assert_array_equal(found.tensor, np.concatenate([one.tensor for one in parts]))
    return found.tensor


def test_neighbours_are_joined_without_a_copy():
    rows = Rows(4)
    tensors = [rows.row(i)(SHAPE) for i in (2, 0, 1, 3)]
    for some in ([tensors[1], tensors[2], tensors[0]], [tensors[0], tensors[3]]):
        assert np.shares_memory(joined(some), some[0])


@pytest.mark.parametrize("order", [(1, 0), (0, 2), (0, 0), (3, 4), (3, 5)])
def test_what_does_not_follow_each_other_is_copied(order):
    """The last two are the end of an array and a row of the next, and a picture of an array of its own."""
    first, second = Rows(4), Rows(4)
    own = np.empty(SHAPE, np.float32)
    tensors = [*(first.row(i)(SHAPE) for i in range(4)), second.row(0)(SHAPE), own]
    assert not np.shares_memory(joined([tensors[i] for i in order]), tensors[order[0]])


def test_other_shapes_and_what_is_too_large_have_arrays_of_their_own(monkeypatch):
    rows = Rows(2)
    assert rows.row(0)(SHAPE).base is not None and rows.row(1)((1, 3, 8, 8)).base is None
    monkeypatch.setattr(batch, "MOST", 2 * 4 * 60 - 1)
    assert Rows(2).row(0)(SHAPE).base is None and Rows(1).row(0)(SHAPE).base is not None


def test_threads_share_an_array():
    rows, found = Rows(8), [None] * 8

    def take(number):
        found[number] = rows.row(number)(SHAPE)

    threads = [threading.Thread(target=take, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert np.shares_memory(joined(found), found[7])


def test_a_streams_pictures_are_joined_where_they_were_prepared(monkeypatch):
    explainer = Explainer(random_model().file())
    rng = np.random.default_rng(0)
    given = [rng.integers(0, 256, (40, 50, 3), dtype=np.uint8) for _ in range(9)]
    given[4] = "absent.png"  # is a run of its own: of 3 alone before it, and of rows of two arrays behind it
    shared = []

    def watched(parts):
        made = join_batches(parts)
        shared.append(np.shares_memory(made.tensor, parts[0].tensor))
        return replace(made, tensor=made.tensor)

    monkeypatch.setattr(streaming, "join_batches", watched)
    found = [*explainer.stream(given, batch_size=3, workers=3)]
    assert shared == [True, True, False, True]
    for picture, frame in zip(given, found):
        if isinstance(picture, str):
            assert frame.error is not None
        else:
            np.testing.assert_allclose(frame.explanation.heatmaps, explainer(picture).heatmaps, atol=1e-6)
