"""The kernels in plain NumPy: the definition of every result, and the oracle of the other backends.

Written to be read, not to be fast. :class:`fastcam.kernels.Kernels` documents the functions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from fastcam.kernels import _validate
from fastcam.kernels.api import ALL_NEGATIVE, NON_FINITE, OK, ZERO_GRADIENT, Explained
from fastcam.kernels.arrays import Activations, Bytes, Doubles, Floats, Ints, Mask

_ZERO = np.float32(0)
_ONE = np.float32(1)
_PLANE = (-2, -1)


def weigh(activations: Activations, weights: Activations) -> Floats:
    """``sum_k weights[n, t, k] * activations[n, k]``, summed in float64."""
    values, weights = _validate.weigh(activations, weights)
    height, width = values.shape[2:]
    flat = values.reshape(*values.shape[:2], height * width).astype(np.float64)
    with np.errstate(all="ignore"):
        maps: Floats = (weights.astype(np.float64) @ flat).astype(np.float32)
    return maps.reshape(len(values), weights.shape[1], height, width)


def status(maps: Floats) -> Bytes:
    """NON_FINITE, then OK, ALL_NEGATIVE, ZERO_GRADIENT: the first that applies."""
    maps = _validate.maps(maps)
    finite = np.isfinite(maps).all(axis=_PLANE)
    positive = (maps > 0).any(axis=_PLANE)
    negative = (maps < 0).any(axis=_PLANE)
    verdict = np.select([~finite, positive, negative], [NON_FINITE, OK, ALL_NEGATIVE], ZERO_GRADIENT)
    return verdict.astype(np.uint8)


def relu(maps: Floats) -> Floats:
    """``max(maps, 0)``; NaN <= 0 is false, so NaN stays."""
    maps = _validate.maps(maps)
    return np.where(maps <= 0, _ZERO, maps)


def normalize(maps: Floats) -> Floats:
    """Each map divided by its peak, or zeros."""
    maps = _validate.maps(maps)
    peaks = _peaks(maps)
    with np.errstate(all="ignore"):
        quotient = np.maximum(maps / np.where(peaks > 0, peaks, _ONE), np.finfo(np.float32).min)
    return np.where(peaks > 0, quotient, _ZERO)


def upsample(maps: Floats, size: tuple[int, int]) -> Floats:
    """Bilinear: along the rows, then along the columns."""
    maps = _validate.maps(maps)
    height, width = _validate.target_size(size)
    with np.errstate(all="ignore"):
        first, second, weight = _taps(maps.shape[-1], width)
        stretched: Floats = maps[..., first] * (_ONE - weight) + maps[..., second] * weight
        first, second, weight = _taps(maps.shape[-2], height)
        weight = weight[:, None]
        result: Floats = stretched[..., first, :] * (_ONE - weight) + stretched[..., second, :] * weight
    return result


def threshold(maps: Floats, fraction: float = 0.15) -> Bytes:
    """``value >= fraction * peak and value > 0``, where there is a peak."""
    maps = _validate.maps(maps)
    cut = _validate.fraction(fraction)
    peaks = _peaks(maps)
    with np.errstate(under="ignore"):
        mask = (maps >= cut * peaks) & (maps > 0) & (peaks > 0)
    return mask.astype(np.uint8)


def label(mask: Mask, connectivity: int = 8) -> tuple[Ints, Ints]:
    """Each mask's components, found by flood filling."""
    checked = _validate.mask(mask)
    neighbours = _validate.connectivity(connectivity)
    labels = np.zeros(checked.shape, np.int32)
    counts = np.zeros(checked.shape[:-2], np.int32)
    for index in np.ndindex(counts.shape):
        labels[index], counts[index] = _flood(checked[index], neighbours)
    return labels, counts


def boxes(labels: Ints, count: int) -> Ints:
    """Smallest and largest coordinate, and number, of each label's pixels."""
    labels, count = _validate.boxes(labels, count)
    if labels.min() < 0 or labels.max() > count:
        raise _validate.label_error(count)
    y, x = np.nonzero(labels)
    row = labels[y, x] - 1
    pixels = np.bincount(row, minlength=count)
    low = np.full((count, 2), max(labels.shape), np.int64)
    high = np.zeros((count, 2), np.int64)
    np.minimum.at(low, row, np.stack([x, y], axis=1))
    np.maximum.at(high, row, np.stack([x + 1, y + 1], axis=1))
    low[pixels == 0] = 0
    return np.concatenate([low, high, pixels[:, None]], axis=1).astype(np.int32)


def largest(boxes: Ints) -> int:
    """argmax takes the first of equals."""
    return int(np.argmax(_validate.largest(boxes)[:, 4]))


def overlay(image: Bytes, heatmap: Floats, lut: Bytes, alpha: float) -> Bytes:
    """``(1 - alpha) * image + alpha * lut[255 * heatmap]`` with 16 fractional bits, halves rounded up."""
    image, heatmap, lut = _validate.overlay(image, heatmap, lut)
    front = np.uint32(_validate.alpha(alpha) * 65536 + 0.5)
    heat = np.where(heatmap > 0, np.minimum(heatmap, _ONE), _ZERO)  # NaN > 0 is false
    color = lut[(heat * np.float32(255) + np.float32(0.5)).astype(np.intp)]
    back = np.uint32(65536) - front
    blend = image.astype(np.uint32) * back + color.astype(np.uint32) * front + np.uint32(32768)
    return (blend >> np.uint32(16)).astype(np.uint8)


