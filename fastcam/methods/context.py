"""Probe: what a method may ask about one image of a run: its values, and the network or a part of it once more."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastcam import kernels
from fastcam.image.preprocess import Float
from fastcam.runtime.exported_model import Network
from fastcam.runtime.inputs.further_inputs import FurtherValues
from fastcam.schema import (
    ACTIVATIONS,
    CAM,
    GRADIENTS,
    INPUT_GRADIENT,
    RELEVANCE,
    TOKENS,
    WEIGHTS,
)
from fastcam.targets.resolved import ImageTargets

Progress = Callable[[int, int], None]
"""Called with how many changed inputs have run, and of how many (about: what need not run is counted at the end)."""
LAYER_BYTES = 1 << 25
"""About how much of a changed layer runs at once."""


class Meter:
    """Counts the runs of a call for a progress bar.

    Args:
        progress: see :data:`Progress`, or None.
        images: of the call.
    """

    def __init__(self, progress: Progress | None, images: int) -> None:
        self._progress, self._images = progress, images
        self._each = self._finished = self._done = 0

    def expect(self, runs: int) -> None:
        """An image needs about so many runs."""
        self._each = runs

    def add(self, runs: int) -> None:
        """So many have run."""
        self._done = min(self._done + runs, self._each)
        self._tell()

    def image_done(self) -> None:
        """An image is finished."""
        self._finished, self._done = self._finished + 1, 0
        self._tell()

    def _tell(self) -> None:
        if self._progress is not None and self._each:
            self._progress(self._finished * self._each + self._done, self._images * self._each)


@dataclass(frozen=True, eq=False)
class Probe:
    """One image with T targets, as a method sees it. Images are [C, H, W], whatever the model's own order.

    Attributes:
        x: float32 [C, H, W], the network's input.
        explained: what is explained.
        targets: T.
        outputs: the added outputs of the image's own run by name, without the axis of images, put together for
            combinations; :meth:`value` reads them.
        batch_size: images per run.
    """

    x: Float
    explained: ImageTargets
    targets: int
    outputs: Mapping[str, Any]
    batch_size: int
    _network: Network
    _order: str
    _dtype: Any
    _of_outputs: Callable[[dict[str, Any], int], Float]
    _meter: Meter
    _further: FurtherValues

    # ---- the image's own run

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) of the input."""
        return self.x.shape[1], self.x.shape[2]

    @property
    def activations(self) -> Float:
        """float32 [K, h, w]."""
        return self._own(ACTIVATIONS)

    @property
    def layer(self) -> tuple[int, ...]:
        """(h, w) of the target layer; () where the file emits nothing of its size."""
        known = [name for name in (ACTIVATIONS, CAM) if name in self.outputs]
        return tuple(self.outputs[known[0]].shape[-2:]) if known else ()

    @property
    def gradients(self) -> Float:
        """float32 [T, K, h, w]."""
        return self._own(GRADIENTS)

    @property
    def attributions(self) -> Float:
        """What the file's mode brought to the image, float32 [T, C, H, W], or to the layer, [T, h, w]."""
        return self._own(RELEVANCE) if RELEVANCE in self.outputs else self._first(self._own(INPUT_GRADIENT))

    def gradcam(self) -> Float:
        """Grad-CAM's heatmaps, float32 [T, H, W] in 0..1."""
        k = kernels.get()
        if CAM in self.outputs:
            maps = self._own(CAM)
        else:
            weights = self._own(WEIGHTS) if WEIGHTS in self.outputs else self.gradients.mean((2, 3), dtype=np.float64)
            maps = k.relu(k.weigh(self.activations[None], np.asarray(weights, np.float32)[None])[0])
        heatmaps: Float = k.upsample(k.normalize(np.ascontiguousarray(maps)), self.size)
        return heatmaps

    def _own(self, name: str) -> Float:
        return np.ascontiguousarray(self.outputs[name], np.float32)

    # ---- once more

    def expect(self, runs: int) -> None:
        """Say how many inputs will run, for a progress bar."""
        self._meter.expect(runs)

    def scores(self, images: Float) -> Float:
        """What is explained, of other images [M, C, H, W]: float32 [M, T]."""
        return self._each(images, self.batch_size, self._scores)

    def class_scores(self, images: Float) -> Float:
        """The model's output for all classes of other images [M, C, H, W]: float32 [M, classes]; no classes where the
        file explains what are no class scores."""
        return self._each(images, self.batch_size, self._class_scores)

    def layer_scores(self, activations: Float, tokens: bool = True) -> Float:
        """What is explained, if the layer were these activations [M, K, h, w]: float32 [M, T].

        Args:
            tokens: of a sequence: whether what stands for no position (a class token) stays as it is; otherwise zeros.
        """

        def ask(part: Float) -> Float:
            return self.explained.scores(self._head_scores(part, tokens), {}, len(part))

        return self._each(activations, self.layer_batch, ask)

    def layer_class_scores(self, activations: Float) -> Float:
        """What the file explains of all classes, if the layer were these activations [M, K, h, w]: float32
        [M, classes]."""
        return self._each(activations, self.layer_batch, self._head_scores)

    @property
    def layer_batch(self) -> int:
        """How many changed activations run at once."""
        return max(1, LAYER_BYTES // max(1, self.activations.nbytes))

    def added(self, images: Iterable[Float], count: int) -> Iterator[dict[str, Any]]:
        """The added outputs at ``count`` other images [C, H, W]: by name [T, ...], one image after the other."""
        self.expect(count)
        rest = iter(images)
        while part := list(islice(rest, self.batch_size)):
            tensor = self.tensor(np.stack(part))
            targets = self.explained.targets(len(part))
            run = self._network.forward(tensor, targets, self._further.repeated(len(part)))
            added = self.explained.combined(self._network.explain(run, targets))
            added = in_one_row(added) if "L" in self._order else added
            self._meter.add(len(part))
            for i in range(len(part)):
                yield {name: np.asarray(value)[i] for name, value in added.items()}

    def input_gradients(self, images: Iterable[Float], count: int) -> Iterator[Float]:
        """The gradient at other images, as :meth:`added`: float32 [T, C, H, W] each."""
        return (self._first(np.asarray(added[INPUT_GRADIENT], np.float32)) for added in self.added(images, count))

    # ---- inside

    def _each(self, inputs: Float, size: int, ask: Callable[[Float], Float]) -> Float:
        rows = []
        for start in range(0, len(inputs), size):
            rows.append(ask(inputs[start : start + size]))
            self._meter.add(len(rows[-1]))
        return np.concatenate(rows)

    def _scores(self, images: Float) -> Float:
        outputs = self._network.own(self.tensor(images), self._further.repeated(len(images)))
        return self.explained.scores(self._of_outputs(outputs, len(images)), outputs, len(images))

    def _class_scores(self, images: Float) -> Float:
        outputs = self._network.own(self.tensor(images), self._further.repeated(len(images)))
        return self._of_outputs(outputs, len(images))

    def _head_scores(self, part: Float, tokens: bool = True) -> Float:
        head = self._network.metadata.head
        rest = {name: np.asarray(self.outputs[name])[None] for name in (head.kept if head is not None else ())}
        if TOKENS in rest and not tokens:
            rest[TOKENS] = np.zeros_like(rest[TOKENS])
        part = np.ascontiguousarray(part[:, :, 0]) if "L" in self._order else part
        kept = {name: np.repeat(value, len(part), axis=0) for name, value in rest.items()}
        return np.asarray(self._network.head(part, kept), np.float32)

    def tensor(self, images: Float) -> NDArray[Any]:
        """Images [M, C, H, W] as the network takes them, in its layout and dtype."""
        return np.ascontiguousarray(as_input(images, self._order), self._dtype)

    def _first(self, array: Float) -> Float:
        """Channels in front of rows and columns."""
        return np.ascontiguousarray(as_planes(array, self._order))


def as_planes(inputs: NDArray[Any], order: str) -> NDArray[Any]:
    """[..., network's axes] as [..., C, H, W]; a signal is a picture of one row.

    Args:
        order: of the network's axes, the first of images: "NCHW", "NHWC", "NHW", "NCL", "NLC" or "NL".
    """
    if order.endswith("C"):
        inputs = np.moveaxis(inputs, -1, 1 - len(order))
    if "L" in order:
        return inputs[..., None, :] if "C" in order else inputs[..., None, None, :]
    return inputs if "C" in order else inputs[..., None, :, :]


def as_input(images: NDArray[Any], order: str) -> NDArray[Any]:
    """The way back, of images [M, C, H, W]."""
    if "L" in order:
        images = images[:, :, 0] if "C" in order else images[:, 0, 0]
    elif "C" not in order:
        return images[:, 0]
    return np.moveaxis(images, 1, -1) if order.endswith("C") else images


PLACES = {ACTIVATIONS: 2, CAM: 2, GRADIENTS: 3, RELEVANCE: 2}
"""Of what lies along the signal, how many axes stand in front of its positions."""


def in_one_row(added: dict[str, Any]) -> dict[str, Any]:
    """The added outputs with all positions in one row: [..., l] as [..., 1, l]."""
    there = {name: np.asarray(added[name]) for name in PLACES if name in added}
    return added | {name: array.reshape(*array.shape[: PLACES[name]], 1, -1) for name, array in there.items()}
