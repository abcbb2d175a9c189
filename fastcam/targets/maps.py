"""Scalars of an output of any shape: one of its elements, or a class within a region of its maps [N, classes, h, w]."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastcam.errors import FastcamError
from fastcam.image.preprocess import Float, load, prepare, resize
from fastcam.image.reading import Reading
from fastcam.schema import Cotangent, Preprocessing
from fastcam.targets.arrays import Classes, Double, check_index, linear
from fastcam.targets.run_pictures import name_of
from fastcam.targets.spec_parser import Explained, File, Kind, Spec, SpecFunction, index, integers, of_output, sizes

# ---- one number


def element(output: ArrayLike, *where: Any, batched: bool = True) -> Float:
    """s = y[n, i, j, ...], one target for each index: a regression output, a score, a coordinate.

    Args:
        output: [N, ...], or [...] where not ``batched``.
        where: indices into one image's part of it, a number or a tuple each.
    """
    y = np.asarray(output) if batched else np.asarray(output)[None]
    if not where:
        raise FastcamError("no index given; give at least one")
    cotangent = np.zeros((len(y), len(where), *y.shape[1:]), np.float32)
    for t, position in enumerate(where):
        at = tuple(np.atleast_1d(position).tolist())
        check_index(at, y.shape[1:])
        place: tuple[Any, ...] = (slice(None), t, *at)
        cotangent[place] = 1
    return cotangent


def _element_spec(spec: Spec, file: File) -> SpecFunction:
    at = tuple(integers(spec, "an index"))
    alone = [
        one for one in file.about if sizes(one) in ((), (1,)) and one.output == spec.options.get("output", one.output)
    ]
    if alone and at in ((), (0,)):  # one number for each image, [N] or [N, 1]
        at = (0,) * len(sizes(alone[0]))
        about = alone[0] if len(alone) == 1 else file.output(spec, (len(at),))
    else:
        spec.none_but(1, 8, "an index, one number for each axis of one image's output")
        about = file.output(spec, (len(at),))
    for i, size in zip(at, sizes(about), strict=True):
        if i < 0 or (isinstance(size, int) and i >= size):
            raise spec.wrong(f"index {list(at)} is outside of {list(about.shape)}; numbers count from 0")

    def explain(y: Double) -> Explained:
        label = file.label(at[0], y.shape[1]) if y.ndim == 2 else "class"
        name = f"{about.output} {list(at) or ''}".rstrip() if label.startswith("class") else label
        return *linear(element(y, at), y), ((name,),) * len(y)

    return of_output(about, explain)


# ---- a region


def region(scores: ArrayLike, classes: Classes, mask: ArrayLike | None = None) -> Float:
    """s = sum_ij M_ij y_cij: the scores of a class within a region (Seg-Grad-CAM, Vinogradova et al. 2020, equation 3).

    Args:
        scores: [N, classes, h, w].
        classes: one class or T of them, indices.
        mask: [h, w] or [N, h, w], the scores' own size: true (or a weight) where positions count; None: where the class
            has the highest score.

    Raises:
        FastcamError: a mask of another size, or an empty region.
    """
    y = np.asarray(scores, np.float64)
    if y.ndim != 4:
        raise FastcamError(f"scores of a segmenter are [N, classes, h, w], got {list(y.shape)}")
    if mask is None and y.shape[1] == 1:
        raise FastcamError("the scores of one class prefer it everywhere; give a mask, such as scores[:, 0] > 0")
    wanted = [classes] if isinstance(classes, int | np.integer) else list(classes)
    cotangent = np.zeros((len(y), len(wanted), *y.shape[1:]), np.float32)
    for t, c in enumerate(wanted):
        check_index((c,), y.shape[1:2])
        within = y.argmax(1) == c if mask is None else np.asarray(mask, np.float32)
        if within.shape not in (y.shape[2:], (len(y), *y.shape[2:])):
            raise FastcamError(f"the mask is {list(within.shape)}, the scores are {list(y.shape)}; resize the mask")
        cotangent[:, t, c] = within
        there = cotangent[:, t].any(axis=(1, 2, 3))
        if not there.all():
            what = f"class {c} is predicted nowhere" if mask is None else "the mask is empty"
            raise FastcamError(f"{what} in {name_of(int(there.argmin()))}; give a mask of where it is")
    return cotangent


def _region_spec(spec: Spec, file: File) -> SpecFunction:
    """A class where it is predicted, or within a mask; one target for each word, without one the largest region."""
    about = _map_output(spec, file)
    plain = len(sizes(about)) == 2 and not about.axes
    by_graph = ("last", "first") if about.axes in ("WC", "HWC", "THWC") else ("first", "last")
    last = spec.choice("axis", by_graph) == "last" and not plain
    channels = 1 if plain else about.shape[-1 if last else 0]
    known = file.classes(spec, channels if isinstance(channels, int) else None)
    classes = [index(spec, word, known) for word in spec.words]
    path = spec.options.get("mask")
    mask = _mask(spec, path, file.preprocessing, file.reading) if path is not None else None
    where = f" within {Path(path).stem}" if path is not None else ""

    def explain(y: Double) -> Explained:
        y = np.moveaxis(y, -1, 1) if last else y[:, None] if plain else y
        rows = [classes or [_largest(one, file)] for one in y]
        inside = np.stack([[_inside(spec, y, n, c, about) for c in row] for n, row in enumerate(rows)])
        if mask is not None and y.ndim != 4:
            raise spec.wrong("a mask=FILE is of pictures; leave it out for signals and volumes")
        if mask is not None:
            inside = np.broadcast_to(resize(mask, (y.shape[2], y.shape[3])) >= 0.5, inside.shape)
        for n, t in np.argwhere(~inside.any(tuple(range(2, inside.ndim)))):
            raise _absent(spec, y[n], rows[n][t], n, file)
        cotangent = np.zeros((len(y), inside.shape[1], *y.shape[1:]), np.float32)
        for n, row in enumerate(rows):
            for t, c in enumerate(row):
                check_index((c,), y.shape[1:2])
                cotangent[n, t, c] = inside[n, t]
        names = tuple(tuple(_named(file, c, y.shape[1]) + where for c in row) for row in rows)
        values = linear(cotangent, y)[1]
        return np.moveaxis(cotangent, 2, -1) if last else cotangent, values, names

    return of_output(about, explain)


def _map_output(spec: Spec, file: File) -> Cotangent:
    """The output with a map: of classes, or without an axis of them, [N, h, w]."""
    if any(one.axes in ("CW", "WC") for one in file.about):
        return file.output(spec, (2,))
    maps = any(len(sizes(one)) in (3, 4) for one in file.about)
    plain = any(len(sizes(one)) == 2 and one.answer in ("region", "") for one in file.about)
    return file.output(spec, (3, 4) if maps or not plain else (2,))


def _named(file: File, c: int, channels: int) -> str:
    """The class of a region; of a map of one class its own name, or what is there."""
    return file.label(c, channels) if channels > 1 or file.labels is not None else "what is there"


def _inside(spec: Spec, y: Double, n: int, c: int, about: Cotangent) -> NDArray[np.bool_]:
    """Where a class is in image ``n`` [h, w]: above the threshold, or where it has the highest score.

    A map of one class has no rival: it is there above 0.5 behind a sigmoid, and above 0 of logits.
    """
    check_index((c,), y.shape[1:2])
    if "threshold" in spec.options:
        return np.asarray(y[n, c] > spec.number("threshold", 0))
    if y.shape[1] == 1:
        shares = about.activation == "Sigmoid" or bool(y.min() >= 0 and y.max() <= 1)
        return np.asarray(y[n, 0] > (0.5 if shares else 0))
    return np.asarray(y[n].argmax(0) == c)


def _largest(y: Double, file: File) -> int:
    """The class that is predicted at most positions of [classes, h, w]; the first, if it is the background, last."""
    if len(y) == 1:
        return 0
    counts = np.bincount(y.argmax(0).ravel(), minlength=len(y))
    first = file.label(0, len(y)).casefold().strip("_")
    if len(y) > 2 and counts[1:].any() and (file.labels is None or first in ("background", "unlabeled", "bg", "void")):
        counts[0] = 0
    return int(counts.argmax())


def _mask(spec: Spec, path: str, preprocessing: Preprocessing | None, reading: Reading) -> Float:
    """A picture of a mask at the size of the network's input: [H, W] in 0..1, brought there as the pictures are."""
    try:
        pixels = load(path, reading)
    except FastcamError as error:
        raise spec.wrong(str(error)) from error
    plain = Preprocessing(size=None, resize="stretch", color="GRAY", scale=1 / 255, pad_value=0)
    if preprocessing is not None:
        of_pictures = preprocessing.size, preprocessing.resize, preprocessing.crop_fraction
        plain = Preprocessing(*of_pictures, "GRAY", 1 / 255, pad_value=0)
    return np.ascontiguousarray(prepare(pixels, plain)[0][0, 0])


