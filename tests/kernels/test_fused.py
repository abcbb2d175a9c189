"""explain_maps equals the separate functions bit for bit; weigh reads float16."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, seed, settings
from hypothesis import strategies as st
from scipy import ndimage

from fastcam import kernels
from fastcam.kernels import OK
from support import cuda_host
from support.examples import examples
from support.kernel_inputs import FRACTIONS, INF, NAN, assert_same, maps_of_any_kind, signed, sizes, smooth

NATIVE, REFERENCE = kernels.get("native"), kernels.get("reference")


@pytest.fixture(params=cuda_host.BACKENDS)
def k(request: pytest.FixtureRequest) -> kernels.Kernels:
    return cuda_host.get(request.param)


def separately(
    k: kernels.Kernels,
    maps: kernels.Floats,
    size: tuple[int, int],
    fraction: float = 0.15,
    connectivity: int = 8,
    windows: kernels.Ints | None = None,
) -> kernels.Explained:
    """explain_maps of signed maps, by the other functions."""
    status, positive = k.status(maps), k.relu(maps)
    heatmaps = k.upsample(k.normalize(np.where((status == OK)[..., None, None], positive, np.float32(0))), size)
    mask = k.threshold(heatmaps, fraction)
    if windows is not None:
        y, x = np.indices(size)
        for image, (x0, y0, x1, y1) in enumerate(windows.tolist()):
            mask[image] *= (x >= x0) & (x < x1) & (y >= y0) & (y < y1)
    labels, counts = k.label(mask, connectivity)
    rows = [k.boxes(labels[index], int(counts[index])) for index in np.ndindex(counts.shape)]
    largest = [found[k.largest(found)] if len(found) else [0] * 5 for found in rows]
    return kernels.Explained(
        positive,
        status,
        heatmaps,
        counts,
        np.concatenate([np.zeros((0, 5), np.int32), *rows]),
        np.array(largest, np.int32).reshape(*counts.shape, 5),
    )


# --- explain_maps: everything that must not change the pixels -----------------------------------------------------


@pytest.mark.property
@pytest.mark.parametrize("part", range(4))
def test_boxes_from_the_small_map_equal_those_of_the_pixels(part: int) -> None:
    # in four parts, each from its own seed; 10,000 cases in make test-all
    @seed(part)
    @settings(deadline=None, max_examples=examples(250), database=None)
    @given(
        maps=maps_of_any_kind(),
        size=sizes(),
        fraction=FRACTIONS,
        connectivity=st.sampled_from([4, 8]),
        want_heatmaps=st.booleans(),
        window=st.none() | st.tuples(*[st.integers(-5, 140)] * 4),
    )
    def check(
        maps: kernels.Floats,
        size: tuple[int, int],
        fraction: float,
        connectivity: int,
        want_heatmaps: bool,
        window: Any,
    ) -> None:
        windows = None if window is None else np.array([window], np.int32)
        got = NATIVE.explain_maps(
            maps, None, size, fraction, connectivity, windows=windows, want_heatmaps=want_heatmaps
        )
        assert (got.heatmaps is not None) == want_heatmaps
        wanted = separately(NATIVE, maps, size, fraction, connectivity, windows)
        assert_same(got, wanted)

    check()


@settings(deadline=None, derandomize=True, max_examples=examples(200))
@given(maps=maps_of_any_kind(), size=sizes(), fraction=FRACTIONS, connectivity=st.sampled_from([4, 8]))
def test_native_and_reference_explain_alike(
    maps: kernels.Floats, size: tuple[int, int], fraction: float, connectivity: int
) -> None:
    wanted = REFERENCE.explain_maps(maps, None, size, fraction, connectivity)
    assert_same(NATIVE.explain_maps(maps, None, size, fraction, connectivity), wanted)
    assert_same(wanted, separately(REFERENCE, maps, size, fraction, connectivity))


@pytest.mark.parametrize("size", [(1080, 1920), (2160, 3840), (1, 4000), (4000, 1), (3, 3), (224, 224)])
@pytest.mark.parametrize("cells", [(7, 7), (14, 14), (1, 1), (1, 9), (40, 33)])
def test_large_and_small_targets(cells: tuple[int, int], size: tuple[int, int]) -> None:
    maps = smooth(1, 2, *cells, seed=cells[0] + size[1])
    wanted = separately(NATIVE, maps, size)
    assert_same(NATIVE.explain_maps(maps, None, size), wanted)
    assert_same(NATIVE.explain_maps(maps, None, size, want_heatmaps=False), wanted)


def test_explain_maps_equals_torch_and_scipy(k: kernels.Kernels) -> None:
    a, w = np.maximum(smooth(2, 12, 7, 7), 0), signed(2, 3, 12, seed=1)
    got = k.explain_maps(a, w, (224, 200))
    cam = torch.relu(torch.einsum("nkhw,ntk->nthw", torch.from_numpy(a), torch.from_numpy(w)))
    np.testing.assert_allclose(got.maps, cam.numpy(), rtol=0, atol=1e-5)
    peak = cam.amax((-2, -1), keepdim=True)
    heat = torch.nn.functional.interpolate(cam / peak, size=(224, 200), mode="bilinear").numpy()
    assert got.heatmaps is not None
    np.testing.assert_allclose(got.heatmaps, heat, rtol=0, atol=1e-5)
    start = 0
    for n, t in np.ndindex(2, 3):
        mask = got.heatmaps[n, t] >= np.float32(0.15) * got.heatmaps[n, t].max()
        labels, count = ndimage.label(mask, np.ones((3, 3)))
        pixels = np.bincount(labels.ravel())[1:]
        rows = [[x.start, y.start, x.stop, y.stop] for y, x in ndimage.find_objects(labels)]
        assert got.counts[n, t] == count > 0
        found = got.components[start : start + count]
        np.testing.assert_array_equal(found, np.column_stack([rows, pixels]))
        np.testing.assert_array_equal(got.largest[n, t], found[np.argmax(pixels)])
        start += count
    assert start == len(got.components)


@pytest.mark.parametrize("bad", [NAN, INF, -INF])
def test_a_map_that_is_not_finite_explains_nothing(k: kernels.Kernels, bad: float) -> None:
    maps = np.ones((2, 1, 3, 3), np.float32)
    maps[0, 0, 1, 1] = bad
    got = k.explain_maps(maps, None, (30, 30))
    assert got.status.ravel().tolist() == [kernels.NON_FINITE, OK]
    assert got.heatmaps is not None
    assert got.heatmaps[0].max() == 0
    assert got.heatmaps[1].min() == 1
    assert got.counts.ravel().tolist() == [0, 1]
    assert got.largest[:, 0].tolist() == [[0] * 5, [0, 0, 30, 30, 900]]


def test_windows_cut_components_and_nothing_else(k: kernels.Kernels) -> None:
    maps = np.ones((2, 1, 4, 4), np.float32)
    windows = np.array([[3, 5, 17, 40], [8, 8, 8, 20]], np.int32)
    got = k.explain_maps(maps, None, (20, 20), windows=windows)
    assert got.components.tolist() == [[3, 5, 17, 20, 14 * 15]]
    assert got.counts.ravel().tolist() == [1, 0]
    assert got.heatmaps is not None
    assert got.heatmaps.min() == 1


@pytest.mark.parametrize(("images", "targets"), [(0, 2), (2, 0), (0, 0)])
def test_no_images_or_no_targets_are_no_results(k: kernels.Kernels, images: int, targets: int) -> None:
    got = k.explain_maps(signed(images, 4, 3, 3), signed(images, targets, 4), (9, 8))
    assert got.heatmaps is not None
    assert got.heatmaps.shape == (images, targets, 9, 8)
    assert got.largest.shape == (images, targets, 5)
    assert got.components.shape == (0, 5)


def test_arrays_of_any_strides_are_read_right(k: kernels.Kernels) -> None:
    a, w = np.asfortranarray(smooth(2, 8, 7, 14))[::-1, :, ::-1, ::2], signed(2, 3, 16)[..., ::2]
    assert_same(k.explain_maps(a, w, (60, 70)), k.explain_maps(a.copy(), w.copy(), (60, 70)))


# --- threads ---------------------------------------------------------------------------------------------------------


def test_calls_in_many_threads_never_mix_results() -> None:
    a, w = smooth(6, 32, 7, 7), signed(6, 3, 32)
    sizes = [(90, 120), (224, 224), (31, 500), (50, 60)]
    wanted = [NATIVE.explain_maps(a, w, size) for size in sizes]

    def work(i: int) -> None:
        for number in range(i, i + 20):
            assert_same(NATIVE.explain_maps(a, w, sizes[number % 4]), wanted[number % 4])

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(8)))


# --- weigh: float16 -------------------------------------------------------------------------------------------------


def test_weigh_widens_every_float16_exactly() -> None:
    halves = np.arange(2**16, dtype=np.uint16).view(np.float16).reshape(1, 1, 256, 256)
    one = np.ones((1, 1, 1), np.float32)
    got = NATIVE.weigh(halves, one)[0, 0]
    np.testing.assert_array_equal(got, halves[0, 0].astype(np.float32))


@pytest.mark.parametrize(("channels", "h", "w"), [(2048, 7, 7), (19, 40, 41), (16, 1, 1), (5, 30, 30)])
def test_float16_activations_give_the_bits_of_their_float32(channels: int, h: int, w: int) -> None:
    a, weights = signed(2, channels, h, w).astype(np.float16), signed(2, 3, channels).astype(np.float16)
    wide, wide_weights = a.astype(np.float32), weights.astype(np.float32)
    np.testing.assert_array_equal(NATIVE.weigh(a, weights), NATIVE.weigh(wide, wide_weights), strict=True)
    np.testing.assert_array_equal(REFERENCE.weigh(a, weights), REFERENCE.weigh(wide, wide_weights), strict=True)
    assert_same(NATIVE.explain_maps(a, weights, (50, 50)), NATIVE.explain_maps(wide, wide_weights, (50, 50)))
