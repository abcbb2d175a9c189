"""The backward pass of several targets at once against one backward pass for each."""

import numpy as np
import onnx_ir as ir
import pytest

from fastcam_export.autodiff.core.batching import BatchedBuilder
from fastcam_export.autodiff.core.builder import Builder
from support.rules.cases import ALL
from support.rules.checks import TARGETS, agree, cotangents, forms, stacked
from support.rules.runs import differentiate, run, runner

FLAT = {"Ceil", "Floor", "Round", "Sign", "Hardmax", "EyeLike", "MelWeightMatrix"}
RUNNABLE = [case for case in ALL if case.runtime and case.nodes[-1][0] not in FLAT]


@pytest.mark.parametrize("case", RUNNABLE, ids=str)
def test_three_targets_at_once_equal_three_runs(case):
    feeds, fixed = case.feeds(np.float32), case.model()
    outputs = run(fixed, feeds)
    each = [cotangents({name: outputs[name] for name in case.outputs}, seed) for seed in range(TARGETS)]
    single = runner(differentiate(fixed, case.outputs, case.wrt))
    apart = [single({**feeds, **seeds}) for seeds in each]
    stored = {name: stacked([seeds[name] for seeds in each]) for name in each[0]}
    expected = {name: stacked([one[name] for one in apart]) for name in apart[0]}
    for shapes in forms(case):
        together = differentiate(case.model(shapes=shapes), case.outputs, case.wrt, lifted=True)
        agree(run(together, {**feeds, **stored, "copies": np.array([TARGETS])}), expected, 1e-6)


def test_only_a_batched_builder_carries_the_axis_of_several_targets():
    def value(name, *shape):
        return ir.Value(name=name, type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape(shape))

    def graph():
        return ir.Graph([], [], nodes=[], opset_imports={"": 18})

    x, dy = value("x", 2, 3), value("dy", None, 3)
    batched, plain = BatchedBuilder(graph(), value("copies", 1)), Builder(graph())
    batched.lift_value(dy, (2, 3))
    assert batched.lifted(dy) and batched.dims(dy) == (2, 3) and not batched.lifted(x)
    product = batched.Mul(dy, x)
    assert batched.lifted(product) and batched.dims(product) == (2, 3)
    assert not plain.lifted(dy) and plain.copies is None
    with pytest.raises(TypeError, match="BatchedBuilder"):
        plain.lift_value(dy, (2, 3))
