"""Sampling and recurrence against PyTorch's autograd on the same numbers, edges and exact pixel centres included."""

import numpy as np
import onnx
import pytest
from onnx import helper

torch = pytest.importorskip("torch", reason="PyTorch is the oracle of these tests")

from torch.nn import functional as F  # noqa: E402

from fastcam_export import vjp  # noqa: E402
from support.rules import sampling as cases_sampling  # noqa: E402
from support.rules.case import H, N, W, one  # noqa: E402
from support.rules.recurrent import GATES, HIDDEN, INPUT, STEPS, case  # noqa: E402
from support.rules.runs import differentiate, run  # noqa: E402

MODES = {"linear": "bilinear", "nearest": "nearest", "cubic": "bicubic"}


def autograd(outputs, leaves, seeds):
    found = torch.autograd.grad(outputs, leaves, [torch.from_numpy(seed) for seed in seeds])
    return [gradient.numpy() for gradient in found]


@pytest.mark.parametrize("aligned", [0, 1])
@pytest.mark.parametrize("padding", ["zeros", "border", "reflection"])
@pytest.mark.parametrize("mode", MODES)
def test_grid_sample(mode, padding, aligned):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, 3, 5, 6)).astype(np.float32)
    grid = (1.6 * rng.standard_normal((2, 7, 4, 2))).astype(np.float32)
    grid[:, 0] = [[-1, -1], [1, 1], [-1, 1], [3, -3]]  # the ends
    seed = rng.standard_normal((2, 3, 7, 4)).astype(np.float32)
    given = {"mode": mode, "padding_mode": padding, "align_corners": aligned, "opset": 20}
    made = differentiate(one("GridSample", x=x.shape, grid=grid.shape, **given).model(), ["y"], ["x", "grid"])
    ours = run(made, {"x": x, "grid": grid, "d_y": seed})
    leaves = [torch.from_numpy(array).requires_grad_() for array in (x, grid)]
    y = F.grid_sample(*leaves, MODES[mode], padding, bool(aligned))
    for name, theirs in zip(("x", "grid"), autograd([y], leaves, [seed])):
        np.testing.assert_allclose(ours[f"d_{name}"], theirs, rtol=0, atol=2e-5 * max(1, np.abs(theirs).max()))


@pytest.mark.parametrize("aligned", [0, 1])
@pytest.mark.parametrize("padding", ["zeros", "border", "reflection"])
@pytest.mark.parametrize("mode", ["linear", "nearest"])
def test_grid_sample_of_volumes(mode, padding, aligned):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, 2, 4, 5, 6)).astype(np.float32)
    grid = (1.6 * rng.standard_normal((2, 3, 4, 2, 3))).astype(np.float32)
    grid[:, 0, 0] = [[-1, -1, -1], [1, 1, 1]]
    seed = rng.standard_normal((2, 2, 3, 4, 2)).astype(np.float32)
    given = {"mode": mode, "padding_mode": padding, "align_corners": aligned, "opset": 20}
    made = differentiate(one("GridSample", x=x.shape, grid=grid.shape, **given).model(), ["y"], ["x", "grid"])
    ours = run(made, {"x": x, "grid": grid, "d_y": seed})
    leaves = [torch.from_numpy(array).requires_grad_() for array in (x, grid)]
    close(ours, leaves, F.grid_sample(*leaves, MODES[mode], padding, bool(aligned)), seed, ("x", "grid"))


def close(ours, leaves, y, seed, names):
    for name, theirs in zip(names, autograd([y], leaves, [seed])):
        np.testing.assert_allclose(ours[f"d_{name}"], theirs, rtol=0, atol=2e-5 * max(1, np.abs(theirs).max()))


def looked_up(x, rows, columns):
    """[C, rows, columns] of one image [C, H, W], bilinear between pixels, zero outside of it."""
    h, w = x.shape[1:]
    rows, columns = torch.broadcast_tensors(2 * rows / (h - 1) - 1, 2 * columns / (w - 1) - 1)
    return F.grid_sample(x[None], torch.stack((columns, rows), -1)[None], align_corners=True)[0]


