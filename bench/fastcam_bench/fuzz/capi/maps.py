"""The functions of maps: weigh, status, normalize, threshold, relu."""

from __future__ import annotations

import ctypes
from typing import Any, ClassVar

import numpy as np

from fastcam.kernels import reference
from fastcam_bench.fuzz import WrongAnswer
from fastcam_bench.fuzz.capi.call import INT, LONG, POINTER, REAL, Array, Call, equal
from fastcam_bench.fuzz.capi.memory import Draw


class Weigh(Call):
    """fastcam_weigh; its first argument is a struct of a pointer and a dtype."""

    name = "weigh"
    types: ClassVar[dict[str, Any]] = {
        "data": POINTER, "dtype": INT, "weights": POINTER, "images": LONG, "targets": LONG,
        "channels": LONG, "area": LONG, "out": POINTER,
    }  # fmt: skip

    def make(self, draw: Draw) -> None:
        n, t, k, area = draw.extent(0, 3), draw.extent(0, 3), draw.extent(0, 40), draw.choice([1, 5, 49, 600])
        dtype = draw.choice([0, 1])
        with np.errstate(over="ignore"):
            values = draw.floats(n, k, area).astype([np.float32, np.float16][dtype])
        weights = draw.floats(n, t, k)
        self.arguments = {"data": self.memory.holding(values), "dtype": dtype, "weights": self.memory.holding(weights),
                          "images": n, "targets": t, "channels": k, "area": area,
                          "out": self.memory.empty(4 * n * t * area)}  # fmt: skip

    def arrays(self) -> list[Array]:
        _, dtype, _, n, t, k, area, _ = self.arguments.values()
        kind = np.float16 if dtype == 1 else np.float32
        return [Array("data", kind, (n, k, area), "read"), Array("weights", np.float32, (n, t, k), "read"),
                Array("out", np.float32, (n, t, area), "written")]  # fmt: skip

    def asked(self) -> dict[str, bool]:
        return {"dtype": self.arguments["dtype"] in (0, 1), "area": self.arguments["area"] >= 1}

    @classmethod
    def declare(cls, library: ctypes.CDLL) -> None:
        types = [Activations, *list(cls.types.values())[2:]]
        library.fastcam_weigh.argtypes, library.fastcam_weigh.restype = types, INT

    def run(self, library: ctypes.CDLL) -> int:
        data, dtype, *others = self.arguments.values()
        return int(library.fastcam_weigh(Activations(data, dtype), *others))

    def compare(self) -> None:
        values, weights, got = (self.value(name).astype(np.float64) for name in ("data", "weights", "out"))
        scale = np.einsum("nka,ntk->nta", np.abs(values), np.abs(weights))
        wanted = np.einsum("nka,ntk->nta", values, weights)
        near = np.abs(got - wanted) <= 1e-6 * scale + 2e-45 * (values.shape[1] + 1)
        if not np.all(near | ~(scale <= 1e38)):
            raise WrongAnswer("weigh: the sums differ")
        if np.isfinite(got[~np.isfinite(scale)]).any():
            raise WrongAnswer("weigh: a value that is not finite was lost")


class Activations(ctypes.Structure):
    """fastcam_activations."""

    _fields_ = [("data", POINTER), ("dtype", INT)]


class OfMaps(Call):
    """fastcam_status, normalize and threshold."""

    types: ClassVar[dict[str, Any]] = {
        "values": POINTER, "maps": LONG, "area": LONG, "out": POINTER,
    }  # fmt: skip

    def make(self, draw: Draw) -> None:
        maps, area = draw.extent(0, 4), draw.choice([1, 2, 7, 49, 300])
        self.arguments = {"values": self.memory.holding(draw.floats(maps, area)), "maps": maps, "area": area}
        if "fraction" in self.types:
            self.arguments["fraction"] = draw.choice([0.15, 0.5, 1.0, 1e-30])
        self.arguments["out"] = self.memory.empty(4 * maps * area)

    def arrays(self) -> list[Array]:
        maps, area = self.arguments["maps"], self.arguments["area"]
        dtype, use = (np.float32, "in place") if self.name == "normalize" else (np.uint8, "written")
        shape = (maps,) if self.name == "status" else (maps, area)
        return [Array("values", np.float32, (maps, area), "read"), Array("out", dtype, shape, use)]

    def asked(self) -> dict[str, bool]:
        fraction = ctypes.c_float(self.arguments.get("fraction", 1.0)).value
        return {"area": self.arguments["area"] >= 1, "fraction": bool(0 < fraction <= 1)}

    def run(self, library: ctypes.CDLL) -> int:
        self.given = self.value("values") if self.refusal() is None and self.has_memory() and self.is_small() else None
        return super().run(library)

    def compare(self) -> None:
        assert self.given is not None
        options = [float(np.float32(self.arguments["fraction"]))] if self.name == "threshold" else []
        wanted = getattr(reference, self.name)(self.given[:, None], *options)
        equal(self.name, self.value("out"), wanted if self.name == "status" else wanted[:, 0])


class Status(OfMaps):
    """fastcam_status."""

    name = "status"


class Normalize(OfMaps):
    """fastcam_normalize."""

    name = "normalize"


class Threshold(OfMaps):
    """fastcam_threshold."""

    name = "threshold"
    types: ClassVar[dict[str, Any]] = {
        "values": POINTER, "maps": LONG, "area": LONG, "fraction": REAL, "out": POINTER,
    }  # fmt: skip


class Relu(OfMaps):
    """fastcam_relu."""

    name = "relu"
    types: ClassVar[dict[str, Any]] = {
        "values": POINTER, "count": LONG, "out": POINTER,
    }  # fmt: skip

    def make(self, draw: Draw) -> None:
        count = draw.extent(0, 200)
        self.arguments = {"values": self.memory.holding(draw.floats(count)), "count": count}
        self.arguments["out"] = self.memory.empty(4 * count)

    def arrays(self) -> list[Array]:
        shape = (self.arguments["count"],)
        return [Array("values", np.float32, shape, "read"), Array("out", np.float32, shape, "in place")]

    def asked(self) -> dict[str, bool]:
        return {}

    def compare(self) -> None:
        if self.given is not None and self.given.size:
            equal(self.name, self.value("out"), reference.relu(self.given[None])[0])
