"""What holds for every kernel: the choice of the backend, bad arguments, empty axes, equal bits, threads."""

from __future__ import annotations

import inspect
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import fastcam
from fastcam import kernels
from fastcam.schema import FastcamError
from support import cuda_host
from support.examples import examples
from support.kernel_inputs import ANY_FLOAT, SIDES, map_arrays

NATIVE, REFERENCE = kernels.get("native"), kernels.get("reference")
NAN, INF = float("nan"), float("inf")
NAMES = ["weigh", "status", "relu", "normalize", "upsample", "threshold", "label", "boxes", "largest", "overlay"]
NAMES += ["explain_maps"]


@pytest.fixture(params=cuda_host.BACKENDS)
def k(request: pytest.FixtureRequest) -> kernels.Kernels:
    return cuda_host.get(request.param)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def signed(*shape: int, seed: int = 0) -> kernels.Floats:
    return rng(seed).standard_normal(shape).astype(np.float32)


def picture(*shape: int, seed: int) -> kernels.Bytes:
    return rng(seed).integers(0, 256, shape, dtype=np.uint8)


# --- which backend -----------------------------------------------------------------------------------------------


def test_auto_is_native_where_it_is_built() -> None:
    assert kernels.get() is NATIVE
    assert kernels.get("auto") is NATIVE
    assert NATIVE is not REFERENCE


def test_an_unknown_backend_is_refused_with_the_known_ones() -> None:
    with pytest.raises(FastcamError, match="no kernels 'fast'; there are: auto, native, cuda, reference"):
        kernels.get("fast")


def hide_native(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "fastcam.kernels.native")
    monkeypatch.delitem(sys.modules, "fastcam._native")
    monkeypatch.delattr(kernels, "native")
    monkeypatch.delattr(fastcam, "_native")


def test_without_the_native_module_auto_falls_back_and_native_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    hide_native(monkeypatch)
    monkeypatch.setitem(sys.modules, "fastcam._native", None)
    assert kernels.get() is REFERENCE
    with pytest.raises(FastcamError, match=r"reinstall fastcam with a C\+\+ compiler"):
        kernels.get("native")


