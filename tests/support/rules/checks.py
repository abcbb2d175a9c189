"""How a gradient rule is held: against central differences in float64, and one result against another."""

import numpy as np

from support.rules.case import Free
from support.rules.runs import differentiate, reference, run

STEP = 1e-5


def cotangents(outputs, seed=1):
    """Random ones in the shapes and types of the outputs, of numbers that float32 can hold."""
    rng = np.random.default_rng(seed)
    return {f"d_{n}": np.asarray(rng.standard_normal(y.shape).astype(np.float32), y.dtype) for n, y in outputs.items()}


def slope(case, proto, feeds, seeds, name, direction):
    """<cotangent, dy> along ``direction`` of one input, by central differences."""
    values = []
    for sign in (1, -1):
        y = reference(proto, {**feeds, name: feeds[name] + sign * STEP * direction})
        values.append(sum(np.vdot(seeds[f"d_{out}"].astype(np.float64), y[out]) for out in case.outputs))
    return (values[0] - values[1]) / (2 * STEP)


def check(case):
    """Both precisions of the backward pass against central differences of the forward pass in float64."""
    single, double = case.model(np.float32), case.model(np.float64)
    feeds, wide = case.feeds(np.float32), case.feeds(np.float64)
    values = {name: np.asarray(y) for name, y in reference(double, wide).items() if name in case.outputs}
    seeds = cotangents(values)
    exact = reference(differentiate(double, case.outputs, case.wrt), {**wide, **seeds})
    if case.runtime:
        ours = run(single, feeds)
        for name in case.outputs:
            np.testing.assert_allclose(values[name], ours[name], rtol=1e-4, atol=1e-4, err_msg="reference evaluator")
        narrow_seeds = cotangents({name: ours[name] for name in case.outputs})
        narrow = run(differentiate(single, case.outputs, case.wrt), {**feeds, **narrow_seeds})
    rng = np.random.default_rng(2)
    for name in case.wrt:
        gradient = exact[f"d_{name}"]
        assert gradient.dtype == np.float64 and gradient.shape == feeds[name].shape
        direction = rng.standard_normal(feeds[name].shape)
        expected = slope(case, double, wide, seeds, name, direction)
        size = 1 + np.linalg.norm(gradient)
        assert abs(np.vdot(direction, gradient) - expected) <= 1e-6 * size
        if case.runtime:
            assert narrow[f"d_{name}"].dtype == np.float32
            np.testing.assert_allclose(narrow[f"d_{name}"], gradient, rtol=0, atol=1e-5 * size)


def agree(ours, theirs, tolerance):
    """Largest difference, as a share of the largest value (1 where that is smaller)."""
    for name in theirs:
        assert ours[name].shape == theirs[name].shape and ours[name].dtype == theirs[name].dtype
        scale = max(1.0, float(np.abs(theirs[name]).max(initial=0)))
        np.testing.assert_allclose(ours[name], theirs[name], rtol=0, atol=tolerance * scale, err_msg=name)


TARGETS = 3


def forms(case):
    """What is known of the shapes: all; where dimensions are free also their names, or nothing."""
    free = any(isinstance(dim, Free) for shape in case.inputs.values() for dim in shape)
    return ("fixed", "named", "unknown") if free else ("fixed",)


def stacked(arrays):
    """T arrays [d0, d1, ...] as [T * d0, d1, ...]; T numbers as [T]."""
    return np.concatenate([np.atleast_1d(array) for array in arrays])