def prepare(pixels: Bytes, factor: Floats, shift: Floats, out: Floats) -> None:
    """A picture shrunk by area weighting and normalised: ``out = byte * factor - shift``. Not every backend has it.

    The bytes are those of OpenCV's INTER_AREA: each output pixel is the mean of the rectangle of the picture that it
    covers, pixels at its border weighted by their part in it, along the rows, then along the columns, in float32, in
    order, rounded to the nearest, halves to even. Where both scales are whole, the sum is exact and its mean is
    rounded; that of 2 x 2 is rounded up at a half.

    Args:
        pixels: uint8 [h, w, 3], of any strides.
        factor, shift: float32 [3].
        out: float32 [H, W, 3], H <= h and W <= w, a part of any array; it is written.

    Raises:
        FastcamError: see :mod:`fastcam.kernels`; a whole scale at which more than 65536 pixels become one.
    """
    pixels, factor, shift = _validate.prepare(pixels, factor, shift, out)
    (height, width), (rows, columns) = pixels.shape[:2], out.shape[:2]
    down, across = height // rows, width // columns
    if _validate.whole_scale(height, rows) and _validate.whole_scale(width, columns):
        sums = pixels.reshape(rows, down, columns, across, 3).sum(axis=(1, 3), dtype=np.int64)
        mean = sums.astype(np.float32) * np.float32(1 / (down * across))
        shrunk = (sums + 2) >> 2 if (down, across) == (2, 2) else np.rint(mean)
    else:
        stretched = _area(pixels.astype(np.float32), width, columns, axis=1)
        shrunk = np.rint(_area(stretched, height, rows, axis=0))
    out[...] = shrunk.astype(np.float32) * factor - shift


def sweep(values: Floats, cuts: Floats, connectivity: int = 8, window: Ints | None = None) -> tuple[Ints, Ints]:
    """The components of one map at many thresholds, from the highest to the lowest. Not every backend has it.

    Args:
        values: float32 [H, W], at most 2**31 - 1 pixels.
        cuts: float32 [n]: a pixel counts where its value is at least this. One that is higher than a cut before it
            counts as the lowest of these.
        connectivity: see :meth:`Kernels.label`.
        window: int32 [4], x0, y0, x1, y1 (half open) outside of which no pixel counts; or None.

    Returns:
        components, int32 [rows, 5]: x0, y0, x1, y1, pixels, cut by cut, each cut's in raster order of their first
        pixels; counts, int32 [n]: how many each cut has.
    """
    return by_threshold(label, boxes, *_validate.sweep(values, cuts, connectivity, window))


def same_everywhere(maps: Floats) -> npt.NDArray[np.bool_]:
    """bool [N, T]: which of the maps [N, T, ...] are the same everywhere. Not every backend has it.

    Differences of at most a millionth of the highest value are rounding.
    """
    places = tuple(range(2, maps.ndim))
    high = maps.max(places)
    same: npt.NDArray[np.bool_] = high - maps.min(places) <= np.float32(1e-6) * high
    return same


def in_original(
    counts: Ints, components: Ints, ways: Sequence[Doubles]
) -> tuple[Floats, tuple[tuple[Floats, ...], ...]]:
    """What :meth:`Kernels.explain_maps` finds, in pixels of the pictures. Not every backend has it.

    Args:
        counts, components: see :class:`fastcam.kernels.Explained`.
        ways: for each image float64 [4, 4], :attr:`fastcam.image.preprocess.Geometry.way_back`.

    Returns:
        float32 [N, T, 4]: the box of each map's component with most pixels, the first of them on a tie; zeros where
        there is none. And per image and target float32 [count, 5]: its components' boxes and numbers of pixels.
    """
    boxes = np.zeros((*counts.shape, 4), np.float32)
    rows, start = [], 0
    for i, of_image in enumerate(counts.tolist()):
        target, scale, source, end = ways[i]
        row = []
        for t, count in enumerate(of_image):
            found = components[start : start + count]
            moved = (found[:, :4] - target) * scale + source
            row.append(np.concatenate([np.clip(moved, 0, end), found[:, 4:]], axis=1).astype(np.float32))
            if count:
                boxes[i, t] = row[t][largest(found), :4]
            start += count
        rows.append(tuple(row))
    return boxes, tuple(rows)


def by_threshold(
    label: Callable[[Bytes, int], tuple[Ints, Ints]],
    boxes: Callable[[Ints, int], Ints],
    values: Floats,
    cuts: Floats,
    connectivity: int,
    window: Ints | None,
) -> tuple[Ints, Ints]:
    """:func:`sweep` by a backend's own :meth:`Kernels.label` and :meth:`Kernels.boxes`."""
    counts, components = np.zeros(len(cuts), np.int32), [np.zeros((0, 5), np.int32)]
    kept = np.zeros(values.shape, bool)
    x0, y0, x1, y1 = (0, 0, *values.shape[::-1]) if window is None else np.maximum(window, 0).tolist()
    kept[y0:y1, x0:x1] = True
    for i, cut in enumerate(np.fmin.accumulate(cuts)):
        labels, number = label(((values >= cut) & kept).astype(np.uint8), connectivity)
        counts[i] = number
        components.append(boxes(labels, int(number)))
    return np.concatenate(components), counts


