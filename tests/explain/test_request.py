"""A call's parameters stand once, and a run knows what it has explained: the model runs no more often than it must."""

from __future__ import annotations

import inspect
from dataclasses import fields
from typing import Any

import numpy as np
import pytest

from fastcam import Explainer, FastcamError
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


@pytest.mark.parametrize("call", ["__call__", "explain", "stream"])
def test_explain_options_has_the_names_and_defaults_of_every_call(call: str) -> None:
    parameters = inspect.signature(getattr(Explainer, call)).parameters
    shared = {field.name: field.default for field in fields(ExplainOptions)}
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
