"""fastcam_sweep, whose components the workspace holds."""

from __future__ import annotations

import ctypes
from typing import Any, ClassVar

import numpy as np

from fastcam.kernels import reference
from fastcam_bench.fuzz import WrongAnswer
from fastcam_bench.fuzz.capi.call import INT, INT32, LONG, POINTER, Array, Call, equal, plane, sizes
from fastcam_bench.fuzz.capi.memory import Draw


class Sweep(Call):
    """fastcam_sweep in a workspace of its own, NULL or misaligned."""

    name = "sweep"
    types: ClassVar[dict[str, Any]] = {
        "workspace": POINTER, "values": POINTER, "height": LONG, "width": LONG, "cuts": POINTER, "count": LONG,
        "connectivity": INT, "window": POINTER, "counts": POINTER,
    }  # fmt: skip

    def make(self, draw: Draw) -> None:
        (h, w), count = sizes(draw), draw.extent(0, 9)
        values, cuts = draw.floats(h, w), draw.floats(count)
        if draw.byte() % 2:
            cuts = np.sort(cuts)[::-1].copy()
        window = draw.random().integers(-3, 140, 4).astype(np.int32)
        self.arguments = {"workspace": 1, "values": self.memory.holding(values), "height": h, "width": w,
                          "cuts": self.memory.holding(cuts), "count": count, "connectivity": draw.choice([4, 8]),
                          "window": self.memory.holding(window) if draw.byte() % 2 else 0,
                          "counts": self.memory.empty(4 * count)}  # fmt: skip

    def other(self, name: str, draw: Draw) -> Any:
        return draw.choice([0, 1, 3]) if name == "workspace" else super().other(name, draw)

    def arrays(self) -> list[Array]:
        a = self.arguments
        found = [Array("values", np.float32, (a["height"], a["width"]), "read"),
                 Array("cuts", np.float32, (a["count"],), "read"),
                 Array("counts", np.int32, (a["count"],), "written")]  # fmt: skip
        return found + ([Array("window", np.int32, (4,), "read")] if a["window"] else [])

    def asked(self) -> dict[str, bool]:
        a = self.arguments
        given = {"workspace": a["workspace"] == 1, "connectivity": a["connectivity"] in (4, 8)}
        return given | plane(a["height"], a["width"]) | {"count": a["count"] < INT32}

    def run(self, library: ctypes.CDLL) -> int:
        workspace, rows = library.fastcam_workspace_new(), LONG(-1)
        pointer = {0: 0, 1: workspace, 3: workspace + 1}[self.arguments["workspace"]]
        try:
            given = int(library.fastcam_sweep(pointer, *list(self.arguments.values())[1:]))
            found = library.fastcam_components(pointer, ctypes.byref(rows))
            self.rows = self.memory.read(found or 0, np.int32, (rows.value, 5))
        finally:
            library.fastcam_workspace_free(workspace)
        if given and rows.value:
            raise WrongAnswer(f"{rows.value} components of a call that was refused")
        return given

    def compare(self) -> None:
        a = self.arguments
        window = self.value("window") if a["window"] else None
        rows, counts = reference.sweep(self.value("values"), self.value("cuts"), a["connectivity"], window)
        equal("counts", self.value("counts"), counts)
        equal("components", self.rows, rows)
