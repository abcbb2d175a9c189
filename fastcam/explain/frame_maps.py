"""Backward modes as methods of clips: what came back to the frames or to the layer's times, as maps of them.

What a mode says of a picture (:mod:`fastcam.methods.graph_modes`) it says of each frame, so that ``blur`` stays within
a frame. A clip has one maximum, and one minimum of maps that count from theirs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastcam.explain.postprocess import LayerMaps
from fastcam.image.preprocess import Float
from fastcam.image.stacks import under_rows
from fastcam.methods import Method
from fastcam.methods.attribution_maps import FROM_MINIMUM, blurred
from fastcam.methods.context import Meter, Probe
from fastcam.runtime.exported_model import Network
from fastcam.runtime.inputs.further_inputs import NONE
from fastcam.schema import INPUT_GRADIENT, RELEVANCE
from fastcam.targets.resolved import ImageTargets


@dataclass(frozen=True, eq=False)
class FrameProbe(Probe):
    """One frame of a clip with T targets, or one of the layer's times, as a mode sees it.

    Attributes:
        heat: float32 [T, H, W], Grad-CAM's heatmaps of the frame, of the clip's maximum; None where no mode asks.
        positions: (h, w) of the target layer.
    """

    heat: Float | None
    positions: tuple[int, ...]

    @property
    def layer(self) -> tuple[int, ...]:
        """(h, w) of the target layer."""
        return self.positions

    def gradcam(self) -> Float:
        """Grad-CAM's heatmaps, float32 [T, H, W] in 0..1."""
        assert self.heat is not None
        return self.heat


def frame_maps(
    method: Method,
    brought: Mapping[str, Float],
    heat: Float | None,
    positions: tuple[int, ...],
    targets: list[ImageTargets],
    again: tuple[Network, str, int, Callable[[dict[str, Any], int], Float], Meter],
) -> LayerMaps:
    """The maps that a mode makes of clips.

    Args:
        brought: what it brought back: ``relevance`` [N, T, t, h, w] at the layer, or ``input_gradients`` and ``inputs``
            of each frame, [N frames, T, C, H, W] and [N frames, C, H, W].
        heat: float32 [N, T, frames, H, W], Grad-CAM's heatmaps where the mode multiplies by them.
        positions: (h, w) of the target layer.
        targets: of each clip.
        again: what it takes to run a clip again.
    """
    network, _, batch_size, scores, meter = again
    clips, at_layer = len(targets), "relevance" in brought
    back = np.moveaxis(brought["relevance"], 2, 1) if at_layer else _clips(brought["input_gradients"], clips)
    times = back.shape[1]  # back [N, times, T, ...]
    if method.mode in FROM_MINIMUM:
        return _above_minimum(back, float(method.options.get("blur", 0.0)))
    inputs = np.zeros((clips, times, 1, *back.shape[-2:]), np.float32) if at_layer else _clips(brought["inputs"], clips)
    maps, attributions = [], []
    for n, time in np.ndindex(clips, times):
        outputs = {RELEVANCE if at_layer else INPUT_GRADIENT: back[n, time]}
        own = None if heat is None else np.ascontiguousarray(heat[n, :, time])
        rest = (batch_size, network, "NCHW", np.float32, scores, meter, NONE, own, positions)
        result = method(FrameProbe(inputs[n, time], targets[n], targets[n].count, outputs, *rest))
        made = [np.array(one, np.float32) for one in (result.maps, result.attributions) if one is not None]
        for one in made:
            one[targets[n].own_count :] = 0
        maps.append(made[0])
        attributions += made[1:]
    own_maps = np.stack(maps).reshape(clips, times, *maps[0].shape)
    return LayerMaps(
        _stacked(own_maps), None, attributions=np.stack(attributions) if attributions else None, times=times
    )


def _above_minimum(back: Float, blur: float) -> LayerMaps:
    """Maps [N, times, T, h, w] by how much each position exceeds the least one of its clip."""
    smooth = np.stack([[blurred(one, blur) for one in clip] for clip in back])
    return LayerMaps(_stacked(smooth - smooth.min((1, 3, 4), keepdims=True)), None, times=back.shape[1])


def _clips(rows: Float, clips: int) -> Float:
    """[N frames, ...] as [N, frames, ...]."""
    return rows.reshape(clips, -1, *rows.shape[1:])


def _stacked(maps: Float) -> Float:
    """[N, times, T, h, w] as [N, T, times h, w]."""
    return np.ascontiguousarray(under_rows(np.ascontiguousarray(np.moveaxis(maps, 1, 2))), np.float32)
