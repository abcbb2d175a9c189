"""From a run to its explanation: an exported file at one of its layers, its maps, and their heatmaps and boxes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastcam import kernels as kernels_
from fastcam.errors import FastcamError, listed
from fastcam.explain.request import Request, ResolvedTargets
from fastcam.image.preprocess import Float, Geometry, Size
from fastcam.methods import Method, layer_fusion
from fastcam.methods.compatibility import as_float, brought_back, kernel_inputs, on_host, served, stacked
from fastcam.methods.context import Probe
from fastcam.methods.run import check_input, probes, run_method
from fastcam.render import peer_styles
from fastcam.results.explanation import Explanation
from fastcam.runtime.exported_model import Network
from fastcam.runtime.inputs.base import Inputs
from fastcam.runtime.run import Run
from fastcam.schema import CLASSES, Cotangent, Metadata, Score
from fastcam.targets.classes import ClassTargets, Target
from fastcam.targets.prompts import TextSide
from fastcam.targets.resolved import CotangentTargets, ImageTargets, combine, image_targets, named_targets, status_of
from fastcam.targets.spec_parser import sizes


@dataclass(frozen=True, eq=False)
class TargetOutputs:
    """What a run says of its targets at one layer.

    Attributes:
        added: the file's added outputs by name, put together where targets are combinations.
        scores: float32 [N, classes]; of cotangents [N, T], their values.
        classes: int64 [N, T], the class of each target.
        targets: per image what each target was, where they are not one class each.
        resolved: what the file explained: classes and their combinations, or cotangents by input.
        columns: int64 [N, U], the classes as the file resolved them.
    """

    added: dict[str, Any]
    scores: Float
    classes: NDArray[np.int64]
    targets: tuple[tuple[Target, ...], ...]
    resolved: ClassTargets | Mapping[str, Float]
    columns: NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class LayerMaps:
    """What a method makes of a run: maps [N, T, h, w] as the kernels take them.

    Attributes:
        activations: float32 [N, K, h, w]; or where ``weights`` is None the signed maps themselves, [N, T, h, w].
        weights: float32 [N, T, K]: a map is the sum of the activations times these; or None.
        status_names: names of the kernels' verdicts, by number.
        attributions: float32 [N, T, C, H, W] of a method that explains the image itself, or None.
        times: of clips and volumes, whose times or slices lie under the rows: how many they are.
    """

    activations: Any
    weights: Any
    status_names: Sequence[str] = kernels_.STATUS_NAMES
    attributions: Float | None = None
    times: int = 1


@dataclass(frozen=True, eq=False)
class Placed:
    """Maps with their heatmaps, and boxes in original pixels; the fields are those of an Explanation.

    ``status`` holds the kernels' verdicts, uint8 [N, T].
    """

    maps: Float
    heatmaps: Float
    boxes: Float
    components: tuple[tuple[Float, ...], ...]
    status: NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Rows:
    """What the rows of an explanation are of: the pictures of a run, or the frames of its clips."""

    scores: Float
    classes: NDArray[np.int64]
    targets: tuple[tuple[Target, ...], ...]
    geometry: tuple[Geometry, ...]
    files: tuple[str | None, ...]
    images: tuple[NDArray[Any], ...]


@dataclass(frozen=True, eq=False)
class View:
    """A file at one of its layers.

    Attributes:
        network: whose added outputs are that layer's.
        metadata: of the file, whose layer is that one.
        inputs, kernels, batch_size: see :class:`fastcam.Explainer`.
        texts: of a file of embeddings, prompts that are its classes.
    """

    network: Network
    metadata: Metadata
    inputs: Inputs
    kernels: Any
    batch_size: int
    texts: TextSide | None = None

    def at(self, number: int) -> View:
        """The view of the layer with this number; of this one where the file has one layer alone."""
        whole = self.metadata
        here = whole.at(number) if whole.layers else whole
        return replace(self, network=self.network.at(number if number in whole.numbers() else None), metadata=here)

    # ---- what can be asked

    def check_call(self, fuse: str | None, style: str) -> None:
        """Raise for what a call cannot ask of this file, whatever the layer and the method."""
        peer_styles.check(style, self.metadata)

    def served(self, name: str, options: Mapping[str, Any] | None, default: str) -> Method:
        """The method called ``name`` with its options set, which the file must be able to serve at this layer.

        Args:
            default: value of the file's default layer.

        Raises:
            FastcamError: no such method or option, or one that the file cannot serve here.
        """
        file = self.network.name
        method = self._method(name, options)
        if method.runs == "gradients" and not (self.network.takes_targets or self.metadata.cotangents):
            raise FastcamError(
                f"{file} has constant targets, and {method.title} explains one class of other images; export it "
                "again with --targets default, or required"
            )
        here = self.metadata.layer.value
        at_layer = method.mode is not None and self.metadata.of_layer_alone()
        if here != default and (method.runs == "layer" or at_layer):
            has = "has the head of" if method.runs == "layer" else f"brings {method.mode} back to"
            raise FastcamError(f"{file} {has} its default layer {default} alone; export it again with {here}")
        return method

    def _method(self, name: str, options: Mapping[str, Any] | None) -> Method:
        return served(name, self.metadata, self.network.name, options)

    # ---- the way from a run to its explanation

    def explain(self, run: Run, request: Request) -> Explanation:
        """The explanation of one run at this layer; ``request`` is that of its images."""
        outputs = self.outputs(run, request.targets)
        maps = self.maps(run, outputs, request)
        placed = self.place(run, maps, request)
        rows = self.rows(run, outputs)
        return Explanation(
            scores=rows.scores,
            classes=rows.classes,
            labels=self.metadata.labels,
            maps=placed.maps,
            heatmaps=placed.heatmaps,
            boxes=placed.boxes,
            components=placed.components,
            status=status_of(placed.status, list(maps.status_names), rows.targets),
            targets=rows.targets,
            outputs=run.forward.outputs,
            geometry=rows.geometry,
            files=rows.files,
            images=rows.images,
            metadata=self.metadata,
            threshold=request.threshold,
            connectivity=request.connectivity,
            method=request.method.name,
            options=dict(request.method.options),
            attributions=maps.attributions,
            style=request.style,
            providers=self.network.providers,
            threads=self.network.threads,
            **self.brought_back(run, outputs),
        )

    def outputs(self, run: Run, targets: ResolvedTargets) -> TargetOutputs:
        """The added outputs of a run for its targets.

        Raises:
            FastcamError: the file resolves a target to no class, or holds what does not add up to combinations.
        """
        if isinstance(targets, CotangentTargets):
            return self._cotangent_outputs(run, targets)
        added = self.network.explain(run.forward, targets.classes)
        columns = np.asarray(added[CLASSES], np.int64)
        asked = len(run), targets.classes.shape[1]
        if columns.shape != asked:
            raise FastcamError(
                f"{self.network.name} is damaged: asked for {asked[1]} targets of {asked[0]} images it explains "
                f"{list(columns.shape)}; export it again"
            )
        every = columns.ravel().tolist()
        if min(every) < 0:  # how a file for another engine than ONNX Runtime says so
            raise FastcamError(
                f"a target is no class, or no rank, that {self.network.name} resolves; give a class index"
            )
        if max(every) >= run.scores.shape[1]:
            raise FastcamError(f"class {max(every)} is out of range: the model has {run.scores.shape[1]} classes")
        added = combine(targets, added, self.metadata, self.network.name)
        classes, names = named_targets(targets, columns, self.metadata.labels)
        return TargetOutputs(added, run.scores, classes, names, targets, columns)

    def _cotangent_outputs(self, run: Run, targets: CotangentTargets) -> TargetOutputs:
        arrays, scores, names = targets.answer(
            run.forward.outputs, len(run), run.batch.geometry[0].network, run.batch.files
        )
        columns = np.tile(np.arange(scores.shape[1]), (len(run), 1))
        columns[columns >= np.array([[len(row)] for row in names])] = -1  # where an image has fewer
        return TargetOutputs(self.network.explain(run.forward, arrays), scores, columns, names, arrays, columns)

    def maps(self, run: Run, outputs: TargetOutputs, request: Request) -> LayerMaps:
        """What the method makes of the outputs; one that asks runs the model again."""
        method = request.method
        if method.per_image is None:
            return LayerMaps(*kernel_inputs(outputs.added, method, self.metadata))
        check_input(method, np.asarray(run.batch.tensor).dtype, self.network.name)
        added = on_host(outputs.added)
        results = run_method(method, self._probes(run, added, outputs, request), request.progress)
        return LayerMaps(*stacked(added, results))

    def probes(self, run: Run, request: Request) -> Iterator[Probe]:
        """A probe of each image of a run, for the targets of ``request``."""
        outputs = self.outputs(run, request.targets)
        return self._probes(run, on_host(outputs.added), outputs, request)

    def _probes(self, run: Run, added: Mapping[str, Any], outputs: TargetOutputs, request: Request) -> Iterator[Probe]:
        targets, again = self._again(outputs, request)
        return probes(run, added, targets, *again)

    def _again(self, outputs: TargetOutputs, request: Request) -> tuple[list[ImageTargets], tuple[Any, ...]]:
        """What is explained of each image, and what it takes to run one again."""
        targets = image_targets(outputs.resolved, outputs.columns, self.metadata, self.network.name)
        return targets, (self.network, self.inputs.layout, self.batch_size, self.scores, request.progress)

    def place(self, run: Run, maps: LayerMaps, request: Request) -> Placed:
        """Heatmaps of the maps, and boxes in pixels of the pictures."""
        return place(self.kernels, maps, run.batch.geometry, request)

    def fused(self, run: Run, name: str, maps: Sequence[Float], request: Request) -> Placed:
        """The maps that a run's explanations have at several layers as one map, with its heatmaps and boxes.

        Args:
            name: a name of :data:`fastcam.methods.layer_fusion.FUSIONS`.
        """
        fused = layer_fusion.fuse(name, maps, run.batch.geometry[0].network)
        return place(kernels_.get(), LayerMaps(fused, None), run.batch.geometry, request)

    def rows(self, run: Run, outputs: TargetOutputs) -> Rows:
        """What the rows of the explanation are of."""
        batch = run.batch
        return Rows(outputs.scores, outputs.classes, outputs.targets, batch.geometry, batch.files, batch.images)

    def brought_back(self, run: Run, outputs: TargetOutputs) -> dict[str, Any]:
        """What the mode of the file brought back to the image or the layer, by the Explanation's names."""
        return brought_back(outputs.added, run.batch.tensor, self.inputs.layout)

    def scores(self, outputs: dict[str, Any], images: int) -> Float:
        """float32 [N, classes] of the model's outputs; no classes where the file is about what are no class scores.

        What a segmenter gives at every position is summed over the positions, as it is explained.
        """
        score = self.metadata.score
        if self.texts is not None:
            return self.texts.scores(embedding_of(self.metadata), outputs)
        if self.metadata.cotangents and score.classes is None:
            return np.zeros((images, 0), np.float32)
        return class_scores(as_float(outputs[score.output]), score)


