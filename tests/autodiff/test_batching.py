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


def test_a_product_with_one_number_in_all_places_takes_the_number_alone():
    floats = np.random.default_rng(0).standard_normal((6, 3)).astype(np.float32)

    def product(lifted, shape):
        """What a seed of 0.3 in all places times another 0.7 makes of ``dy``, for three targets of two images."""
        graph = ir.Graph([], [], nodes=[], opset_imports={"": 18}, name="product")
        op = BatchedBuilder(graph)
        dy = ir.Value(name="dy", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape([None, *shape[1:]]))
        op.copies = ir.Value(name="copies", type=ir.TensorType(ir.DataType.INT64), shape=ir.Shape([1]))
        graph.inputs.extend([dy, op.copies])
        seed = op.Expand(np.full((1, 1), 0.3, np.float32), op.concat([op.Mul(op.copies, [2]), [1]]))
        seed = op.lift_value(seed, (2, 1))
        if lifted:
            op.lift_value(dy, shape)
        made = op.Mul(op.Expand(op.Mul(seed, np.float32(0.7)), np.array([2, 3])), dy)
        made.name = "y"
        feeds = {"dy": floats[: 6 if lifted else 2], "copies": np.array([3])}
        graph.outputs.append(made)
        return made, run(ir.to_proto(ir.Model(graph, ir_version=10)), feeds)["y"]

    made, found = product(True, (2, 3))
    assert made.producer().op_type == "Mul" and made.producer().inputs[0].name == "dy"
    np.testing.assert_array_equal(found, floats * (np.float32(0.3) * np.float32(0.7)))
    made, found = product(False, (2, 3))  # of one value for all targets there must be a copy for each
    wanted = np.tile(floats[:2], (3, 1)) * (np.float32(0.3) * np.float32(0.7))
    np.testing.assert_array_equal(found, wanted)
