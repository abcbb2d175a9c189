"""Runs without copies: tensors that lie on a device go in and stay there, CUDA graphs replay fixed buffers."""

from __future__ import annotations

import functools
import threading
from collections.abc import Collection, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fastcam.errors import FastcamError
from fastcam.runtime.providers import CUDA, TENSORRT
from fastcam.runtime.run_gate import RUNS
from fastcam.runtime.session import onnxruntime

Device: TypeAlias = tuple[str, int]
"""What ONNX Runtime calls it, and its number: ("cuda", 0)."""

HOST: Device = ("cpu", 0)
_FLOATS: dict[str, Any] = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(double)": np.float64}
_ON_HOST = (1, 3)  # DLPack's kDLCPU and kDLCUDAHost


def device_of(session: Any) -> Device:
    """Where a session computes, as far as its inputs and outputs can lie there."""
    for name in (TENSORRT, CUDA):
        if name in session.get_providers():
            return "cuda", int(session.get_provider_options().get(name, {}).get("device_id", 0))
    return HOST


def on_gpu(session: Any) -> bool:
    """Whether a session computes where the host's memory is not."""
    return device_of(session) != HOST


class DeviceTensor:
    """A float tensor [N, ...] that lies on a device: shaped like an array, sliced by rows, copied only by NumPy.

    Args:
        array: what speaks DLPack and is sliced as arrays are (torch, CuPy); it must be contiguous.
        pictures: whether uint8 is wanted, in place of floats.

    Raises:
        FastcamError: it cannot be taken as it is.
    """

    def __init__(self, array: Any, pictures: bool = False) -> None:
        self._array = array
        self.shape = tuple(self.value.shape())
        kinds: dict[str, Any] = {"tensor(uint8)": np.uint8} if pictures else _FLOATS
        if self.value.data_type() not in kinds:
            wanted = "uint8 pictures" if pictures else "floats"
            raise FastcamError(f"a tensor on a device must be of {wanted} for this file, got {self.value.data_type()}")
        self.dtype = np.dtype(kinds[self.value.data_type()])

    @functools.cached_property
    def value(self) -> Any:
        """The OrtValue over the tensor's memory."""
        ort = onnxruntime()
        if not hasattr(ort.OrtValue, "from_dlpack"):
            raise FastcamError(
                f"onnxruntime {ort.__version__} takes no tensors from a device; update it, or copy to the CPU"
            )
        try:
            return ort.OrtValue.from_dlpack(self._array)
        except (RuntimeError, TypeError, ValueError, BufferError) as error:
            raise FastcamError(
                f"{type(self._array).__name__} cannot be taken from its device ({' '.join(str(error).split())[:200]}); "
                "give a contiguous tensor without gradient"
            ) from error

    @property
    def ndim(self) -> int:
        return len(self.shape)

    def __len__(self) -> int:
        return int(self.shape[0])

    def __getitem__(self, rows: slice) -> DeviceTensor:
        return DeviceTensor(self._array[rows], self.dtype == np.uint8)

    def rows(self) -> tuple[Any, ...]:
        """One DeviceTensor [...] per image; what ONNX Runtime wants to know of it is found when it is asked for."""
        rows = [object.__new__(DeviceTensor) for _ in range(len(self))]
        for i, row in enumerate(rows):
            row._array, row.shape, row.dtype = self._array[i], self.shape[1:], self.dtype
        return tuple(rows)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.asarray(self.value.numpy(), dtype)


def on_device(value: Any) -> bool:
    """Whether an object says by DLPack that it does not lie in the processor's memory."""
    return hasattr(value, "__dlpack_device__") and int(value.__dlpack_device__()[0]) not in _ON_HOST


def run(
    session: Any,
    names: Sequence[str],
    feed: Mapping[str, Any],
    device: Device = HOST,
    stay: Collection[str] = (),
    same_stream: bool = False,
) -> dict[str, Any]:
    """One run through IO binding.

    Args:
        names: the outputs wanted.
        feed: NumPy arrays (bound as they are), DeviceTensors or OrtValues by name.
        device: where the outputs named in
        stay: lie afterwards: OrtValues, which speak DLPack. All others are NumPy arrays.
        same_stream: whether who made the inputs and who reads the outputs do so on the session's own stream. If not,
            the run begins when the device has finished what was under way, and has ended when this returns.
    """
    binding = session.io_binding()
    for name, array in feed.items():
        binding.bind_ortvalue_input(name, as_value(array))
    for name in names:
        binding.bind_output(name, *(device if name in stay else HOST))
    if device != HOST and not same_stream and any(isinstance(array, DeviceTensor) for array in feed.values()):
        binding.synchronize_inputs()
    with RUNS:
        session.run_with_iobinding(binding, _unsynchronised() if same_stream else None)
    values = dict(zip(names, binding.get_outputs(), strict=True))
    return {name: value if name in stay else as_numpy(value) for name, value in values.items()}


