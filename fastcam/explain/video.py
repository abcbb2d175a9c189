"""Video models: clips in, and an explanation of each of their frames out.

The layer's maps are [N, K, t, h, w]. A method of the CAM family treats positions alike, so time is laid under the rows
for it, [N, K, t h, w]. Of its map, [t, h, w] per target, a frame's heatmap is what lies at the frame's time: trilinear,
with half-pixel centres in time as in space. A clip has one maximum, so that its frames can be compared.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, TypeVar

import numpy as np
from numpy.typing import NDArray

from fastcam import kernels
from fastcam.errors import FastcamError
from fastcam.explain.frame_maps import frame_maps
from fastcam.explain.postprocess import LayerMaps, Placed, Rows, TargetOutputs, View, in_original, same_everywhere
from fastcam.explain.request import Request
from fastcam.image.preprocess import Float, Geometry
from fastcam.image.stacks import at_times, under_rows
from fastcam.methods import Method, layer_fusion
from fastcam.methods import method as registered
from fastcam.methods.compatibility import served
from fastcam.render import peer_styles
from fastcam.runtime.inputs.clips import clip_order
from fastcam.runtime.run import Run
from fastcam.schema import ACTIVATIONS, CAM, GRADIENTS, INPUT_GRADIENT, RELEVANCE, WEIGHTS, Metadata

T = TypeVar("T")
Array = NDArray[Any]
Statuses = NDArray[np.uint8]


class StackView(View):
    """A file of a model of stacks of pictures, clips or volumes: its maps are those of one tall picture."""

    samples: ClassVar[str]
    """What the user calls them."""

    def _method(self, name: str, options: Mapping[str, Any] | None) -> Method:
        method = super()._method(name, options)
        if method.per_image is not None:
            file = self.network.name
            raise FastcamError(f"{file} explains {self.samples}, and {method.title} pictures; use a method of one run")
        return method

    def maps(self, run: Run, outputs: TargetOutputs, request: Request) -> LayerMaps:
        """The maps of the samples, with time or slices under the rows."""
        of_pictures, added = super().maps, outputs.added
        times = (added[ACTIVATIONS] if ACTIVATIONS in added else added[CAM]).shape[2]
        found = maps_under_rows(self.metadata, outputs, lambda arranged: of_pictures(run, arranged, request), len(run))
        return replace(found, times=times)

    def heat(self, maps: LayerMaps, size: tuple[int, ...], style: str) -> tuple[Float, Float, Statuses]:
        """Of maps with times or slices under the rows: what they show that is positive, [N, T, t, h, w], their heatmaps
        [N, T, times, H, W], and the kernels' verdicts [N, T].

        Args:
            size: (times, H, W).
            style: a name of :data:`fastcam.render.peer_styles.STYLES`.
        """
        k = kernels.get()
        signed = np.asarray(maps.activations)
        if maps.weights is not None:
            signed = k.weigh(signed, np.asarray(maps.weights))
        positive, status = k.relu(signed), k.status(signed)
        status[(status == kernels.OK) & same_everywhere(positive)] = kernels.CONSTANT
        silent = (status == kernels.NON_FINITE) | (status == kernels.CONSTANT)
        n, t, rows, columns = signed.shape
        shape = (n, t, maps.times, rows // maps.times, columns)
        shown = np.where(silent[..., None, None], np.float32(0), signed).reshape(shape)
        return positive.reshape(shape), peer_styles.heatmaps(style, shown, size), status


class VideoView(StackView):
    """A file of a video model at one of its layers: an explanation has a row for each frame of a clip.

    Rows are those of the first clip, then of the next. Scores, classes, status and targets are the clip's, the same for
    all of its frames. A box surrounds what reaches the threshold's share of the clip's maximum in a frame; a frame
    without any has a box of zeros.
    """

    samples = "clips"

    def _method(self, name: str, options: Mapping[str, Any] | None) -> Method:
        method = served(name, self.metadata, self.network.name, options)
        return method if method.runs is None else super()._method(name, options)

    def maps(self, run: Run, outputs: TargetOutputs, request: Request) -> LayerMaps:
        """The maps of the clips, with times under the rows; of a mode at the image those of the frames."""
        if request.method.per_image is None:
            return super().maps(run, outputs, request)
        heat: Float | None = None
        if request.method.needs == "weights":  # Guided Grad-CAM multiplies by it
            size = (frames_of(run), *run.batch.geometry[0].network)
            plain = super().maps(run, outputs, replace(request, method=registered("gradcam")))
            heat = self.heat(plain, size, "fastcam")[1]
        there = [name for name in (ACTIVATIONS, CAM) if name in outputs.added]
        positions = tuple(outputs.added[there[0]].shape[-2:]) if there else ()
        brought = self.brought_back(run, outputs, at_layer=True)
        return frame_maps(request.method, brought, heat, positions, *self._again(outputs, request))

    def place(self, run: Run, maps: LayerMaps, request: Request) -> Placed:
        """Heatmaps and boxes of each frame."""
        frames = frames_of(run)
        size = (frames, *run.batch.geometry[0].network)
        positive, heat, status = self.heat(maps, size, request.style)  # heat [N, T, frames, H, W]
        least = request.threshold * np.repeat(heat.max((2, 3, 4)), frames, axis=0)
        geometry = _per_frame(run.batch.geometry, frames)
        explained = _boxed(_rows(heat), least, request.connectivity, geometry)
        shown = _rows(at_times(positive, frames))
        return Placed(shown, explained.maps, *in_original(explained, geometry), np.repeat(status, frames, axis=0))

    def fused(self, run: Run, name: str, maps: Sequence[Float], request: Request) -> Placed:
        """The maps of several layers, which have one of each frame, as one of each frame."""
        frames = frames_of(run)
        clips = [_clips(one, frames) for one in maps]
        fused = layer_fusion.fuse(name, clips, (frames, *run.batch.geometry[0].network))
        return self.place(run, LayerMaps(under_rows(fused), None, times=frames), request)

    def rows(self, run: Run, outputs: TargetOutputs) -> Rows:
        """The frames of all clips."""
        batch, frames = run.batch, frames_of(run)
        return Rows(
            np.repeat(outputs.scores, frames, axis=0),
            np.repeat(outputs.classes, frames, axis=0),
            _per_frame(outputs.targets, frames),
            _per_frame(batch.geometry, frames),
            _per_frame(batch.files, frames),
            tuple(frame for clip in batch.images for frame in clip),
        )

    def brought_back(self, run: Run, outputs: TargetOutputs, at_layer: bool = False) -> dict[str, Any]:
        """What the mode of the file brought back to the frames or the layer, a row for each frame.

        Args:
            at_layer: whether relevance is given as the layer has it, [N, T, t, h, w].
        """
        added, frames = outputs.added, frames_of(run)
        if RELEVANCE in added:
            relevance = np.asarray(added[RELEVANCE], np.float32)  # [N, T, t, h, w]
            return {"relevance": relevance if at_layer else _rows(at_times(relevance, frames))}
        if INPUT_GRADIENT not in added:
            return {}
        gradient, inputs = np.asarray(added[INPUT_GRADIENT]), np.asarray(run.batch.tensor)
        order = self.metadata.order or clip_order(self.inputs.shape)
        axes = [order.index(letter) for letter in "NTCHW"]
        inputs = inputs.transpose(axes)
        gradient = gradient.transpose(0, 1, *(1 + axis for axis in axes[1:]))  # [N, targets, frames, C, H, W]
        return {
            "input_gradients": _rows(gradient.astype(np.float32, copy=False)),
            "inputs": np.ascontiguousarray(inputs.reshape(-1, *inputs.shape[2:]), np.float32),
        }


def frames_of(run: Run) -> int:
    """Frames of each clip of a run."""
    return len(run.batch.images[0])


def _per_frame(values: tuple[T, ...], frames: int) -> tuple[T, ...]:
    """A value of each clip as one of each frame."""
    return tuple(value for value in values for _ in range(frames))


def time_under_rows(added: dict[str, Any]) -> dict[str, Any]:
    """The added outputs with time under the rows: [..., t, h, w] as [..., t h, w]."""
    there = [name for name in (ACTIVATIONS, GRADIENTS, CAM) if name in added]
    return added | {name: under_rows(np.asarray(added[name])) for name in there}


def maps_under_rows(
    metadata: Metadata, outputs: TargetOutputs, of_pictures: Callable[[TargetOutputs], LayerMaps], clips: int
) -> LayerMaps:
    """The maps that a method of pictures makes of clips or volumes, [N, T, t h, w]: all times or slices of one as a
    picture; where a layer has those of all clips in its batch, each as a picture of its own."""
    if metadata.layer.layout not in ("FCHW", "FHWC"):
        return of_pictures(replace(outputs, added=time_under_rows(outputs.added)))
    found = of_pictures(replace(outputs, added=apart(outputs.added)))
    signed = np.asarray(found.activations)
    if found.weights is not None:
        signed = kernels.get().weigh(signed, np.asarray(found.weights))
    together = signed.reshape(clips, -1, *signed.shape[1:])  # [N, t, T, h, w]
    return replace(found, activations=under_rows(np.ascontiguousarray(np.moveaxis(together, 1, 2))), weights=None)


def apart(added: dict[str, Any]) -> dict[str, Any]:
    """The added outputs of sequences of pictures as those of their pictures: the axis of pictures joins the images."""
    axes = {ACTIVATIONS: 2, WEIGHTS: 3, GRADIENTS: 3, CAM: 2}
    there = {name: np.moveaxis(np.asarray(added[name]), axis, 1) for name, axis in axes.items() if name in added}
    return added | {name: np.ascontiguousarray(a.reshape(-1, *a.shape[2:])) for name, a in there.items()}


def _rows(maps: Float) -> Float:
    """[N, T, frames, ...] as [N frames, T, ...]."""
    return np.ascontiguousarray(np.moveaxis(maps, 2, 1).reshape(-1, maps.shape[1], *maps.shape[3:]))


def _clips(maps: Float, frames: int) -> Float:
    """The way back, [N frames, T, h, w] as [N, T, frames, h, w]."""
    return np.ascontiguousarray(np.moveaxis(maps.reshape(-1, frames, *maps.shape[1:]), 1, 2))


def _boxed(heat: Float, least: Array, connectivity: int, geometry: Sequence[Geometry]) -> kernels.Explained:
    """Components and boxes of what is at least ``least`` [rows, T] in heatmaps [rows, T, H, W], which are its maps."""
    k = kernels.get()
    counts = np.zeros(heat.shape[:2], np.int32)
    largest = np.zeros((*heat.shape[:2], 5), np.int32)
    parts = []
    for row, t in np.ndindex(*counts.shape):
        mask = ((heat[row, t] >= least[row, t]) & (heat[row, t] > 0)).astype(np.uint8)
        labels, count = k.label(geometry[row].inside(mask), connectivity)
        counts[row, t] = count
        if counts[row, t]:
            parts.append(k.boxes(labels, int(count)))
            largest[row, t] = parts[-1][k.largest(parts[-1])]
    components = np.concatenate(parts) if parts else np.zeros((0, 5), np.int32)
    return kernels.Explained(heat, np.zeros(counts.shape, np.uint8), heat, counts, components, largest)
