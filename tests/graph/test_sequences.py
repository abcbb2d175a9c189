"""Elements of sequences, as torch writes torch.split: the same numbers as by Split, and its gradient."""

import numpy as np
import onnx
import onnxruntime
import pytest

from fastcam import FastcamError
from fastcam_export import export_model

LOOP = """ends = Constant <value_ints = [0, 1]> () n = Constant <value = int64 {1}> ()
        yes = Constant <value = bool {1}> ()
        one_axis = Constant <value_ints = [1]> () none = SequenceEmpty <dtype = 1> ()
        some = Loop (n, yes, none) <body = step (int64[1] j, bool go, seq(float) s) => (bool on, seq(float) t) {
            one_more = Constant <value_int = 1> () k = Add (j, one_more)
            from = Gather (ends, j) to = Gather (ends, k)
            p = Slice (c, from, to, one_axis) t = SequenceInsert (s, p) on = Identity (yes)
        }>
        rest = Constant <value_ints = [1]> () size = Shape <start = 1, end = 2> (c)
        left = Slice (c, rest, size, one_axis)
        all = SequenceInsert (some, left)"""
"""torch.tensor_split at 1, as torch's older exporter writes it."""
IMAGES = np.random.default_rng(2).standard_normal((2, 3, 8, 8)).astype(np.float32)
FORMS = {
    "by a list": "split = Constant <value_ints = [1, 3]> () parts = SplitToSequence <axis = 1> (c, split)",
    "by a size": "split = Constant <value_int = 2> () parts = SplitToSequence <axis = 1> (c, split)",
    "one by one": "parts = SplitToSequence <axis = 1, keepdims = 1> (c)",
    "by a list, from behind": "split = Constant <value_ints = [1, 3]> () parts = SplitToSequence <axis = 1> (c, split)",
    "one by one, without the axis": "z = SplitToSequence <axis = 1, keepdims = 0> (c) q = SequenceAt (z, i)"
    " a = Constant <value_ints = [1]> () r = Unsqueeze (q, a) parts = SequenceConstruct (r)",
    "made of two": "t = Tanh (c) parts = SequenceConstruct (c, t)",
    "by a loop": LOOP + " parts = Identity (all)",
    "by a loop, in front of an If": LOOP
    + """ q = SequenceAt (all, i) sizes = Shape (q) wide = Gather (sizes, one_axis)
        three = Constant <value_ints = [3]> () as_wide = Equal (wide, three)
        r = If (as_wide) <then_branch = a () => (float[N, d, 8, 8] u) { u = Identity (q) },
                          else_branch = b () => (float[N, d, 8, 8] vv) { vv = Tanh (q) }>
        parts = SequenceConstruct (r)""",
    "inserted and erased": "t = Tanh (c) s = SequenceConstruct (t, c, t) e = SequenceErase (s) p = SequenceErase (e, i)"
    " parts = SequenceInsert (p, c, i)",
    "joined along a new axis": "t = Tanh (c) s = SequenceConstruct (c, t)"
    " j = ConcatFromSequence <axis = 0, new_axis = 1> (s) g = Gather <axis = 0> (j, i) parts = SequenceConstruct (g)",
    "joined": "t = Tanh (c) s = SequenceConstruct (t, t) j = ConcatFromSequence <axis = 1> (s)"
    " parts = SequenceConstruct (j)",
}
TANH = ("made of two", "inserted and erased", "joined along a new axis", "joined")
ALL = (0, 4)
ONES = {
    "by a list": (0, 1),
    "by a size": (2, 4),
    "one by one": (3, 4),
    "by a list, from behind": (1, 4),
    "one by one, without the axis": (0, 1),
    "by a loop": (1, 4),
    "by a loop, in front of an If": (1, 4),
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
    begin, end = ONES.get(form, ALL)
    x = np.tanh(maps) if form in TANH else maps
    s = 1 / (1 + np.exp(-x))
    inner = s * (1 - s) * (1 - x**2 if form in TANH else 1)
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
