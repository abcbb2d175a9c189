"""The arrays of an explanation, a row for each image, and what is read off them: names, scores, boxes, peaks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from fastcam.errors import FastcamError, checked
from fastcam.image.preprocess import Float, Geometry
from fastcam.labels import short_label
from fastcam.results import report, texts
from fastcam.results.peak import in_picture, peak
from fastcam.runtime.run import per_image
from fastcam.schema import Metadata, Mode
from fastcam.targets.classes import Target

Data = TypeVar("Data", bound="ExplanationData")

OK = "ok"

# what has one row per image, by how rows are put together
ARRAYS = ("scores", "classes", "maps", "heatmaps", "boxes")
TUPLES = ("components", "status", "geometry", "files", "images", "targets")
OPTIONAL = ("input_gradients", "relevance", "inputs", "attributions")  # arrays, or None


@dataclass(frozen=True, eq=False, repr=False)
class ExplanationData:
    """The attributes of :class:`fastcam.Explanation`, which says what each is, and drawing and writing adds."""

    scores: Float
    classes: NDArray[np.int64]
    labels: tuple[str, ...] | None
    maps: Float
    heatmaps: Float
    boxes: Float
    components: tuple[tuple[Float, ...], ...]
    status: tuple[tuple[str, ...], ...]
    outputs: dict[str, Any]
    geometry: tuple[Geometry, ...]
    files: tuple[str | None, ...]
    images: tuple[NDArray[Any], ...]
    metadata: Metadata
    threshold: float
    connectivity: int
    method: str = "gradcam"
    style: str = "fastcam"
    options: Mapping[str, Any] = field(default_factory=dict)
    targets: tuple[tuple[Target, ...], ...] = ()
    providers: tuple[str, ...] = ()
    input_gradients: Float | None = None
    relevance: Float | None = None
    inputs: Float | None = None
    layers: tuple[ExplanationData, ...] = ()
    fuse: str | None = None
    fused: tuple[str, ...] = ()
    attributions: Float | None = None
    threads: int | None = None

    def __len__(self) -> int:
        return len(self.status)

    @checked
    def __getitem__(self: Data, index: int | slice) -> Data:
        if not isinstance(index, slice):
            if not -len(self) <= index < len(self):
                raise IndexError(f"image {index} of {len(self)}")
            index = slice(index % len(self), index % len(self) + 1)
        changes: dict[str, Any] = {name: getattr(self, name)[index] for name in (*ARRAYS, *TUPLES)}
        changes |= {name: array[index] for name in OPTIONAL if (array := getattr(self, name)) is not None}
        changes["layers"] = tuple(one[index] for one in self.layers)
        changes["outputs"] = {
            name: value[index] if per_image(value, len(self)) else value for name, value in self.outputs.items()
        }
        return replace(self, **changes)

    @checked
    def asked(self, i: int = 0) -> int:
        """How many targets an image has."""
        return len(self.targets[i]) if self.targets else self.classes.shape[1]

    @checked
    def label(self, i: int = 0, target: int = 0) -> str:
        """The short class name of a target, or "class 7" where the file has no names; "tabby - tiger cat"."""
        if self.targets:
            return self.targets[i][target].name
        index = int(self.classes[i, target])
        known = self.labels is not None and 0 <= index < len(self.labels)
        return short_label(self.labels[index]) if known and self.labels else f"class {index}"

    @checked
    def score(self, i: int = 0, target: int = 0) -> float:
        """The explained output's value for a target's class; of a combination the sum."""
        if self.targets:
            return float(sum(a * self.scores[i, c] for c, a in self.targets[i][target].terms))
        return float(self.scores[i, self.classes[i, target]])

    @checked
    def predicted_box(self, i: int = 0, target: int = 0) -> tuple[float, ...] | None:
        """The box that a detector predicts, and a target is about: x0, y0, x1, y1 in the picture's pixels; or None."""
        return report.predicted(self.targets[i][target], self.geometry[i]) if self.targets else None

    @checked
    def peak(self, i: int = 0, target: int = 0) -> tuple[float, ...] | None:
        """Where the heatmap of a target is highest: x, y in the picture's pixels; None where status is not "ok".

        The middle of the maximum's plateau, see :mod:`fastcam.results.peak`. Of signals x, of volumes x, y, z.
        """
        if self.status[i][target] != OK:
            return None
        if self._sampled:
            return peak(self._own(i, target))
        return in_picture(self.heatmaps[i, target], self.geometry[i])

    @property
    def _sampled(self) -> bool:
        """Whether these are signals or volumes, which are no pictures."""
        return self.metadata.kind in ("signal", "volume", "text")

    def _own(self, i: int, t: int) -> Float:
        """The heat of a signal, or of a text's own words."""
        heat = self.heatmaps[i, t]
        return texts.own(heat, self.geometry[i]) if self.metadata.kind == "text" else heat

    @property
    def guided_gradcam(self) -> Float:
        """Guided Grad-CAM, float32 [N, T, C, H, W]: guided backpropagation times the heatmap, pixel by pixel.

        Source: Selvaraju et al., "Grad-CAM", ICCV 2017, section 3.2: L^c upsampled bilinearly to the input.

        Raises:
            FastcamError: the file has no guided backpropagation.
        """
        gradients = self._of_mode("guided")
        return gradients * np.maximum(self.heatmaps, 0)[:, :, None]

    @property
    def input_x_gradient(self) -> Float:
        """Input times gradient, float32 [N, T, C, H, W] (Shrikumar et al. 2016).

        Raises:
            FastcamError: the file has no gradient at the image.
        """
        gradients = self._of_mode("gradient")
        assert self.inputs is not None
        return gradients * self.inputs[:, None]

    def _of_mode(self, mode: Mode) -> Float:
        if self.input_gradients is None or self.metadata.input_gradient != mode:
            have = self.metadata.input_gradient or "nothing at the image"
            raise FastcamError(f"the file has {have}; export the model with --input-gradient {mode}")
        return self.input_gradients
