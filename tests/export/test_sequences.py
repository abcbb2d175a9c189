"""Elements of sequences, as torch writes torch.split: the same numbers as by Split, and its gradient."""

import numpy as np
import onnx
import onnxruntime
import pytest

from fastcam import FastcamError
from fastcam_export import export_model

IMAGES = np.random.default_rng(2).standard_normal((2, 3, 8, 8)).astype(np.float32)
FORMS = {
    "by a list": "split = Constant <value_ints = [1, 3]> () parts = SplitToSequence <axis = 1> (c, split)",
    "by a size": "split = Constant <value_int = 2> () parts = SplitToSequence <axis = 1> (c, split)",
    "one by one": "parts = SplitToSequence <axis = 1, keepdims = 1> (c)",
    "by a list, from behind": "split = Constant <value_ints = [1, 3]> () parts = SplitToSequence <axis = 1> (c, split)",
    "one by one, without the axis": "z = SplitToSequence <axis = 1, keepdims = 0> (c) q = SequenceAt (z, i)"
    " a = Constant <value_ints = [1]> () r = Unsqueeze (q, a) parts = SequenceConstruct (r)",
    "made of two": "t = Tanh (c) parts = SequenceConstruct (c, t)",
}
ONES = {
    "by a list": (0, 1),
    "by a size": (2, 4),
    "one by one": (3, 4),
    "by a list, from behind": (1, 4),
    "one by one, without the axis": (0, 1),
    "made of two": None,
}
AT = {
    "by a list": 0,
    "by a size": -1,
    "by a list, from behind": -1,
    "one by one, without the axis": 0,
    "made of two": 1,
}


def model(form, index=None):
    """image -> convolution -> an element of a sequence -> mean over channels and positions, times two numbers."""
    at = AT.get(form, -1) if index is None else index
    text = f"""<ir_version: 8, opset_import: ["" : 18]>
    g (float[N, 3, 8, 8] image) => (float[N, 2] y) <float[4, 3, 3, 3] w, float[1, 2] v> {{
        c = Conv <pads = [1, 1, 1, 1]> (image, w)
        i = Constant <value_int = {at}> ()
        {FORMS[form]}
        part = SequenceAt (parts, i)
        one = Sigmoid (part)
        axes = Constant <value_ints = [1, 2, 3]> ()
        m = ReduceMean <keepdims = 0> (one, axes)
        column = Constant <value_ints = [1]> ()
        mm = Unsqueeze (m, column)
        y = MatMul (mm, v)
    }}"""
    made = onnx.parser.parse_model(text)
    rng = np.random.default_rng(0)
    values = {"w": rng.standard_normal((4, 3, 3, 3)) / 3, "v": np.array([[2.0, -1.0]])}
    del made.graph.initializer[:]
    made.graph.initializer.extend(onnx.numpy_helper.from_array(a.astype(np.float32), n) for n, a in values.items())
    return made


@pytest.mark.parametrize("form", FORMS)
def test_an_element_of_a_sequence_has_the_gradient_of_its_part(form):
    source = model(form)
    made = export_model(source, layer="c", emit="gradients")
    assert made.check["bit_identical"] and made.check["gradient_error"] < 1e-5
    session = onnxruntime.InferenceSession(made.model.SerializeToString())
    y, maps, found, classes = session.run(
        ["y", "fastcam.activations", "fastcam.gradients", "fastcam.classes"], {"image": IMAGES}
    )
    np.testing.assert_array_equal(
        y, onnxruntime.InferenceSession(source.SerializeToString()).run(["y"], {"image": IMAGES})[0]
    )
    inner, begin, end = np.ones_like(maps), 0, 4
    if ONES[form] is not None:
        begin, end = ONES[form]
    x = np.tanh(maps) if form == "made of two" else maps
    s = 1 / (1 + np.exp(-x))
    inner = s * (1 - s) * (1 - x**2 if form == "made of two" else 1)
    want = np.zeros_like(maps)
    want[:, begin:end] = inner[:, begin:end] / ((end - begin) * 64)
    want *= np.where(classes[:, 0] == 0, 2.0, -1.0)[:, None, None, None]
    np.testing.assert_allclose(found[:, 0], want, rtol=1e-4, atol=1e-8)


@pytest.mark.parametrize("form", ["by a list", "made of two"])
def test_an_element_that_is_not_there_stays_a_fault_of_the_model(form):
    with pytest.raises(FastcamError) as caught:
        export_model(model(form, 5), layer="c")
    assert "\n" not in str(caught.value)


def test_elements_that_only_a_run_tells_stay(tmp_path):
    """Their gradient has no rule; the message names the operator."""
    source = model("by a size")
    part = next(node for node in source.graph.node if node.op_type == "SequenceAt")
    part.input[1] = "which"
    source.graph.input.append(onnx.helper.make_tensor_value_info("which", onnx.TensorProto.INT64, []))
    with pytest.raises(FastcamError, match="SequenceAt"):
        export_model(source, layer="c", inputs={"which": 1})
