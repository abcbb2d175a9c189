"""The gradients of some of ONNX's own conformance cases; ``python -m fastcam_bench.accuracy.conformance`` runs all of
them."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from fastcam_bench.accuracy.conformance import comparison as conformance
from fastcam_bench.accuracy.conformance import oracle
from fastcam_bench.accuracy.conformance.case import LeftOut, Problem, problem

pytestmark = pytest.mark.xdist_group("conformance")  # all cases are made when the first is asked for
PASSING = [
    "node/test_add_bcast", "node/test_averagepool_2d_pads_count_include_pad", "node/test_basic_conv_with_padding",
    "node/test_celu_expanded", "node/test_concat_3d_axis_negative_2", "node/test_convtranspose_pads",
    "node/test_cumsum_1d_reverse_exclusive", "node/test_depthtospace_example", "node/test_div_bcast",
    "node/test_einsum_batch_matmul", "node/test_elu_default", "node/test_expand_dim_changed", "node/test_gather_0",
    "node/test_gather_elements_1", "node/test_gelu_tanh_1_expanded", "node/test_gemm_all_attributes",
    "node/test_globalmaxpool", "node/test_hardswish_expanded", "node/test_instancenorm_epsilon",
    "node/test_logsoftmax_axis_0", "node/test_lrn", "node/test_matmul_3d", "node/test_maxpool_2d_pads",
    "node/test_maxpool_3d_default", "node/test_mish", "node/test_pow_bcast_array",
    "node/test_prelu_broadcast", "node/test_reduce_l2_keep_dims_random",
    "node/test_reduce_log_sum_exp_default_axes_keepdims_random",
    "node/test_resize_upsample_sizes_cubic", "node/test_scatter_elements_with_axis", "node/test_slice_neg_steps",
    "node/test_softmax_axis_1", "node/test_split_variable_parts_2d_opset18", "node/test_tile",
    "node/test_where_example", "pytorch-converted/test_Conv2d_dilated", "pytorch-operator/test_operator_addmm",
]  # fmt: skip


@pytest.mark.parametrize("name", PASSING)
def test_gradients_equal_central_differences(name):
    row = conformance.measure(name)
    assert row["status"] == "passed", row


def test_a_derivative_that_is_zero_is_confirmed():
    assert conformance.measure("node/test_floor")["status"] == "zero"


@pytest.mark.parametrize(
    "name, reason", [("node/test_shape", "no float output"), ("node/test_bernoulli", "random numbers")]
)
def test_what_has_no_derivative_is_left_out_with_its_reason(name, reason):
    row = conformance.measure(name)
    assert row["status"] == "left out" and reason in row["reason"]


def test_no_case_is_left_out_without_a_reason():
    found = [problem(f"node/test_{name}") for name in ("add_int8", "identity_sequence", "adagrad", "abs")]
    assert [type(one) for one in found] == [LeftOut] * 3 + [Problem]
    assert all(one.reason for one in found[:3])


def test_a_wrong_gradient_is_seen():
    found = problem("node/test_tanh")
    judge = next(oracle.oracles(found))
    seeds = oracle.cotangents(found, judge.run(found.feeds))
    y = np.tanh(found.feeds["x"].astype(np.float64))
    right = (1 - y * y) * seeds["y"]
    assert oracle.slope_error(judge, found.feeds, seeds, "x", right) <= judge.tolerance / 100
    assert oracle.slope_error(judge, found.feeds, seeds, "x", right * 1.01) > judge.tolerance
    assert oracle.slope_error(judge, found.feeds, seeds, "x", right * np.nan) == np.inf


def test_an_evaluator_that_misses_the_stated_outputs_is_no_oracle():
    found = problem("node/test_tanh")
    feeds, outputs = found.stated
    wrong = Problem(**{**vars(found), "stated": (feeds, {"y": outputs["y"] + 1})})
    assert not list(oracle.oracles(wrong))


def test_weights_are_stepped_as_inputs():
    node = helper.make_node("Mul", ["x", "w"], ["y"])
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2]) for name in "xy"]
    weight = onnx.numpy_helper.from_array(np.float32([3, 4]), "w")
    graph = helper.make_graph([node], "weighted", values[:1], values[1:], [weight])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    x = np.float32([1, 2])
    stated = ({"x": x, "w": np.float32([3, 4])}, {"y": np.float32([3, 8])})
    found = Problem("weighted", "node", "Mul", model, {"x": x}, stated, ("x", "w"), ("y",))
    row = conformance.compare(found)
    assert row["status"] == "passed" and row["wrt"] == 2 and row["error"] <= 1e-6
