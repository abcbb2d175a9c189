"""Video models: clips in, and an explanation of each of their frames out.

The layer's maps are [N, K, t, h, w]. A method of the CAM family treats positions alike, so time is laid under the rows
for it, [N, K, t h, w]. Of its map, [t, h, w] per target, a frame's heatmap is what lies at the frame's time: trilinear,
with half-pixel centres in time as in space. A clip has one maximum, so that its frames can be compared.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastcam import kernels as kernels_
from fastcam.errors import FastcamError
from fastcam.explain.postprocess import How, View, in_original
from fastcam.explain.streaming import is_video, read_video
from fastcam.image import preprocess as images_
from fastcam.image.preprocess import Float, Geometry, Uint8
from fastcam.methods import Method
from fastcam.methods.compatibility import kernel_inputs
from fastcam.methods.context import Meter
from fastcam.results.explanation import Explanation
from fastcam.runtime.batch import Batch, Run
from fastcam.runtime.inputs import Inputs
from fastcam.schema import ACTIVATIONS, CAM, GRADIENTS, INPUT_GRADIENT, RELEVANCE
from fastcam.targets.classes import ClassTargets
from fastcam.targets.resolved import CotangentTargets, status_of

Array = NDArray[Any]
FREE_FRAMES = 16
"""Frames of a clip where the model takes any number."""


class ClipInputs(Inputs):
    """Turns clips into batches: a video file, a list of pictures, uint8 [frames, height, width, 3], or float tensors.

    A clip has as many frames as the model takes; one with more or fewer is sampled: with M frames, the model's k-th of
    F is the one at (k + 1/2) M / F.
    """

    @property
    def order(self) -> str:
        """The input's axes, as the exporter reads them: "NCTHW" or "NTHWC", by where one or three channels lie."""
        return "NTHWC" if self.shape[-1] in (1, 3) and self.shape[1] not in (1, 3) else "NCTHW"

    @property
    def frames(self) -> int:
        """Frames of a clip."""
        count = self.shape[self.order.index("T")]
        return count if isinstance(count, int) else FREE_FRAMES

    def _guessed_layout(self) -> str:
        return "NHWC" if self.order == "NTHWC" else "NCHW"

    def _spatial(self, layout: str) -> tuple[int, int] | None:
        height, width = (self.shape[self.order.index(axis)] for axis in "HW")
        return (height, width) if isinstance(height, int) and isinstance(width, int) else None

    def sources(self, images: Any) -> tuple[Any, list[str | None]]:
        """Clips as a sequence (a checked tensor, or lists of pictures) and their paths."""
        if not isinstance(images, str | Path | list | tuple):
            images = images_.as_array(images)
            if images.dtype.kind == "f":
                return self._checked(images), [None] * len(images)
        if self.preprocessing is None:
            raise FastcamError(
                f"{self._name} does not say how pictures become its input; say it with preprocess (--preprocess), or "
                f"give a float tensor {self.order}"
            )
        clips = list(images) if _are_clips(images) else [images]
        if not clips:
            raise FastcamError("no clip given; give at least one")
        return clips, [str(clip) if isinstance(clip, str | Path) else None for clip in clips]

    def batch(self, sources: Any, files: Sequence[str | None]) -> Batch:
        """One run's clips as the network's input; ``images`` of the batch are the clips' frames."""
        order = self.order
        if isinstance(sources, np.ndarray):
            size = tuple(sources.shape[order.index(axis)] for axis in "HW")
            whole = (0, 0, size[1], size[0])
            each = np.moveaxis(sources, order.index("T"), 1).astype(np.float32, copy=False)
            return Batch(sources, tuple(each), (Geometry(size, size, whole, whole),) * len(sources), tuple(files))
        how = self.preprocessing
        assert how is not None
        read = [self._frames(clip) for clip in sources]
        made = [[images_.prepare(frame, how) for frame in clip] for clip in read]
        if len({tensor.shape for clip in made for tensor, _ in clip}) > 1:
            raise FastcamError(f"the frames of one call of {self._name} must have one size; give clips one by one")
        axis = 2 if order == "NCTHW" else 1  # of what prepare gives, [1, C, H, W] or [1, H, W, C], side by side
        tensor = np.concatenate([np.stack([tensor for tensor, _ in clip], axis) for clip in made])
        geometry = tuple(clip[0][1] for clip in made)
        return Batch(tensor.astype(self._dtype, copy=False), tuple(map(np.stack, read)), geometry, tuple(files))

    def _frames(self, clip: Any) -> list[Uint8]:
        pictures = list(read_video(clip)) if isinstance(clip, str | Path) else [images_.load(one) for one in clip]
        if not pictures:
            raise FastcamError("a clip has no frames; give at least one")
        if len({picture.shape for picture in pictures}) > 1:
            raise FastcamError("the frames of a clip have different sizes; give frames of one size")
        chosen = ((np.arange(self.frames) + 0.5) * len(pictures) / self.frames).astype(int)
        return [pictures[k] for k in chosen]


def _are_clips(images: Any) -> bool:
    """Whether this is several clips: not a path, and of entries that are clips themselves."""
    if isinstance(images, str | Path):
        return False
    first = images[0] if len(images) else None
    if isinstance(first, str | Path):
        return is_video(Path(first))
    return isinstance(first, list | tuple) or getattr(first, "ndim", 0) == 4


