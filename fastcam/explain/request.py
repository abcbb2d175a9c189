"""Request: what one call asks, resolved and checked once, before anything runs, and passed down unchanged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from fastcam.errors import FastcamError
from fastcam.methods import Method
from fastcam.methods.context import Meter, Progress
from fastcam.results.prediction import Prediction
from fastcam.runtime.inputs import Sources
from fastcam.targets.classes import ClassTargets
from fastcam.targets.resolved import CotangentTargets
from fastcam.targets.spec_kinds import CotangentLike

Layers: TypeAlias = "str | int | Sequence[str | int] | None"
"""The layers that a caller may ask for: "all", names or numbers; None is the default layer alone."""
ResolvedTargets: TypeAlias = "ClassTargets | CotangentTargets"


@dataclass(frozen=True)
class ExplainOptions:
    """The parameters of :meth:`fastcam.Explainer.__call__`, ``explain`` and ``stream``, as the caller gave them.

    :meth:`fastcam.Explainer.__call__` says what each is.
    """

    targets: Any = -1
    threshold: float = 0.15
    connectivity: int = 8
    cotangent: CotangentLike | None = None
    method: str = "gradcam"
    layers: Layers = None
    fuse: str | None = None
    style: str = "fastcam"
    options: Mapping[str, Any] | None = None
    progress: Progress | None = None

    def __post_init__(self) -> None:
        if not 0 < self.threshold <= 1:
            raise FastcamError(f"the threshold is a fraction of the heatmap's maximum, in (0, 1], got {self.threshold}")


@dataclass(frozen=True, eq=False)
class Request:
    """What one call asks of a file that can answer it.

    Attributes:
        images: pictures, clips or tensors still to run, or a prediction, whose runs are there; empty where they come
            later: frames of a stream, a batch on the device.
        targets: classes and ranks or cotangents, a row for each image or one for all.
        method: with its options set.
        layers: numbers of the layers asked for, from 1, in the order in which an image passes them; none where it is
            the default layer alone.
        fuse: a name of :data:`fastcam.methods.layer_fusion.FUSIONS`, or None.
        style: a name of :data:`fastcam.render.peer_styles.STYLES`.
        threshold, connectivity: how boxes are made.
        progress: counts what methods run again.
    """

    images: Sources | Prediction
    targets: ResolvedTargets
    method: Method
    layers: tuple[int, ...]
    fuse: str | None
    style: str
    threshold: float
    connectivity: int
    progress: Meter

    def of(self, rows: slice) -> Request:
        """The request of some of the images, those of one run."""
        return self if len(self.targets) == 1 else replace(self, targets=self.targets[rows])