def _absent(spec: Spec, y: Double, c: int, n: int, file: File) -> FastcamError:
    """What to say where a class is nowhere in [classes, h, w], the map of image ``n``."""
    where, ways = f"nowhere in {name_of(n)}", "a threshold=NUMBER, or a mask=FILE"
    if len(y) == 1 or "threshold" in spec.options:
        return spec.wrong(f"{_named(file, c, len(y))} is {where} (the largest score is {y[c].max():.3g}); give {ways}")
    counts = np.bincount(y.argmax(0).ravel(), minlength=len(y))
    order = [k for k in np.argsort(-counts, kind="stable")[:5] if counts[k]]
    there = ", ".join(f"{file.label(int(k), len(y))} {counts[k] / counts.sum():.0%}" for k in order)
    return spec.wrong(f"{file.label(c, len(y))} is predicted {where} (there are: {there}); give {ways}")


KINDS = {
    "element": Kind(
        "element:INDEX",
        "one number of an output: element:3, or of a map element:3,0,7; element alone of outputs of one number",
        (0, 1, 2, 3, 4),
        ("output",),
        _element_spec,
        lambda spec: len(spec.words) > 1,
    ),
    "region": Kind(
        "region:NAME",
        "segmentation: a class where it is predicted, above threshold=0.3, or within mask=FILE; region alone is the "
        "largest; axis=last of maps [h, w, C]",
        (2, 3, 4),
        ("output", "threshold", "mask", "axis"),
        _region_spec,
        lambda spec: True,
    ),
}
