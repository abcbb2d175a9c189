"""OpenVINO computes the gradients of every operator as ONNX Runtime does, where it reads the operator itself so."""

import numpy as np
import pytest

from support.rules.cases import CASES
from support.rules.checks import cotangents
from support.rules.runs import differentiate, on_openvino, run

pytest.importorskip("openvino", reason="needs OpenVINO (pip install fastcam[openvino])")

QUICK = ("Resize", "Conv", "ConvTranspose", "MatMul", "Gemm", "Clip", "HardSigmoid")
UNREAD = ("Compress", "ScatterElements", "Unique")
"""Which OpenVINO 2026.4 does not read: Compress ends its process, GatherElements wants data and indices of one size
beside the axis, and Unique gives wrong places."""


def read(model, feeds):
    """What OpenVINO computes; None where it refuses the model."""
    try:
        return on_openvino(model, feeds)
    except RuntimeError:
        return None


def is_close(found, expected):
    if found.shape != expected.shape or np.issubdtype(expected.dtype, np.integer):
        return np.array_equal(found, expected)
    scale = max(float(np.abs(expected).max(initial=0)), 1e-6)
    return np.allclose(found, expected, rtol=0, atol=1e-4 * scale, equal_nan=True)


def hold(cases):
    """Hold OpenVINO's gradients against ONNX Runtime's; how many were compared."""
    compared = 0
    for case in cases:
        if not case.runtime:
            continue
        model, feeds = case.model(np.float32), case.feeds(np.float32)
        plain = run(model, feeds)
        found = read(model, feeds)
        if found is None or not all(is_close(found[name], plain[name]) for name in case.outputs if name in found):
            continue  # its own reading of the operator
        feeds |= cotangents({name: plain[name] for name in case.outputs})
        made = differentiate(model, case.outputs, case.wrt)
        expected, gradients = run(made, feeds), read(made, feeds)
        assert gradients is not None, f"refused: {case}"
        for name, array in expected.items():
            assert is_close(gradients[name], array), f"{name} of {case}"
        compared += 1
    return compared


@pytest.mark.parametrize("op_type", QUICK)
def test_openvino_computes_the_same_gradients(op_type):
    assert hold(CASES[op_type][:12]) > 0


@pytest.mark.slow
@pytest.mark.parametrize("op_type", sorted(set(CASES) - set(UNREAD)))
def test_openvino_computes_the_same_gradients_of_every_case(op_type):
    if not hold(CASES[op_type]):
        pytest.skip(f"OpenVINO does not read {op_type} as ONNX Runtime does")