def embedding_of(metadata: Metadata) -> Cotangent:
    """The output of a file that is compared with texts: the only one of numbers without a place."""
    found = [one for one in metadata.cotangents if one.batched and len(sizes(one)) == 1]
    if len(found) != 1:
        have = listed(f"{one.output} {list(one.shape)}" for one in metadata.cotangents) or "class scores"
        raise FastcamError(
            f"prompts are compared with one embedding of the picture, and the file explains {have}; export with "
            "--targets cotangent --output-name of the embedding"
        )
    return found[0]


def class_scores(output: Float, score: Score) -> Float:
    """float32 [N, classes] of the output that holds them, see :class:`fastcam.schema.Score`."""
    if score.single:
        one = output.reshape(len(output), 1)
        return np.asarray(np.concatenate([-one if score.single == "logit" else 1 - one, one], axis=1), np.float32)
    if output.ndim == 2 and score.axis == 1:
        return output.astype(np.float32)
    first = np.moveaxis(output, score.axis, 1) if output.ndim > 1 else output[:, None]
    return np.asarray(first.reshape(*first.shape[:2], -1).sum(axis=2), np.float32)


def explain_maps(
    kernels: Any,
    maps: LayerMaps,
    size: Size,
    request: Request,
    windows: NDArray[np.int32] | None = None,
    want_heatmaps: bool = True,
) -> Any:
    """Maps weighed, enlarged to ``size`` and boxed: where every explanation of pictures calls the kernels.

    Args:
        kernels: of the CPU; or those of a GPU, which leave what they return there.
        windows: int32 [N, 4], where boxes may lie: x0, y0, x1, y1 in the network's input.

    Returns:
        see :class:`fastcam.kernels.Explained`, boxes in pixels of the network's input.
    """
    arrays = maps.activations, maps.weights
    boxes = request.threshold, request.connectivity
    return peer_styles.explain_maps(kernels, request.style, *arrays, size, *boxes, windows, want_heatmaps)


