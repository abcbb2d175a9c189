"""The functions of pixels: upsample, label, boxes, overlay."""

from __future__ import annotations

import ctypes
from typing import Any, ClassVar

import numpy as np

from fastcam.kernels import reference
from fastcam_bench.fuzz import WrongAnswer
from fastcam_bench.fuzz.capi.call import DOUBLE, INT, INT32, LONG, POINTER, SUCCESS, Array, Call, equal, plane, sizes
from fastcam_bench.fuzz.capi.memory import Draw


class Upsample(Call):
    """fastcam_upsample, and fastcam_upsample_scratch."""

    name = "upsample"
    types: ClassVar[dict[str, Any]] = {
        "values": POINTER, "maps": LONG, "height": LONG, "width": LONG, "out_height": LONG,
        "out_width": LONG, "scratch": POINTER, "out": POINTER,
    }  # fmt: skip

    def make(self, draw: Draw) -> None:
        maps, h, w, rows, columns = draw.extent(0, 3), *(draw.extent(1, 12) for _ in range(2)), *sizes(draw)
        self.arguments = {"values": self.memory.holding(draw.floats(maps, h, w)), "maps": maps, "height": h, "width": w,
                          "out_height": rows, "out_width": columns, "scratch": self.memory.empty(16 * columns),
                          "out": self.memory.empty(4 * maps * rows * columns)}  # fmt: skip

    def arrays(self) -> list[Array]:
        _, maps, h, w, rows, columns, _, _ = self.arguments.values()
        scratch = Array("scratch", np.uint64, (2 * columns if maps else 0,), "written")
        return [Array("values", np.float32, (maps, h, w), "read"), scratch,
                Array("out", np.float32, (maps, rows, columns), "written")]  # fmt: skip

    def asked(self) -> dict[str, bool]:
        _, _, *sides, _, _ = self.arguments.values()
        return {"sides": all(1 <= side <= INT32 for side in sides)}

    @classmethod
    def declare(cls, library: ctypes.CDLL) -> None:
        super().declare(library)
        library.fastcam_upsample_scratch.argtypes, library.fastcam_upsample_scratch.restype = [LONG], ctypes.c_size_t

    def run(self, library: ctypes.CDLL) -> int:
        columns = self.arguments["out_width"]
        equal("scratch", library.fastcam_upsample_scratch(columns), 16 * columns if 1 <= columns <= INT32 else 0)
        return super().run(library)

    def compare(self) -> None:
        _, _, _, _, rows, columns, _, _ = self.arguments.values()
        equal(self.name, self.value("out"), reference.upsample(self.value("values"), (rows, columns)))


