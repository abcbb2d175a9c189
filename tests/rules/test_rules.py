"""Every gradient rule against central differences, and PyTorch's autograd where a function has a kink."""

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from fastcam_export.autodiff.core.integers import INTEGERS
from fastcam_export.autodiff.core.rule import RULES
from support.examples import examples
from support.rules.case import Free, ints, one, weight
from support.rules.cases import ALL, CASES
from support.rules.checks import agree, check, cotangents
from support.rules.runs import differentiate, run

NEWER = 24
"""The newest opset that the oldest ONNX Runtime of these tests knows."""


def test_every_rule_has_a_case():
    """Of the default domain; test_com_microsoft.py and test_integer.py have the others."""
    assert {name for name in RULES if "." not in name} - {*INTEGERS, "DynamicQuantizeLinear"} == set(CASES)


@pytest.mark.parametrize("case", ALL, ids=str)
def test_gradient_equals_central_differences(case):
    check(case)


FREE = [case for case in ALL if case.runtime and any(isinstance(d, Free) for s in case.inputs.values() for d in s)]


@pytest.mark.parametrize("case", FREE, ids=str)
def test_free_dimensions_give_the_gradient_of_fixed_ones(case):
    free = {known: differentiate(case.model(shapes=known), case.outputs, case.wrt) for known in ("named", "unknown")}
    for size in (0, 1):
        feeds = case.feeds(np.float32, size)
        try:
            model = case.model(size=size)
        except onnx.shape_inference.InferenceError:
            continue  # a case whose constants allow one size only
        outputs = run(model, feeds)
        feeds |= cotangents({name: outputs[name] for name in case.outputs})
        expected = run(differentiate(model, case.outputs, case.wrt), feeds)
        for made in free.values():
            agree(run(made, feeds), expected, 1e-6)


FIRST = [made[0] for made in CASES.values()]


FLOAT32_ONLY = {"Celu", "MeanVarianceNormalization", "Range", "MelWeightMatrix", "MaxRoiPool"}
"""By their definition, by that of their function body, or in ONNX Runtime."""
HALF = [case for case in FIRST if case.nodes[0][0] not in FLOAT32_ONLY and case.runtime]


@pytest.mark.parametrize("case", HALF, ids=str)
def test_float16_gives_the_gradient_of_float32(case):
    feeds = case.feeds(np.float16)
    wide = {name: array.astype(np.float32) for name, array in feeds.items()}
    outputs = run(case.model(), wide)
    seeds = cotangents({name: np.asarray(outputs[name], np.float16) for name in case.outputs})
    seeds32 = {f"d_{n}": seeds[f"d_{n}"].astype(outputs[n].dtype) for n in case.outputs}
    half = {
        f"d_{n}": seeds[f"d_{n}"].astype(np.float64 if case.nodes[0][0] == "Cast" else np.float16) for n in case.outputs
    }
    ours = run(differentiate(case.model(np.float16), case.outputs, case.wrt), {**feeds, **half})
    theirs = run(differentiate(case.model(), case.outputs, case.wrt), {**wide, **seeds32})
    agree({n: a.astype(np.float32) for n, a in ours.items()}, theirs, 2e-2)
    assert all(array.dtype == np.float16 for array in ours.values())


RENEWED = [case for case in FIRST if case.runtime and case.opset <= NEWER]
OLD = {"GlobalLpPool", "MaxRoiPool", "RoiAlign"}  # of which ONNX Runtime has no newer form
RENEWED = [case for case in RENEWED if case.nodes[0][0] not in OLD]


@pytest.mark.parametrize("case", RENEWED, ids=str)
def test_a_newer_opset_gives_the_same_gradient(case):
    feeds, old, new = case.feeds(np.float32), case.model(), case.model(opset=NEWER)
    outputs = run(new, feeds)
    feeds |= cotangents({name: outputs[name] for name in case.outputs})
    agree(
        run(differentiate(new, case.outputs, case.wrt), feeds),
        run(differentiate(old, case.outputs, case.wrt), feeds),
        1e-6,
    )


# ---- random shapes and attributes

few = settings(max_examples=examples(25), deadline=None, derandomize=True, database=None)
small = st.integers(1, 3)


