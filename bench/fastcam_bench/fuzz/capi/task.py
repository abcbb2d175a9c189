"""fastcam_explain, its workspace and its components."""

from __future__ import annotations

import ctypes
import math
from typing import Any, ClassVar

import numpy as np

from fastcam.kernels import reference
from fastcam_bench.fuzz import WrongAnswer
from fastcam_bench.fuzz.capi.call import INT, LONG, POINTER, REAL, Array, Call, equal, plane, sizes
from fastcam_bench.fuzz.capi.memory import Draw

_FIELDS: dict[str, Any] = {
    "struct_size": LONG, "data": POINTER, "dtype": INT, "weights": POINTER, "images": LONG, "targets": LONG,
    "channels": LONG, "height": LONG, "width": LONG, "out_height": LONG, "out_width": LONG, "fraction": REAL,
    "connectivity": INT, "windows": POINTER, "maps": POINTER, "status": POINTER, "heatmaps": POINTER,
    "counts": POINTER, "largest": POINTER,
}  # fmt: skip


class Task(ctypes.Structure):
    """fastcam_task, and what a newer header may have behind it; ``padding`` is what C puts behind the dtype."""

    _fields_ = [
        *list(_FIELDS.items())[:3], ("padding", INT), *list(_FIELDS.items())[3:], ("newer", LONG * 4),
    ]  # fmt: skip


_SIZE = ctypes.sizeof(Task) - 32
_OPTIONAL = ("maps", "status", "heatmaps", "counts", "largest")


