"""What a call of the C API is made of: numbers out of an input's bytes, and memory whose every byte is watched."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from fastcam_bench.fuzz import WrongAnswer
from fastcam_bench.fuzz.capi.build import LIBRARY

T = TypeVar("T")
_GUARD = 0 if os.environ.get(LIBRARY) else 64
"""Bytes before and behind each array; none where a sanitizer watches what lies there."""
_GARBAGE = 0xA5
_SPECIAL = np.array([np.nan, np.inf, -np.inf, 0, -0.0, 1, 3e38, -3e38, 1e-45, 1e-38, 0.15, 0.5], np.float32)


class Draw:
    """Numbers out of bytes; zeros where they are over."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def byte(self) -> int:
        """The next one."""
        self.at += 1
        return self.data[self.at - 1] if self.at <= len(self.data) else 0

    def choice(self, values: Sequence[T]) -> T:
        """One of at most 256."""
        return values[self.byte() % len(values)]

    def extent(self, low: int, high: int) -> int:
        """low..high."""
        return low + self.byte() % (high - low + 1)

    def random(self) -> np.random.Generator:
        """For the contents of arrays."""
        return np.random.default_rng([self.byte(), self.byte()])

    def floats(self, *shape: int) -> npt.NDArray[np.float32]:
        """Random; all special; some special; whole numbers; zeros; negative."""
        kind, random = self.byte() % 6, self.random()
        values = random.standard_normal(shape).astype(np.float32)
        if kind == 1:
            return random.choice(_SPECIAL, shape)
        if kind == 2:
            return np.where(random.random(shape) < 0.1, random.choice(_SPECIAL, shape), values)
        plain = {3: np.round(values), 4: np.zeros_like(values), 5: -np.abs(values)}
        return plain.get(kind, values)


class Memory:
    """The arrays of a call."""

    def __init__(self) -> None:
        self.blocks: list[npt.NDArray[np.uint8]] = []

    def holding(self, array: npt.NDArray[Any]) -> int:
        """The address of a copy."""
        address = self.empty(array.nbytes)
        self.bytes_at(address, array.nbytes)[:] = np.frombuffer(array.tobytes(), np.uint8)
        return address

    def empty(self, size: int) -> int:
        """The address of so many bytes of garbage."""
        block = np.full(size + 2 * _GUARD, _GARBAGE, np.uint8)
        self.blocks.append(block)
        return int(block.ctypes.data) + _GUARD

    def left(self, address: int) -> int:
        """How many bytes there are from an address on."""
        for block in self.blocks:
            begin = int(block.ctypes.data) + _GUARD
            if begin <= address <= begin + len(block) - 2 * _GUARD:
                return begin + len(block) - 2 * _GUARD - address
        return 0

    def start(self, address: int) -> int:
        """How many bytes there are in front of an address."""
        for block in self.blocks:
            begin = int(block.ctypes.data) + _GUARD
            if begin <= address <= begin + len(block) - 2 * _GUARD:
                return address - begin
        return 0

    def bytes_at(self, address: int, size: int) -> npt.NDArray[np.uint8]:
        """The bytes themselves, to be read or written."""
        if size == 0:
            return np.zeros(0, np.uint8)
        return np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(address))

    def read(self, address: int, dtype: Any, shape: Sequence[int]) -> npt.NDArray[Any]:
        """An array at an address, copied."""
        kind = np.dtype(dtype)
        size = int(np.prod(shape, dtype=object)) * kind.itemsize
        return np.frombuffer(self.bytes_at(address, size).tobytes(), kind).reshape(shape)

    def snapshot(self) -> bytes:
        """All of it."""
        return b"".join(block.tobytes() for block in self.blocks)

    def check_guards(self, name: str) -> None:
        """Nothing was written beside an array."""
        for block in self.blocks if _GUARD else []:
            if (block[:_GUARD] != _GARBAGE).any() or (block[len(block) - _GUARD :] != _GARBAGE).any():
                raise WrongAnswer(f"{name} wrote beside an array")
