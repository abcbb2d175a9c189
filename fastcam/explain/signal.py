"""Signals: [N, C, L] in, and a map [N, T, l], a heatmap [N, T, L] and segments of each out.

For the kernels and the methods a signal is a picture of one row. Boxes are half-open segments x0, x1 in samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from fastcam.explain.postprocess import LayerMaps, Placed, TargetOutputs, View
from fastcam.explain.request import Request
from fastcam.image.preprocess import Float
from fastcam.methods.context import in_one_row
from fastcam.runtime.run import Run


class SignalView(View):
    """A file of a model of signals at one of its layers."""

    def maps(self, run: Run, outputs: TargetOutputs, request: Request) -> LayerMaps:
        """The maps of the signals, as pictures of one row."""
        found = super().maps(run, replace(outputs, added=in_one_row(outputs.added)), request)
        if found.attributions is None:
            return found
        return replace(found, attributions=found.attributions[..., 0, :])

    def place(self, run: Run, maps: LayerMaps, request: Request) -> Placed:
        """Heatmaps and segments."""
        return _segments(super().place(run, maps, request))

    def fused(self, run: Run, name: str, maps: Sequence[Float], request: Request) -> Placed:
        """The maps of several layers as one, with its heatmaps and segments."""
        return _segments(super().fused(run, name, [one[:, :, None] for one in maps], request))

    def brought_back(self, run: Run, outputs: TargetOutputs) -> dict[str, Any]:
        """What the mode of the file brought back, [N, T, C, L] at the signal, [N, T, l] at the layer."""
        found = super().brought_back(run, outputs)
        if "relevance" in found:
            found["relevance"] = found["relevance"].reshape(*found["relevance"].shape[:2], -1)
        return found


def _segments(placed: Placed) -> Placed:
    """What was placed as pictures of one row, as signals: boxes x0, x1."""
    components = tuple(tuple(found[:, [0, 2, 4]] for found in row) for row in placed.components)
    return Placed(placed.maps[:, :, 0], placed.heatmaps[:, :, 0], placed.boxes[..., [0, 2]], components, placed.status)