def as_value(array: Any) -> Any:
    """An OrtValue over the memory of a NumPy array or DeviceTensor. It keeps the array alive."""
    if isinstance(array, DeviceTensor):
        return array.value
    if not isinstance(array, np.ndarray):
        return array
    return onnxruntime().OrtValue.ortvalue_from_numpy(np.ascontiguousarray(array))


def as_numpy(value: Any) -> NDArray[Any]:
    """The tensor of an OrtValue: its very memory where it lies in the processor's, else a copy there."""
    if hasattr(onnxruntime().OrtValue, "from_dlpack") and not on_device(value) and value.data_type() != "tensor(bool)":
        array: NDArray[Any] = np.from_dlpack(value)
        return array
    return np.asarray(value.numpy())  # older versions of ONNX Runtime have DLPack in part


class Replay:
    """Runs of fixed shapes through fixed buffers, which a CUDA graph needs; one at a time.

    The first run of each set of shapes (of another number of targets, say) finds the outputs' shapes, the second
    records the graph, later ones replay it.

    Args:
        session: made with ``graph`` among its settings; without, the same buffers are used and nothing is recorded.
        device: where the buffers lie.
    """

    def __init__(self, session: Any, device: Device) -> None:
        self._session, self._device = session, device
        self._lock = threading.Lock()
        self._recorded: dict[tuple[Any, ...], tuple[Any, dict[str, Any], dict[str, Any], Any]] = {}

    def run(self, names: Sequence[str], feed: Mapping[str, Any]) -> dict[str, Any]:
        """NumPy arrays by name, of inputs as for :func:`run`."""
        shapes = tuple((name, *array.shape, array.dtype.str) for name, array in sorted(feed.items()))
        with self._lock:
            if (known := self._recorded.get((*names, shapes))) is None:
                known = self._recorded[(*names, shapes)] = self._prepared(names, feed)
            binding, inputs, outputs, options = known
            for name, array in feed.items():
                if isinstance(array, DeviceTensor) and self._device != HOST:
                    _copy_on_device(array.value, inputs[name])
                else:
                    inputs[name].update_inplace(np.ascontiguousarray(array))
            with RUNS:
                self._session.run_with_iobinding(binding, options)
            binding.synchronize_outputs()
            return {name: np.array(value.numpy()) for name, value in outputs.items()}

    def _prepared(
        self, names: Sequence[str], feed: Mapping[str, Any]
    ) -> tuple[Any, dict[str, Any], dict[str, Any], Any]:
        ort = onnxruntime()
        first, binding = self._session.io_binding(), self._session.io_binding()
        inputs = {name: self._buffer(np.asarray(array)) for name, array in feed.items()}
        for name, value in inputs.items():
            first.bind_ortvalue_input(name, value)
            binding.bind_ortvalue_input(name, value)
        for name in names:
            first.bind_output(name, *HOST)
        with RUNS:
            self._session.run_with_iobinding(first, _graph(ort, -1))
        outputs = {name: self._buffer(value.numpy()) for name, value in zip(names, first.get_outputs(), strict=True)}
        for name, value in outputs.items():
            binding.bind_ortvalue_output(name, value)
        return binding, inputs, outputs, _graph(ort, len(self._recorded) + 1)

    def _buffer(self, array: NDArray[Any]) -> Any:
        """Memory on the device, of the array's shape, type and values."""
        return onnxruntime().OrtValue.ortvalue_from_numpy(np.array(array, order="C"), *self._device)


def _copy_on_device(source: Any, target: Any) -> None:
    """Copy one OrtValue's tensor into another's memory; by way of the host where CuPy is not there to do it."""
    try:
        import cupy
    except ImportError:
        target.update_inplace(source.numpy())
        return
    cupy.cuda.Device().synchronize()  # the tensor may still be in the making, on whichever stream
    cupy.from_dlpack(target)[...] = cupy.from_dlpack(source)
    cupy.cuda.get_current_stream().synchronize()


def _unsynchronised() -> Any:
    """Run options with which a run returns before the device has done it."""
    options = onnxruntime().RunOptions()
    options.add_run_config_entry("disable_synchronize_execution_providers", "1")
    return options


def _graph(ort: Any, number: int) -> Any:
    """Run options that record and replay the graph of this number; -1 is none."""
    options = ort.RunOptions()
    options.add_run_config_entry("gpu_graph_id", str(number))
    return options
