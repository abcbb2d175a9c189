"""Heatmaps and numbers of pixels as pictures of the original's size: colours, legends, and the picture underneath."""

from __future__ import annotations

import numpy as np

from fastcam import kernels
from fastcam.image.preprocess import Float, Geometry, Uint8
from fastcam.render import drawing, peer_styles


def table(style: str, colors: str) -> Uint8:
    """The colours of a style's heatmaps, uint8 [256, 3]: of signed ones blue over white to red, whatever ``colors``."""
    return drawing.diverging_table() if peer_styles.signed(style) else drawing.colormap(colors)


def legend(style: str, colors: str) -> drawing.Legend:
    """What they mean."""
    ends = ("-", "+") if peer_styles.signed(style) else ("0", "1")
    return drawing.Legend(table(style, colors), *ends)


def signed_legend() -> drawing.Legend:
    """What blue and red mean."""
    return drawing.Legend(drawing.diverging_table(), "-", "+")


def places(style: str, heatmap: Float, geometry: Geometry) -> Float:
    """A heatmap [H, W] at the picture's size, float32 [height, width]: places in a colour map, 0..1."""
    return np.ascontiguousarray(peer_styles.drawn(style, geometry.heatmap_to_original(heatmap)))


def shown(style: str, heatmap: Float) -> Float:
    """A heatmap of a signal or volume as places in a colour map, 0..1."""
    rows = heatmap.reshape(-1, heatmap.shape[-1])
    return np.ascontiguousarray(peer_styles.drawn(style, rows)).reshape(heatmap.shape)


def coloured(heat: Float, style: str, colors: str) -> Uint8:
    """Places in a colour map as a picture."""
    return np.take(table(style, colors), np.rint(heat * 255).astype(np.intp), axis=0)


def enlarged(values: Float, geometry: Geometry) -> Float:
    """A layer's map [h, w], divided by its maximum, at the picture's size: float32 [height, width]."""
    k = kernels.get()
    large = k.upsample(k.normalize(np.ascontiguousarray(values[None])), geometry.network)[0]
    return geometry.heatmap_to_original(large)


def layer_map(picture: Uint8, values: Float, geometry: Geometry, colors: str) -> Uint8:
    """The picture under a layer's map [h, w], which is divided by its maximum."""
    heat = np.ascontiguousarray(np.clip(enlarged(values, geometry), 0, 1))
    return kernels.get().overlay(picture, heat, drawing.colormap(colors), 0.5)


def pixels(values: Float, geometry: Geometry, adds_up: bool, order: str) -> Uint8:
    """Numbers of the network's input [C, H, W] as a picture.

    Args:
        adds_up: whether their sum over the channels is shown, in two colours; else each channel around grey.
        order: of the channels, "RGB" or "BGR".
    """
    seen = np.stack([geometry.heatmap_to_original(np.ascontiguousarray(channel)) for channel in values])
    if adds_up:
        return drawing.diverging(seen.sum(axis=0))
    return drawing.on_grey(seen[::-1] if order == "BGR" else seen)
