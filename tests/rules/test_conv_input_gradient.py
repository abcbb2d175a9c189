"""The forms of a Conv's input gradient: each against PyTorch, and which of them the exporter takes."""

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.grad import conv2d_input

from fastcam_bench.speed.lowerings import __main__ as lowerings
from fastcam_export import vjp
from fastcam_export.autodiff.rules.spatial import conv_input_gradient
from support.examples import examples
from support.rules.case import IMAGE, N, one, weight
from support.rules.cases import CASES
from support.rules.checks import TARGETS, agree, check, cotangents, forms, stacked
from support.rules.runs import differentiate, run

FORMS = ("transposed", "rotated", "stuffed")
CONVS = [case for case in CASES["Conv"] if case.runtime and case.wrt == ("x",)]
HARDER = [
    one("Conv", x=IMAGE, w=weight(8, 4, 2, 2), strides=[2, 2]),
    one("Conv", x=IMAGE, w=weight(8, 4, 5, 5), strides=[2, 2], pads=[2, 2, 2, 2]),
    one("Conv", x=IMAGE, w=weight(8, 2, 5, 4), strides=[3, 3], pads=[1, 2, 3, 0], group=2),
    one("Conv", x=IMAGE, w=weight(4, 1, 3, 3), strides=[2, 2], auto_pad="SAME_LOWER", group=4),
    one("Conv", x=IMAGE, w=weight(3, 4, 1, 1), strides=[2, 2], pads=[1, 1, 0, 0]),
    one("Conv", x=IMAGE, w=weight(3, 4, 2, 2), pads=[3, 2, 4, 2]),
    one("Conv", x=IMAGE, w=weight(3, 4, 2, 3), strides=[2, 2], pads=[5, 3, 4, 6]),
    one("Conv", x=(N, 4, 11, 13), w=weight(4, 1, 3, 3), strides=[4, 4], group=4),
    one("Conv", x=(N, 4, 12, 13), w=weight(8, 4, 4, 4), strides=[4, 4], pads=[4, 0, 0, 4]),
]


def operators(case, **options):
    """How often each operator is emitted."""
    made = [node.op_type for node in differentiate(case.model(**options), case.outputs, case.wrt).graph.node][1:]
    return {op_type: made.count(op_type) for op_type in made}


@pytest.fixture(params=FORMS[1:])
def form(request, monkeypatch):
    chosen = getattr(conv_input_gradient, request.param)
    monkeypatch.setattr(conv_input_gradient, "choose", lambda *_: chosen)
    return request.param


@pytest.mark.parametrize("case", [*CONVS, *HARDER], ids=str)
def test_each_form_is_the_gradient_for_free_sizes_and_several_targets(case, form, monkeypatch):
    """Central differences in float64; ConvTranspose, which says no form differently, in float32."""
    check(case)
    with monkeypatch.context() as patch:
        patch.setattr(conv_input_gradient, "choose", lambda *_: conv_input_gradient.transposed)
        plain = {size: differentiate(case.model(size=size), case.outputs, case.wrt) for size in (0, 1)}
    for shapes in forms(case):
        free = differentiate(case.model(shapes=shapes), case.outputs, case.wrt)
        many = differentiate(case.model(shapes=shapes), case.outputs, case.wrt, lifted=True)
        for size in (0, 1) if shapes != "fixed" else (0,):
            feeds = case.feeds(np.float32, size)
            outputs = run(case.model(size=size), feeds)
            each = [cotangents({"y": outputs["y"]}, seed) for seed in range(TARGETS)]
            expected = [run(plain[size], {**feeds, **seeds}) for seeds in each]
            agree(run(free, {**feeds, **each[0]}), expected[0], 1e-6)
            stored = {"d_y": stacked([seeds["d_y"] for seeds in each]), "copies": np.array([TARGETS])}
            agree(run(many, {**feeds, **stored}), {"d_x": stacked([e["d_x"] for e in expected])}, 1e-6)


def test_each_form_is_taken_where_it_holds(form):
    """So that the test above is not one of ConvTranspose alone."""
    taken = [case for case in (*CONVS, *HARDER) if "Conv" in operators(case)]
    strides = {max(dict(case.nodes[0][3]).get("strides", [1])) for case in taken}
    assert strides == {1} if form == "rotated" else strides >= {1, 2, 3, 4}
    assert len(taken) >= 9


