"""View: an exported file at one of its layers, and how what a run says there becomes an explanation."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastcam import kernels as kernels_
from fastcam.errors import FastcamError
from fastcam.image.preprocess import Float, Geometry
from fastcam.methods import Method
from fastcam.methods.compatibility import answered, as_float, brought_back, kernel_inputs, on_host, served
from fastcam.methods.context import Meter, Progress
from fastcam.methods.run import answers
from fastcam.render import peer_styles
from fastcam.results.explanation import Explanation
from fastcam.runtime.batch import Run
from fastcam.runtime.exported_model import Network
from fastcam.runtime.inputs import Inputs
from fastcam.schema import CLASSES, Metadata
from fastcam.targets.classes import ClassTargets, Target
from fastcam.targets.resolved import CotangentTargets, ImageTargets, combine, image_targets, named_targets, status_of


@dataclass(frozen=True)
class How:
    """What a call asks for beside images and targets; ``views``: one for each of the layers asked for, if any are."""

    method: Method
    views: tuple[View, ...]
    fuse: str | None
    style: str
    threshold: float
    connectivity: int

    def meter(self, progress: Progress | None, images: int) -> Meter:
        """Counts the runs of so many images, each at each of the layers."""
        return Meter(progress, images * max(1, len(self.views)))


@dataclass(frozen=True, eq=False)
class View:
    """A file at one of its layers.

    Attributes:
        network: whose added outputs are that layer's.
        metadata: of the file, whose layer is that one.
        inputs, kernels, batch_size: see :class:`fastcam.Explainer`.
    """

    network: Network
    metadata: Metadata
    inputs: Inputs
    kernels: Any
    batch_size: int

    def at(self, number: int) -> View:
        """The view of the layer with this number; of this one where the file has one layer alone."""
        whole = self.metadata
        here = whole.at(number) if whole.layers else whole
        return replace(self, network=self.network.at(number if number in whole.numbers() else None), metadata=here)

    def check_call(self, fuse: str | None, style: str) -> None:
        """Raise for what a call cannot ask of this file, whatever the layer and the method."""
        peer_styles.check(style, self.metadata)

    def served(self, method: str, options: Mapping[str, Any] | None, default: str) -> Method:
        """The method with its options set, which the file must be able to serve at this layer.

        Args:
            default: value of the file's default layer.
        """
        name = self.network.name
        found = self._method(method, options)
        if found.runs == "gradients" and not (self.network.takes_targets or self.metadata.cotangents):
            raise FastcamError(
                f"{name} has constant targets, and {found.title} explains one class of other images; export it "
                "again with --targets default, or required"
            )
        here = self.metadata.layer.value
        at_layer = found.mode is not None and self.metadata.of_layer_alone()
        if here != default and (found.runs == "layer" or at_layer):
            held = "has the head of" if found.runs == "layer" else f"brings {found.mode} back to"
            raise FastcamError(f"{name} {held} its default layer {default} alone; export it again with {here}")
        return found

    def _method(self, name: str, options: Mapping[str, Any] | None) -> Method:
        return served(name, self.metadata, self.network.name, options)

    def scores(self, outputs: dict[str, Any], images: int) -> Float:
        """[N, classes]; no classes where the file is about outputs that are no class scores."""
        score = self.metadata.score
        if self.metadata.cotangents and score.classes is None:
            return np.zeros((images, 0), np.float32)
        return _per_class(as_float(outputs[score.output]))

    def answer(
        self, run: Run, asked: ClassTargets | CotangentTargets
    ) -> tuple[
        dict[str, Any], Float, NDArray[np.int64], tuple[tuple[Target, ...], ...], Callable[[], list[ImageTargets]]
    ]:
        """The added outputs of one run, the scores [N, classes], the class of each target, what each target was, and
        what gives the questions to ask of other images in an image's place."""
        if isinstance(asked, CotangentTargets):
            arrays, scores, meant = asked.answer(run.forward.outputs, len(run))
            classes = np.tile(np.arange(scores.shape[1]), (len(run), 1))
            classes[classes >= np.array([[len(row)] for row in meant])] = -1  # where an image has fewer
            questions = partial(image_targets, arrays, classes, self.metadata, self.network.name)
            return self.network.explain(run.forward, arrays), scores, classes, meant, questions
        found = self.network.explain(run.forward, asked.classes)
        classes = np.asarray(found[CLASSES], np.int64)
        if classes.min() < 0:  # how a file for another engine than ONNX Runtime says so
            raise FastcamError(
                f"a target is no class, or no rank, that {self.network.name} resolves; give a class index"
            )
        if classes.max() >= run.scores.shape[1]:
            raise FastcamError(f"class {classes.max()} is out of range: the model has {run.scores.shape[1]} classes")
        found = combine(asked, found, self.metadata, self.network.name)
        questions = partial(image_targets, asked, classes, self.metadata, self.network.name)
        return found, run.scores, *named_targets(asked, classes, self.metadata.labels), questions

    def explain(self, run: Run, targets: ClassTargets | CotangentTargets, how: How, meter: Meter) -> Explanation:
        """The explanation of one run, and its post-processing."""
        (found, scores, classes, asked, questions), geometry = self.answer(run, targets), run.batch.geometry
        attributions = None
        if how.method.per_image is None:
            activations, weights, names = kernel_inputs(found, how.method, self.metadata)
        else:
            found = on_host(found)
            again = self.network, self.inputs.layout, self.batch_size, self.scores, meter
            said = answers(how.method, run, found, questions(), *again)
            activations, weights, names, attributions = answered(found, said)
        size, windows = geometry[0].network, np.array([each.target for each in geometry], np.int32)
        explained: Any = peer_styles.explain_maps(
            self.kernels, how.style, activations, weights, size, how.threshold, how.connectivity, windows
        )
        if hasattr(explained, "read"):  # on the device until now
            explained = explained.read()
        assert explained.heatmaps is not None
        boxes, components = in_original(explained, geometry)
        return Explanation(
            scores=scores,
            classes=classes,
            labels=self.metadata.labels,
            maps=explained.maps,
            heatmaps=explained.heatmaps,
            boxes=boxes,
            components=components,
            status=status_of(explained.status, names, asked),
            targets=asked,
            outputs=run.forward.outputs,
            geometry=geometry,
            files=run.batch.files,
            images=run.batch.images,
            metadata=self.metadata,
            threshold=how.threshold,
            connectivity=how.connectivity,
            method=how.method.name,
            options=dict(how.method.options),
            attributions=attributions,
            style=how.style,
            providers=self.network.providers,
            **brought_back(found, run.batch.tensor, self.inputs.layout),
        )


def _per_class(scores: Float) -> Float:
    """[N, classes]; what a segmenter gives at every position is summed over the positions, as it is explained."""
    return np.asarray(scores.reshape(*scores.shape[:2], -1).sum(axis=2), np.float32)


def in_original(
    explained: kernels_.Explained, geometry: Sequence[Geometry]
) -> tuple[Float, tuple[tuple[Float, ...], ...]]:
    """Boxes [N, T, 4] and components in original pixels; no component, a box of zeros."""
    boxes = np.zeros((*explained.counts.shape, 4), np.float32)
    components: list[list[Float]] = [[] for _ in geometry]
    start = 0
    for i, t in np.ndindex(*explained.counts.shape):
        count = int(explained.counts[i, t])
        found = explained.components[start : start + count]
        parts = np.empty((count, 5), np.float32)
        parts[:, :4], parts[:, 4] = geometry[i].to_original(found[:, :4]), found[:, 4]
        if count:
            boxes[i, t] = geometry[i].to_original(explained.largest[i, t : t + 1, :4])[0]
        components[i].append(parts)
        start += count
    return boxes, tuple(map(tuple, components))
