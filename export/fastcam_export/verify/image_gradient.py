"""The check of the gradient at the image, by central differences; of what is no derivative there is none."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from fastcam import schema
from fastcam.schema import Mode
from fastcam_export.graph.load import Loaded
from fastcam_export.layers.layout import Layout
from fastcam_export.verify import finite_differences, stop_gradient
from fastcam_export.verify.check import refuse_error, tolerance
from fastcam_export.verify.rounded_point import measured
from fastcam_export.verify.session import quiet_session
from fastcam_export.verify.source_runs import SourceRun


def summary_lines(mode: Mode | None, check: Mapping[str, Any]) -> list[str]:
    """What the summary of an export says of the check of a mode."""
    if mode is None:
        return []
    if "input_gradient_error" in check:
        return [
            f"        gradient at the image equal to central differences within {check['input_gradient_error']:.1e}"
        ]
    return [f"        {mode} is no derivative, which differences could confirm: its outputs were not checked"]


class AsItLies(Layout):
    """That of the input itself, of any number of axes: nothing is to be reordered."""

    def write(self, raw: NDArray[Any], maps: NDArray[Any]) -> NDArray[Any]:
        """The input in place of itself."""
        return maps


def check(loaded: Loaded, exported: onnx.ModelProto, tail: onnx.ModelProto, run: SourceRun) -> float:
    """Compare the gradient at the image with central differences; the worst error, as a share of the gradient's norm.

    Args:
        loaded, exported: the two models.
        tail: :func:`fastcam_export.verify.tail.tail` of the source, behind the image.
        run: the source on the check's images.

    Raises:
        FastcamError: the error is larger than :data:`fastcam_export.verify.check.GRADIENT_TOLERANCE` allows.
    """
    sample, image = run.sample, run.sample.image
    dims = next(value.type.tensor_type.shape.dim for value in exported.graph.input if value.name == image)
    outputs = run.outputs
    if len(sample.feeds) == 1 and dims[0].dim_param and not sample.drawn:
        sample = sample.of_one_image()  # each step takes the whole model in float64
        if sample.cotangents:
            own = list(run.outputs)
            outputs = dict(zip(own, quiet_session(loaded.proto).run(own, dict(sample.feeds))))
    targets = sample.targets(exported, outputs)
    names = [schema.INPUT_GRADIENT] if sample.cotangents else [schema.INPUT_GRADIENT, schema.CLASSES]
    session = quiet_session(stop_gradient.with_inputs(exported, list(sample.drawn)))
    found = dict(zip(names, session.run(names, {**sample.with_drawn, **targets})))
    gradient = found[schema.INPUT_GRADIENT]
    cotangents = tuple(targets.values()) if sample.cotangents else ()
    classes = np.zeros((len(gradient), 1), np.int64) if sample.cotangents else found[schema.CLASSES]
    pixels = sample.feeds[image]
    layout = AsItLies("NCHW")
    point = finite_differences.Point(pixels, layout, pixels, classes, cotangents)
    feeds = measured(loaded.model, tail, stop_gradient.fed(loaded.model, tail, sample.with_drawn), pixels)
    allowed = tolerance(loaded.proto, tail)
    agreement = finite_differences.compare(tail, feeds, point, gradient[:, 0], allowed, directions=1)
    refuse_error(agreement, "the gradient at the image")
    return agreement.error
