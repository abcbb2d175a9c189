"""Signals: [N, C, L] in, and a map [N, T, l], a heatmap [N, T, L] and segments of each out.

For the kernels and the methods a signal is a picture of one row. Boxes are half-open segments x0, x1 in samples.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from fastcam.errors import FastcamError
from fastcam.explain.postprocess import LayerMaps, Placed, TargetOutputs, View
from fastcam.explain.request import Request
from fastcam.methods.context import in_one_row
from fastcam.runtime.batch import Run


class SignalView(View):
    """A file of a model of signals at one of its layers."""

    def check_call(self, fuse: str | None, style: str) -> None:
        """Raise for what is for pictures only, too."""
        super().check_call(fuse, style)
        if fuse is not None:
            raise FastcamError("maps of signals are not fused; leave fuse out")

    def maps(self, run: Run, outputs: TargetOutputs, request: Request) -> LayerMaps:
        """The maps of the signals, as pictures of one row."""
        found = super().maps(run, replace(outputs, added=in_one_row(outputs.added)), request)
        if found.attributions is None:
            return found
        return replace(found, attributions=found.attributions[..., 0, :])

    def place(self, run: Run, outputs: TargetOutputs, maps: LayerMaps, request: Request) -> Placed:
        """Heatmaps and segments."""
        placed = super().place(run, outputs, maps, request)
        components = tuple(tuple(found[:, [0, 2, 4]] for found in row) for row in placed.components)
        return Placed(
            placed.maps[:, :, 0], placed.heatmaps[:, :, 0], placed.boxes[..., [0, 2]], components, placed.status
        )

    def brought_back(self, run: Run, outputs: TargetOutputs) -> dict[str, Any]:
        """What the mode of the file brought back, [N, T, C, L] at the signal, [N, T, l] at the layer."""
        found = super().brought_back(run, outputs)
        if "relevance" in found:
            found["relevance"] = found["relevance"].reshape(*found["relevance"].shape[:2], -1)
        return found