def region(x, roi, bins, scale, ratio, half):
    """RoiAlign's mean of one region [C, *bins], from the definition of its paper."""
    found, sides = [], []
    for axis in (0, 1):
        start, end = (float(roi[k]) * scale - 0.5 * half for k in (1 - axis, 3 - axis))
        length = end - start if half else max(end - start, 1)
        step = length / bins[axis]
        sides.append(ratio or int(np.ceil(step)))
        found.append([start + step * (i + (s + 0.5) / sides[-1]) for i in range(bins[axis]) for s in range(sides[-1])])
    there = [torch.tensor([float(-1 <= p <= size) for p in at], dtype=x.dtype) for at, size in zip(found, x.shape[1:])]
    at = [torch.tensor(p, dtype=x.dtype).clamp(0, size - 1) for p, size in zip(found, x.shape[1:])]
    y = looked_up(x, at[0][:, None], at[1][None]) * there[0][:, None] * there[1]
    return y.reshape(-1, bins[0], sides[0], bins[1], sides[1]).mean((2, 4))


@pytest.mark.parametrize("half", [True, False])
@pytest.mark.parametrize("ratio", [0, 1, 3])
@pytest.mark.parametrize("known", [True, False])
def test_roi_align(known, ratio, half):
    rng, bins, scale = np.random.default_rng(0), (3, 2), 0.5
    x = rng.standard_normal((2, 3, 9, 8)).astype(np.float32)
    rois = np.array(
        [[0, 0, 17, 15], [3, 4, 9.5, 13], [-9, -7, 30, 12], [5, 5, 5.5, 6], [12, 2, 19, 19], [-6, 2, -3, 9]], np.float32
    )
    images = np.array([1, 0, 0, 1, 1, 0])
    seed = rng.standard_normal((6, 3, *bins)).astype(np.float32)
    where = "half_pixel" if half else "output_half_pixel"
    given = {"output_height": bins[0], "output_width": bins[1], "spatial_scale": scale, "sampling_ratio": ratio}
    case = one("RoiAlign", x=x.shape, rois=rois, i=images, **given, coordinate_transformation_mode=where)
    if not known:
        case = one("RoiAlign", x=x.shape, rois=rois.shape, i=images, **given, coordinate_transformation_mode=where)
    ours = run(differentiate(case.model(), ["y"], ["x"]), {"x": x, "rois": rois, "d_y": seed})
    leaf = torch.from_numpy(x).requires_grad_()
    y = torch.stack([region(leaf[i], roi, bins, scale, ratio, half) for i, roi in zip(images, rois)])
    close(ours, [leaf], y, seed, ["x"])


@pytest.mark.parametrize(
    "mode, ratio, lifted",
    [("avg", 0, False), ("avg", 2, False), ("avg", 0, True), ("avg", 2, True), ("max", 0, False), ("max", 2, False)],
)
def test_no_region_at_all(mode, ratio, lifted):
    """Detectors find nothing in some images."""
    given = {"mode": mode, "output_height": 2, "output_width": 2, "sampling_ratio": ratio}
    case = cases_sampling.computed("RoiAlign", (N, 3, H, W), given)
    shapes = {"x": (2, 3, 7, 6), "which": (0,), "corner": (0, 2), "size": (0, 2), "d_y": (0, 3, 2, 2)}
    feeds = {name: np.ones(shape, np.float32) for name, shape in shapes.items()}
    made = differentiate(case.model(shapes="named"), ["y"], ["x"], lifted)
    ours = run(made, {**feeds, "copies": np.array([3])})
    assert np.array_equal(ours["d_x"], np.zeros((6 if lifted else 2, 3, 7, 6)))


def test_regions_that_are_computed_from_the_picture_are_constants():
    """As proposals are in torchvision's detectors, whose roi_align has no gradient for them either."""
    text = """<ir_version: 10, opset_import: ["" : 18]>
        f (float[1,1,6,4] x, float[6,4] rois, int64[6] i) => (float[6,1,2,2] y)
        { flat = Squeeze(x) r = Add(flat, rois) a = Sin(x)
          y = RoiAlign<output_height = 2, output_width = 2, sampling_ratio = 2>(a, r, i) }"""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((1, 1, 6, 4)).astype(np.float32)
    rois = np.tile(np.float32([0, 1, 4, 5]), (6, 1))
    seed = rng.standard_normal((6, 1, 2, 2)).astype(np.float32)
    feeds = {"x": x, "rois": rois, "i": np.zeros(6, np.int64), "cotangent.y": seed}
    leaf = torch.from_numpy(x).requires_grad_()
    y = torch.stack([region(torch.sin(leaf[0]), roi, (2, 2), 1.0, 2, True) for roi in x[0, 0] + rois])
    ours = run(vjp(onnx.parser.parse_model(text), ["x"], ["y"]), feeds)["grad.x"]
    close({"d_x": ours}, [leaf], y, seed, ["x"])


