"""The kernels on NVIDIA GPUs: csrc/cuda/, compiled by CuPy at the first call, for arrays that lie on the device.

:class:`fastcam.kernels.Kernels` documents the functions; here they are methods of :class:`CudaKernels`, and

- arrays may be CuPy's, anything on the device that speaks DLPack or ``__cuda_array_interface__`` (torch, an OrtValue:
  taken without a copy if contiguous), or NumPy's (copied to the device);
- results are CuPy arrays. They stay on the device until they are asked for (``cupy.asnumpy``);
- everything runs on CuPy's current stream, the caller's to choose: ``with cupy.cuda.ExternalStream(pointer):``. A call
  is a fixed number of launches, whatever the batch, and returns before they have run. What waits for the device:
  reading :attr:`DeviceExplained.components` (or :meth:`~DeviceExplained.read`), :meth:`CudaKernels.boxes`, which must
  see that the labels are in order, and :meth:`CudaKernels.largest`, which returns a Python number;
- as with any call that does not wait, memory that others own must stay as it is until the stream has come so far.
"""

from __future__ import annotations

import contextlib
import functools
import math
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from fastcam.errors import FastcamError
from fastcam.kernels import _nvrtc, _validate, reference
from fastcam.kernels.api import Explained

DeviceArray: TypeAlias = Any
"""A ``cupy.ndarray``."""

_THREADS = 256  # of a block, and
_SPAN = 32  # of weigh's in each direction: csrc/cuda/common.cuh
_NULL = np.uint64(0)
_DLPACK_CUDA = (2, 13)  # device memory, managed memory


@functools.cache
def get() -> CudaKernels:
    """The kernels on the device that is CuPy's current one whenever they are called.

    Raises:
        FastcamError: CuPy is not installed, or finds no device.
    """
    try:
        import cupy
    except ImportError as error:
        raise FastcamError(
            f"the CUDA kernels need CuPy ({error}); install cupy-cuda12x or cupy-cuda13x, as the driver's CUDA version"
        ) from error
    if not cupy.cuda.is_available():
        raise FastcamError(
            "CuPy finds no CUDA device; install NVIDIA's driver, or use kernels.get() for the CPU's kernels"
        )
    return CudaKernels(cupy)


@dataclass(frozen=True)
class DeviceExplained:
    """What :meth:`CudaKernels.explain_maps` finds, on the device: the fields of :class:`fastcam.kernels.Explained`."""

    maps: DeviceArray
    status: DeviceArray
    heatmaps: DeviceArray | None
    counts: DeviceArray
    largest: DeviceArray
    _kernels: CudaKernels
    _stream: Any
    _size: tuple[int, int]
    _runs: tuple[DeviceArray, ...]

    @functools.cached_property
    def components(self) -> DeviceArray:
        """int32 [counts.sum(), 5] on the device. The first access waits: the counts say how many rows there are."""
        with self._stream:
            counts = self._kernels.cupy.asnumpy(self.counts).ravel()
            return self._kernels._components(self._size, self._runs, counts)

    def boxes(self) -> npt.NDArray[np.int32]:
        """``largest`` on the host, int32 [N, T, 5]; waits for it, and is all that crosses the bus."""
        with self._stream:
            found: npt.NDArray[np.int32] = self._kernels.cupy.asnumpy(self.largest)
        return found

    def read(self) -> Explained:
        """Everything as NumPy arrays; waits for it."""
        components = self.components
        with self._stream:
            maps, status, counts, rows, largest = (
                self._kernels.cupy.asnumpy(array)
                for array in (self.maps, self.status, self.counts, components, self.largest)
            )
            heatmaps = None if self.heatmaps is None else self._kernels.read_large(self.heatmaps)
        return Explained(maps, status, heatmaps, counts, rows, largest)


