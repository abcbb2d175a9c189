"""How pictures become a model's input: the settings, those with a name, and whether they fit an input."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from numbers import Real
from typing import Annotated, Any, Literal

from fastcam.errors import FastcamError, typed
from fastcam.typed_fields import MODERATE, NOT_EMPTY, NOT_ZERO, POSITIVE, Rule, Unfit, check_fields

Resize = Literal["stretch", "crop", "letterbox"]
Color = Literal["RGB", "BGR", "GRAY", "RGBA", "BGRA", "BANDS"]
CHANNELS: dict[str, int | None] = {"RGB": 3, "BGR": 3, "GRAY": 1, "RGBA": 4, "BGRA": 4, "BANDS": None}
"""How many channels a model of each order takes; None is the picture's own number."""
WHOLE = {"uint8": (0, 255), "int8": (-128, 127), "uint16": (0, 65535), "int32": (-(2**31), 2**31 - 1)}
"""The ranges of inputs of whole numbers."""
_SIZE = Rule(
    lambda size: min(size) >= 1 and size[0] * size[1] <= 2**27, "a height and a width of 1 or more, 2^27 pixels at most"
)
_SHARE = Rule(lambda share: 0 < share <= 1, "a share above 0, and at most 1")
_FRAMES = Rule(lambda count: 1 <= count <= 256, "a number of frames, 1 to 256")
_PIXEL = Rule(lambda value: 0 <= value <= 255, "a pixel value, 0 to 255")


@dataclass(frozen=True)
class Preprocessing:
    """How a picture becomes the model's input: ``x = (pixel * scale - mean) / std``, pixels in 0..255.

    Pixels of 16 bits count as value / 257, so that they lie in 0..255 too and keep their precision.

    Attributes:
        size: (height, width) of the input, or None where the model takes any size (the picture's own is used).
        resize: "stretch" maps the whole picture onto ``size``; "crop" takes the central region that has the input's
            aspect ratio and covers ``crop_fraction`` of the picture's shorter side; "letterbox" keeps the aspect
            ratio and fills the rest with ``pad_value``.
        crop_fraction: used by "crop" only; torchvision's "resize 256, crop 224" is 0.875.
        color: the channels that the model was trained with, in order: "RGB", "BGR", "GRAY"; with alpha "RGBA", "BGRA"
            (opaque where the picture has none); "BANDS" takes the picture's own, as many as there are.
        scale, mean, std: see the formula; mean and std have one number, or one per channel.
        layout: "NCHW" or "NHWC" of the model's input.
        pad_value: pixel value (0..255) of a letterbox's bars.
        stack: how many neighbouring frames lie behind one another in the channels, the newest last: 4 of DQN's agents.
            All else is said of one frame.

    Raises:
        FastcamError: a field of another type or range; scale, mean and std are finite, a scale below 0 turns dark and
            bright around, and std is above 0.
    """

    size: Annotated[tuple[int, int] | None, _SIZE] = (224, 224)
    resize: Resize = "stretch"
    crop_fraction: Annotated[float, _SHARE] = 0.875
    color: Color = "RGB"
    scale: Annotated[float, MODERATE, NOT_ZERO] = 1.0
    mean: Annotated[tuple[float, ...], NOT_EMPTY, MODERATE] = (0.0,)
    std: Annotated[tuple[float, ...], NOT_EMPTY, MODERATE, NOT_ZERO, POSITIVE] = (1.0,)
    layout: Literal["NCHW", "NHWC"] = "NCHW"
    pad_value: Annotated[float, _PIXEL] = 114.0
    stack: Annotated[int, _FRAMES] = 1

    def __post_init__(self) -> None:
        try:
            check_fields(self)
        except Unfit as error:
            raise FastcamError(f"preprocessing: {error}") from error

    def of(self, *pixels: float) -> list[float]:
        """What pixels become, in each channel."""
        mean, std = self.mean, self.std
        each = [(mean[k % len(mean)], std[k % len(std)]) for k in range(max(len(mean), len(std)))]
        return [(pixel * self.scale - m) / s for m, s in each for pixel in pixels]

    def range(self) -> tuple[float, float]:
        """The smallest and the largest number that pixels become."""
        ends = self.of(0, 255)
        return min(ends), max(ends)

    def doubt(self, low: float, high: float) -> str:
        """What makes it unlikely that a tensor from ``low`` to ``high`` was prepared like this; "" where nothing does.

        Of the pixels of "BANDS" nobody knows the unit.
        """
        least, most = self.range()
        width = most - least
        if self.color == "BANDS" or not (math.isfinite(low) and math.isfinite(high)):
            return ""
        if high > most + width / 2 or low < least - width / 2:
            return "holds values far beyond what the preprocessing makes"
        if width >= 100 and 0 < max(abs(low), abs(high)) <= 1:
            return "lies in -1 to 1, and the preprocessing makes no such numbers"
        if least <= -0.5 and 0 <= low <= 0.1 and 0.6 <= high <= 1:
            return "lies in 0 to 1, like pixels that were not normalised"
        return ""


