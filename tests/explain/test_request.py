"""A call's parameters stand once, and a run knows what it has explained: the model runs no more often than it must."""

from __future__ import annotations

import copy
import gc
import inspect
import weakref
from dataclasses import MISSING, fields
from typing import Any

import numpy as np
import pytest

from fastcam import Explainer, FastcamError
from fastcam.explain.opened_file import OpenOptions
from fastcam.explain.request import ExplainOptions
from fastcam_export import export_model
from support.models.small_models import classifier

X = np.random.default_rng(3).standard_normal((3, 3, 8, 8)).astype(np.float32)


def explainer(**options: Any) -> Explainer:
    made = export_model(classifier(), check=False, **options)
    parts = {} if made.explanation is None else {"explanation": made.explanation.SerializeToString()}
    return Explainer(made.model.SerializeToString(), **parts)


def counting(explainer: Explainer, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Notes the images of each forward pass."""
    runs: list[int] = []
    forward = explainer._network.forward

    def counted(tensor: Any, *more: Any) -> Any:
        runs.append(len(tensor))
        return forward(tensor, *more)

    monkeypatch.setattr(explainer._network, "forward", counted)
    return runs


def test_open_options_has_the_names_and_defaults_of_an_explainer() -> None:
    parameters = list(inspect.signature(Explainer).parameters.values())
    own = [
        (field.name, inspect.Parameter.empty if field.default is MISSING else field.default)
        for field in fields(OpenOptions)
    ]
    assert [(one.name, one.default) for one in parameters] == own


@pytest.mark.parametrize("call", ["__call__", "explain", "stream"])
def test_explain_options_has_the_names_and_defaults_of_every_call(call: str) -> None:
    parameters = inspect.signature(getattr(Explainer, call)).parameters
    shared = dict(ExplainOptions._field_defaults)
    if call == "stream":
        del shared["progress"]
    assert {name: parameters[name].default for name in shared} == shared
    if call != "stream":  # which has parameters of its own between
        assert [name for name in list(parameters)[2:] if name not in ("inputs", "text")] == list(shared)


def test_a_run_says_what_it_has_explained() -> None:
    network = explainer()._network
    run = network.forward(X, np.array([[0, -1], [1, 1], [2, 0]]))
    assert run.explains(np.array([[0, -1], [1, 1], [2, 0]]))
    assert not run.explains(np.array([[0, -1]]))
    assert run[1:3].explains(np.array([[1, 1], [2, 0]])) and not run[1:3].explains(np.array([[0, -1], [1, 1]]))
    assert network.forward(X, np.array([[-1]]))[1:2].explains(np.array([[-1]]))


def test_a_forward_part_has_explained_nothing() -> None:
    run = explainer(on_demand=True)._network.forward(X, np.array([[-1]]))
    assert not run.explained and not run.explains(np.array([[-1]]))


@pytest.mark.parametrize("targets, runs", [(-1, [3]), ([0, 1], [3, 3]), ([[0], [1], [2]], [3, 3])])
def test_a_prediction_runs_again_only_for_other_targets(
    monkeypatch: pytest.MonkeyPatch, targets: Any, runs: list[int]
) -> None:
    ours = explainer()
    counted = counting(ours, monkeypatch)
    found = ours.explain(ours.predict(X), targets)
    assert counted == runs
    wanted = ours(X, targets)
    assert counted == [*runs, 3]
    for name in ("classes", "maps", "heatmaps", "boxes"):
        np.testing.assert_array_equal(getattr(found, name), getattr(wanted, name))


def test_what_is_wrong_is_said_before_anything_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    ours = explainer()
    counted = counting(ours, monkeypatch)
    for wrong in ({"threshold": 0}, {"style": "none"}, {"method": "none"}, {"layers": "none"}, {"targets": 99}):
        with pytest.raises(FastcamError):
            ours(X, **wrong)
    with pytest.raises(FastcamError, match="explain with the Explainer that predicted"):
        explainer(emit="cam").explain(ours.predict(X))
    assert counted == [3]


def test_a_question_asked_twice_is_checked_once_and_answered_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    one = explainer()
    resolved: list[Any] = []
    inner = one._requests.targets
    monkeypatch.setattr(one._requests, "targets", lambda *asked: resolved.append(asked) or inner(*asked))
    first, again = one(X, targets=1, threshold=0.4), one(X[:2], targets=1, threshold=0.4)
    assert len(resolved) == 1
    np.testing.assert_array_equal(first.boxes[:2], again.boxes)
    np.testing.assert_array_equal(first.classes[:2], again.classes)
    assert one(X, targets=1, threshold=0.9).threshold == 0.9 and one(X, targets=2).classes.tolist() == [[2]] * 3


def test_a_known_question_is_not_taken_for_one_of_another_type() -> None:
    one = explainer()
    one(X, targets=1, connectivity=8)
    with pytest.raises(FastcamError):
        one(X, targets=True)
    with pytest.raises(FastcamError):
        one(X, targets=1, connectivity=8.0)


def test_what_was_asked_keeps_no_picture_alive() -> None:
    one = explainer()
    given = X.copy()
    alive = weakref.ref(given)
    one(given, targets=1)
    del given
    gc.collect()
    assert alive() is None


def test_another_layer_has_questions_of_its_own() -> None:
    one = explainer()
    one(X)
    assert one._requests._known and not copy.copy(one)._requests._known