def place(kernels: Any, maps: LayerMaps, geometry: Sequence[Geometry], request: Request) -> Placed:
    """Heatmaps of maps of pictures, and boxes in pixels of the pictures, on the host."""
    windows = None
    if any(each.has_bars for each in geometry):
        windows = np.array([each.target for each in geometry], np.int32)
    explained = explain_maps(kernels, maps, geometry[0].network, request, windows)
    if hasattr(explained, "read"):  # on the device until now
        explained = explained.read()
    placed = Placed(explained.maps, explained.heatmaps, *in_original(explained, geometry), explained.status)
    return without_constants(placed)


def without_constants(placed: Placed) -> Placed:
    """Maps that are the same everywhere say nothing about where: their status is "constant", and they have no heat."""
    same = same_everywhere(placed.maps)
    if not any(same.flat):
        return placed
    constant = same & (placed.status == kernels_.OK)
    heatmaps, boxes, status = placed.heatmaps.copy(), placed.boxes.copy(), placed.status.copy()
    heatmaps[constant], boxes[constant], status[constant] = 0, 0, kernels_.CONSTANT
    components = tuple(
        tuple(found[:0] if constant[n, t] else found for t, found in enumerate(row))
        for n, row in enumerate(placed.components)
    )
    return Placed(placed.maps, heatmaps, boxes, components, status)


def same_everywhere(maps: Float) -> NDArray[np.bool_]:
    """Which of the maps [N, T, ...] are; differences below a millionth of the value are rounding."""
    backend: Any = kernels_.get()
    same: NDArray[np.bool_] = backend.same_everywhere(maps)
    return same


def in_original(
    explained: kernels_.Explained, geometry: Sequence[Geometry]
) -> tuple[Float, tuple[tuple[Float, ...], ...]]:
    """Boxes [N, T, 4] and components in original pixels; no component, a box of zeros."""
    backend: Any = kernels_.get()  # of the processor
    ways = [each.way_back for each in geometry]
    found: tuple[Float, tuple[tuple[Float, ...], ...]]
    found = backend.in_original(explained.counts, explained.components, ways)
    return found
