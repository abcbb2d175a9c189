"""Pixels to the network's input and back: the model's preprocessing, and the way back to the original picture.

A picture is uint8 RGB [height, width, 3] throughout. Coordinates are continuous: pixel i covers [i, i + 1), so that a
resize is a pure scale, and a box [x0, y0, x1, y1) means the same in every resolution.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fastcam.errors import FastcamError
from fastcam.image.damage import cut_short as cut_short
from fastcam.image.decode import JPEG as JPEG
from fastcam.image.decode import SUFFIXES as SUFFIXES
from fastcam.image.decode import Uint8 as Uint8
from fastcam.image.decode import as_array as as_array
from fastcam.image.decode import decode as decode
from fastcam.image.decode import is_encoded as is_encoded
from fastcam.image.decode import is_picture as is_picture
from fastcam.image.decode import load as load
from fastcam.image.decode import picture as picture
from fastcam.image.decode import pictures_in as pictures_in
from fastcam.image.decode import read as read
from fastcam.image.resampling import Size as Size
from fastcam.image.resampling import grey
from fastcam.image.resampling import opencv as opencv
from fastcam.image.resampling import resize as resize
from fastcam.preprocessing import CHANNELS as CHANNELS
from fastcam.preprocessing import Preprocessing

Rect: TypeAlias = tuple[int, int, int, int]
Float: TypeAlias = NDArray[np.float32]


@dataclass(frozen=True)
class Geometry:
    """Which rectangle of the original picture became which rectangle of the network's input.

    Attributes:
        original: (height, width) of the picture.
        network: (height, width) of the network's input.
        source: x0, y0, x1, y1 in the picture: all of it, or what "crop" cut out.
        target: x0, y0, x1, y1 in the network's input: all of it, or what lies between the bars of "letterbox".
    """

    original: Size
    network: Size
    source: Rect
    target: Rect

    @classmethod
    def unchanged(cls, size: Size) -> Geometry:
        """Of a tensor that goes into the network as it is."""
        whole = (0, 0, size[1], size[0])
        return cls(size, size, whole, whole)

    def to_original(self, boxes: Any) -> Float:
        """Boxes [..., 4] in network-input pixels -> float32 [..., 4] in original pixels, clipped to the picture."""
        target, scale, source, end = self.way_back
        moved = (np.asarray(boxes, np.float64) - target) * scale + source
        clipped: Float = np.minimum(np.maximum(moved, 0), end).astype(np.float32)
        return clipped

    @functools.cached_property
    def way_back(self) -> NDArray[np.float64]:
        """float64 [4, 4], for the sides of a box: where the target begins, how much larger the source is, where that
        begins, and where the picture ends."""
        (sx0, sy0, sx1, sy1), (tx0, ty0, tx1, ty1) = self.source, self.target
        scale = (sx1 - sx0) / (tx1 - tx0), (sy1 - sy0) / (ty1 - ty0)
        return np.array([(tx0, ty0) * 2, scale * 2, (sx0, sy0) * 2, self.original[::-1] * 2], np.float64)

    @functools.cached_property
    def area(self) -> int:
        """How many pixels of the network's input are picture."""
        x0, y0, x1, y1 = self.target
        return (x1 - x0) * (y1 - y0)

    @functools.cached_property
    def has_bars(self) -> bool:
        """Whether something of the network's input is no picture: a letterbox's bars."""
        height, width = self.network
        return self.target != (0, 0, width, height)

    def magnified(self, factor: int) -> Geometry:
        """The geometry of the same picture ``factor`` times as large."""
        x0, y0, x1, y1 = self.source
        size = (self.original[0] * factor, self.original[1] * factor)
        return replace(self, original=size, source=(x0 * factor, y0 * factor, x1 * factor, y1 * factor))

    def inside(self, mask: Uint8) -> Uint8:
        """``mask`` [..., H, W] with everything that lies on a letterbox's bars set to 0."""
        x0, y0, x1, y1 = self.target
        if (y0, x0, y1, x1) == (0, 0, *self.network):
            return mask
        kept = np.zeros_like(mask)
        kept[..., y0:y1, x0:x1] = mask[..., y0:y1, x0:x1]
        return kept

    def heatmap_to_original(self, heatmap: Float) -> Float:
        """A heatmap [H, W] of the network's input -> [height, width] of the picture; 0 where a crop saw nothing."""
        x0, y0, x1, y1 = self.target
        left, top, right, bottom = self.source
        seen = resize(np.ascontiguousarray(heatmap[y0:y1, x0:x1]), (bottom - top, right - left))
        if (top, left, bottom, right) == (0, 0, *self.original):
            return seen
        full = np.zeros(self.original, np.float32)
        full[top:bottom, left:right] = seen
        return full