class CudaKernels:
    """The functions of :class:`fastcam.kernels.Kernels` through ``cupy``, the module.

    Any number of threads may use one object: it keeps nothing but the compiled functions.

    Args:
        cupy: the module; tests hand in a stand-in for it and for
        module: the compiled kernels.
    """

    def __init__(self, cupy: Any, module: Any = None) -> None:
        self.cupy = cupy
        self._module = module or _nvrtc.Module(cupy)
        self._functions: dict[tuple[int, str], Any] = {}

    def on_stream(self, address: int | None) -> contextlib.AbstractContextManager[Any]:
        """Work on the stream at ``address``; None leaves CuPy's current one."""
        return contextlib.nullcontext() if address is None else self.cupy.cuda.ExternalStream(address)

    def read_large(self, array: DeviceArray) -> npt.NDArray[Any]:
        """An array on the host, in memory that the device writes to by itself, which CuPy keeps for the next one."""
        if array.size == 0:
            return np.empty(array.shape, array.dtype)
        memory = self.cupy.cuda.alloc_pinned_memory(array.nbytes)
        out = np.frombuffer(memory, array.dtype, array.size).reshape(array.shape)
        self.cupy.asnumpy(array, out=out)
        return out

    # --- one step at a time ------------------------------------------------------------------------------------------

    def weigh(self, activations: Any, weights: Any) -> DeviceArray:
        """``sum_k weights[n, t, k] * activations[n, k]``, summed in float32."""
        values, rows = _validate.weigh(self._given(activations), self._given(weights))
        (images, targets, channels), (height, width) = rows.shape, values.shape[2:]
        area, out = height * width, self._empty((images, targets, height, width))
        name = "weigh_half" if values.dtype == np.float16 else "weigh"
        blocks, arrays = images * targets * _ceil(area, _SPAN), (self._upload(values), self._upload(rows))
        self._launch(name, blocks, *arrays, targets, channels, area, out, block=(_SPAN, _SPAN))
        return out

    def status(self, maps: Any) -> DeviceArray:
        """NON_FINITE, then OK, ALL_NEGATIVE, ZERO_GRADIENT: the first that applies."""
        values, ranges = self._ranges(maps)
        out = self._empty(values.shape[:-2], np.uint8)
        self._launch("status", _ceil(out.size, _THREADS), ranges, out.size, out)
        return out

    def relu(self, maps: Any) -> DeviceArray:
        """``max(maps, 0)``; NaN stays NaN."""
        values = self._maps(maps)
        out = self._empty(values.shape)
        self._launch("relu", _ceil(out.size, _THREADS), values, np.int64(out.size), out)
        return out

    def normalize(self, maps: Any) -> DeviceArray:
        """Each map divided by its peak, or zeros."""
        values, ranges = self._ranges(maps)
        out = self._empty(values.shape)
        self._launch("normalize", _blocks(values), values, *_area(values), ranges, out)
        return out

    def upsample(self, maps: Any, size: tuple[int, int]) -> DeviceArray:
        """Bilinear with half-pixel centres."""
        values, target = self._maps(maps), _validate.target_size(size)
        out = self._empty((*values.shape[:-2], *target))
        self._enlarge(values, self._taps(values.shape[-2:], target), target, out)
        return out

    def threshold(self, maps: Any, fraction: float = 0.15) -> DeviceArray:
        """``value >= fraction * peak and value > 0``, where there is a peak."""
        cut = _validate.fraction(fraction)
        values, ranges = self._ranges(maps)
        out = self._empty(values.shape, np.uint8)
        self._launch("threshold", _blocks(values), values, *_area(values), ranges, cut, out)
        return out

    def label(self, mask: Any, connectivity: int = 8) -> tuple[DeviceArray, DeviceArray]:
        """Connected components, by union-find on pixels."""
        pixels = self._upload(_validate.mask(self._given(mask)))
        labels = self._empty(pixels.shape, np.int32)
        self._launch("mark_mask", _blocks(labels), pixels, *_area(labels), labels)
        ways = _validate.connectivity(connectivity)
        blocks = _blocks(labels)
        roots, counts = self._empty((blocks,), np.int32), self._empty(labels.shape[:-2], np.int32)
        self._launch("merge", blocks, labels, *_sides(labels), ways)
        self._launch("compress", blocks, labels, *_sides(labels), roots)
        self._launch("scan", counts.size, roots, _chunks(labels), counts)
        ranks = self._empty(labels.shape, np.int32)
        self._launch("number", _blocks(labels), labels, *_area(labels), roots, _NULL, ranks)
        self._launch("relabel", _blocks(labels), labels, *_area(labels), ranks)
        return labels, counts

    def boxes(self, labels: Any, count: int) -> DeviceArray:
        """Box and number of pixels of each label. Waits, as it must see whether a label lies outside of 0..count."""
        checked, number = _validate.boxes(self._given(labels), count)
        plane, rows, wrong = self._upload(checked), self._empty((number, 5), np.int32), self._empty((1,), np.int32)
        wrong.fill(0)
        self._launch("start_rows", _ceil(number, _THREADS), rows, number)
        self._launch("measure_labels", _blocks(plane), plane, *_sides(plane), number, rows, wrong)
        self._launch("finish_rows", _ceil(number, _THREADS), rows, number)
        if self.cupy.asnumpy(wrong)[0]:
            raise _validate.label_error(number)
        return rows

    def largest(self, boxes: Any) -> int:
        """The row with most pixels, the first on a tie. Waits for the rows."""
        given = self._given(boxes)
        return reference.largest(self.cupy.asnumpy(given.array) if isinstance(given, _validate.OnDevice) else given)

    def overlay(self, image: Any, heatmap: Any, lut: Any, alpha: float) -> DeviceArray:
        """``(1 - alpha) * image + alpha * lut[255 * heatmap]`` with 16 fractional bits, halves rounded up."""
        given = _validate.overlay(self._given(image), self._given(heatmap), self._given(lut))
        pixels, heat, colors = (self._upload(array) for array in given)
        out = self._empty(pixels.shape, np.uint8)
        arguments = (pixels, heat, colors, _opacity(alpha), heat.size, out)
        self._launch("overlay", _ceil(heat.size, _THREADS), *arguments)
        return out

    # --- all steps in one call ---------------------------------------------------------------------------------------

    def explain_maps(
        self,
        activations: Any,
        weights: Any,
        size: tuple[int, int],
        fraction: float = 0.15,
        connectivity: int = 8,
        *,
        windows: Any = None,
        want_heatmaps: bool = True,
    ) -> DeviceExplained:
        """Everything in one call that does not wait."""
        target, cut, neighbours = (
            _validate.target_size(size),
            _validate.fraction(fraction),
            _validate.connectivity(connectivity),
        )
        if weights is None:
            signed = self._upload(_validate.signed_maps(self._given(activations)))
        else:
            signed = self.weigh(activations, weights)
        inside = _validate.windows(self._given(windows), len(signed))
        leading = signed.shape[:2]
        maps, small, status, peaks = self._rectify(signed)
        taps = self._taps(signed.shape[-2:], target)
        heatmaps = self._empty((*leading, *target)) if want_heatmaps else None
        if heatmaps is not None:
            self._enlarge(small, taps, target, heatmaps)
        enlarged = (small, *small.shape[-2:], *taps, *target, _ceil(target[0], _THREADS), peaks)
        blocks, rows, most = status.size * _ceil(target[0], _THREADS), (*leading, target[0]), _ceil(target[1], 2)
        boxes, parents = self._empty((*rows, most, 5), np.int32), self._empty((*rows, most), np.int32)
        lengths, roots = self._empty(rows, np.int32), self._empty(rows, np.int32)
        counts, largest = self._empty(leading, np.int32), self._empty((*leading, 5), np.int32)
        seen = None if inside is None else self._upload(inside)
        self._launch("peaks", blocks, *enlarged)
        self._launch("runs", blocks, *enlarged, cut, seen, leading[1], boxes, parents, lengths)
        self._launch("connect", status.size, *target, neighbours, boxes, parents, lengths, roots, counts, largest)
        stream, runs = self.cupy.cuda.get_current_stream(), (boxes, parents, lengths, roots)
        return DeviceExplained(maps, status, heatmaps, counts, largest, self, stream, target, runs)

    def _rectify(self, signed: DeviceArray) -> tuple[DeviceArray, ...]:
        """Maps after ReLU, the same divided by their peaks, status; zeros where the enlarged maps' peaks will be."""
        leading = signed.shape[:2]
        maps, small = self._empty(signed.shape), self._empty(signed.shape)
        arrays = (maps, small, self._empty(leading, np.uint8), self._empty(leading, np.int32))
        self._launch("rectify", math.prod(leading), signed, math.prod(signed.shape[-2:]), *arrays)
        return arrays

    def _components(
        self, size: tuple[int, int], runs: tuple[DeviceArray, ...], counts: npt.NDArray[np.int32]
    ) -> DeviceArray:
        """int32 [sum of counts, 5], map by map."""
        ends = np.cumsum(counts, dtype=np.int64)
        total = int(ends[-1]) if len(ends) else 0
        rows = self._empty((total, 5), np.int32)
        if total >= 2**31:
            raise FastcamError(f"{total} components are too many for one call; split the batch")
        if total:
            offsets = self._upload((ends - counts).astype(np.int32))
            self._launch("components", len(counts), *size, *runs, offsets, rows)
        return rows

    # --- steps that several calls have -------------------------------------------------------------------------------

    def _ranges(self, maps: Any) -> tuple[DeviceArray, DeviceArray]:
        """The maps on the device, and each one's smallest and largest value."""
        values = self._maps(maps)
        count = math.prod(values.shape[:-2])
        ranges = self._empty((count, 2), np.int32)
        self._launch("start_ranges", _ceil(count, _THREADS), ranges, count)
        self._launch("ranges", _blocks(values), values, *_area(values), ranges)
        return values, ranges

    def _taps(self, source: tuple[int, int], target: tuple[int, int]) -> tuple[DeviceArray, DeviceArray]:
        """What every output column, then every output row reads."""
        entries = sum(target)
        first, weight = self._empty((entries,), np.int32), self._empty((entries,))
        (height, width), (rows, columns) = source, target
        axes = (width, columns, np.float64(width / columns), height, rows, np.float64(height / rows))
        self._launch("taps", _ceil(entries, _THREADS), *axes, first, weight)
        return first, weight

    def _enlarge(
        self, maps: DeviceArray, taps: tuple[DeviceArray, DeviceArray], size: tuple[int, int], out: DeviceArray
    ) -> None:
        chunks = _ceil(size[0] * _ceil(size[1], 4), _THREADS)
        self._launch("upsample", math.prod(maps.shape[:-2]) * chunks, maps, *maps.shape[-2:], *taps, *size, chunks, out)

    # --- arrays and launches -----------------------------------------------------------------------------------------

    def _maps(self, value: Any) -> DeviceArray:
        return self._upload(_validate.maps(self._given(value)))

    def _given(self, value: Any) -> Any:
        """What lies on the device, marked so, without a copy; other values as they are, for the check to judge."""
        if isinstance(value, self.cupy.ndarray):
            return _validate.OnDevice(value)
        if isinstance(value, np.ndarray) or value is None:
            return value
        try:
            # DLPack before the other: its streams are ordered by events, where CuPy waits for the other's
            if hasattr(value, "__dlpack_device__"):
                on_device = int(value.__dlpack_device__()[0]) in _DLPACK_CUDA
                return _validate.OnDevice(self.cupy.from_dlpack(value)) if on_device else np.from_dlpack(value)
            if hasattr(value, "__cuda_array_interface__"):
                return _validate.OnDevice(self.cupy.asarray(value))
        except (BufferError, RuntimeError, TypeError, ValueError) as error:
            reason = str(error).split("\n", 1)[0]
            raise FastcamError(f"a {type(value).__name__} cannot be taken without a copy ({reason})") from error
        return value

    def _upload(self, array: Any) -> DeviceArray:
        return self.cupy.asarray(array)

    def _empty(self, shape: tuple[int, ...], dtype: type[np.generic] = np.float32) -> DeviceArray:
        return self.cupy.empty(shape, dtype)

    def _launch(self, name: str, blocks: int, *arguments: Any, block: tuple[int, int] = (_THREADS, 1)) -> None:
        """On CuPy's current stream. Python's ints go as int32, None as a null pointer, all else as what it is."""
        if blocks == 0:
            return
        if blocks >= 2**31 or any(isinstance(value, int) and value >= 2**31 for value in arguments):
            raise FastcamError("the arrays are too large (more than 2**31 - 1 pixels a map); split the batch")
        packed = [np.int32(value) if isinstance(value, int) else value for value in arguments]
        self._function(f"fastcam_{name}")(
            (blocks,), block, tuple(_NULL if value is None else value for value in packed)
        )

    def _function(self, name: str) -> Any:
        """A kernel for the current device."""
        key = self.cupy.cuda.runtime.getDevice(), name
        if key not in self._functions:
            try:
                self._functions[key] = self._module.get_function(name)
            except (ImportError, OSError, RuntimeError) as error:
                reason = str(error).split("\n", 1)[0]
                raise FastcamError(
                    f"CuPy cannot compile the CUDA kernels ({reason}); it needs NVRTC, as in the CUDA toolkit"
                ) from error
        return self._functions[key]


def _ceil(value: int, divisor: int) -> int:
    return -(-value // divisor)


def _chunks(maps: DeviceArray) -> int:
    """Blocks for each map."""
    return _ceil(math.prod(maps.shape[-2:]), _THREADS)


def _blocks(maps: DeviceArray) -> int:
    """Blocks for all maps."""
    count: int = math.prod(maps.shape[:-2])
    return count * _chunks(maps)


def _area(maps: DeviceArray) -> tuple[int, int]:
    """Pixels and blocks of a map, as kernels that need no columns want them."""
    return math.prod(maps.shape[-2:]), _chunks(maps)


def _sides(maps: DeviceArray) -> tuple[int, int, int]:
    """Height, width and blocks of a map."""
    return maps.shape[-2], maps.shape[-1], _chunks(maps)


def _opacity(alpha: Any) -> int:
    """In 1 / 65536, to the nearest."""
    return int(_validate.alpha(alpha) * 65536 + 0.5)
