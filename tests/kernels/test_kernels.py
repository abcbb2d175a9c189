"""All kernel backends, each function against an independent oracle: torch, OpenCV, SciPy or the written formula."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from scipy import ndimage

from fastcam import kernels
from fastcam.kernels import ALL_NEGATIVE, NON_FINITE, OK, ZERO_GRADIENT
from fastcam.schema import FastcamError
from support import cuda_host
from support.kernel_inputs import MASKS, checkerboard, rng, uniform

NAN, INF = float("nan"), float("inf")
LOWEST = np.finfo(np.float32).min


@pytest.fixture(params=cuda_host.BACKENDS)
def k(request: pytest.FixtureRequest) -> kernels.Kernels:
    return cuda_host.get(request.param)


def signed(*shape: int, seed: int = 0) -> kernels.Floats:
    return rng(seed).standard_normal(shape).astype(np.float32)


def one_map(*values: float) -> kernels.Floats:
    return np.array(values, np.float32).reshape(1, 1, 1, -1)


# --- weigh -------------------------------------------------------------------------------------------------------

WEIGH = [(1, 1, 2048, 7, 7), (3, 5, 19, 5, 9), (2, 3, 1, 1, 1), (2, 2, 6, 40, 41), (1, 2, 37, 23, 23)]


@pytest.mark.parametrize(("n", "t", "channels", "h", "w"), WEIGH)
def test_weigh_is_the_sum_over_channels(k: kernels.Kernels, n: int, t: int, channels: int, h: int, w: int) -> None:
    a, weights = signed(n, channels, h, w), signed(n, t, channels, seed=1)
    got = k.weigh(a, weights)
    wanted = np.einsum("nchw,ntc->nthw", a.astype(np.float64), weights.astype(np.float64))
    scale = np.einsum("nchw,ntc->nthw", np.abs(a).astype(np.float64), np.abs(weights).astype(np.float64))
    assert got.dtype == np.float32
    assert got.shape == wanted.shape
    assert np.all(np.abs(got - wanted) <= 1e-6 * scale)
    assert got.min() < 0  # signed: no ReLU


def test_weigh_lets_nan_through_only_where_it_is(k: kernels.Kernels) -> None:
    a, weights = signed(2, 8, 3, 3), signed(2, 2, 8)
    a[1, 5, 2, 1] = NAN
    wanted = np.zeros((2, 2, 3, 3), bool)
    wanted[1, :, 2, 1] = True
    np.testing.assert_array_equal(np.isnan(k.weigh(a, weights)), wanted)


def test_weigh_of_no_channels_is_zero(k: kernels.Kernels) -> None:
    assert np.array_equal(k.weigh(signed(2, 0, 3, 4), signed(2, 1, 0)), np.zeros((2, 1, 3, 4), np.float32))


# --- status, relu, normalize ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "verdict"),
    [
        ((-1.0, 0.0, 1e-30), OK),
        ((-1.0, 0.0, -2.0), ALL_NEGATIVE),
        ((-1e-45, -0.0, 0.0), ALL_NEGATIVE),
        ((0.0, -0.0, 0.0), ZERO_GRADIENT),
        ((NAN, 1.0, 2.0), NON_FINITE),
        ((-1.0, -2.0, NAN), NON_FINITE),
        ((1.0, INF, 2.0), NON_FINITE),
        ((1.0, -INF, 2.0), NON_FINITE),
        ((0.0, 0.0, NAN), NON_FINITE),
        ((3e38, 3e38, 3e38), OK),  # their sum is infinite, they are not
    ],
)
@pytest.mark.parametrize("padding", [0, 5, 14])  # so that the value lies in and behind the vectorised part
def test_status_of_a_map(k: kernels.Kernels, values: tuple[float, ...], verdict: int, padding: int) -> None:
    neutral = -1.0 if verdict == ALL_NEGATIVE else 0.0
    got = k.status(one_map(*[neutral] * padding, *values, *[neutral] * padding))
    assert got.dtype == np.uint8
    assert got.tolist() == [[verdict]]


def test_status_names_stand_at_their_numbers() -> None:
    assert kernels.STATUS_NAMES[OK] == "ok"
    assert kernels.STATUS_NAMES[ALL_NEGATIVE] == "all_negative"
    assert kernels.STATUS_NAMES[ZERO_GRADIENT] == "zero_gradient"
    assert kernels.STATUS_NAMES[NON_FINITE] == "non_finite"


def test_relu_cuts_negatives_and_keeps_nan(k: kernels.Kernels) -> None:
    got = k.relu(one_map(-1.0, -0.0, 0.0, 2.5, NAN, INF, -INF))
    np.testing.assert_array_equal(got, one_map(0.0, 0.0, 0.0, 2.5, NAN, INF, 0.0))
    assert not np.signbit(got[0, 0, 0, 1])


def test_relu_equals_torch(k: kernels.Kernels) -> None:
    maps = signed(2, 3, 13, 7)
    np.testing.assert_array_equal(k.relu(maps), torch.relu(torch.from_numpy(maps)).numpy())


def test_normalize_divides_each_map_by_its_own_maximum(k: kernels.Kernels) -> None:
    maps = uniform(2, 3, 11, 5) * np.arange(1, 7, dtype=np.float32).reshape(2, 3, 1, 1)
    got = k.normalize(maps)
    np.testing.assert_array_equal(got.max(axis=(-2, -1)), np.ones((2, 3)))
    np.testing.assert_allclose(got, maps / maps.max(axis=(-2, -1), keepdims=True), rtol=1e-7)


@pytest.mark.parametrize("values", [(0.0, 0.0), (-1.0, -2.0), (NAN, 1.0), (1.0, INF), (1.0, -INF), (-1.0, 0.0)])
def test_normalize_gives_zeros_where_there_is_no_peak(k: kernels.Kernels, values: tuple[float, float]) -> None:
    maps = np.concatenate([one_map(*values), one_map(1.0, 4.0)])
    assert k.normalize(maps).tolist() == [[[[0.0, 0.0]]], [[[0.25, 1.0]]]]


def test_normalize_stays_finite_for_the_smallest_peak(k: kernels.Kernels) -> None:
    smallest = float(np.finfo(np.float32).smallest_subnormal)
    got = k.normalize(one_map(smallest, -1.0, 0.0))
    np.testing.assert_array_equal(got, one_map(1.0, float(LOWEST), 0.0))


# --- upsample ------------------------------------------------------------------------------------------------------

SIZES = [
    ((7, 7), (224, 224)),
    ((13, 13), (227, 225)),
    ((7, 9), (3, 4)),
    ((32, 40), (16, 20)),
    ((33, 17), (10, 50)),
    ((1, 1), (5, 6)),
    ((1, 9), (8, 31)),
    ((6, 1), (1, 7)),
    ((5, 5), (5, 5)),
    ((2, 3), (1, 1)),
    ((14, 14), (299, 13)),
]


@pytest.mark.parametrize(("source", "size"), SIZES)
def test_upsample_equals_torch_and_opencv(k: kernels.Kernels, source: tuple[int, int], size: tuple[int, int]) -> None:
    maps = uniform(2, 2, *source)
    got = k.upsample(maps, size)
    assert got.dtype == np.float32
    wanted = torch.nn.functional.interpolate(torch.from_numpy(maps), size=size, mode="bilinear", align_corners=False)
    np.testing.assert_allclose(got, wanted.numpy(), rtol=0, atol=1e-5)
    for n, t in np.ndindex(2, 2):
        resized = cv2.resize(maps[n, t], (size[1], size[0]), interpolation=cv2.INTER_LINEAR)
        np.testing.assert_allclose(got[n, t], resized.reshape(size), rtol=0, atol=1e-5)


def test_upsample_stays_within_zero_and_one(k: kernels.Kernels) -> None:
    maps = (uniform(1, 8, 6, 6) > 0.4).astype(np.float32)
    got = k.upsample(maps, (113, 97))
    assert got.min() == 0.0
    assert got.max() == 1.0


def test_upsample_to_the_same_size_changes_nothing(k: kernels.Kernels) -> None:
    maps = signed(2, 3, 9, 4)
    np.testing.assert_array_equal(k.upsample(maps, (9, 4)), maps)


# --- threshold -----------------------------------------------------------------------------------------------------


def test_threshold_is_inclusive_and_relative_to_each_maximum(k: kernels.Kernels) -> None:
    cut = np.float32(0.15)
    below = np.nextafter(cut, np.float32(0))
    maps = np.stack([np.array([[1, cut, below]]), np.array([[1, cut, below]]) * 4]).astype(np.float32)
    got = k.threshold(maps)
    assert got.dtype == np.uint8
    assert got.tolist() == [[[1, 1, 0]], [[1, 1, 0]]]


def test_threshold_one_keeps_every_maximum(k: kernels.Kernels) -> None:
    assert k.threshold(one_map(0.1, 0.3, 0.3, 0.2), 1.0).ravel().tolist() == [0, 1, 1, 0]


def test_threshold_that_underflows_still_drops_zeros_and_negatives(k: kernels.Kernels) -> None:
    assert k.threshold(one_map(1e-40, 0.0, -1.0), 1e-30).ravel().tolist() == [1, 0, 0]


@pytest.mark.parametrize("bad", [0.0, -1.0, NAN, INF, -INF])
def test_threshold_marks_nothing_in_a_map_without_a_peak(k: kernels.Kernels, bad: float) -> None:
    maps = np.full((2, 1, 3, 3), bad, np.float32)
    maps[1] = 1.0
    if not np.isfinite(bad):
        maps[0, 0, 1:] = 1.0  # positive values beside it do not save the map
    got = k.threshold(maps)
    assert got[0].sum() == 0
    assert got[1].sum() == 9


# --- label, boxes, largest -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("connectivity", [4, 8])
@pytest.mark.parametrize("name", MASKS)
def test_components_and_boxes_equal_scipy(k: kernels.Kernels, name: str, connectivity: int) -> None:
    mask = MASKS[name]
    labels, counts = k.label(mask, connectivity)
    wanted, count = ndimage.label(mask, np.ones((3, 3)) if connectivity == 8 else None)
    assert labels.dtype == counts.dtype == np.int32
    np.testing.assert_array_equal(labels, wanted)
    assert counts.shape == ()
    assert int(counts) == count
    slices = ndimage.find_objects(wanted)
    pixels = np.bincount(wanted.ravel(), minlength=count + 1)[1:]
    rows = [[x.start, y.start, x.stop, y.stop, p] for (y, x), p in zip(slices, pixels, strict=True)]
    got = k.boxes(labels, int(counts))
    assert got.dtype == np.int32
    np.testing.assert_array_equal(got, np.array(rows, np.int32).reshape(count, 5))


@pytest.mark.parametrize("connectivity", [4, 8])
@pytest.mark.parametrize("width", [1, 63, 64, 65, 127, 128, 130, 200, 321])
def test_stretches_of_equal_rows_and_what_disturbs_them(k: kernels.Kernels, width: int, connectivity: int) -> None:
    """Vertical lines with some pixels changed, in and at the ends of words of 64."""
    random = rng(width)
    for height, lines, changed in [(1, 0.5, 0.0), (2, 0.5, 0.02), (9, 0.5, 0.004), (8, 0.9, 0.01), (12, 0.2, 0.001)]:
        row = random.random(width) < lines
        mask = row ^ (random.random((height, width)) < changed)
        mask[height // 2, 60:70] ^= True
        wanted, count = ndimage.label(mask, np.ones((3, 3)) if connectivity == 8 else None)
        labels, counts = k.label(mask, connectivity)
        np.testing.assert_array_equal(labels, wanted)
        assert int(counts) == count


def test_eight_connectivity_is_the_default_and_joins_corners(k: kernels.Kernels) -> None:
    board = checkerboard(6, 6)
    assert int(k.label(board)[1]) == 1
    assert int(k.label(board, 4)[1]) == 18


def test_label_treats_every_mask_of_a_batch_alone(k: kernels.Kernels) -> None:
    masks = (uniform(3, 2, 17, 19) < 0.5).astype(np.uint8)
    labels, counts = k.label(masks)
    assert counts.shape == (3, 2)
    for index in np.ndindex(3, 2):
        wanted, count = ndimage.label(masks[index], np.ones((3, 3)))
        np.testing.assert_array_equal(labels[index], wanted)
        assert counts[index] == count


def test_label_takes_any_non_zero_byte_and_bool(k: kernels.Kernels) -> None:
    mask = rng().integers(0, 3, (9, 31), dtype=np.uint8) * np.uint8(127)
    wanted = ndimage.label(mask, np.ones((3, 3)))[0]
    np.testing.assert_array_equal(k.label(mask)[0], wanted)
    np.testing.assert_array_equal(k.label(mask != 0)[0], wanted)


def test_a_label_without_pixels_has_a_box_of_zeros(k: kernels.Kernels) -> None:
    labels = np.array([[0, 3, 3], [1, 0, 0]], np.int32)
    assert k.boxes(labels, 4).tolist() == [[0, 1, 1, 2, 1], [0] * 5, [1, 0, 3, 1, 2], [0] * 5]


@pytest.mark.parametrize("value", [-1, 3, 2**31 - 1, -(2**31)])
def test_boxes_refuse_labels_beyond_their_count(k: kernels.Kernels, value: int) -> None:
    labels = np.array([[0, 2, 2], [1, 0, value]], np.int32)
    with pytest.raises(FastcamError, match=r"labels must lie in 0\.\.2"):
        k.boxes(labels, 2)


def test_largest_is_the_first_on_a_tie(k: kernels.Kernels) -> None:
    mask = np.array([[1, 0, 1, 1], [0, 0, 0, 0], [1, 1, 0, 0]], np.uint8)
    labels, count = k.label(mask)
    assert k.largest(k.boxes(labels, int(count))) == 1


# --- overlay -------------------------------------------------------------------------------------------------------


def picture(*shape: int, seed: int) -> kernels.Bytes:
    return rng(seed).integers(0, 256, shape, dtype=np.uint8)


@pytest.mark.parametrize("alpha", [0.0, 0.25, 0.4, 0.5, 1 / 3, 0.9, 1.0])
def test_overlay_is_the_formula_rounded_to_the_nearest(k: kernels.Kernels, alpha: float) -> None:
    image, heat, lut = picture(37, 53, 3, seed=0), uniform(37, 53), picture(256, 3, seed=1)
    got = k.overlay(image, heat, lut, alpha).astype(np.float64)
    color = lut[np.floor(heat * 255.0 + 0.5).astype(int)]
    exact = (1 - alpha) * image + alpha * color
    assert np.all(np.abs(got - exact) <= 0.5 + 255 / 2**17)  # alpha has 16 bits
    if alpha * 2**16 % 1 == 0:
        np.testing.assert_array_equal(got, np.floor(exact + 0.5))


def test_overlay_clips_the_heat_and_takes_nan_for_none(k: kernels.Kernels) -> None:
    lut = np.repeat(np.arange(256, dtype=np.uint8)[:, None], 3, axis=1)
    heat = np.array([[NAN, -1.0, -INF, INF, 2.0, 0.5, 1.0]], np.float32)
    got = k.overlay(np.zeros((1, 7, 3), np.uint8), heat, lut, 1.0)
    assert got[0, :, 0].tolist() == [0, 0, 0, 255, 255, 128, 255]