def explain_maps(
    activations: Activations,
    weights: Activations | None,
    size: tuple[int, int],
    fraction: float = 0.15,
    connectivity: int = 8,
    *,
    windows: Ints | None = None,
    want_heatmaps: bool = True,
) -> Explained:
    """The other functions, one after the other."""
    signed = _validate.signed_maps(activations) if weights is None else weigh(activations, weights)
    windows = _validate.windows(windows, len(signed))
    verdict = status(signed)
    maps = relu(signed)
    kept = np.where((verdict == OK)[..., None, None], maps, _ZERO)  # -inf is gone after ReLU, but it was there
    heatmaps = upsample(normalize(kept), _validate.target_size(size))
    mask = threshold(heatmaps, fraction)
    for image, (x0, y0, x1, y1) in enumerate([] if windows is None else np.maximum(windows, 0).tolist()):
        inside = np.zeros(mask.shape[-2:], bool)
        inside[y0:y1, x0:x1] = True
        mask[image] *= inside
    labels, counts = label(mask, connectivity)
    rows = [boxes(labels[index], int(counts[index])) for index in np.ndindex(counts.shape)]
    biggest = [found[largest(found)] if len(found) else np.zeros(5, np.int32) for found in rows]
    return Explained(
        maps=maps,
        status=verdict,
        heatmaps=heatmaps if want_heatmaps else None,
        counts=counts,
        components=np.concatenate([np.zeros((0, 5), np.int32), *rows]),
        largest=np.array(biggest, np.int32).reshape(*counts.shape, 5),
    )


def _peaks(maps: Floats) -> Floats:
    """[..., 1, 1]: each map's largest value if all are finite and it is positive, else 0."""
    finite = np.isfinite(maps).all(axis=_PLANE, keepdims=True)
    highest = maps.max(axis=_PLANE, keepdims=True)
    return np.where(finite & (highest > 0), highest, _ZERO)


def _taps(size: int, out: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], Floats]:
    """For each output pixel the two input pixels that it blends, and the second one's weight."""
    source = np.maximum((np.arange(out) + 0.5) * (size / out) - 0.5, 0.0)
    first = np.minimum(source.astype(np.int64), size - 1)
    second = np.minimum(first + 1, size - 1)
    weight = np.where(second == first, 0.0, source - first).astype(np.float32)
    return first, second, weight


def _area(array: Floats, size: int, out: int, axis: int) -> Floats:
    """The weighted means along one axis. A span's pixels are summed in order; a weight of 0 adds nothing."""
    scale = 1 / (out / size)
    spans = [_span(i * scale, scale, size) for i in range(out)]
    total = np.zeros((*array.shape[:axis], out, *array.shape[axis + 1 :]), np.float32)
    shape = [-1 if i == axis else 1 for i in range(array.ndim)]
    for k in range(max(len(weights) for _, weights in spans)):
        index = [min(first + k, size - 1) for first, _ in spans]
        weight = np.array([weights[k] if k < len(weights) else 0 for _, weights in spans], np.float32)
        total += np.take(array, index, axis) * weight.reshape(shape)
    return total


def _span(begin: float, scale: float, size: int) -> tuple[int, list[float]]:
    """The first pixel that begin..begin + scale covers, and the share of each in it; parts below 0.001 do not count."""
    end, cell = begin + scale, min(scale, size - begin)
    last = min(int(np.floor(end)), size - 1)
    first = min(int(np.ceil(begin)), last)
    before = [(first - begin) / cell] if first - begin > 1e-3 else []
    after = [min(end - last, 1.0, cell) / cell] if end - last > 1e-3 else []
    return first - len(before), [*before, *[1 / cell] * (last - first), *after]


def _flood(mask: Bytes, connectivity: int) -> tuple[Ints, int]:
    """One mask's labels and their number. A border of background saves every test for the edge."""
    height, width = mask.shape
    todo = bytearray(np.pad(mask != 0, 1).astype(np.uint8).tobytes())
    stride = width + 2
    steps = [-stride, -1, 1, stride]
    if connectivity == 8:
        steps += [-stride - 1, -stride + 1, stride - 1, stride + 1]
    labels = np.zeros(len(todo), np.int32)
    count = 0
    for seed in np.flatnonzero(np.frombuffer(bytes(todo), np.uint8)).tolist():
        if not todo[seed]:
            continue
        todo[seed] = 0
        component = [seed]
        for pixel in component:  # grows while it is walked
            for step in steps:
                if todo[pixel + step]:
                    todo[pixel + step] = 0
                    component.append(pixel + step)
        count += 1
        labels[component] = count
    return labels.reshape(height + 2, stride)[1:-1, 1:-1], count
