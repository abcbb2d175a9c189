# The C++ kernels as csrc/python/bindings.cpp exports them. A ValueError names an argument that memory
# depends on; fastcam.kernels.native validates all of them, in the user's words.
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

__version__: str

def weigh(
    activations: npt.NDArray[np.float32] | npt.NDArray[np.float16],
    weights: npt.NDArray[np.float32],
) -> npt.NDArray[np.float32]: ...
def status(maps: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]: ...
def relu(maps: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]: ...
def normalize(maps: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]: ...
def upsample(maps: npt.NDArray[np.float32], height: int, width: int) -> npt.NDArray[np.float32]: ...
def threshold(maps: npt.NDArray[np.float32], fraction: float) -> npt.NDArray[np.uint8]: ...
def label(mask: npt.NDArray[np.uint8], connectivity: int) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]: ...
def boxes(labels: npt.NDArray[np.int32], count: int) -> npt.NDArray[np.int32] | None: ...
def overlay(
    image: npt.NDArray[np.uint8], heatmap: npt.NDArray[np.float32], lut: npt.NDArray[np.uint8], alpha: float
) -> npt.NDArray[np.uint8]: ...
def prepare(
    pixels: npt.NDArray[np.uint8],
    factor: npt.NDArray[np.float32],
    shift: npt.NDArray[np.float32],
    out: npt.NDArray[np.float32],
) -> None: ...
def explain_maps(
    activations: npt.NDArray[np.float32] | npt.NDArray[np.float16],
    weights: npt.NDArray[np.float32] | npt.NDArray[np.float16] | None,
    out_height: int,
    out_width: int,
    fraction: float,
    connectivity: int,
    want_heatmaps: bool,
    windows: npt.NDArray[np.int32] | None,
    /,
) -> tuple[
    npt.NDArray[np.float32],
    npt.NDArray[np.uint8],
    npt.NDArray[np.float32] | None,
    npt.NDArray[np.int32],
    npt.NDArray[np.int32],
    npt.NDArray[np.int32],
]: ...
def same_everywhere(maps: npt.NDArray[np.float32]) -> npt.NDArray[np.bool_]: ...
def in_original(
    counts: npt.NDArray[np.int32], components: npt.NDArray[np.int32], ways: Sequence[npt.NDArray[np.float64]]
) -> tuple[npt.NDArray[np.float32], tuple[tuple[npt.NDArray[np.float32], ...], ...]]: ...
def sweep(
    values: npt.NDArray[np.float32],
    cuts: npt.NDArray[np.float32],
    connectivity: int,
    window: npt.NDArray[np.int32] | None,
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]: ...
