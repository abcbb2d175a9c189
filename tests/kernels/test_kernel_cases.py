"""Every kernel backend equals the reference on random and hostile cases; kernel_cases.py runs ten thousand of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import pytest
from scipy import ndimage

from fastcam import kernels
from fastcam_bench.speed import kernels as bench
from support import cuda_host, kernel_cases
from support.examples import examples


@pytest.mark.property
@pytest.mark.parametrize("name", [name for name in cuda_host.BACKENDS if name != "reference"])
def test_every_backend_equals_the_reference(name: str) -> None:
    seen = kernel_cases.run(cuda_host.get(name), examples(300))
    assert sum(seen.values()) >= examples(300)
    assert set(seen) == set(kernel_cases.ARGUMENTS)


@dataclasses.dataclass
class Wrong:
    """The native kernels, one of them changed a little."""

    name: str
    change: Callable[[Any], Any]

    def __getattr__(self, name: str) -> Any:
        function = getattr(kernels.get("native"), name)
        if name != self.name:
            return function
        return lambda *arguments, **options: self.change(function(*arguments, **options))


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("relu", lambda maps: np.nan_to_num(maps)),
        ("upsample", lambda maps: np.nextafter(maps, np.float32(2))),
        ("label", lambda found: (found[0], found[1].astype(np.int64))),
        ("weigh", lambda maps: maps * np.float32(1 + 3e-6)),
        ("explain_maps", lambda found: found._replace(largest=found.components[:1])),
    ],
)
def test_a_small_difference_is_seen(name: str, change: Callable[[Any], Any]) -> None:
    wrong: Any = Wrong(name, change)
    with pytest.raises(AssertionError):
        kernel_cases.run(wrong, 400)


def test_a_fraction_that_float32_has_no_number_for_is_the_smallest_it_has() -> None:
    maps = np.array([[[[1.0, 1e-3, 0.0, -1.0]]]], np.float32)
    for name in [name for name in cuda_host.BACKENDS if name != "cuda"]:
        k = cuda_host.get(name)
        assert k.explain_maps(maps, None, (1, 4), 1e-300).largest.tolist() == [[[0, 0, 2, 1, 2]]]
        assert k.threshold(maps, 1e-300).tolist() == [[[[1, 1, 0, 0]]]]


def test_what_the_benchmark_measures_is_right_first() -> None:
    for name, mask in bench.masks((45, 70)).items():
        labels, count = kernels.get("native").label(mask)
        wanted, number = ndimage.label(mask, np.ones((3, 3)))
        assert int(count) == number > 0, name
        np.testing.assert_array_equal(labels, wanted)
    assert len(bench.prepare_cases(cv2)) == len(bench.PICTURES)  # which compares the contestants