@settings(max_examples=examples(30), deadline=None)
@given(st.data())
def test_random_windows_against_pytorch(data):
    number = lambda low, high: data.draw(st.integers(low, high))  # noqa: E731
    (kernel, stride), group = (number(1, 5), number(1, 4)), data.draw(st.sampled_from([1, 2, 4]))
    pad, rows = number(0, kernel), number(1, 2) * group
    size = (number(kernel, 12), number(kernel, 12))
    w = weight(rows, 4 // group, kernel, kernel)
    case = one("Conv", x=(2, 4, *size), w=w, strides=[stride] * 2, pads=[pad] * 4, group=group)
    feeds = case.feeds(np.float32)
    feeds |= cotangents(run(case.model(), feeds))
    theirs = conv2d_input(
        feeds["x"].shape, *map(torch.from_numpy, (w.astype(np.float32), feeds["d_y"])), stride, pad, 1, group
    )
    for name in FORMS:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(conv_input_gradient, "choose", lambda *_, name=name: getattr(conv_input_gradient, name))
            ours = run(differentiate(case.model(), case.outputs, case.wrt), feeds)
        agree(ours, {"d_x": theirs.numpy()}, 1e-5)


CHOICES = [
    ("Conv", {"x": (N, 64, 14, 14), "w": weight(32, 64, 3, 3), "pads": [1, 1, 1, 1]}),
    ("Conv", {"x": (N, 32, 14, 14), "w": weight(32, 1, 3, 3), "group": 32}),
    ("Conv", {"x": (N, 64, 14), "w": weight(32, 64, 3)}),
    ("ConvTranspose", {"x": (N, 3, 14, 14), "w": weight(32, 3, 3, 3)}),
    ("Conv ConvTranspose", {"x": (N, 64, 14, 14), "w": weight(32, 64, 3, 3), "strides": [2, 2]}),
    ("Conv ConvTranspose", {"x": (N, 64, 14, 14), "w": weight(32, 64, 1, 1), "strides": [2, 2]}),
    ("ConvTranspose", {"x": (N, 64, 14, 14, 14), "w": weight(16, 64, 2, 2, 2), "strides": [2, 2, 2]}),
    ("Conv ConvTranspose", {"x": (N, 64, 14, 14), "w": weight(32, 64, 2, 2), "strides": [2, 2]}),
    ("Conv", {"x": (N, 32, 14, 14), "w": weight(32, 1, 3, 3), "strides": [2, 2], "group": 32}),
    ("Conv", {"x": (N, 32, 14, 14), "w": weight(32, 1, 5, 5), "strides": [2, 2], "group": 32}),
]


@pytest.mark.parametrize(("expected", "form"), CHOICES)
def test_the_rule_on_the_shape(expected, form):
    """Behind a ConvTranspose a Conv brings the result into blocks, where its channels fill them."""
    case = one("Conv", **form)
    made = operators(case)
    assert {name for name in made if "Conv" in name} == set(expected.split())
    check(case)


def test_weights_that_the_run_time_knows_half_precision_and_other_engines_take_a_conv_transpose():
    shape = {"x": (2, 64, 6, 6), "w": weight(32, 64, 3, 3)}
    case, computed = one("Conv", **shape), one("Conv", x=shape["x"], w=(32, 64, 3, 3), wrt=("x",))
    assert "Conv" in operators(case)
    assert "ConvTranspose" in operators(computed) and "Conv" not in operators(case, dtype=np.float16)
    engine = differentiate(case.model(), case.outputs, case.wrt, engine="tensorrt")
    assert [node.op_type for node in engine.graph.node].count("ConvTranspose") == 1


@pytest.mark.parametrize("group", [1, 64])
def test_no_weight_is_stored_twice(group):
    model = one("Conv", x=(N, 64, 14, 14), w=weight(64, 64 // group, 3, 3), group=group, pads=[1, 1, 1, 1]).model()
    made = vjp(model)
    added = [tensor for tensor in made.graph.initializer if tensor.name.startswith("fastcam.")]
    assert sum(int(np.prod(tensor.dims)) for tensor in added) < 20
    assert "Conv" in [node.op_type for node in made.graph.node[1:]]


SHAPES = [
    lowerings.Shape("one tap", 16, 8, 1, 7, stride=2),
    lowerings.Shape("one tap", 16, 8, 1, 6),
    lowerings.Shape("groups", 8, 8, 5, 9, stride=2, pad=2, group=8),
]


@pytest.mark.parametrize("shape", SHAPES)
def test_all_contestants_of_the_benchmark_give_the_same_numbers(shape):
    """It asserts so itself; and that it sees which form the exporter takes."""
    row = lowerings.measure(shape, 2, 1, 0.0)
    assert len(row["median_ms"]) >= 3 and row["fastest"] in row["median_ms"]
    assert row["chosen"] == {16: "ConvTranspose", 8: "zeros between, Conv"}[shape.channels] or shape.stride == 1
    assert all(len(taken) >= 5 for taken in row["samples_ms"].values())


def test_weights_may_be_differentiated_too():
    """A weight that is rearranged for the gradient of x has a gradient of its own."""
    model = one("Conv", x=(2, 32, 6, 6), w=weight(16, 32, 3, 3)).model()
    made = vjp(model, wrt=["x", "w"])
    feeds = {"x": np.random.default_rng(0).standard_normal((2, 32, 6, 6)).astype(np.float32)}
    feeds["cotangent.y"] = np.random.default_rng(1).standard_normal((2, 16, 4, 4)).astype(np.float32)
    ours = run(made, feeds)
    w = torch.tensor(onnx.numpy_helper.to_array(model.graph.initializer[0]), requires_grad=True)
    x = torch.from_numpy(feeds["x"]).requires_grad_()
    theirs = torch.autograd.grad(torch.nn.functional.conv2d(x, w), (x, w), torch.from_numpy(feeds["cotangent.y"]))
    agree(ours, {f"grad.{name}": gradient.numpy() for name, gradient in zip("xw", theirs)} | {"y": ours["y"]}, 1e-5)