@pytest.mark.parametrize("name", ["auto", "native"])
def test_a_native_module_that_does_not_load_is_reported(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    class Broken:
        @staticmethod
        def find_spec(fullname: str, path: Any = None, target: Any = None) -> None:
            if fullname == "fastcam._native":
                raise ImportError("libstdc++.so.6: version `GLIBCXX_3.4.99' not found")

    hide_native(monkeypatch)
    monkeypatch.setattr(sys, "meta_path", [Broken, *sys.meta_path])
    with pytest.raises(FastcamError, match=r"GLIBCXX_3\.4\.99"):
        kernels.get(name)


@pytest.mark.parametrize("name", NAMES)
def test_both_backends_have_the_signatures_of_the_protocol(name: str) -> None:
    wanted = list(inspect.signature(getattr(kernels.Kernels, name)).parameters.values())[1:]
    for backend in (NATIVE, REFERENCE):
        assert list(inspect.signature(getattr(backend, name)).parameters.values()) == wanted


# --- what holds for all --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("leading", [(0, 1), (1, 0), (0, 0), (0,), ()])
def test_empty_and_missing_leading_axes_work(k: kernels.Kernels, leading: tuple[int, ...]) -> None:
    maps = np.ones((*leading, 3, 4), np.float32)
    assert k.status(maps).shape == leading
    assert k.relu(maps).shape == k.normalize(maps).shape == k.threshold(maps).shape == (*leading, 3, 4)
    assert k.upsample(maps, (5, 6)).shape == (*leading, 5, 6)
    labels, counts = k.label(maps.astype(np.uint8))
    assert labels.shape == (*leading, 3, 4)
    assert counts.shape == leading


def test_weigh_of_no_images_or_no_targets_is_empty(k: kernels.Kernels) -> None:
    assert k.weigh(signed(0, 4, 3, 2), signed(0, 5, 4)).shape == (0, 5, 3, 2)
    assert k.weigh(signed(2, 4, 3, 2), signed(2, 0, 4)).shape == (2, 0, 3, 2)


def test_boxes_of_no_components_are_no_rows(k: kernels.Kernels) -> None:
    assert k.boxes(np.zeros((3, 3), np.int32), 0).shape == (0, 5)


def test_arrays_of_any_strides_and_alignment_are_read_right(k: kernels.Kernels) -> None:
    maps = signed(3, 2, 8, 6)
    strided = np.asfortranarray(maps)[::-1, :, ::2]
    np.testing.assert_array_equal(k.normalize(strided), k.normalize(strided.copy()))
    unaligned = np.frombuffer(b"x" + maps.tobytes(), np.float32, offset=1).reshape(maps.shape)
    np.testing.assert_array_equal(k.upsample(unaligned, (20, 21)), k.upsample(maps, (20, 21)))
    mask = (maps > 0)[..., ::-1]
    np.testing.assert_array_equal(k.label(mask)[0], k.label(mask.copy())[0])


def test_inputs_are_left_as_they_were(k: kernels.Kernels) -> None:
    maps = signed(2, 1, 6, 6)
    maps.setflags(write=False)
    before = maps.copy()
    for result in (k.relu(maps), k.normalize(maps), k.upsample(maps, (6, 6))):
        assert not np.shares_memory(result, maps)
    np.testing.assert_array_equal(maps, before)


MAPS, BYTES = np.ones((1, 1, 3, 3), np.float32), np.ones((3, 3), np.uint8)
IMAGE, HEAT, LUT = np.ones((3, 3, 3), np.uint8), np.ones((3, 3), np.float32), np.ones((256, 3), np.uint8)
W = np.ones((1, 2, 1), np.float32)
WINDOWS = np.array([[0, 0, 3, 3]], np.int32)
FLAWS: list[tuple[str, tuple[Any, ...], str]] = [
    ("weigh", (MAPS.astype(np.float64), W), r"activations must be float32 .*got float64; convert"),
    ("weigh", (MAPS, W.astype(np.float64)), "weights must be float32"),
    ("weigh", (MAPS[:, :0], W), "do not fit"),
    ("weigh", (MAPS, np.ones((1, 2, 2), np.float32)), "do not fit"),
    ("weigh", (MAPS, np.ones((2, 2, 1), np.float32)), "do not fit"),
    ("weigh", (MAPS[0], W), r"activations must be \[N, K, h, w\]"),
    ("weigh", (MAPS[..., :0], W), "h, w >= 1"),
    ("weigh", (MAPS, W[0]), r"weights must be \[N, T, K\]"),
    ("weigh", ([[[[1.0]]]], W), "activations must be a NumPy array.*got list"),
    *[(name, (MAPS.astype(">f4"),), "maps must be float32") for name in ("status", "relu", "normalize", "threshold")],
    *[(name, (MAPS[0, 0, 0],), r"got shape \(3,\)") for name in ("status", "relu", "normalize", "threshold")],
    *[(name, (MAPS[:, :, :0],), "h, w >= 1") for name in ("status", "relu", "normalize", "threshold")],
    ("upsample", (MAPS[..., :0, :], (4, 4)), "h, w >= 1"),
    ("upsample", (MAPS, (0, 4)), "both >= 1"),
    ("upsample", (MAPS, (4, -1)), "both >= 1"),
    ("upsample", (MAPS, (4,)), "two whole numbers"),
    ("upsample", (MAPS, (4, 4, 4)), "two whole numbers"),
    ("upsample", (MAPS, (4.5, 4)), "two whole numbers"),
    ("upsample", (MAPS, 4), "two whole numbers"),
    *[("threshold", (MAPS, bad), r"fraction must lie in \(0, 1\]") for bad in (0.0, -0.1, 1.01, NAN)],
    ("threshold", (MAPS, "high"), "fraction must be a number"),
    ("label", (BYTES.astype(np.int32),), "mask must be uint8"),
    ("label", (BYTES[0],), r"mask must be \[..., H, W\]"),
    ("label", (BYTES[:0],), "H, W >= 1"),
    *[("label", (BYTES, bad), "connectivity must be 4 or 8") for bad in (6, "8", None)],
    ("boxes", (np.ones((3, 3), np.int64), 1), "labels must be int32"),
    ("boxes", (np.ones((1, 3, 3), np.int32), 1), r"labels must be \[H, W\]"),
    ("boxes", (np.ones((3, 3), np.int32), -1), r"count must lie in 0\.\.9"),
    ("boxes", (np.ones((3, 3), np.int32), 10), r"count must lie in 0\.\.9"),
    ("boxes", (np.ones((3, 3), np.int32), 1.0), "count must be a whole number"),
    ("largest", (np.ones((0, 5), np.int32),), "boxes is empty"),
    ("largest", (np.ones((2, 4), np.int32),), r"boxes must be \[count, 5\]"),
    ("overlay", (IMAGE[..., :2], HEAT, LUT, 0.5), r"image must be \[H, W, 3\]"),
    ("overlay", (IMAGE[:0], HEAT[:0], LUT, 0.5), "H, W >= 1"),
    ("overlay", (IMAGE, HEAT[:2], LUT, 0.5), "differ in size"),
    ("overlay", (IMAGE, HEAT, LUT[:255], 0.5), r"lut must be \[256, 3\]"),
    ("overlay", (IMAGE.astype(np.float32), HEAT, LUT, 0.5), "image must be uint8"),
    *[("overlay", (IMAGE, HEAT, LUT, bad), r"alpha must lie in \[0, 1\]") for bad in (-0.1, 1.5, NAN)],
    ("overlay", (IMAGE, HEAT[:0], LUT, 0.5), r"heatmap must be \[H, W\]"),
    ("overlay", (IMAGE, MAPS, LUT, 0.5), r"heatmap must be \[H, W\]"),
    ("explain_maps", (MAPS.astype(np.float64), W, (4, 4)), "activations must be float32"),
    ("explain_maps", (MAPS[0], None, (4, 4)), r"activations without weights must be \[N, T, h, w\]"),
    ("explain_maps", (MAPS.astype(np.float16), None, (4, 4)), "activations without weights must be float32"),
    ("explain_maps", (MAPS, None, (4, 0)), "size must be .*both >= 1"),
    ("explain_maps", (MAPS, None, (65536, 65536)), r"more than 2\*\*31 - 1 pixels"),
    *[("explain_maps", (MAPS, None, (4, 4), bad), r"fraction must lie in \(0, 1\]") for bad in (0.0, 1.01, NAN)],
    ("explain_maps", (MAPS, None, (4, 4), 0.15, 6), "connectivity must be 4 or 8"),
]
NAMED_FLAWS: list[tuple[dict[str, Any], str]] = [
    ({"windows": WINDOWS[:0]}, r"windows must be \[1, 4\]"),
    ({"windows": WINDOWS.astype(np.int64)}, "windows must be int32"),
]


@pytest.mark.parametrize(("name", "arguments", "message"), FLAWS)
def test_bad_arguments_are_refused_with_one_line(
    k: kernels.Kernels, name: str, arguments: tuple[Any, ...], message: str
) -> None:
    with pytest.raises(FastcamError, match=message) as caught:
        getattr(k, name)(*arguments)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("arguments", "message"), NAMED_FLAWS)
