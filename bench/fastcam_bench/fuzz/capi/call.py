"""One call of a function of the C API: its arguments, changes of them, and what the header asks of all functions."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt

from fastcam_bench.fuzz import WrongAnswer
from fastcam_bench.fuzz.capi.memory import Draw, Memory

SUCCESS = 0
INT32 = 2**31 - 1
LONG, INT, REAL = ctypes.c_int64, ctypes.c_int32, ctypes.c_float
DOUBLE, POINTER = ctypes.c_double, ctypes.c_void_p
_EXTENTS = [-1, 0, 1, 2, 3, -(2**63), 2**31 - 1, 2**31, 2**32, 2**62, 2**63 - 1, 2**61 + 1, -(2**31)]
_REALS = [math.nan, math.inf, -math.inf, -1.0, 0.0, -0.0, 1e-45, 0.5, 1.0, 1.0000001, 2.0, -1e300, 1e300]
_WHOLE = [-1, 0, 1, 2, 4, 5, 8, 9, INT32, -(2**31)]


class Array(NamedTuple):
    """What a call reads or writes: the argument that points at it, and how much of it."""

    name: str
    dtype: Any
    shape: tuple[int, ...]
    use: str
    """read, written, or in place: written, and may be exactly what is read."""


class Call:
    """One call: ``arguments`` in the order of the C function's, each with its C type in ``types``."""

    name = ""
    types: ClassVar[dict[str, Any]] = {}

    def __init__(self, draw: Draw) -> None:
        self.memory = Memory()
        self.arguments: dict[str, Any] = {}
        self.make(draw)

    def make(self, draw: Draw) -> None:
        """Arguments that are allowed."""
        raise NotImplementedError

    def arrays(self) -> list[Array]:
        """With the extents that the arguments say now."""
        raise NotImplementedError

    def asked(self) -> dict[str, bool]:
        """What else the header asks for."""
        raise NotImplementedError

    def compare(self) -> None:
        """WrongAnswer where the result is not the reference's."""

    @classmethod
    def declare(cls, library: ctypes.CDLL) -> None:
        """Argument types of the C function."""
        function = getattr(library, f"fastcam_{cls.name}")
        function.argtypes, function.restype = list(cls.types.values()), INT

    def run(self, library: ctypes.CDLL) -> int:
        """What the C function returns; 0: success."""
        return int(getattr(library, f"fastcam_{self.name}")(*self.arguments.values()))

    def spoil(self, draw: Draw) -> None:
        """Change none, one or two of the arguments."""
        for _ in range(draw.choice([0, 0, 0, 1, 1, 1, 1, 2])):
            name = draw.choice(list(self.arguments))
            self.arguments[name] = self.other(name, draw)

    def other(self, name: str, draw: Draw) -> Any:
        """A value of the argument's type: an end of its range, another argument's pointer, that and some bytes."""
        if self.types[name] is POINTER:
            others = [value or 0 for key, value in self.arguments.items() if self.types[key] is POINTER]
            return draw.choice([0, self.arguments[name] or 0, *others]) + draw.choice([0, 0, 0, 1, 2, 4, 8])
        return draw.choice({LONG: _EXTENTS, INT: _WHOLE}.get(self.types[name], _REALS))

    def refusal(self) -> str | None:
        """Which rule of the header does not hold; None where all do."""
        for rule, holds in self.asked().items():
            if not holds:
                return rule
        places: list[tuple[int, int, str]] = []
        for array in self.arrays():
            wrong = self._array_refusal(array, places)
            if wrong:
                return f"{array.name}: {wrong}"
        return None

    def _array_refusal(self, array: Array, places: list[tuple[int, int, str]]) -> str | None:
        if min(array.shape) < 0:
            return "an extent is negative"
        size = math.prod(array.shape) * np.dtype(array.dtype).itemsize
        address = self.address(array)
        if size == 0:
            return None
        if size >= 2**63:
            return "too many bytes"
        if not address or address % np.dtype(array.dtype).alignment:
            return "null or misaligned"
        for begin, end, use in places:
            apart = address + size <= begin or end <= address
            same = array.use == "in place" and (begin, end) == (address, address + size)
            if not (apart or same or array.use == use == "read"):
                return "overlaps"
        places.append((address, address + size, array.use))
        return None

    def address(self, array: Array) -> int:
        """Where an array begins."""
        return int(self.arguments[array.name] or 0)

    def has_memory(self) -> bool:
        """Whether the arrays have the memory that the extents say."""
        sizes = [(self.address(a), math.prod(a.shape) * np.dtype(a.dtype).itemsize) for a in self.arrays()]
        return all(size <= self.memory.left(address) for address, size in sizes if size)

    def is_small(self) -> bool:
        """Whether NumPy can do it too: arrays without elements may have the largest extents."""
        return all(extent < 2**16 for array in self.arrays() for extent in array.shape)

    def value(self, name: str) -> npt.NDArray[Any]:
        """The array of that name as it is now."""
        [array] = [array for array in self.arrays() if array.name == name]
        return self.memory.read(self.address(array), array.dtype, array.shape)


def plane(*sides: int) -> dict[str, bool]:
    """Sides of 1..2^31 - 1 whose product is an int32."""
    return {"sides": all(1 <= side <= INT32 for side in sides), "pixels": math.prod(sides) <= INT32}


def equal(name: str, got: Any, wanted: Any) -> None:
    """The same bits, any NaN for a NaN."""
    if np.shape(got) != np.shape(wanted) or not np.array_equal(
        got, wanted, equal_nan=np.asarray(got).dtype.kind == "f"
    ):
        raise WrongAnswer(f"{name}: {got!r}, not {wanted!r}")


def sizes(draw: Draw) -> tuple[int, int]:
    """An enlarged map's height and width."""
    kinds: Sequence[Callable[[], int]] = [lambda: draw.extent(1, 9), lambda: draw.extent(1, 90), lambda: 130]
    return draw.choice(kinds)(), draw.choice(kinds)()
