"""The CUDA kernels without a GPU: csrc/cuda built for this processor, and the part of CuPy that fastcam uses, over it.

``cupy()`` stands in for the module: arrays that are not NumPy's, launches that go to the library. Memory is handed out
full of garbage and between guards, so that a kernel that reads what nobody wrote, or writes beside its arrays, is seen.
"""

from __future__ import annotations

import ctypes
import functools
import os
import shutil
import subprocess
import sys
import tempfile
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastcam import kernels
from fastcam.kernels import cuda
from fastcam.schema import FastcamError

CSRC = Path(__file__).resolve().parents[2] / "csrc" / "cuda"
GUARD = 64
GARBAGE = 0xA5


@functools.cache
def library(sources: Path = CSRC) -> ctypes.CDLL:
    """host.cpp of this folder, compiled."""
    compiler = shutil.which(os.environ.get("CXX", "c++"))
    if compiler is None or sys.platform != "linux":
        pytest.skip("building the CUDA kernels for this processor needs Linux (ucontext) and c++ on PATH")
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "host.so"
        flags = ["-std=c++17", "-O2", "-ffp-contract=off", "-shared", "-fPIC"]
        command = [compiler, *flags, str(sources / "host.cpp"), "-o", str(target)]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return ctypes.CDLL(str(target))


class Array:
    """What fastcam uses of ``cupy.ndarray``; ``host`` is the array."""

    def __init__(self, host: np.ndarray) -> None:
        self.host = host

    shape = property(lambda self: self.host.shape)
    dtype = property(lambda self: self.host.dtype)
    ndim = property(lambda self: self.host.ndim)
    size = property(lambda self: self.host.size)
    nbytes = property(lambda self: self.host.nbytes)
    flags = property(lambda self: self.host.flags)

    def __len__(self) -> int:
        return len(self.host)

    def astype(self, dtype: Any, copy: bool = True) -> Array:
        return Array(self.host.astype(dtype, copy=copy))

    def view(self, dtype: Any) -> Array:
        return Array(self.host.view(dtype))

    def copy(self) -> Array:
        return Array(self.host.copy())

    def fill(self, value: Any) -> None:
        self.host.fill(value)

    def __array__(self, *_: Any, **__: Any) -> np.ndarray:
        raise TypeError("CuPy arrays do not turn into NumPy arrays by themselves")


class Cupy:
    """The module. ``order``: see csrc/cuda/host_shim.h; ``launches``, ``reads`` and others are logs for the tests."""

    ndarray = Array

    def __init__(self, order: int = 0, sources: Path = CSRC) -> None:
        self.library = library(sources)
        self.order = order
        self.launches: list[str] = []
        self.reads = 0
        self.streams_entered = 0
        self.cuda = self.runtime = self
        self._guarded: list[tuple[weakref.ref[np.ndarray], np.ndarray]] = []

    def get_current_stream(self) -> Any:
        owner = self

        class Stream:
            def __enter__(self) -> None:
                owner.streams_entered += 1

            def __exit__(self, *_: object) -> None:
                pass

        return Stream()

    def asarray(self, value: Any) -> Array:
        if isinstance(value, Array):
            return value
        copy = self.empty(value.shape, value.dtype)
        copy.host[...] = value
        return copy

    def from_dlpack(self, value: Any) -> Array:
        return Array(value.host)

    def empty(self, shape: tuple[int, ...], dtype: Any = np.float32) -> Array:
        size = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
        memory = np.full(GUARD + size + GUARD, GARBAGE, np.uint8)
        array = memory[GUARD : GUARD + size].view(dtype).reshape(shape)
        self._guarded.append((weakref.ref(array), memory))
        return Array(array)

    def asnumpy(self, array: Array, out: np.ndarray | None = None) -> np.ndarray:
        self.reads += 1
        if out is None:
            return array.host.copy()
        out[...] = array.host
        return out

    @staticmethod
    def alloc_pinned_memory(size: int) -> bytearray:
        return bytearray(size)

    def getDevice(self) -> int:
        return 0

    def get_function(self, name: str) -> Any:
        return functools.partial(self.launch, name)

    def launch(self, name: str, grid: tuple[int], block: tuple[int, int], arguments: tuple[Any, ...]) -> None:
        self.launches.append(name)
        values = [self._value(argument) for argument in arguments]
        pointers = (ctypes.c_void_p * len(values))(*(value.ctypes.data for value in values))
        sizes = (ctypes.c_uint * 1)(*grid), (ctypes.c_uint * 2)(*block)
        count = ctypes.c_size_t(len(values))
        failed = self.library.fastcam_host_launch(name.encode(), *sizes, pointers, count, self.order)
        assert not failed, (
            f"{name}: " + ["", "no kernel with these arguments", "a barrier that some threads missed"][failed]
        )
        self._check_guards(name)

    @staticmethod
    def _value(argument: Any) -> np.ndarray:
        """The bytes that go to the kernel."""
        if isinstance(argument, Array):
            assert argument.host.flags.c_contiguous
            return np.array(argument.host.ctypes.data, np.uint64)
        assert isinstance(argument, np.generic), f"{argument!r}: of which size would it be?"
        return np.array(argument)

    def _check_guards(self, name: str) -> None:
        alive = []
        for reference, memory in self._guarded:
            guards = np.concatenate([memory[:GUARD], memory[-GUARD:]])
            assert (guards == GARBAGE).all(), f"{name} wrote beside an array"
            if reference() is not None:
                alive.append((reference, memory))
        self._guarded = alive


class Read:
    """A backend whose results are NumPy arrays, so that the suite of the others runs on it."""

    def __init__(self, backend: cuda.CudaKernels) -> None:
        self.backend = backend

    def __getattr__(self, name: str) -> Any:
        function = getattr(self.backend, name)

        def call(*arguments: Any, **options: Any) -> Any:
            return self._read(function(*arguments, **options))

        return call

    def _read(self, result: Any) -> Any:
        if isinstance(result, tuple):
            return tuple(self._read(value) for value in result)
        if isinstance(result, cuda.DeviceExplained):
            return result.read()
        return self.backend.cupy.asnumpy(result) if isinstance(result, self.backend.cupy.ndarray) else result


def backend(order: int = 0, sources: Path = CSRC) -> cuda.CudaKernels:
    """The CUDA kernels on this processor."""
    cupy = Cupy(order, sources)
    return cuda.CudaKernels(cupy, cupy)


def on_gpu() -> list[str]:
    """Where a GPU is: the name of its backend."""
    try:
        cuda.get()
    except FastcamError:
        return []
    return ["cuda"]


CUDA = ["cuda on the host", *on_gpu()]
BACKENDS = ["native", *CUDA, "reference"]


def get(name: str) -> kernels.Kernels:
    """``fastcam.kernels.get``, and the CUDA kernels: on this processor as "cuda on the host", on a GPU as "cuda"."""
    if name == "cuda on the host":
        return Read(backend())  # type: ignore[return-value]
    if name == "cuda":
        return Read(cuda.get())  # type: ignore[return-value]
    return kernels.get(name)