def fit(original: Size, network: Size, how: Preprocessing) -> Geometry:
    """The geometry with which a picture of size ``original`` fills an input of size ``network`` under ``how.resize``.

    Rectangles are rounded to whole pixels once, here, so that the picture's way in and the box's way back agree.
    """
    (oh, ow), (nh, nw) = original, network
    source, target = (0, 0, ow, oh), (0, 0, nw, nh)
    if how.resize == "crop":
        scale = min(ow / nw, oh / nh) * how.crop_fraction
        source = _centred(ow, oh, nw * scale, nh * scale)
    elif how.resize == "letterbox":
        scale = min(nw / ow, nh / oh)
        target = _centred(nw, nh, ow * scale, oh * scale)
    return Geometry(original, network, source, target)


def _centred(width: int, height: int, inner_width: float, inner_height: float) -> Rect:
    """The rectangle of the inner size, rounded and at least one pixel, in the middle of width x height."""
    w = min(width, max(1, round(inner_width)))
    h = min(height, max(1, round(inner_height)))
    x, y = (width - w) // 2, (height - h) // 2
    return x, y, x + w, y + h


def prepare(
    image: Uint8 | Float, how: Preprocessing, size: Size | None = None, out: Float | None = None
) -> tuple[Float, Geometry]:
    """A picture as the network's input, ``(pixel * scale - mean) / std``, and the way back.

    Args:
        image: uint8 RGB [height, width, 3], or what :func:`fastcam.image.decode.read` gives of deeper pixels and other
            channels.
        how: the model's preprocessing.
        size: (H, W) of the input; None takes ``how.size``, and where that is None too, the picture's own.
        out: where the result is written, of its shape and dtype; None makes a new array.

    Returns:
        float32 [1, C, H, W], or [1, H, W, C] for the layout "NHWC", and its geometry.

    Raises:
        FastcamError: mean and std do not fit the number of channels.
    """
    original = (image.shape[0], image.shape[1])
    network = size or how.size or original
    count = CHANNELS[how.color] or image.shape[2]
    geometry, factor, shift = _planned(original, network, how, count)
    nchw = how.layout == "NCHW"
    x = np.empty((1, count, *network) if nchw else (1, *network, count), np.float32) if out is None else out
    planes = x[0].transpose(1, 2, 0) if nchw else x[0]
    if not _shrink(image, how, geometry, factor, shift, planes):
        pixels = _place(_channels(image, how), geometry, how.pad_value)
        for channel in range(count):  # written where it belongs: no transposed copy
            plane = planes[..., channel]
            np.multiply(pixels[:, :, channel], factor[channel], out=plane, dtype=np.float32)
            plane -= shift[channel]
    return x, geometry


@functools.lru_cache(maxsize=64)
def _planned(original: Size, network: Size, how: Preprocessing, count: int) -> tuple[Geometry, Float, Float]:
    """The geometry of pictures of one size, and what their pixels are multiplied by and what is then subtracted, [C].

    One multiply and one subtraction a pixel: x = pixel * (scale / std) - mean / std, in float32.

    Raises:
        FastcamError: mean and std do not fit ``count`` channels.
    """
    if len(how.mean) not in (1, count) or len(how.std) not in (1, count):
        raise FastcamError(f"mean {how.mean} and std {how.std} do not fit {count} channels; give one number or {count}")
    std = np.asarray(how.std, np.float64)
    each = how.scale / std, np.asarray(how.mean, np.float64) / std
    factor, shift = (np.full(count, one, np.float32) for one in each)
    factor.flags.writeable = shift.flags.writeable = False
    return fit(original, network, how), factor, shift