class Label(Call):
    """fastcam_label, and fastcam_label_scratch."""

    name = "label"
    types: ClassVar[dict[str, Any]] = {
        "mask": POINTER, "maps": LONG, "height": LONG, "width": LONG, "connectivity": INT,
        "scratch": POINTER, "labels": POINTER, "counts": POINTER,
    }  # fmt: skip

    def make(self, draw: Draw) -> None:
        maps, (h, w), random = draw.extent(0, 2), sizes(draw), draw.random()
        mask = (random.random((maps, h, w)) < draw.byte() / 255).astype(np.uint8) * np.uint8(draw.choice([1, 2, 255]))
        self.arguments = {"mask": self.memory.holding(mask), "maps": maps, "height": h, "width": w,
                          "connectivity": draw.choice([4, 8]), "scratch": self.memory.empty(self.scratch(h, w)),
                          "labels": self.memory.empty(4 * maps * h * w),
                          "counts": self.memory.empty(4 * maps)}  # fmt: skip

    @staticmethod
    def scratch(height: int, width: int) -> int:
        """What the function wants: a run of twelve bytes for two columns, and four bytes a row."""
        return (12 * height * ((width + 1) // 2) + 7) // 8 * 8 + (4 * height + 7) // 8 * 8

    def arrays(self) -> list[Array]:
        _, maps, h, w, *_ = self.arguments.values()
        scratch = Array("scratch", np.uint64, (self.scratch(h, w) // 8 if maps else 0,), "written")
        return [Array("mask", np.uint8, (maps, h, w), "read"), Array("labels", np.int32, (maps, h, w), "written"),
                Array("counts", np.int32, (maps,), "written"), scratch]  # fmt: skip

    def asked(self) -> dict[str, bool]:
        _, _, h, w, connectivity, *_ = self.arguments.values()
        return plane(h, w) | {"connectivity": connectivity in (4, 8)}

    @classmethod
    def declare(cls, library: ctypes.CDLL) -> None:
        super().declare(library)
        library.fastcam_label_scratch.argtypes, library.fastcam_label_scratch.restype = [LONG, LONG], ctypes.c_size_t

    def run(self, library: ctypes.CDLL) -> int:
        _, _, h, w, *_ = self.arguments.values()
        wanted = self.scratch(h, w) if all(plane(h, w).values()) else 0
        equal("scratch", library.fastcam_label_scratch(h, w), wanted)
        return super().run(library)

    def compare(self) -> None:
        labels, counts = reference.label(self.value("mask"), self.arguments["connectivity"])
        equal("labels", self.value("labels"), labels)
        equal("counts", self.value("counts"), counts)


class Boxes(Call):
    """fastcam_boxes, whose success is true."""

    name = "boxes"
    types: ClassVar[dict[str, Any]] = {
        "labels": POINTER, "height": LONG, "width": LONG, "count": LONG, "out": POINTER,
    }  # fmt: skip

    def make(self, draw: Draw) -> None:
        (h, w), count, random = sizes(draw), draw.extent(0, 9), draw.random()
        labels = random.integers(-(draw.byte() % 8 == 0), min(count, h * w) + 1 + (draw.byte() % 8 == 0), (h, w))
        self.arguments = {"labels": self.memory.holding(labels.astype(np.int32)), "height": h, "width": w,
                          "count": min(count, h * w), "out": self.memory.empty(20 * min(count, h * w))}  # fmt: skip

    def arrays(self) -> list[Array]:
        _, h, w, count, _ = self.arguments.values()
        return [Array("labels", np.int32, (h, w), "read"), Array("out", np.int32, (count, 5), "written")]

    def asked(self) -> dict[str, bool]:
        return plane(self.arguments["height"], self.arguments["width"])

    @classmethod
    def declare(cls, library: ctypes.CDLL) -> None:
        super().declare(library)
        library.fastcam_boxes.restype = ctypes.c_bool

    def run(self, library: ctypes.CDLL) -> int:
        self.true = bool(library.fastcam_boxes(*self.arguments.values()))
        wrong = self.refusal() is None and not self.in_range()  # false for its labels, after it may have written
        return SUCCESS if self.true or wrong else 1

    def in_range(self) -> bool:
        """Whether all labels lie in 0..count."""
        labels = self.value("labels")
        return bool(labels.min() >= 0 and labels.max() <= self.arguments["count"])

    def compare(self) -> None:
        if self.true != self.in_range():
            raise WrongAnswer(f"boxes returns {self.true}")
        if self.true and self.arguments["count"] <= self.value("labels").size:
            equal(self.name, self.value("out"), reference.boxes(self.value("labels"), self.arguments["count"]))


class Overlay(Call):
    """fastcam_overlay."""

    name = "overlay"
    types: ClassVar[dict[str, Any]] = {
        "image": POINTER, "heatmap": POINTER, "lut": POINTER, "alpha": DOUBLE, "area": LONG,
        "out": POINTER,
    }  # fmt: skip

    def make(self, draw: Draw) -> None:
        area, random = draw.choice([0, 1, 2, 7, 300, 600]), draw.random()
        image, lut = (random.integers(0, 256, (n, 3)).astype(np.uint8) for n in (area, 256))
        self.arguments = {"image": self.memory.holding(image), "heatmap": self.memory.holding(draw.floats(area)),
                          "lut": self.memory.holding(lut), "alpha": draw.choice([0.0, 1.0, 0.5, 0.3]),
                          "area": area, "out": self.memory.empty(3 * area)}  # fmt: skip

    def arrays(self) -> list[Array]:
        area = self.arguments["area"]
        return [Array("image", np.uint8, (area, 3), "read"), Array("heatmap", np.float32, (area,), "read"),
                Array("lut", np.uint8, (256, 3), "read"), Array("out", np.uint8, (area, 3), "written")]  # fmt: skip

    def asked(self) -> dict[str, bool]:
        return {"alpha": 0 <= self.arguments["alpha"] <= 1}

    def compare(self) -> None:
        image, heat, lut, got = (self.value(name) for name in ("image", "heatmap", "lut", "out"))
        if len(image):
            equal(self.name, got, reference.overlay(image[None], heat[None], lut, self.arguments["alpha"])[0])