def test_bad_options_of_explain_maps_are_refused(k: kernels.Kernels, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(FastcamError, match=message):
        k.explain_maps(MAPS, None, (4, 4), **arguments)


# --- the backends agree ----------------------------------------------------------------------------------------------

PROPERTY = settings(deadline=None, derandomize=True, max_examples=examples(150))


@PROPERTY
@given(maps=map_arrays(), fraction=st.floats(0, 1, exclude_min=True))
def test_native_and_reference_agree_bit_for_bit_on_any_map(maps: kernels.Floats, fraction: float) -> None:
    for name in ("status", "relu", "normalize"):
        np.testing.assert_array_equal(getattr(NATIVE, name)(maps), getattr(REFERENCE, name)(maps))
    assert np.isfinite(NATIVE.normalize(maps)).all()
    np.testing.assert_array_equal(NATIVE.threshold(maps, fraction), REFERENCE.threshold(maps, fraction))


@PROPERTY
@given(maps=map_arrays(), height=st.integers(1, 50), width=st.integers(1, 50))
def test_native_and_reference_upsample_bit_for_bit(maps: kernels.Floats, height: int, width: int) -> None:
    np.testing.assert_array_equal(
        NATIVE.upsample(maps, (height, width)), REFERENCE.upsample(maps, (height, width)), strict=True
    )


@PROPERTY
@given(
    mask=hnp.arrays(np.uint8, st.tuples(st.integers(0, 2), SIDES, SIDES), elements=st.sampled_from([0, 1, 255])),
    connectivity=st.sampled_from([4, 8]),
)
def test_native_and_reference_find_the_same_components(mask: kernels.Bytes, connectivity: int) -> None:
    labels, counts = NATIVE.label(mask, connectivity)
    wanted, wanted_counts = REFERENCE.label(mask, connectivity)
    np.testing.assert_array_equal(labels, wanted)
    np.testing.assert_array_equal(counts, wanted_counts)
    for plane, count in zip(labels, counts.tolist(), strict=True):
        np.testing.assert_array_equal(NATIVE.boxes(plane, count), REFERENCE.boxes(plane, count))


@PROPERTY
@given(data=st.data(), channels=st.integers(0, 40), h=SIDES, w=SIDES, seed=st.integers(0, 2**32 - 1))
def test_native_and_reference_weigh_alike(data: st.DataObject, channels: int, h: int, w: int, seed: int) -> None:
    n, t = data.draw(st.integers(0, 2)), data.draw(st.integers(0, 3))
    a, weights = signed(n, channels, h, w, seed=seed), signed(n, t, channels, seed=seed + 1)
    scale = REFERENCE.weigh(np.abs(a), np.abs(weights))
    assert np.all(np.abs(NATIVE.weigh(a, weights) - REFERENCE.weigh(a, weights)) <= 1e-6 * scale)


@PROPERTY
@given(
    heat=hnp.arrays(np.float32, st.tuples(SIDES, SIDES), elements=ANY_FLOAT | st.floats(0, 1, width=32)),
    alpha=st.floats(0, 1),
    seed=st.integers(0, 2**32 - 1),
)
def test_native_and_reference_overlay_alike(heat: kernels.Floats, alpha: float, seed: int) -> None:
    image, lut = picture(*heat.shape, 3, seed=seed), picture(256, 3, seed=seed + 1)
    np.testing.assert_array_equal(
        NATIVE.overlay(image, heat, lut, alpha), REFERENCE.overlay(image, heat, lut, alpha), strict=True
    )


# --- threads -------------------------------------------------------------------------------------------------------


def whole_chain(k: kernels.Kernels, seed: int) -> list[np.ndarray]:
    cam = k.weigh(signed(2, 64, 7, 7, seed=seed), signed(2, 3, 64, seed=seed + 1))
    heatmaps = k.upsample(k.normalize(k.relu(cam)), (96, 80))
    labels, counts = k.label(k.threshold(heatmaps))
    boxes = k.boxes(labels[0, 0], int(counts[0, 0]))
    over = k.overlay(picture(96, 80, 3, seed=seed), heatmaps[0, 0], picture(256, 3, seed=seed), 0.5)
    return [cam, k.status(cam), heatmaps, labels, counts, boxes, over]


def test_many_threads_get_the_results_of_one() -> None:
    wanted = [whole_chain(NATIVE, seed) for seed in range(8)]
    with ThreadPoolExecutor(8) as pool:
        got = list(pool.map(lambda i: whole_chain(NATIVE, i % 8), range(160)))
    for i, results in enumerate(got):
        for result, expected in zip(results, wanted[i % 8], strict=True):
            np.testing.assert_array_equal(result, expected)


def test_native_kernels_release_the_gil() -> None:
    activations, weights = signed(1, 512, 32, 32), signed(1, 1000, 512)
    span: list[float] = []

    def work() -> None:
        span.append(time.perf_counter())
        NATIVE.weigh(activations, weights)
        span.append(time.perf_counter())

    worker = threading.Thread(target=work)
    ticks: list[float] = []
    worker.start()
    while worker.is_alive():
        ticks.append(time.perf_counter())
    begin, end = span
    quarter = (end - begin) / 4
    assert any(begin + quarter < tick < end - quarter for tick in ticks), "this thread stood still during the call"
