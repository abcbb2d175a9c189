"""Preprocessing in one pass: OpenCV's INTER_AREA and the documented normalisation, bit for bit."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from fastcam.image import preprocess as fi
from fastcam.kernels import native, reference
from fastcam.schema import FastcamError, Preprocessing, preset

FACTOR = np.array([0.017, 0.0175, 1.0], np.float32)
SHIFT = np.array([2.1, -0.3, 0.0], np.float32)
SIZES = [
    ((500, 700), (224, 224)), ((225, 226), (224, 224)), ((224, 224), (224, 224)), ((300, 224), (224, 224)),
    ((448, 448), (224, 224)), ((448, 224), (224, 224)), ((96, 60), (32, 20)), ((61, 50), (7, 50)), ((49, 49), (1, 1)),
    ((98, 49), (2, 1)), ((3, 3), (2, 2)), ((1, 1), (1, 1)), ((1, 300), (1, 7)), ((5, 999), (4, 3)), ((113, 57), (3, 4)),
]  # fmt: skip


def noise(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def opencv(pixels, size):
    shrunk = cv2.resize(pixels, size[::-1], interpolation=cv2.INTER_AREA)
    return np.stack([np.multiply(shrunk[..., c], FACTOR[c], dtype=np.float32) - SHIFT[c] for c in range(3)], axis=-1)


def prepared(k, pixels, size):
    out = np.full((*size, 3), np.nan, np.float32)
    k.prepare(pixels, FACTOR, SHIFT, out)
    return out


@pytest.mark.parametrize("k", [native, reference], ids=["native", "reference"])
@pytest.mark.parametrize(("shape", "size"), SIZES)
def test_shrinking_has_opencvs_bits(k, shape, size):
    for pixels in (noise(*shape), np.full((*shape, 3), 255, np.uint8)):
        np.testing.assert_array_equal(prepared(k, pixels, size), opencv(pixels, size), strict=True)


@pytest.mark.parametrize("seed", range(40))
def test_any_sizes_have_opencvs_bits(seed):
    random = np.random.default_rng(seed)
    shape = random.integers(1, 150, 2)
    size = tuple(random.integers(1, shape + 1))
    pixels = noise(*(shape if seed % 3 else np.array(size) * random.integers(1, 5, 2)), seed)
    wanted = opencv(pixels, size)
    np.testing.assert_array_equal(prepared(native, pixels, size), wanted)
    np.testing.assert_array_equal(prepared(reference, pixels, size), wanted)


@pytest.mark.parametrize("k", [native, reference], ids=["native", "reference"])
def test_pictures_and_tensors_may_lie_in_memory_in_any_way(k):
    pixels = noise(60, 90)
    wanted = opencv(pixels, (20, 31))
    for given in (
        np.pad(pixels, ((3, 2), (7, 1), (0, 0)))[3:-2, 7:-1],
        np.asfortranarray(pixels),
        pixels[::-1].copy()[::-1],
    ):
        np.testing.assert_array_equal(prepared(k, given, (20, 31)), wanted)
    whole = np.full((2, 3, 30, 40), 7, np.float32)
    k.prepare(pixels, FACTOR, SHIFT, whole[1].transpose(1, 2, 0)[5:25, 4:35])
    np.testing.assert_array_equal(whole[1, :, 5:25, 4:35], wanted.transpose(2, 0, 1))
    whole[1, :, 5:25, 4:35] = 7
    assert (whole == 7).all()  # nothing beside it was written
    out = np.empty((20, 31, 3), np.float32)
    k.prepare(pixels, FACTOR[::-1], SHIFT[::-1], out[..., ::-1])
    np.testing.assert_array_equal(out, opencv(np.ascontiguousarray(pixels[..., ::-1]), (20, 31)))  # BGR


@pytest.mark.parametrize("how", ["stretch", "crop", "letterbox"])
@pytest.mark.parametrize("color", ["imagenet", "caffe"])
@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_a_networks_input_is_the_same_with_and_without_the_native_pass(monkeypatch, how, color, layout):
    asked = preset(color, size=(48, 64), resize=how, layout=layout)
    calls = []
    inner = native.prepare
    monkeypatch.setattr(native, "prepare", lambda *arguments: calls.append(1) or inner(*arguments))
    for shape in [(100, 150), (48, 64), (96, 128), (30, 200), (20, 30)]:
        calls.clear()
        picture = noise(*shape)
        ours, geometry = fi.prepare(picture, asked)
        (left, top, right, bottom), (x0, y0, x1, y1) = geometry.source, geometry.target
        assert len(calls) == (bottom - top >= y1 - y0 and right - left >= x1 - x0)
        with monkeypatch.context() as without:
            without.setattr(fi, "_shrink", lambda *_: False)
            theirs, same = fi.prepare(picture, asked)
        np.testing.assert_array_equal(ours, theirs, strict=True)
        assert geometry == same


def test_without_native_kernels_and_for_grey_models_opencv_prepares(monkeypatch):
    def never(*_):
        raise AssertionError("used")

    monkeypatch.setattr(native, "prepare", never)
    assert fi.prepare(noise(40, 40), Preprocessing(size=(20, 20), color="GRAY"))[0].shape == (1, 1, 20, 20)
    assert fi.prepare(noise(600, 600), Preprocessing(size=(2, 2)))[0].shape == (1, 3, 2, 2)  # 90000 pixels become one


@pytest.mark.parametrize("k", [native, reference], ids=["native", "reference"])
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((noise(4, 4).astype(np.float32), FACTOR, SHIFT, np.empty((2, 2, 3), np.float32)), "pixels must be"),
        ((noise(4, 4)[..., :2], FACTOR, SHIFT, np.empty((2, 2, 3), np.float32)), "pixels must be"),
        ((noise(4, 4), FACTOR, SHIFT, np.empty((2, 2, 3))), "out must be"),
        ((noise(4, 4), FACTOR, SHIFT, np.empty((0, 2, 3), np.float32)), "out must be"),
        ((noise(4, 4), FACTOR, SHIFT, np.empty((5, 2, 3), np.float32)), "4 x 4 cannot be shrunk to 5 x 2"),
        ((noise(4, 4), FACTOR[:2], SHIFT, np.empty((2, 2, 3), np.float32)), r"factor must be \[3\]"),
        ((noise(4, 4), FACTOR, [0.0] * 3, np.empty((2, 2, 3), np.float32)), "shift must be a NumPy array"),
        ((noise(600, 600), FACTOR, SHIFT, np.empty((2, 2, 3), np.float32)), "more than 65536"),
    ],
)
def test_what_cannot_be_prepared_is_refused_in_one_line(k, arguments, words):
    with pytest.raises(FastcamError, match=words) as caught:
        k.prepare(*arguments)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("color", ["RGB", "GRAY"])
@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_a_picture_is_written_where_the_caller_wants_it(color, layout):
    how = Preprocessing(size=(20, 30), color=color, layout=layout, resize="letterbox", pad_value=9)
    for shape in [(50, 60), (10, 12)]:  # shrinks, grows
        wanted, _ = fi.prepare(noise(*shape), how)
        whole = np.full((3, *wanted.shape[1:]), np.nan, np.float32)
        given = whole[1:2]
        assert fi.prepare(noise(*shape), how, out=given)[0] is given
        np.testing.assert_array_equal(whole[1:2], wanted)
        assert np.isnan(whole[[0, 2]]).all()
