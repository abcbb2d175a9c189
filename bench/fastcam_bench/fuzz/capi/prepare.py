"""fastcam_prepare, whose picture has gaps and whose output lies in any order of memory."""

from __future__ import annotations

import ctypes
from typing import Any, ClassVar

import numpy as np

from fastcam.kernels import _validate, reference
from fastcam_bench.fuzz import WrongAnswer
from fastcam_bench.fuzz.capi.call import INT32, LONG, POINTER, Array, Call, equal
from fastcam_bench.fuzz.capi.memory import Draw


class Prepare(Call):
    """fastcam_prepare, and fastcam_prepare_scratch. ``row``, ``column`` and ``channel`` are what strides points at."""

    name = "prepare"
    types: ClassVar[dict[str, Any]] = {
        "pixels": POINTER, "height": LONG, "width": LONG, "stride": LONG, "out_height": LONG,
        "out_width": LONG, "factor": POINTER, "shift": POINTER, "scratch": POINTER, "out": POINTER,
        "strides": POINTER, "row": LONG, "column": LONG, "channel": LONG,
    }  # fmt: skip

    def make(self, draw: Draw) -> None:
        h, w = draw.extent(1, 40), draw.extent(1, 40)
        if draw.byte() % 3 == 0:  # whole multiples of something
            h, w = h * draw.extent(1, 3), w * draw.extent(1, 3)
        rows, columns, gap, random = draw.extent(1, h), draw.extent(1, w), draw.choice([0, 0, 1, 5]), draw.random()
        stride = 3 * w + gap
        pixels = random.integers(0, 256, (h - 1) * stride + 3 * w).astype(np.uint8)
        layouts = [(columns, 1, rows * columns), (3 * columns, 3, 1), (columns + 2, 1, (columns + 2) * rows)]
        strides = draw.choice(
            [*layouts, (-3 * columns, 3, 1), (columns, -1, -rows * columns), (1, rows, rows * columns)]
        )
        numbers = self.memory.holding(np.array(strides, np.int64))
        self.arguments = {"pixels": self.memory.holding(pixels), "height": h, "width": w, "stride": stride,
                          "out_height": rows, "out_width": columns,
                          "factor": self.memory.holding(random.standard_normal(3).astype(np.float32)),
                          "shift": self.memory.holding(random.standard_normal(3).astype(np.float32)),
                          "scratch": self.memory.empty(self.scratch(w, columns)), "out": 0, "strides": numbers,
                          "row": strides[0], "column": strides[1], "channel": strides[2]}  # fmt: skip
        low, high = self.reach()
        self.arguments["out"] = self.memory.empty(4 * (high - low + 1)) - 4 * low

    @staticmethod
    def scratch(width: int, columns: int) -> int:
        """A span of 32 bytes, sixteen floats and four for each output column; a row of the picture and one byte."""
        return 32 * columns + 80 * columns + (3 * width + 1 + 7) // 8 * 8

    def steps(self) -> list[tuple[int, int]]:
        """Extent and stride of each axis of the output."""
        a = self.arguments
        return [(a["out_height"], a["row"]), (a["out_width"], a["column"]), (3, a["channel"])]

    def reach(self) -> tuple[int, int]:
        """The lowest and the highest value's place, in values from ``out``."""
        ends = [(extent - 1) * stride for extent, stride in self.steps()]
        return sum(min(end, 0) for end in ends), sum(max(end, 0) for end in ends)

    def asked(self) -> dict[str, bool]:
        a = self.arguments
        sides = [a[name] for name in ("height", "width", "out_height", "out_width")]
        if not all(1 <= side <= INT32 for side in sides):
            return {"sides": False}
        h, w, rows, columns = sides
        if rows > h or columns > w:
            return {"enlarges": False}
        whole = _validate.whole_scale(h, rows) and _validate.whole_scale(w, columns)
        if not a["strides"] or a["strides"] % 8:
            return {"strides": False}
        return {
            "at most 65536 pixels become one": not whole or h // rows * (w // columns) <= 65536,
            "rows do not overlap": h == 1 or a["stride"] >= 3 * w,
            "values have places of their own": self.nested(),
            "out is not null": bool(a["out"]) and a["out"] + 4 * self.reach()[0] > 0,
        }

    def nested(self) -> bool:
        """The header's rule: each axis longer than 1 steps over the axes of smaller strides."""
        behind = 1
        for extent, stride in sorted(self.steps(), key=lambda step: abs(step[1])):
            if extent > 1 and abs(stride) < behind:
                return False
            behind += (extent - 1) * abs(stride) if extent > 1 else 0
        return True

    def arrays(self) -> list[Array]:
        a = self.arguments
        above = a["stride"] * (a["height"] - 1) if a["height"] > 1 else 0
        low, high = self.reach()
        return [Array("factor", np.float32, (3,), "read"), Array("shift", np.float32, (3,), "read"),
                Array("strides", np.int64, (3,), "read"), Array("pixels", np.uint8, (above + 3 * a["width"],), "read"),
                Array("out", np.float32, (high - low + 1,), "written"),
                Array("scratch", np.uint64, (self.scratch(a["width"], a["out_width"]) // 8,), "written")]  # fmt: skip

    def address(self, array: Array) -> int:
        return super().address(array) + (4 * self.reach()[0] if array.name == "out" else 0)

    @classmethod
    def declare(cls, library: ctypes.CDLL) -> None:
        library.fastcam_prepare.argtypes, library.fastcam_prepare.restype = list(cls.types.values())[:-3], ctypes.c_int
        library.fastcam_prepare_scratch.argtypes = [LONG, LONG]
        library.fastcam_prepare_scratch.restype = ctypes.c_size_t

    def spoil(self, draw: Draw) -> None:
        first, a = self.arguments["strides"], self.arguments
        super().spoil(draw)
        if a["strides"] == first:
            numbers = np.array([a["row"], a["column"], a["channel"]], np.int64)
            self.memory.bytes_at(first, 24)[:] = np.frombuffer(numbers.tobytes(), np.uint8)
        elif self.memory.left(a["strides"]) < 24:
            a["strides"] = 0
        else:  # another argument's bytes
            a["row"], a["column"], a["channel"] = self.memory.read(a["strides"], np.int64, (3,)).tolist()

    def run(self, library: ctypes.CDLL) -> int:
        a = self.arguments
        fits = 1 <= a["width"] <= INT32 and 1 <= a["out_width"] <= INT32
        wanted = self.scratch(a["width"], a["out_width"]) if fits else 0
        equal("scratch", library.fastcam_prepare_scratch(a["width"], a["out_width"]), wanted)
        return int(library.fastcam_prepare(*list(a.values())[:-3]))

    def compare(self) -> None:
        a = self.arguments
        h, w, rows, columns = (a[name] for name in ("height", "width", "out_height", "out_width"))
        pixels = np.lib.stride_tricks.as_strided(self.value("pixels"), (h, w, 3), (a["stride"], 3, 1))
        factor, shift, flat = self.value("factor"), self.value("shift"), self.value("out")
        wanted = np.zeros((rows, columns, 3), np.float32)
        reference.prepare(np.ascontiguousarray(pixels), factor, shift, wanted)
        (_, row), (_, column), (_, channel) = self.steps()
        y, x, c = np.ogrid[:rows, :columns, :3]
        places = y * row + x * column + c * channel - self.reach()[0]
        if len(np.unique(places)) != places.size:
            raise WrongAnswer("prepare: two values in one place")
        equal(self.name, flat[places], wanted)
