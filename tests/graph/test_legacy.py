"""Operators that ONNX dropped: rewritten, with what ONNX Runtime's own kernels of them give."""

import numpy as np
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from fastcam_export import export_model
from fastcam_export.graph.load import load
from support.models.quantized import run_targets
from support.rules.runs import run

X = np.random.default_rng(0).standard_normal((2, 3, 6, 8)).astype(np.float32)
PLANES = {k: np.random.default_rng(i).random((3, 6, 8)).astype(np.float32) + 0.5 for i, k in enumerate("sbmv")}
EXACT = {
    "ImageScaler": (7, {"scale": 0.5, "bias": [1.0, 2.0, 3.0]}, {}),
    "ImageScaler alone": (9, {"bias": [-104.0, -117.0, -124.0]}, {}),
    "Affine": (8, {"alpha": 0.3, "beta": 1.7}, {}),
    "Scale": (7, {"scale": 0.3}, {}),
    "Crop": (7, {"border": [1, 2, 1, 0]}, {}),
    "Crop to a size": (7, {"border": [1, 2, 1, 0], "scale": [3, 4]}, {}),
    "ThresholdedRelu": (9, {"alpha": 0.3}, {}),
    "DynamicSlice": (7, {}, {"s": np.array([1]), "e": np.array([3]), "a": np.array([2])}),
    **{
        f"Upsample {mode} {up}": (8, {"mode": mode, "scales": [1.0, 1.0, up, 2.0]}, {})
        for mode in ("linear", "nearest") for up in (2.0, 1.5)
    },
    **{
        f"Resize {mode} {s}": (10, {"mode": mode}, {"s": np.float32([1, 1, s, 2 * s])})
        for mode in ("linear", "nearest") for s in (0.4, 1.5)
    },
}  # fmt: skip
NEAR = {
    "ParametricSoftplus": (7, {"alpha": 0.3, "beta": 1.2}, {}),
    "ScaledTanh": (8, {"alpha": 0.3, "beta": 1.2}, {}),
    **{
        f"MeanVarianceNormalization {more}": (8, dict.fromkeys(more, flag), {})
        for more, flag in (((), 0), (("across_channels",), 1), (("normalize_variance",), 0))
    },
    "BatchNormalization": (7, {"spatial": 0, "epsilon": 1e-3}, PLANES),
}


def model(nodes, opset, arrays, rank=4):
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "g",
        [value("x", TensorProto.FLOAT, ["N", 3, 6, 8])],
        [value("y", TensorProto.FLOAT, [None] * rank)],
        [numpy_helper.from_array(array, name) for name, array in arrays.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=4)


@pytest.mark.parametrize("name", [*EXACT, *NEAR])
def test_the_rewritten_operator_gives_what_the_old_kernel_gives(name):
    opset, attributes, arrays = {**EXACT, **NEAR}[name]
    old = model([helper.make_node(name.split()[0], ["x", *arrays], ["y"], "n", **attributes)], opset, arrays)
    expected = run(old, {"x": X})["y"]
    loaded = load(old)
    got = run(ir.to_proto(loaded.model), {"x": X})["y"]
    if name in EXACT:
        assert got.tobytes() == expected.tobytes()
    else:
        np.testing.assert_allclose(got, expected, rtol=0, atol=2 * np.spacing(np.abs(expected).max()))
    assert name.startswith(("Upsample", "Resize")) or name.split()[0] in loaded.repairs[0]


def test_an_old_file_with_a_scaler_at_the_picture_is_explained_by_its_last_map():
    """The form of Custom Vision's files; the head's matrix is the oracle."""
    rng = np.random.default_rng(3)
    arrays = {"w": rng.standard_normal((5, 3, 3, 3)) / 4, "fc": rng.standard_normal((5, 4)), "b": np.zeros(4)}
    make = helper.make_node
    nodes = [
        make("ImageScaler", ["x"], ["scaled"], scale=1.0, bias=[-0.1, -0.2, -0.3]),
        make("Conv", ["scaled", "w"], ["c"], kernel_shape=[3, 3]),
        make("ThresholdedRelu", ["c"], ["t"], alpha=0.1),
        make("GlobalAveragePool", ["t"], ["p"]),
        make("Flatten", ["p"], ["f"]),
        make("Gemm", ["f", "fc", "b"], ["y"]),
    ]
    old = model(nodes, 7, {name: array.astype(np.float32) for name, array in arrays.items()}, 2)
    exported = export_model(old)
    assert exported.check["bit_identical"] and any("ImageScaler, ThresholdedRelu" in t for t in exported.summary())
    out = run_targets(exported.model, {"x": X, "fastcam.targets": np.array([[1]])})
    assert exported.metadata.layer.value == "t"
    np.testing.assert_allclose(out["fastcam.weights"][:, 0], np.tile(arrays["fc"][:, 1] / 24, (2, 1)), rtol=1e-5)


def test_an_operator_that_nobody_knows_before_the_layer_is_left_alone():
    """It is put aside for the conversion of all others, and back."""
    nodes = [
        helper.make_node("Unheard", ["x"], ["u"], "first"),
        helper.make_node("Upsample", ["u"], ["y"], mode="nearest", scales=[1.0, 1.0, 2.0, 2.0]),
    ]
    graph = load(model(nodes, 7, {})).model.graph
    kinds = [(node.domain, node.op_type) for node in graph]
    assert kinds[0] == ("", "Unheard") and kinds[-1] == ("", "Resize") and [*graph.opset_imports] == [""]
