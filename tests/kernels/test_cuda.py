"""The CUDA kernels: on this processor (cuda_host.py), and on a GPU where there is one, against the oracle."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fastcam import kernels
from fastcam.kernels import cuda
from fastcam.schema import FastcamError
from support import cuda_host
from support.examples import examples
from support.kernel_inputs import (
    FRACTIONS,
    MASKS,
    SIDES,
    assert_same,
    map_arrays,
    maps_of_any_kind,
    picture,
    signed,
    sizes,
    smooth,
)

ROOT = Path(__file__).resolve().parents[2]
NATIVE, REFERENCE = kernels.get("native"), kernels.get("reference")
PROPERTY = settings(deadline=None, derandomize=True, max_examples=examples(150))


def spread(array: np.ndarray, step: int) -> np.ndarray:
    """The same values, ``step`` apart in memory and backwards along the last axis."""
    room = np.zeros((*array.shape[:-1], array.shape[-1] * step), array.dtype)
    view = room[..., ::-step]
    view[...] = array
    return view


# --- against the oracle -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", cuda_host.CUDA)
@pytest.mark.property
def test_explained_maps_are_the_oracles_bit_for_bit(place: str) -> None:
    k = cuda_host.get(place)
    windows = st.none() | st.tuples(*[st.integers(-5, 70)] * 4)

    @settings(PROPERTY, max_examples=examples(250))
    @given(maps_of_any_kind(), sizes(), FRACTIONS, st.sampled_from([4, 8]), st.booleans(), windows, st.integers(1, 3))
    def check(
        maps: kernels.Floats, size: tuple[int, int], fraction: float, ways: int, heat: bool, window: Any, step: int
    ) -> None:
        options: dict[str, Any] = {"windows": None if window is None else np.array([window], np.int32)}
        got = k.explain_maps(spread(maps, step), None, size, fraction, ways, want_heatmaps=heat, **options)
        assert (got.heatmaps is not None) == heat
        assert_same(got, NATIVE.explain_maps(maps, None, size, fraction, ways, **options))

    check()


@pytest.mark.parametrize("place", cuda_host.CUDA)
@pytest.mark.property
def test_single_steps_are_the_oracles_bit_for_bit(place: str) -> None:
    k = cuda_host.get(place)

    @PROPERTY
    @given(map_arrays(), FRACTIONS, st.tuples(SIDES, st.integers(1, 50)), st.integers(1, 3))
    def check(maps: kernels.Floats, fraction: float, size: tuple[int, int], step: int) -> None:
        given_maps = spread(maps, step)
        for name in ("status", "relu", "normalize"):
            np.testing.assert_array_equal(getattr(k, name)(given_maps), getattr(REFERENCE, name)(maps), strict=True)
        np.testing.assert_array_equal(k.threshold(given_maps, fraction), REFERENCE.threshold(maps, fraction))
        np.testing.assert_array_equal(k.upsample(given_maps, size), REFERENCE.upsample(maps, size), strict=True)

    check()


@pytest.mark.parametrize("place", cuda_host.CUDA)
@pytest.mark.property
def test_components_boxes_and_overlays_are_the_oracles(place: str) -> None:
    k = cuda_host.get(place)

    @settings(PROPERTY, max_examples=examples(100))
    @given(st.integers(0, 2**32 - 1), st.tuples(SIDES, st.integers(1, 60)), st.floats(0, 1), st.sampled_from([4, 8]))
    def check(seed: int, size: tuple[int, int], share: float, ways: int) -> None:
        rng = np.random.default_rng(seed)
        masks = rng.random((2, *size)) < share
        labels, counts = k.label(masks[:, ::-1], ways)
        wanted, wanted_counts = REFERENCE.label(masks[:, ::-1], ways)
        np.testing.assert_array_equal(labels, wanted, strict=True)
        np.testing.assert_array_equal(counts, wanted_counts, strict=True)
        found = k.boxes(labels[0], int(counts[0]))
        np.testing.assert_array_equal(found, REFERENCE.boxes(wanted[0], int(counts[0])), strict=True)
        assert len(found) == 0 or k.largest(found) == REFERENCE.largest(found)
        image, lut = picture(*size, 3, seed=seed), picture(256, 3, seed=seed + 1)
        heat = rng.choice(np.array([np.nan, np.inf, -np.inf, -1, 0.3, 1, 7], np.float32), size)
        np.testing.assert_array_equal(
            k.overlay(image, heat, lut, share), REFERENCE.overlay(image, heat, lut, share), strict=True
        )

    check()


@pytest.mark.parametrize("place", cuda_host.CUDA)
def test_float16_is_widened_exactly(place: str) -> None:
    k = cuda_host.get(place)
    halves = np.arange(2**16, dtype=np.uint16).view(np.float16)
    one = np.ones((1, 1, 1), np.float32)
    np.testing.assert_array_equal(k.weigh(halves.reshape(1, 1, 256, 256), one).ravel(), halves.astype(np.float32))
    a, w = signed(2, 300, 7, 7).astype(np.float16), signed(2, 2, 300)
    got = k.weigh(a, w.astype(np.float16))
    wide = a.astype(np.float32), w.astype(np.float16).astype(np.float32)
    np.testing.assert_array_equal(got, k.weigh(*wide), strict=True)
    np.testing.assert_allclose(got, REFERENCE.weigh(*wide), rtol=0, atol=1e-5 * float(np.abs(got).max()))


# --- no order of threads and blocks matters ------------------------------------------------------------------------

ORDERS = [1, *range(2, 8)]  # backwards; and as seeds draw them, where other threads also run between any two accesses


def label_in_any_order(k: Any, names: list[str]) -> None:
    for name in names:
        for ways in (4, 8):
            labels, count = k.label(MASKS[name], ways)
            wanted, wanted_count = NATIVE.label(MASKS[name], ways)
            np.testing.assert_array_equal(labels, wanted, err_msg=f"{name} {ways}")
            assert count == wanted_count
            boxes = k.boxes(labels, int(count))
            np.testing.assert_array_equal(boxes, NATIVE.boxes(wanted, int(count)), err_msg=f"{name} {ways}")


@pytest.mark.parametrize("order", ORDERS)
def test_components_do_not_depend_on_the_order_in_which_threads_run(order: int) -> None:
    names = ["random0.5", "random0.6", "spiral", "comb", "cup", "checkerboard", "ends of rows", "full"]
    label_in_any_order(cuda_host.Read(cuda_host.backend(order)), names)


@pytest.mark.parametrize("order", ORDERS[:3])
def test_a_map_of_many_blocks_does_not_depend_on_the_order_either(order: int) -> None:
    mask = np.random.default_rng(order).random((270, 260)) < 0.5  # more than 256 blocks: the scan goes on
    labels, count = cuda_host.Read(cuda_host.backend(order)).label(mask)
    wanted, wanted_count = NATIVE.label(mask)
    np.testing.assert_array_equal(labels, wanted)
    assert count == wanted_count


def explain_in_any_order(k: Any) -> None:
    """Noise at its own resolution has as many runs and components as fit; tall maps need several blocks of rows."""
    for shape, size in (((61, 47), (61, 47)), ((9, 7), (50, 40)), ((300, 12), (300, 12))):
        for ways in (4, 8):
            maps = signed(2, 1, *shape, seed=shape[0])
            wanted = NATIVE.explain_maps(maps, None, size, 0.3, ways)
            got = k.explain_maps(maps, None, size, 0.3, ways)
            for name in ("counts", "largest", "components"):
                np.testing.assert_array_equal(
                    getattr(got, name), getattr(wanted, name), err_msg=f"random {shape} {ways}"
                )


@pytest.mark.parametrize("order", ORDERS[:4])
def test_explained_maps_do_not_depend_on_the_order_in_which_threads_run(order: int) -> None:
    explain_in_any_order(cuda_host.Read(cuda_host.backend(order)))


@pytest.mark.parametrize(
    ("name", "found", "left_out"),
    [
        ("union_find.cuh", "        a = old; .*\n        b = earlier;\n", "        return;\n"),
        ("components.cu", "(    values\\[t\\] = value;\n)    __syncthreads\\(\\);\n", r"\1"),
        ("boxes.cu", "(length, y, capacity, reach\\);\n    }\n)    __syncthreads\\(\\);\n", r"\1"),
        ("boxes.cu", "(box\\[i\\].pixels\\);\n        }\n    }\n)    __syncthreads\\(\\);\n", r"\1"),
    ],
    ids=[
        "a link that another thread made is lost",
        "a value is read before it is written",
        "runs are counted before all are united",
        "components are compared before all their runs are counted",
    ],
)
def test_those_orders_show_what_races(tmp_path: Path, name: str, found: str, left_out: str) -> None:
    folder = tmp_path / "cuda"
    shutil.copytree(cuda_host.CSRC, folder)
    file = folder / name
    broken, count = re.subn(found, left_out, file.read_text())
    assert count == 1
    file.write_text(broken)
    with pytest.raises(AssertionError, match="random"):
        for order in ORDERS:
            k = cuda_host.Read(cuda_host.backend(order, folder))
            label_in_any_order(k, ["random0.5", "random0.6"])
            explain_in_any_order(k)


# --- launches, synchronisation, memory -----------------------------------------------------------------------------


def test_the_number_of_launches_does_not_depend_on_the_batch() -> None:
    k = cuda_host.backend()
    launched = []
    for images, targets in ((1, 1), (2, 3), (9, 2)):
        k.cupy.launches.clear()
        k.explain_maps(signed(images, 8, 7, 7), signed(images, targets, 8), (30, 30))
        launched.append(list(k.cupy.launches))
    assert launched[0] == launched[1] == launched[2]
    assert len(launched[0]) == 7


def test_nothing_waits_but_the_first_reading_of_the_components() -> None:
    k = cuda_host.backend()
    found = k.explain_maps(signed(3, 8, 7, 7), signed(3, 2, 8), (30, 30))
    for step in (k.status(found.maps), k.threshold(found.heatmaps), *k.label(k.threshold(found.heatmaps))):
        assert isinstance(step, cuda_host.Array)
    assert all(isinstance(a, cuda_host.Array) for a in (found.maps, found.status, found.heatmaps, found.counts))
    assert isinstance(found.largest, cuda_host.Array)
    assert k.cupy.reads == 0
    rows = found.components
    assert isinstance(rows, cuda_host.Array)
    assert (k.cupy.reads, k.cupy.streams_entered) == (1, 1)  # the counts, on the stream of the call
    assert found.components is rows
    assert k.cupy.reads == 1


def test_arrays_on_the_device_are_taken_without_a_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    k = cuda_host.backend()
    own, foreign, other = (k.cupy.asarray(smooth(1, 1, 5, 5, seed=i)) for i in range(3))
    read: list[int] = []
    launch = k.cupy.launch

    def logged(name: str, grid: Any, block: Any, arguments: tuple[Any, ...]) -> None:
        read.extend(value.host.ctypes.data for value in arguments if isinstance(value, cuda_host.Array))
        launch(name, grid, block, arguments)

    monkeypatch.setattr(k.cupy, "launch", logged)
    tensor = SimpleNamespace(__dlpack_device__=lambda: (2, 0), host=foreign.host)  # as torch's, by DLPack
    for given_array, array in ((own, own), (tensor, foreign)):
        np.testing.assert_array_equal(k.relu(given_array).host, REFERENCE.relu(array.host))
        assert array.host.ctypes.data in read
    strided = cuda_host.Array(other.host[..., ::2])  # this one must be copied
    np.testing.assert_array_equal(k.relu(strided).host, REFERENCE.relu(other.host[..., ::2]))


def test_tensors_on_the_host_are_uploaded() -> None:
    k = cuda_host.backend()
    maps = smooth(1, 2, 6, 5)
    np.testing.assert_array_equal(k.relu(torch.from_numpy(maps)).host, REFERENCE.relu(maps))


def test_a_tensor_that_gives_nothing_away_is_refused() -> None:
    with pytest.raises(FastcamError, match="Tensor cannot be taken without a copy"):
        cuda_host.backend().relu(torch.ones(1, 3, 3, requires_grad=True))


def test_maps_too_large_for_a_launch_are_refused() -> None:
    k = cuda_host.backend()
    huge = cuda_host.Array(np.broadcast_to(np.float32(0), (2**16, 2**16)))
    with pytest.raises(FastcamError, match=r"more than 2\*\*31 - 1 pixels"):
        k._launch("threshold", 1, huge, huge.size)


def test_the_stand_in_sees_writes_beside_an_array() -> None:
    k = cuda_host.backend()
    maps, out = k.cupy.asarray(np.ones(12, np.float32)), k.cupy.empty((8,))
    with pytest.raises(AssertionError, match="fastcam_relu wrote beside an array"):
        k.cupy.launch("fastcam_relu", (1,), (256, 1), (maps, np.int64(12), out))


# --- a GPU -----------------------------------------------------------------------------------------------------------


def test_a_gpu_runs_the_suites_of_all_kernels() -> None:
    try:
        k = cuda.get()
    except FastcamError as error:
        pytest.skip(f"nothing ran on a GPU: {error}")
    assert "cuda" in cuda_host.BACKENDS
    a, w = k.cupy.asarray(smooth(64, 40, 7, 7)), k.cupy.asarray(signed(64, 2, 40, seed=1))
    stream = k.cupy.cuda.Stream(non_blocking=True)
    k.cupy.cuda.Stream.null.synchronize()
    with stream:
        found = k.explain_maps(a, w, (224, 224))
    signed_maps = k.cupy.asnumpy(k.weigh(a, w))
    assert_same(found.read(), NATIVE.explain_maps(signed_maps, None, (224, 224)))
    if torch.cuda.is_available():
        tensor = torch.from_numpy(signed_maps).cuda()
        assert k._given(tensor).array.data.ptr == tensor.data_ptr()
        assert_same(k.explain_maps(tensor, None, (224, 224)).read(), found.read())