class VideoView(View):
    """A file of a video model at one of its layers: an explanation has a row for each frame of a clip."""

    def check_call(self, fuse: str | None, style: str) -> None:
        """Raise for what is for pictures only, too."""
        super().check_call(fuse, style)
        if fuse is not None:
            raise FastcamError("maps of clips are not fused; leave fuse out")
        if style != "fastcam":
            raise FastcamError(f"{style} makes heatmaps of pictures; leave style out for clips")

    def _method(self, name: str, options: Mapping[str, Any] | None) -> Method:
        found = super()._method(name, options)
        if found.per_image is not None:
            file = self.network.name
            raise FastcamError(f"{file} explains clips, and {found.title} pictures; use a method of one run")
        return found

    def explain(self, run: Run, targets: ClassTargets | CotangentTargets, how: How, meter: Meter) -> Explanation:
        """The explanation of one run of clips, a row for each frame: those of the first clip, then of the next.

        Scores, classes, status and targets are the clip's, the same for all of its frames. A box surrounds what
        reaches the threshold's share of the clip's maximum in a frame; a frame without any has a box of zeros.
        """
        found, scores, classes, meant, _ = self.answer(run, targets)
        activations, weights, names = kernel_inputs(laid_under(found), how.method, self.metadata)
        k = kernels_.get()
        signed = (
            k.weigh(np.asarray(activations), np.asarray(weights)) if weights is not None else np.asarray(activations)
        )
        times = (found[ACTIVATIONS] if ACTIVATIONS in found else found[CAM]).shape[2]
        frames = len(run.batch.images[0])
        positive = k.relu(signed)
        shown = by_frame(positive, times, frames)  # [N, T, frames, h, w]
        heat = by_frame(k.normalize(positive), times, frames)
        geometry = tuple(one for one in run.batch.geometry for _ in range(frames))
        heat = k.upsample(heat, geometry[0].network)
        least = how.threshold * np.repeat(heat.max((2, 3, 4)), frames, axis=0)
        made = _boxed(_rows(heat), least, how.connectivity, geometry)
        made = made._replace(maps=_rows(shown), status=np.repeat(k.status(signed), frames, axis=0))
        boxes, components = in_original(made, geometry)
        meant = tuple(row for row in meant for _ in range(frames))
        assert made.heatmaps is not None
        return Explanation(
            scores=np.repeat(scores, frames, axis=0),
            classes=np.repeat(classes, frames, axis=0),
            labels=self.metadata.labels,
            maps=made.maps,
            heatmaps=made.heatmaps,
            boxes=boxes,
            components=components,
            status=status_of(made.status, names, meant),
            targets=meant,
            outputs=run.forward.outputs,
            geometry=geometry,
            files=tuple(file for file in run.batch.files for _ in range(frames)),
            images=tuple(frame for clip in run.batch.images for frame in clip),
            metadata=self.metadata,
            threshold=how.threshold,
            connectivity=how.connectivity,
            method=how.method.name,
            providers=self.network.providers,
            **_brought_back(found, run.batch, self.inputs.layout, frames),
        )


def _brought_back(found: dict[str, Any], batch: Batch, layout: str, frames: int) -> dict[str, Any]:
    """What the mode of the file brought back to the frames or the layer, a row for each frame."""
    if RELEVANCE in found:
        relevance = np.asarray(found[RELEVANCE], np.float32)  # [N, T, t, h, w]
        return {"relevance": _rows(by_frame(_under(relevance), relevance.shape[2], frames))}
    if INPUT_GRADIENT not in found:
        return {}
    gradient, inputs = np.asarray(found[INPUT_GRADIENT]), np.asarray(batch.tensor)
    if layout == "NHWC":  # [N, T, frames, H, W, C]
        gradient, inputs = np.moveaxis(gradient, -1, 3), np.moveaxis(inputs, -1, 2)
    else:
        gradient, inputs = np.moveaxis(gradient, 3, 2), np.moveaxis(inputs, 2, 1)
    return {
        "input_gradients": _rows(gradient.astype(np.float32, copy=False)),
        "inputs": np.ascontiguousarray(inputs.reshape(-1, *inputs.shape[2:]), np.float32),
    }


def _under(maps: Array) -> Array:
    """[..., t, h, w] as [..., t h, w]."""
    return maps.reshape(*maps.shape[:-3], -1, maps.shape[-1])


def laid_under(found: dict[str, Any]) -> dict[str, Any]:
    """The added outputs with time under the rows: [..., t, h, w] as [..., t h, w]."""
    return found | {name: _under(np.asarray(found[name])) for name in (ACTIVATIONS, GRADIENTS, CAM) if name in found}


def by_frame(maps: Float, times: int, frames: int) -> Float:
    """Maps [N, T, t h, w] at the times of the frames, [N, T, frames, h, w]: linear, half-pixel centres."""
    n, t, rows, width = maps.shape
    apart = maps.reshape(n * t, times, -1)
    at = kernels_.get().upsample(np.ascontiguousarray(apart), (frames, apart.shape[2]))
    return at.reshape(n, t, frames, rows // times, width)


def _rows(maps: Float) -> Float:
    """[N, T, frames, ...] as [N frames, T, ...]."""
    return np.ascontiguousarray(np.moveaxis(maps, 2, 1).reshape(-1, maps.shape[1], *maps.shape[3:]))


def _boxed(heat: Float, least: Array, connectivity: int, geometry: Sequence[Geometry]) -> kernels_.Explained:
    """Components and boxes of what is at least ``least`` [rows, T] in heatmaps [rows, T, H, W]."""
    k = kernels_.get()
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
    return kernels_.Explained(heat, np.zeros(counts.shape, np.uint8), heat, counts, components, largest)