class Explain(Call):
    """fastcam_explain in a workspace of its own or NULL; ``newer`` is a field that this library does not know."""

    name = "explain"
    types: ClassVar[dict[str, Any]] = {**_FIELDS, "workspace": POINTER, "task": POINTER, "newer": INT}

    def make(self, draw: Draw) -> None:
        n, t, k = draw.extent(0, 2), draw.extent(0, 3), draw.extent(0, 20)
        h, w, (rows, columns) = draw.extent(1, 9), draw.extent(1, 9), sizes(draw)
        weighed, dtype = draw.choice([True, False]), draw.choice([0, 1])
        dtype = dtype if weighed else 0
        values = draw.floats(n, k if weighed else t, h, w)
        with np.errstate(over="ignore"):
            values = values.astype([np.float32, np.float16][dtype])
        window = draw.random().integers(-3, 140, (n, 4)).astype(np.int32)
        space = {"maps": 4 * n * t * h * w, "status": n * t, "heatmaps": 4 * n * t * rows * columns,
                 "counts": 4 * n * t, "largest": 20 * n * t}  # fmt: skip
        outputs = {name: self.memory.empty(size) if draw.byte() % 4 else 0 for name, size in space.items()}
        self.arguments = {
            "struct_size": _SIZE, "data": self.memory.holding(values), "dtype": dtype,
            "weights": self.memory.holding(draw.floats(n, t, k)) if weighed else 0, "images": n, "targets": t,
            "channels": k, "height": h, "width": w, "out_height": rows, "out_width": columns,
            "fraction": draw.choice([0.15, 1.0, 1e-30, 0.5]), "connectivity": draw.choice([4, 8]),
            "windows": self.memory.holding(window) if draw.byte() % 2 else 0, **outputs,
            "workspace": 1, "task": 1, "newer": 0,
        }  # fmt: skip

    def other(self, name: str, draw: Draw) -> Any:
        if name == "struct_size":
            return draw.choice([0, 8, _SIZE - 8, _SIZE - 1, _SIZE + 1, _SIZE + 8, _SIZE + 32, 4104, 2**62, -1, -8])
        if name in ("workspace", "task"):
            return draw.choice([0, 1, 3])  # NULL, as it is, misaligned
        return super().other(name, draw)

    def arrays(self) -> list[Array]:
        a = self.arguments
        n, t, k, h, w, rows, columns = (a[name] for name in list(_FIELDS)[4:11])
        first = (n, k, h, w) if a["weights"] else (n, t, h, w)
        found = [Array("data", np.float16 if a["dtype"] == 1 else np.float32, first, "read")]
        found += [Array("weights", np.float32, (n, t, k), "read")] if a["weights"] else []
        found += [Array("windows", np.int32, (n, 4), "read")] if a["windows"] else []
        use = "written" if a["weights"] else "in place"
        shapes = {"maps": (np.float32, (n, t, h, w), use), "status": (np.uint8, (n, t), "written"),
                  "heatmaps": (np.float32, (n, t, rows, columns), "written"), "counts": (np.int32, (n, t), "written"),
                  "largest": (np.int32, (n, t, 5), "written")}  # fmt: skip
        return found + [Array(name, *about) for name, about in shapes.items() if a[name]]

    def asked(self) -> dict[str, bool]:
        a, fraction = self.arguments, ctypes.c_float(self.arguments["fraction"]).value
        n, t, k, h, w, rows, columns = (a[name] for name in list(_FIELDS)[4:11])
        return {
            "workspace": a["workspace"] == 1, "task": a["task"] == 1,
            "struct_size": a["struct_size"] in (_SIZE, _SIZE + 8, _SIZE + 32),
            "newer": a["struct_size"] <= _SIZE or a["newer"] == 0,
            "extents": min(n, t, k) >= 0, **plane(h, w), **{f"out {x}": y for x, y in plane(rows, columns).items()},
            "dtype": a["dtype"] in ((0, 1) if a["weights"] else (0,)), "fraction": bool(0 < fraction <= 1),
            "connectivity": a["connectivity"] in (4, 8), "maps": 4 * n * t * h * w < 2**63,
        }  # fmt: skip

    def has_memory(self) -> bool:
        a = self.arguments
        small = math.prod(a[name] for name in ("images", "targets", "height", "width")) < 2**24
        return small and a["out_height"] * a["out_width"] < 2**20 and super().has_memory()

    @classmethod
    def declare(cls, library: ctypes.CDLL) -> None:
        library.fastcam_explain.argtypes, library.fastcam_explain.restype = [POINTER, POINTER], INT
        library.fastcam_workspace_new.argtypes, library.fastcam_workspace_new.restype = [], POINTER
        library.fastcam_workspace_free.argtypes, library.fastcam_workspace_free.restype = [POINTER], None
        library.fastcam_components.argtypes = [POINTER, ctypes.POINTER(LONG)]
        library.fastcam_components.restype = POINTER
        library.fastcam_weigh.restype = INT

    def run(self, library: ctypes.CDLL) -> int:
        a, task = self.arguments, Task()
        for name in _FIELDS:
            setattr(task, name, a[name])
        task.newer[0] = a["newer"]
        self.given = self.signed(library) if self.refusal() is None and self.has_memory() and self.is_small() else None
        workspace, rows = library.fastcam_workspace_new(), LONG(-1)
        try:
            pointers = ({0: 0, 1: workspace, 3: workspace + 1}[a["workspace"]],
                        {0: 0, 1: ctypes.addressof(task), 3: ctypes.addressof(task) + 1}[a["task"]])  # fmt: skip
            given = int(library.fastcam_explain(*pointers))
            found = library.fastcam_components(pointers[0], ctypes.byref(rows))
            self.rows = self.memory.read(found or 0, np.int32, (rows.value, 5))
        finally:
            library.fastcam_workspace_free(workspace)
        library.fastcam_workspace_free(None)
        if given and rows.value:
            raise WrongAnswer(f"{rows.value} components of a call that was refused")
        return given

    def signed(self, library: ctypes.CDLL) -> Any:
        """The signed maps, as fastcam_weigh has them: float32 [n, t, h, w]."""
        a = self.arguments
        n, t, k, h, w = (a[name] for name in list(_FIELDS)[4:9])
        if not a["weights"]:
            return self.value("data")
        from fastcam_bench.fuzz.capi.maps import Activations

        out = np.empty((n, t, h, w), np.float32)
        library.fastcam_weigh(Activations(a["data"], a["dtype"]), a["weights"], n, t, k, h * w, out.ctypes.data)
        return out

    def compare(self) -> None:
        a = self.arguments
        assert self.given is not None
        windows = self.value("windows") if a["windows"] else None
        size, options = (a["out_height"], a["out_width"]), (float(np.float32(a["fraction"])), a["connectivity"])
        wanted = reference.explain_maps(self.given, None, size, *options, windows=windows)
        equal("components", self.rows, wanted.components)
        for name in _OPTIONAL:
            if a[name]:
                equal(name, self.value(name), getattr(wanted, name))