PRESETS: dict[str, dict[str, Any]] = {
    # torchvision and timm: RGB in 0..1, then the ImageNet statistics
    "imagenet": {"scale": 1 / 255, "mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)},
    # TensorFlow / Keras "tf" mode: RGB in -1..1
    "tf": {"scale": 1 / 255, "mean": (0.5,), "std": (0.5,)},
    # MobileNet files quantised with zero point 128: (x - 128) / 128
    "tf128": {"scale": 1.0, "mean": (128.0,), "std": (128.0,)},
    # Caffe and the Keras "caffe" mode: BGR, mean of ImageNet in pixels subtracted
    "caffe": {"color": "BGR", "scale": 1.0, "mean": (103.939, 116.779, 123.68), "std": (1.0,)},
    # OpenAI CLIP
    "clip": {
        "scale": 1 / 255,
        "mean": (0.48145466, 0.4578275, 0.40821073),
        "std": (0.26862954, 0.26130258, 0.27577711),
    },
    "unit": {"scale": 1 / 255},  # 0..1
    "raw": {},  # 0..255
}
"""Named settings for ``--preprocess``: everything but size, resize rule and layout, which come from model and user."""


def preset(name: str, **changes: Any) -> Preprocessing:
    """The preprocessing called ``name`` (see :data:`PRESETS`), with ``changes`` to single fields.

    Raises:
        FastcamError: no preset has this name.
    """
    if name not in PRESETS:
        raise FastcamError(f"no preprocessing preset {name!r}; there are: {', '.join(PRESETS)}")
    return Preprocessing(**{**PRESETS[name], **changes})


def named(wanted: str | Mapping[str, Any] | Preprocessing, **base: Any) -> Preprocessing:
    """A preprocessing as a caller says it: itself, the name of a preset, or changes of one, by field.

    Args:
        wanted: ``{"preset": "imagenet", "color": "GRAY", "mean": 0.45}``; without a preset "raw" is changed.
        base: fields of a preset that are not changed.

    Raises:
        FastcamError: no such preset or field.
    """
    if isinstance(wanted, Preprocessing):
        return wanted
    typed("preprocess", wanted, str | Mapping, "the name of a preset, a dict or Preprocessing")
    changes: dict[str, Any] = {"preset": wanted} if isinstance(wanted, str) else dict(wanted)
    name = changes.pop("preset", None) or "raw"
    known = {field.name for field in fields(Preprocessing)}
    for field in changes:
        if field not in known:
            raise FastcamError(f"a preprocessing has no {field!r}; it has {', '.join(sorted(known))}")
    for field in ("mean", "std"):
        if field in changes:
            numbers = changes[field]
            each = tuple(numbers) if isinstance(numbers, Sequence) and not isinstance(numbers, str) else (numbers,)
            for number in each:
                typed(field, number, Real, "a number, or one for each channel")
            changes[field] = tuple(map(float, each))
    return preset(name, **{**base, **changes})


def fitted(how: Preprocessing, channels: Any, dtype: str, name: str) -> tuple[Preprocessing, str]:
    """``how`` as an input of so many channels takes it, and what was changed, for people.

    Of three numbers for the three colours a grey input takes the mean.

    Args:
        channels: of the input, where it is a number.
        dtype: of the input, as NumPy calls it.
        name: of the input.

    Raises:
        FastcamError: it makes another number of channels than the input has, or no whole numbers for one that takes
            those.
    """
    note = ""
    channels = _of_one_frame(channels, how, name)
    if channels == 1 and how.color in ("RGB", "BGR"):
        if len(how.mean) == 3 or len(how.std) == 3:
            mean, std = _mean(how.mean), _mean(how.std)
            note = f"grey: the mean of the three numbers, mean {mean[0]:.4g} and std {std[0]:.4g}"
            how = replace(how, mean=mean, std=std)
        how = replace(how, color="GRAY")
    count = CHANNELS[how.color]
    if isinstance(channels, int) and count not in (None, channels):
        raise FastcamError(
            f"input {name!r} takes {channels} channels, and {how.color} makes {count}; {_advice(channels)}"
        )
    count = channels if isinstance(channels, int) else count
    if count is not None and not {len(how.mean), len(how.std)} <= {1, count}:
        raise FastcamError(
            f"mean {how.mean} and std {how.std} do not fit the {count} channels of input {name!r}; give one number or "
            f"{count} (--mean, --std)"
        )
    if dtype in WHOLE:
        _refuse_fractions(how, dtype, name)
    _refuse_other_units(how)
    return how, note


def _of_one_frame(channels: Any, how: Preprocessing, name: str) -> Any:
    """The channels of one frame, of an input that may have a stack of them.

    Raises:
        FastcamError: they are those of no whole number of frames.
    """
    if how.stack == 1 or not isinstance(channels, int):
        return channels
    if channels % how.stack:
        raise FastcamError(
            f"input {name!r} takes {channels} channels, which are not those of {how.stack} frames; give another number "
            "of frames (--stack)"
        )
    return channels // how.stack


def _mean(numbers: tuple[float, ...]) -> tuple[float, ...]:
    return (round(sum(numbers) / len(numbers), 6),)


def _advice(channels: int) -> str:
    if channels in (1, 3):
        return f"say its color (--color {'GRAY' if channels == 1 else 'RGB, BGR'})"
    alpha = "--color RGBA for red, green, blue and alpha, " if channels == 4 else ""
    return (
        f"say {alpha}--color BANDS for pictures of {channels} bands (--mean and --std of one number or {channels}), or "
        "leave the preprocessing out and give float tensors"
    )


def _refuse_other_units(how: Preprocessing) -> None:
    """Raise where mean and std count in other units than the scaled pixels. What bands count in, nobody knows."""
    if how.color == "BANDS":
        return
    brightest, mean, std = 255 * abs(how.scale), max(map(abs, how.mean)), max(map(abs, how.std))
    if mean > brightest:
        raise FastcamError(
            f"no pixel reaches the mean {mean:g}: scaled by {how.scale:.4g}, which comes first, they end at "
            f"{brightest:.4g}; for (x - 127) / 128 give a scale of 1, a mean of 127 and an std of 128"
        )
    if brightest > 10 and 0 < mean <= 1 and std <= 1:
        raise FastcamError(
            f"the mean {mean:g} is one of pixels in 0..1, and with the scale {how.scale:.4g} they are in "
            f"0..{brightest:.4g}; give a scale of 1/255"
        )


def _refuse_fractions(how: Preprocessing, dtype: str, name: str) -> None:
    """Raise where pixels do not become whole numbers in the range of ``dtype``."""
    low, high = WHOLE[dtype]
    values = how.of(0, 1, 255)
    if any(value != round(value) or not low <= value <= high for value in values):
        right = "raw --mean 128" if dtype == "int8" else "raw"
        raise FastcamError(
            f"input {name!r} takes {dtype}, {low} to {high}, and this preprocessing makes {min(values):.3g} to "
            f"{max(values):.3g} of its pixels; such a model prepares its pixels itself: use --preprocess {right}"
        )
