"""The check of the gradient at the image, by central differences; of what is no derivative there is none."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from fastcam import schema
from fastcam.schema import Mode
from fastcam_export.layers.layout import Layout
from fastcam_export.verify import check as verify
from fastcam_export.verify import finite_differences, stop_gradient

Array = npt.NDArray[Any]


def told(mode: Mode | None, check: Mapping[str, Any]) -> list[str]:
    """What the summary of an export says of the check of a mode."""
    if mode is None:
        return []
    if "input_gradient_error" in check:
        return [
            f"        gradient at the image equal to central differences within {check['input_gradient_error']:.1e}"
        ]
    return [f"        {mode} is no derivative, which differences could confirm: its outputs were not checked"]


def check(
    source: onnx.ModelProto,
    exported: onnx.ModelProto,
    behind: onnx.ModelProto,
    feeds: Mapping[str, Array],
    image: str,
    cotangents: Callable[[Mapping[str, Array], int], Mapping[str, Array]] | None = None,
) -> float:
    """Compare the gradient at the image with central differences; the worst error, as a share of the gradient's norm.

    Args:
        source, exported: the two models.
        behind: :func:`fastcam_export.verify.check.tail` of the source, behind the image.
        feeds: inputs of the source.
        image: name of the image input.
        cotangents: of outputs of so many images, see
            :meth:`fastcam_export.outputs.cotangent_targets.Functional.random`.

    Raises:
        FastcamError: the error is larger than :data:`fastcam_export.verify.check.GRADIENT_TOLERANCE` allows.
    """
    dims = next(value.type.tensor_type.shape.dim for value in exported.graph.input if value.name == image)
    if len(feeds) == 1 and dims[0].dim_param:
        feeds = {image: feeds[image][:1]}  # one of two images: each step takes the whole model in float64
    if cotangents is None:
        asked, names = verify.targets(exported), [schema.INPUT_GRADIENT, schema.CLASSES]
    else:
        outputs = [value.name for value in source.graph.output]
        values = finite_differences.session(source).run(outputs, dict(feeds))
        asked, names = dict(cotangents(dict(zip(outputs, values)), len(feeds[image]))), [schema.INPUT_GRADIENT]
    gradient, *rest = finite_differences.session(exported).run(names, {**feeds, **asked})
    layout = Layout("NCHW" if feeds[image].ndim == 4 else "NCTHW")  # as it lies: nothing is to be reordered
    given = tuple(asked.values()) if cotangents is not None else ()
    classes = rest[0] if rest else np.zeros((len(gradient), 1), np.int64)
    point = finite_differences.Point(feeds[image], layout, feeds[image], classes, given)
    feeds = stop_gradient.fed(source, behind, feeds)
    error = finite_differences.gradient_error(behind, feeds, point, gradient[:, 0], directions=1)
    verify.refuse_error(error, source, behind, "the gradient at the image")
    return error
