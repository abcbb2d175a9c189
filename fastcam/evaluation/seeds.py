"""Seeds for weakly supervised segmentation: which pixels a classifier's maps are sure of, and of which class.

Source: Kolesnikov and Lampert, "Seed, Expand and Constrain", ECCV 2016, section 5.1: of each class that the picture
shows the pixels above 20 % of the maximum of its map; as background the tenth of the pixels with the least saliency,
which is the class scores' gradient (Simonyan et al. 2014) behind a median filter; where cues meet, the smaller wins.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fastcam.evaluation.samples import Mask
from fastcam.image.preprocess import Float
from fastcam.image.resampling import opencv

BACKGROUND, NO_CUE = 0, 255
"""Numbers in a seed mask that are no class."""
MOST = 254
"""Classes that a seed mask has numbers for, from 1 on."""
_MEDIAN = 5  # side of the median filter's window, in pixels of the network's input

Seeds = NDArray[np.uint8]


def seed_mask(
    heatmaps: Float, numbers: Sequence[int], saliency: Float, seen: Mask, threshold: float = 0.2, share: float = 0.1
) -> Seeds:
    """The cues of a picture: uint8 [H, W], a class's number, 0 of the background, 255 where there is no cue.

    Cues are laid over each other from the one of most pixels to the one of fewest, the background among them; of
    equally many the higher number lies above.

    Args:
        heatmaps: float32 [T, H, W] of the classes that the picture shows, at least 0.
        numbers: of these classes, 1 to 254.
        saliency: float32 [H, W]; the lowest values are the background.
        seen: bool [H, W], the pixels that the network has seen; the others have no cue.
        threshold: of a class's maximum; its cue is what lies above.
        share: of the pixels that were seen; as many of the least salient ones, and all that are equal to these, are the
            background's cue. 0 is none.
    """
    cues = [(number, foreground(heat, threshold) & seen) for number, heat in zip(numbers, heatmaps, strict=True)]
    cues.append((BACKGROUND, background(saliency, seen, share)))
    mask = np.full(seen.shape, NO_CUE, np.uint8)
    for number, cue in sorted(cues, key=lambda one: (-int(one[1].sum()), one[0])):
        mask[cue] = number
    return mask


def foreground(heat: Float, threshold: float) -> Mask:
    """bool [H, W]: what lies above a share of the maximum; nothing of a map without heat."""
    highest = float(heat.max(initial=0))
    above: Mask = heat > np.float32(threshold * highest)
    return above if highest > 0 else np.zeros(heat.shape, np.bool_)


def background(saliency: Float, seen: Mask, share: float) -> Mask:
    """bool [H, W]: of the pixels that were seen the least salient ones, and all that are equal to these."""
    values = saliency[seen]
    count = int(np.ceil(share * len(values)))
    if not count:
        return np.zeros(seen.shape, np.bool_)
    least: Mask = (saliency <= np.partition(values, count - 1)[count - 1]) & seen
    return least


def gradient_saliency(gradients: Float) -> Float:
    """float32 [H, W] of the gradients [T, C, H, W] of several classes' scores with respect to the network's input.

    Of each class the largest absolute value over the channels, divided by its maximum; of all classes the largest; and
    its median in a window of 5 x 5.
    """
    maps = np.abs(np.asarray(gradients, np.float32)).max(1)
    highest = maps.max((1, 2), keepdims=True)
    scaled = np.divide(maps, highest, out=np.zeros_like(maps), where=highest > 0)
    smooth: Float = opencv().medianBlur(np.ascontiguousarray(scaled.max(0)), _MEDIAN)
    return smooth