def _shrink(
    image: Uint8 | Float, how: Preprocessing, geometry: Geometry, factor: Float, shift: Float, planes: Float
) -> bool:
    """What follows in one pass and with the same bits, where a colour picture shrinks: into ``planes`` [H, W, 3].

    False, and nothing is done, where it grows (or shrinks beyond measure), is grey, or the native kernels are missing.
    """
    left, top, right, bottom = geometry.source
    x0, y0, x1, y1 = geometry.target
    height, width, seen_height, seen_width = y1 - y0, x1 - x0, bottom - top, right - left
    if (
        how.color not in ("RGB", "BGR")
        or image.dtype != np.uint8
        or height > seen_height
        or width > seen_width
        or seen_height * seen_width > 65536 * height * width
    ):
        return False
    try:
        import fastcam.kernels.native as native
    except ImportError:
        return False
    if how.color == "BGR":
        planes, factor, shift = planes[..., ::-1], factor[::-1], shift[::-1]
    if (y0, x0, y1, x1) != (0, 0, *geometry.network):
        planes[...] = np.float32(how.pad_value) * factor - shift
    native.prepare(image[top:bottom, left:right].view(np.uint8), factor, shift, planes[y0:y1, x0:x1])
    return True


def _channels(image: Uint8 | Float, how: Preprocessing) -> NDArray[Any]:
    """Pixels in the order and number of the model's channels."""
    if how.color in ("RGB", "BANDS"):
        return image
    if how.color == "BGR":
        return np.ascontiguousarray(image[..., ::-1])
    if how.color in ("RGBA", "BGRA"):
        if image.shape[2] not in (1, 3, 4):
            raise FastcamError(
                f"a picture of {image.shape[2]} channels has no red, green, blue and alpha; see color BANDS"
            )
        colours = np.broadcast_to(image[..., :3], (*image.shape[:2], 3))
        alpha = image[..., 3:] if image.shape[2] == 4 else np.full((*image.shape[:2], 1), 255, image.dtype)
        return np.concatenate([colours if how.color == "RGBA" else colours[..., ::-1], alpha], axis=2)
    return grey(image)


def _place(image: NDArray[Any], geometry: Geometry, pad_value: float) -> NDArray[Any]:
    """The source rectangle, resized into the target rectangle; bars (letterbox) hold ``pad_value``."""
    left, top, right, bottom = geometry.source
    x0, y0, x1, y1 = geometry.target
    seen = _resized(np.ascontiguousarray(image[top:bottom, left:right]), (y1 - y0, x1 - x0))
    seen = seen.reshape(y1 - y0, x1 - x0, image.shape[2])  # cv2 drops a single channel's axis
    if (y0, x0, y1, x1) == (0, 0, *geometry.network):
        return seen
    whole = np.full((*geometry.network, image.shape[2]), pad_value, np.float32)
    whole[y0:y1, x0:x1] = seen
    return whole


def _resized(image: NDArray[Any], size: Size) -> NDArray[Any]:
    """:func:`resize` of any number of channels; OpenCV's area average takes four."""
    if image.shape[2] <= 4:
        return resize(image, size)
    return np.stack([resize(np.ascontiguousarray(image[..., c]), size) for c in range(image.shape[2])], axis=2)


def restore(tensor: NDArray[Any], how: Preprocessing | None) -> Uint8:
    """A network input [C, H, W] (or [H, W, C], by ``how.layout``) as a picture to draw on: uint8 RGB [H, W, 3].

    The inverse of :func:`prepare`'s normalisation; without ``how`` the values are stretched over 0..255.
    """
    x = np.nan_to_num(np.asarray(tensor, np.float32))
    if how is None:
        low, high = float(x.min()), float(x.max())
        x = (x - low) * (255.0 / (high - low) if high > low else 0.0)
        how = Preprocessing(layout="NHWC" if x.shape[-1] in (1, 3) and x.shape[0] not in (1, 3) else "NCHW")
    hwc = x if how.layout == "NHWC" else x.transpose(1, 2, 0)
    hwc = hwc[..., -(hwc.shape[2] // how.stack) :]  # of a stack of frames the last
    pixels = (hwc * np.asarray(how.std, np.float32) + np.asarray(how.mean, np.float32)) / np.float32(how.scale)
    if how.color in ("RGBA", "BGRA") and pixels.shape[2] == 4:
        pixels = pixels[..., :3]
    if pixels.shape[2] not in (1, 3):  # not a picture in any order of channels: show how bright each place is
        pixels = pixels.mean(axis=2, keepdims=True)
    if how.color in ("BGR", "BGRA") and pixels.shape[2] == 3:
        pixels = pixels[..., ::-1]
    rounded = np.clip(np.rint(pixels), 0, 255).astype(np.uint8)
    return np.ascontiguousarray(np.broadcast_to(rounded, (*rounded.shape[:2], 3)))
