"""Forward passes that are not ours, and the slopes that they give: ONNX's reference evaluator and ONNX Runtime."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto
from onnx.reference import ReferenceEvaluator

from fastcam_bench.accuracy.conformance.case import Array, Problem, cast, retyped, with_weights_as_inputs
from fastcam_export.verify.session import quiet_session

Forward = Callable[[Mapping[str, Array]], dict[str, Array]]

STATED = 2e-2
"""How closely, as a share of its largest value, an oracle must reproduce a stated output; half precision is coarse."""


@dataclass(frozen=True)
class Oracle:
    """A forward pass.

    Attributes:
        name: for the report.
        run: feeds -> outputs by name.
        steps: widths of central differences that suit its precision.
        tolerance: what such differences may err, as a share of the gradient's size.
    """

    name: str
    run: Forward
    steps: tuple[float, ...]
    tolerance: float


def on_runtime(model: onnx.ModelProto) -> Forward:
    """ONNX Runtime's CPU provider, one thread, opsets newer than its newest allowed."""
    session = quiet_session(model, threads=1)
    names = [value.name for value in session.get_outputs()]

    def run(feeds: Mapping[str, Array]) -> dict[str, Array]:
        return dict(zip(names, map(np.asarray, session.run(None, cast(feeds, model)))))

    return run


def on_reference(model: onnx.ModelProto) -> Forward:
    """ONNX's reference evaluator."""
    evaluator = ReferenceEvaluator(model)

    def run(feeds: Mapping[str, Array]) -> dict[str, Array]:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            made = evaluator.run(None, cast(feeds, model))
        return dict(zip(evaluator.output_names, map(np.asarray, made)))

    return run


def candidates(problem: Problem) -> Iterator[tuple[str, Callable[[], Oracle]]]:
    """Ways to compute the case, the most precise first."""
    model, _ = with_weights_as_inputs(problem)
    fine, coarse = (1e-5, 1e-4, 1e-6, 1e-3), (1e-2, 1e-1, 3e-2, 3e-3, 1e-3, 3e-1)
    double, single = retyped(model, TensorProto.DOUBLE), retyped(model, TensorProto.FLOAT)
    yield "reference, float64", lambda: Oracle("reference, float64", on_reference(double), fine, 1e-4)
    yield "runtime, float64", lambda: Oracle("runtime, float64", on_runtime(double), fine, 1e-4)
    yield "reference, float32", lambda: Oracle("reference, float32", on_reference(single), coarse, 1e-2)
    yield "runtime, float32", lambda: Oracle("runtime, float32", on_runtime(single), coarse, 1e-2)


def oracles(problem: Problem) -> Iterator[Oracle]:
    """Those of :func:`candidates` that give the outputs which the case states, at the point that it states."""
    feeds, outputs = problem.stated
    for _, make in candidates(problem):
        try:
            oracle = make()
            made = oracle.run(feeds)
        except Exception:  # an evaluator lacks the operator or its type; each raises errors of its own kind
            continue
        if all(reproduces(made[name], outputs[name]) for name in problem.of if name in outputs):
            yield oracle


def reproduces(made: Array, stated: Array) -> bool:
    """Whether two results are equal to within half precision, infinities and NaN included."""
    if made.shape != stated.shape:
        return False
    a, b = made.astype(np.float64), stated.astype(np.float64)
    finite = np.isfinite(a) & np.isfinite(b)
    size = 1e-3 + np.abs(b[finite]).max(initial=0)
    return bool(np.array_equal(np.isfinite(a), np.isfinite(b)) and np.all(np.abs(a - b)[finite] <= STATED * size))


def cotangents(problem: Problem, values: Mapping[str, Array], seed: int = 1) -> dict[str, Array]:
    """Random ones; zero where an output is not finite, so has no derivative."""
    rng = np.random.default_rng(seed)
    made = {}
    for name in problem.of:
        y = values[name].astype(np.float64)
        made[name] = np.where(np.isfinite(y), rng.uniform(0.1, 1, y.shape) * rng.choice([-1, 1], y.shape), 0)
    return made


def slope_error(
    oracle: Oracle, feeds: Mapping[str, Array], seeds: Mapping[str, Array], name: str, gradient: Array
) -> float:
    """|<v, g> - central difference of <seed, y>| along a random v of input ``name``, as a share of 1 + |g|.

    Of several widths the best counts: a wide step meets kinks, a narrow one rounding.
    """
    x = feeds[name].astype(np.float64)
    rng = np.random.default_rng(2)
    v = np.where(np.isfinite(x), rng.standard_normal(x.shape), 0)
    if all(np.all(seed != 0) for seed in seeds.values()):
        if not np.isfinite(gradient.astype(np.float64)[v != 0]).all():
            return float("inf")
    else:  # an output is not finite, nor then is its derivative by what it is computed from
        v = np.where(np.isfinite(gradient.astype(np.float64)), v, 0)
    expected = float(np.vdot(v, np.where(v == 0, 0, gradient.astype(np.float64))))
    size = 1 + float(np.linalg.norm(np.where(v == 0, 0, gradient.astype(np.float64))))
    worst = float("inf")
    for step in oracle.steps:
        ends = [oracle.run({**feeds, name: np.where(v == 0, x, x + sign * step * v)}) for sign in (1, -1)]
        if any(a[n].shape != seeds[n].shape for a in ends for n in seeds):
            continue
        change = sum(_product(seed, ends[0][n], ends[1][n]) for n, seed in seeds.items())
        worst = min(worst, abs(change / (2 * step) - expected) / size)
        if worst <= oracle.tolerance / 100:
            break
    return worst


def _product(seed: Array, above: Array, below: Array) -> float:
    with np.errstate(invalid="ignore"):
        change = above.astype(np.float64) - below.astype(np.float64)
    return float(np.vdot(seed, np.where(seed == 0, 0, change)))
