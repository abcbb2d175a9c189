"""Cases for protocols, made of arrays: a picture's maps and marks without a model that would have to make them."""

from types import SimpleNamespace

import cv2
import numpy as np

from fastcam.evaluation.protocols.base import Case, Present
from fastcam.evaluation.samples import Annotation, Sample
from fastcam.image.preprocess import Geometry
from fastcam.kernels import reference
from fastcam.results.peak import in_picture


def mark(label, box=None, mask=None, **flags):
    """An annotation; ``mask`` is a bool array."""
    return Annotation(label, box, None if mask is None else lambda: mask, **flags)


def present(label, target, *annotations, classes=()):
    """A class of a picture, explained as ``target``."""
    return Present(label, target, frozenset({target, *classes}), annotations)


def case(maps, classes, marked, size, scores=None, network=(32, 32), columns=None, ignored=None, status=None):
    """A picture of ``size`` whose targets have the maps [T, h, w]; ``columns`` says what each was asked as.

    Heatmaps and boxes are the reference kernels', over the whole picture stretched to the network's input.
    """
    maps = np.asarray(maps, np.float32)
    explained = reference.explain_maps(maps[None], None, network)
    geometry = Geometry(size, network, (0, 0, size[1], size[0]), (0, 0, network[1], network[0]))
    names = ["ok" if code == 0 else "all_negative" for code in explained.status[0]]
    status = tuple(status or names)

    def peak(i, target):
        return in_picture(explained.heatmaps[i, target], geometry) if status[target] == "ok" else None

    explanation = SimpleNamespace(
        peak=peak,
        scores=np.asarray(scores if scores is not None else np.zeros(10), np.float32)[None],
        classes=np.asarray(classes, np.int64)[None],
        maps=np.maximum(maps, 0)[None],
        heatmaps=explained.heatmaps,
        boxes=geometry.to_original(explained.largest[..., :4]),
        status=(status,),
        geometry=(geometry,),
        input_gradients=None,
        metadata=SimpleNamespace(input_gradient=None),
        connectivity=8,
    )
    annotations = tuple(each for one in marked for each in one.annotations)
    sample = Sample("a", np.zeros((*size, 3), np.uint8), annotations, None if ignored is None else lambda: ignored)
    asked = columns if columns is not None else list(classes)
    return Case(
        sample, tuple(marked), explanation, {key: i for i, key in enumerate(asked)}, SimpleNamespace(), "gradcam", {}
    )


def enlarged(one_map, size):
    """The heatmap of one map at ``size``, by OpenCV: float32 in 0..1."""
    heat = cv2.resize(np.maximum(np.asarray(one_map, np.float32), 0), size[::-1], interpolation=cv2.INTER_LINEAR)
    return heat / heat.max()


def figures(protocol, *rows):
    """What a protocol says of rows, each of a picture of its own."""
    from fastcam.evaluation.statistics import weights_of

    tally = protocol.tally()
    for number, row in enumerate(rows):
        tally.add(row, weights_of(str(number)))
    return tally.figures()