@st.composite
def windows(draw, pool):
    """kernel_shape, strides, dilations, padding of one to three axes, and an image at least as large as a window."""
    axes = draw(st.integers(1, 3))
    numbers = lambda strategy: draw(st.lists(strategy, min_size=axes, max_size=axes))  # noqa: E731
    kernel, dilations = numbers(small), numbers(st.integers(1, 2))
    auto_pad = draw(st.sampled_from(["NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER"]))
    if auto_pad.startswith("SAME"):
        dilations = [1] * axes
    extent = [(k - 1) * d + 1 for k, d in zip(kernel, dilations)]
    image = [e + more for e, more in zip(extent, numbers(st.integers(0, 4)))]
    strides = numbers(small)
    if pool and auto_pad.startswith("SAME"):  # of a pool whose windows leave gaps, ONNX Runtime knows none
        strides = [min(s, k) for s, k in zip(strides, kernel)]
    given = {"kernel_shape": kernel, "strides": strides, "dilations": dilations, "auto_pad": auto_pad}
    if auto_pad == "NOTSET":
        given["pads"] = pads = [draw(st.integers(0, k - 1)) for k in kernel * 2]
        rows = zip(image, extent, strides, pads, pads[axes:])
        last = [(-(-(size + b + e - span) // s) * s, size + b) for size, span, s, b, e in rows]
        if pool and all(start < stop for start, stop in last):
            given["ceil_mode"] = draw(st.integers(0, 1))
    return image, given


@few
@given(windows(pool=False), st.sampled_from([(1, 2, 3), (2, 4, 6), (3, 3, 3), (2, 2, 4)]))
def test_conv_of_random_form(window, channels):
    (image, attributes), (group, inputs, outputs) = window, channels
    kernel = weight(outputs, inputs // group, *attributes["kernel_shape"])
    check(one("Conv", x=(2, inputs, *image), w=kernel, group=group, **attributes))


@few
@given(windows(pool=True))
def test_max_pool_of_random_form(window):
    image, attributes = window
    check(one("MaxPool", x=(2, 2, *image), sample="apart", **attributes))


@few
@given(windows(pool=True), st.integers(0, 1))
def test_average_pool_of_random_form(window, counted):
    image, attributes = window
    check(one("AveragePool", x=(2, 2, *image), count_include_pad=counted, opset=19, **attributes))


@few
@given(
    st.sampled_from(["Add", "Sub", "Mul", "Div", "Max", "Min", "Pow"]),
    arrays.mutually_broadcastable_shapes(num_shapes=2, max_dims=4, min_side=1, max_side=4),
)
def test_broadcasting_of_random_shapes(op_type, shapes):
    a, b = shapes.input_shapes
    check(one(op_type, a=a, b=b, sample="positive"))


@few
@given(st.data())
def test_slice_of_random_bounds(data):
    shape = data.draw(st.lists(st.integers(1, 7), min_size=1, max_size=3))
    axes = data.draw(st.permutations(range(len(shape))))[: data.draw(st.integers(1, len(shape)))]
    starts, ends, steps = [], [], []
    for axis in axes:
        picked = data.draw(st.slices(shape[axis]).filter(lambda s, n=shape[axis]: range(n)[s]))
        step = picked.step or 1
        starts.append(picked.start if picked.start is not None else (0 if step > 0 else 2**63 - 1))
        ends.append(picked.stop if picked.stop is not None else (2**63 - 1 if step > 0 else -(2**63)))
        steps.append(step)
    axes = [axis - len(shape) * data.draw(st.integers(0, 1)) for axis in axes]
    check(one("Slice", x=tuple(shape), s=ints(*starts), e=ints(*ends), axes=ints(*axes), steps=ints(*steps)))


@few
@given(arrays.mutually_broadcastable_shapes(signature="(m?,n),(n,p?)->(m?,p?)", max_dims=2, min_side=1, max_side=4))
def test_matmul_of_random_shapes(shapes):
    a, b = shapes.input_shapes
    check(one("MatMul", a=a, b=b))


@st.composite
def indexed(draw, unique=False):
    """A shape, an axis, and indices along it for some of the places along the other axes."""
    shape = draw(st.lists(st.integers(1, 5), min_size=1, max_size=3))
    axis = draw(st.integers(0, len(shape) - 1))
    part = [draw(st.integers(1, size)) for size in shape]
    if not unique:
        part[axis] = draw(st.integers(1, 7))
    rng = np.random.default_rng(draw(st.integers(0, 1000)))
    order = np.argsort(rng.random([*part[:axis], shape[axis], *part[axis + 1 :]]), axis)
    index = order.take(range(part[axis]), axis) if unique else rng.integers(0, shape[axis], part)
    ends = rng.integers(0, 2, part) * shape[axis]
    return tuple(shape), axis - len(shape) * draw(st.integers(0, 1)), index - ends


@few
@given(indexed())
def test_gather_elements_of_random_indices(form):
    shape, axis, index = form
    check(one("GatherElements", x=shape, i=index, axis=axis))


@few
@given(indexed(), st.sampled_from(["add", "mul", "max", "min"]))
def test_scatter_elements_of_random_indices(form, reduction):
    shape, axis, index = form
    check(one("ScatterElements", x=shape, i=index, u=index.shape, axis=axis, reduction=reduction))


@few
@given(indexed(unique=True))
def test_scatter_elements_without_reduction(form):
    shape, axis, index = form
    check(one("ScatterElements", x=shape, i=index, u=index.shape, axis=axis))


@few
@given(st.data(), st.sampled_from(["gather", "add", "mul", "max", "min"]))
def test_index_tuples_of_random_length(data, what):
    shape = tuple(data.draw(st.lists(st.integers(1, 4), min_size=1, max_size=4)))
    batch = data.draw(st.integers(0, len(shape) - 1)) if what == "gather" else 0
    depth = data.draw(st.integers(1, len(shape) - batch))
    places = data.draw(st.lists(st.integers(1, 3), min_size=int(batch == 0), max_size=2))
    rng = np.random.default_rng(data.draw(st.integers(0, 1000)))
    limits = np.array(shape[batch : batch + depth])
    indices = rng.integers(-limits, limits, [*shape[:batch], *places, depth])
    if what == "gather":
        check(one("GatherND", x=shape, i=indices, batch_dims=batch))
    else:
        check(one("ScatterND", x=shape, i=indices, u=(*places, *shape[depth:]), reduction=what))


@few
@given(st.data())
def test_einsum_of_random_letters(data):
    sizes = {letter: data.draw(st.integers(1, 3)) for letter in "abcde"}
    terms = data.draw(st.lists(st.text("abcde", min_size=1, max_size=4), min_size=1, max_size=3))
    letters = sorted(set("".join(terms)))
    result = "".join(data.draw(st.permutations(letters))[: data.draw(st.integers(0, len(letters)))])
    shapes = {f"x{k}": tuple(sizes[c] for c in term) for k, term in enumerate(terms)}
    check(one("Einsum", **shapes, equation=f"{','.join(terms)}->{result}"))


@few
@given(
    st.tuples(st.integers(1, 6), st.integers(1, 6), st.integers(2, 6), st.integers(2, 6)),
    st.sampled_from(["half_pixel", "pytorch_half_pixel", "asymmetric", "align_corners", "half_pixel_symmetric"]),
    st.sampled_from([("linear", 0), ("linear", 1), ("cubic", 0), ("cubic", 1)]),
)
def test_resize_of_random_sizes(sizes, where, mode):
    """Not to nearest neighbours, of which the reference evaluator, in another precision, takes the other at a tie, nor
    to one pixel, where it knows no pytorch_half_pixel."""
    h, w, *new = sizes
    given = {"mode": mode[0], "antialias": mode[1], "coordinate_transformation_mode": where, "opset": 19}
    check(one("Resize", x=(2, 3, h, w), roi=None, scales=None, sizes=ints(*new), axes=[2, 3], **given))


@few
@given(windows(pool=False), st.data())
def test_conv_transpose_of_random_form(window, data):
    image, attributes = window
    strides = attributes["strides"]
    if attributes["auto_pad"] == "NOTSET":
        attributes["output_padding"] = [data.draw(st.integers(0, s - 1)) for s in strides]
    weight = (2, 3, *attributes["kernel_shape"])
    check(one("ConvTranspose", x=(2, 2, *image), w=weight, **attributes))
