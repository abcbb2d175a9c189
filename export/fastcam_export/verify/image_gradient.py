"""The check of the gradient at the image, by central differences; of what is no derivative there is none."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx

from fastcam import schema
from fastcam.schema import Mode
from fastcam_export.layers.layout import Layout
from fastcam_export.verify import finite_differences, stop_gradient
from fastcam_export.verify.check import refuse_error
from fastcam_export.verify.sample import Sample
from fastcam_export.verify.session import quiet_session


def summary_lines(mode: Mode | None, check: Mapping[str, Any]) -> list[str]:
    """What the summary of an export says of the check of a mode."""
    if mode is None:
        return []
    if "input_gradient_error" in check:
        return [
            f"        gradient at the image equal to central differences within {check['input_gradient_error']:.1e}"
        ]
    return [f"        {mode} is no derivative, which differences could confirm: its outputs were not checked"]


def check(source: onnx.ModelProto, exported: onnx.ModelProto, tail: onnx.ModelProto, sample: Sample) -> float:
    """Compare the gradient at the image with central differences; the worst error, as a share of the gradient's norm.

    Args:
        source, exported: the two models.
        tail: :func:`fastcam_export.verify.tail.tail` of the source, behind the image.
        sample: the inputs.

    Raises:
        FastcamError: the error is larger than :data:`fastcam_export.verify.check.GRADIENT_TOLERANCE` allows.
    """
    image = sample.image
    dims = next(value.type.tensor_type.shape.dim for value in exported.graph.input if value.name == image)
    if len(sample.feeds) == 1 and dims[0].dim_param:
        sample = sample.of_one_image()  # each step takes the whole model in float64
    outputs = {}
    if sample.cotangents:
        own = [value.name for value in source.graph.output]
        outputs = dict(zip(own, quiet_session(source).run(own, dict(sample.feeds))))
    targets = sample.targets(exported, outputs)
    names = [schema.INPUT_GRADIENT] if sample.cotangents else [schema.INPUT_GRADIENT, schema.CLASSES]
    run = dict(zip(names, quiet_session(exported).run(names, {**sample.feeds, **targets})))
    gradient = run[schema.INPUT_GRADIENT]
    cotangents = tuple(targets.values()) if sample.cotangents else ()
    classes = np.zeros((len(gradient), 1), np.int64) if sample.cotangents else run[schema.CLASSES]
    pixels = sample.feeds[image]
    layout = Layout("NCHW" if pixels.ndim == 4 else "NCTHW")  # as it lies: nothing is to be reordered
    point = finite_differences.Point(pixels, layout, pixels, classes, cotangents)
    feeds = stop_gradient.fed(source, tail, sample.feeds)
    error = finite_differences.gradient_error(tail, feeds, point, gradient[:, 0], directions=1)
    refuse_error(error, source, tail, "the gradient at the image")
    return error