def test_max_roi_pool_gives_all_to_the_first_maximum():
    """As torch.nn.functional.max_pool2d on the same pixels, half of which are equal."""
    rng = np.random.default_rng(0)
    x = np.maximum(rng.standard_normal((2, 3, 8, 8)), 0).astype(np.float32)
    rois = np.array([[1, 2, 1, 5, 6], [0, 0, 0, 7, 7]], np.float32)  # 4 by 6 and 8 by 8 pixels
    seed = rng.standard_normal((2, 3, 2, 2)).astype(np.float32)
    case = one("MaxRoiPool", x=x.shape, rois=rois, pooled_shape=[2, 2])
    ours = run(differentiate(case.model(), ["y"], ["x"]), {"x": x, "d_y": seed})
    leaf = torch.from_numpy(x).requires_grad_()
    y = torch.stack([F.max_pool2d(leaf[1, :, 1:7, 2:6], (3, 2)), F.max_pool2d(leaf[0], 4)])
    close(ours, [leaf], y, seed, ["x"])


def deformed(x, w, offset, b, mask, groups, each, stride, pad, dilation):
    """DeformConv by one look-up for each image, offset group and tap, and PyTorch's convolution of what was found."""
    (n, c, _, _), (h, width), (rows, columns) = x.shape, offset.shape[2:], w.shape[2:]
    offset, mask = offset.reshape(n, each, rows * columns, 2, h, width), mask.reshape(n, each, rows * columns, h, width)
    found = torch.empty((n, each, c // each, rows * columns, h, width), dtype=x.dtype)
    for i, o, t in np.ndindex(n, each, rows * columns):
        at = [torch.arange(h)[:, None], torch.arange(width)[None]]
        at = [
            p * stride - pad + k * dilation + offset[i, o, t, axis]
            for axis, (p, k) in enumerate(zip(at, divmod(t, columns)))
        ]
        found[i, o, :, t] = looked_up(x[i].reshape(each, -1, *x.shape[2:])[o], *at) * mask[i, o, t]
    return F.conv2d(found.reshape(n, -1, h, width), w.reshape(len(w), -1, 1, 1), b, groups=groups)


@pytest.mark.parametrize(
    "groups, each, stride, pad, dilation", [(1, 1, 1, 1, 1), (2, 1, 2, 1, 1), (1, 2, 1, 0, 2), (3, 2, 2, 2, 1)]
)
def test_deform_conv(groups, each, stride, pad, dilation):
    rng = np.random.default_rng(0)
    h, width = ((size + 2 * pad - 2 * dilation - 1) // stride + 1 for size in (9, 5))
    shapes = {
        "x": (2, 6, 9, 5), "w": (6, 6 // groups, 3, 3), "offset": (2, each * 18, h, width), "b": (6,),
        "mask": (2, each * 9, h, width),
    }  # fmt: skip
    feeds = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    feeds["offset"][:, :, 0] = np.round(feeds["offset"][:, :, 0])  # centres, which of 9 by 5 pixels torch's grid hits
    seed = rng.standard_normal((2, 6, h, width)).astype(np.float32)
    given = {"strides": [stride] * 2, "pads": [pad] * 4, "dilations": [dilation] * 2}
    case = one("DeformConv", **shapes, group=groups, offset_group=each, **given, opset=19)
    ours = run(differentiate(case.model(), ["y"], list(shapes)), {**feeds, "d_y": seed})
    leaves = {name: torch.from_numpy(array).requires_grad_() for name, array in feeds.items()}
    y = deformed(**leaves, groups=groups, each=each, stride=stride, pad=pad, dilation=dilation)
    close(ours, list(leaves.values()), y, seed, list(shapes))


@pytest.mark.parametrize("fixed", [True, False])
def test_max_unpool_to_a_size(fixed):
    """ONNX infers no shape behind it where the size is given."""
    x = np.random.default_rng(0).standard_normal((2, 3, 5, 7)).astype(np.float32)
    size = np.array([2, 3, 5, 7])
    pooled, index = F.max_pool2d(torch.from_numpy(x), 2, return_indices=True)
    index = (index + 35 * torch.arange(6).reshape(2, 3, 1, 1)).numpy()
    nodes = [
        helper.make_node("Relu", ["x"], ["a"]),
        helper.make_node("MaxUnpool", ["a", "index", "size"], ["u"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Sin", ["u"], ["y"]),
    ]
    batch = 2 if fixed else "N"
    inputs = [
        helper.make_tensor_value_info("x", 1, [batch, 3, 2, 3]),
        helper.make_tensor_value_info("index", 7, [batch, 3, 2, 3]),
    ]
    constants = [onnx.numpy_helper.from_array(size, "size")] if fixed else []
    inputs += [] if fixed else [helper.make_tensor_value_info("size", 7, [4])]
    graph = helper.make_graph(
        nodes, "g", inputs, [helper.make_tensor_value_info("y", 1, ["N", 3, "H", "W"])], constants
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    seed = np.random.default_rng(1).standard_normal(x.shape).astype(np.float32)
    feeds = {"x": pooled.numpy(), "index": index, "size": size, "cotangent.y": seed}
    ours = run(vjp(model, ["x"], ["y"]), feeds)["grad.x"]
    leaf = pooled.clone().requires_grad_()
    flat = torch.from_numpy(index) - 35 * torch.arange(6).reshape(2, 3, 1, 1)
    y = torch.sin(F.max_unpool2d(torch.relu(leaf), flat, 2, output_size=(5, 7)))
    np.testing.assert_allclose(ours, autograd([y], [leaf], [seed])[0], rtol=0, atol=1e-6)


ORDER = {"RNN": [0], "GRU": [1, 0, 2], "LSTM": [0, 2, 3, 1]}
"""Where PyTorch's gates stand in ONNX: rzn of zrn, and ifgo of iofg."""


@pytest.mark.parametrize("op_type", ORDER)
def test_bidirectional_recurrence(op_type):
    given = {"linear_before_reset": 1} if op_type == "GRU" else {}
    made = case(op_type, direction="bidirectional", **given)
    feeds = made.feeds(np.float32)
    outputs = run(made.model(), feeds)
    rng = np.random.default_rng(1)
    seeds = {name: rng.standard_normal(outputs[name].shape).astype(np.float32) for name in outputs}
    ours = run(
        differentiate(made.model(), made.outputs, made.wrt), {**feeds, **{f"d_{n}": seed for n, seed in seeds.items()}}
    )
    module = getattr(torch.nn, op_type)(INPUT, HIDDEN, bidirectional=True)
    number, leaves = GATES[op_type], {}

    def swap(array):
        return array.reshape(number, HIDDEN, *array.shape[1:])[ORDER[op_type]].reshape(array.shape)

    with torch.no_grad():
        for d, suffix in enumerate(("", "_reverse")):
            wb, rb = np.split(feeds["b"][d], 2)
            for key, array in (
                ("weight_ih", feeds["w"][d]),
                ("weight_hh", feeds["r"][d]),
                ("bias_ih", wb),
                ("bias_hh", rb),
            ):
                leaves[key, d] = getattr(module, f"{key}_l0{suffix}")
                leaves[key, d].copy_(torch.from_numpy(swap(array).copy()))
    x, *state = (torch.from_numpy(feeds[n]).requires_grad_() for n in ("x", "h", "c") if n in feeds)
    y, last = module(x, tuple(state) if len(state) == 2 else state[0])
    y = y.reshape(STEPS, -1, 2, HIDDEN).transpose(1, 2)
    ends = last if isinstance(last, tuple) else (last,)
    found = autograd([y, *ends], [x, *state, *leaves.values()], [seeds[n] for n in made.outputs])
    theirs = dict(zip(("x", "h", "c")[: 1 + len(state)], found))
    for key, gradient in zip(leaves, found[1 + len(state) :]):
        name, d = {"weight_ih": "w", "weight_hh": "r", "bias_ih": "b", "bias_hh": "b"}[key[0]], key[1]
        part = ours[f"d_{name}"][d]
        if name == "b":
            part = np.split(part, 2)[key[0] == "bias_hh"]
        np.testing.assert_allclose(swap(part), gradient, rtol=0, atol=1e-5 * max(1, np.abs(gradient).max()))
    for name, gradient in theirs.items():
        np.testing.assert_allclose(ours[f"d_{name}"], gradient, rtol=0, atol=1e-5 * max(1, np.abs(gradient).max()))
