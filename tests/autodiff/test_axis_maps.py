"""Along which axes operators work place by place: what changes at a place of the input changes nothing at others."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

from fastcam_export.autodiff.core.builder import Builder
from fastcam_export.autodiff.pooled.axis_maps import WHOLE, along

RNG = np.random.default_rng(0)
CASES = {
    "Relu": ("Relu", [(2, 3)], {}, {}, 0, {0: 0, 1: 1}),
    "Add, broadcast": ("Add", [(2, 3, 4), (3, 1)], {}, {}, 1, {0: WHOLE, 1: 0, 2: WHOLE}),
    "Clip, its bound": ("Clip", [(2, 3), ()], {}, {}, 1, {0: WHOLE, 1: WHOLE}),
    "Softmax": ("Softmax", [(2, 3, 4)], {"axis": 1}, {}, 0, {0: 0, 2: 2}),
    "LayerNormalization": ("LayerNormalization", [(2, 3, 4), (4,)], {}, {}, 0, {0: 0, 1: 1}),
    "MatMul, rows": ("MatMul", [(2, 3, 4), (4, 5)], {}, {}, 0, {0: 0, 1: 1, 2: WHOLE}),
    "MatMul, columns": ("MatMul", [(2, 3, 4), (4, 5)], {}, {}, 1, {0: WHOLE, 1: WHOLE, 2: 1}),
    "MatMul of a vector": ("MatMul", [(2, 3), (3,)], {}, {}, 0, {}),
    "Gemm": ("Gemm", [(2, 3), (3, 4)], {}, {}, 0, {0: 0}),
    "Gemm, transposed": ("Gemm", [(3, 2), (3, 4)], {"transA": 1}, {}, 0, {}),
    "Gemm, matrix": ("Gemm", [(2, 3), (3, 4)], {}, {}, 1, {0: WHOLE}),
    "Gemm, bias": ("Gemm", [(2, 3), (3, 4), (2, 1)], {}, {}, 2, {0: 0}),
    "Transpose": ("Transpose", [(2, 3, 4)], {"perm": [2, 0, 1]}, {}, 0, {0: 2, 1: 0, 2: 1}),
    "Transpose, all": ("Transpose", [(2, 3)], {}, {}, 0, {0: 1, 1: 0}),
    "Flatten": ("Flatten", [(2, 3, 4)], {}, {}, 0, {0: 0}),
    "Reshape": ("Reshape", [(2, 3, 4)], {}, {1: [2, 1, 12]}, 0, {0: 0}),
    "Reshape, its shape": ("Reshape", [(2, 3, 4)], {}, {1: [2, 1, 12]}, 1, {}),
    "Gather": ("Gather", [(2, 3, 4)], {"axis": 1}, {1: [2, 0]}, 0, {0: 0, 2: 2}),
    "Gather of one": ("Gather", [(2, 3, 4)], {"axis": 0}, {1: 1}, 0, {0: 1, 1: 2}),
    "Gather, its indices": ("Gather", [(2, 3, 4)], {"axis": 1}, {1: [2, 0]}, 1, {}),
    "Slice": ("Slice", [(2, 3, 4)], {}, {1: [1], 2: [3], 3: [-2]}, 0, {0: 0, 2: 2}),
    "Slice of the first axes": ("Slice", [(2, 3, 4)], {}, {1: [0, 1], 2: [1, 3]}, 0, {2: 2}),
    "Pad": ("Pad", [(2, 3, 4)], {}, {1: [0, 0, 1, 0, 0, 0]}, 0, {0: 0, 1: 1}),
    "Pad of an axis": ("Pad", [(2, 3, 4)], {}, {1: [1, 1], 3: [1]}, 0, {0: 0, 2: 2}),
    "Concat": ("Concat", [(2, 3, 4), (2, 1, 4)], {"axis": 1}, {}, 1, {0: 0, 2: 2}),
    "ReduceMean": ("ReduceMean", [(2, 3, 4)], {"keepdims": 0}, {1: [1]}, 0, {0: 0, 1: 2}),
    "ReduceSum, kept": ("ReduceSum", [(2, 3, 4)], {}, {1: [-1]}, 0, {0: 0, 1: 1}),
    "ReduceMax of all": ("ReduceMax", [(2, 3)], {}, {}, 0, {}),
    "an operator without a rule": ("CumSum", [(2, 3)], {}, {1: 1}, 0, {}),
}
"""Operator, shapes of float inputs, attributes, integer inputs by number, the input asked about, what is expected."""


def model(op_type, shapes, attributes, integers):
    names = [f"i{i}" for i in range(max([len(shapes) - 1, *integers]) + 1)]
    given = {i: name for i, name in enumerate(names) if i in integers or i < len(shapes)}
    node = helper.make_node(op_type, [given.get(i, "") for i in range(len(names))], ["y"], **attributes)
    floats = [helper.make_tensor_value_info(f"i{i}", TensorProto.FLOAT, s) for i, s in enumerate(shapes)]
    tensors = [onnx.numpy_helper.from_array(np.array(array, np.int64), f"i{i}") for i, array in integers.items()]
    y = helper.make_empty_tensor_value_info("y")
    graph = helper.make_graph([node], "one", floats, [y], tensors)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    return onnx.shape_inference.infer_shapes(made, data_prop=True)


@pytest.mark.parametrize("name", CASES)
def test_places_do_not_read_each_other(name):
    op_type, shapes, attributes, integers, index, expected = CASES[name]
    proto = model(op_type, shapes, attributes, integers)
    graph = ir.from_proto(proto).graph
    found = along(Builder(graph), next(iter(graph)), index)
    assert found == expected
    run = ReferenceEvaluator(proto)
    feeds = {f"i{i}": RNG.uniform(0.2, 0.8, shape).astype(np.float32) for i, shape in enumerate(shapes)}
    (before,) = run.run(None, feeds)
    for axis, source in found.items():
        for place in range(before.shape[axis]) if source != WHOLE else ():
            moved = feeds[f"i{index}"].copy()
            at = (slice(None),) * source + (place,)
            moved[at] += RNG.uniform(0.1, 0.3, moved[at].shape)
            (after,) = run.run(None, {**feeds, f"i{index}": moved})
            changed = {int(one) for one in np.nonzero(after != before)[axis]}
            assert changed <= {place}, (axis, source)
            assert changed
