"""What the check feeds to a model: random images, and random cotangents of the outputs that they give."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir

from fastcam import schema
from fastcam.schema import Cotangent, FastcamError, FurtherInput
from fastcam_export.graph.query import known_dims
from fastcam_export.layers import further_inputs
from fastcam_export.layers.axis_tracing import image_order

Array = npt.NDArray[Any]
FREE_SIZE = 224
FREE_FRAMES = 16
"""Height and width of the check's image, and frames of its video, where the model takes any."""


@dataclass(frozen=True)
class Sample:
    """Inputs of a source model, and what its export takes beside them.

    Attributes:
        feeds: inputs of the source by name.
        image: name of the image input.
        cotangents: the outputs whose cotangents the export takes; empty where its targets are classes.
    """

    feeds: Mapping[str, Array]
    image: str
    cotangents: tuple[Cotangent, ...] = ()

    @staticmethod
    def of(
        graph: ir.Graph,
        image: ir.Value,
        cotangents: Sequence[Cotangent] = (),
        further: Sequence[FurtherInput] = (),
    ) -> Sample:
        """Random inputs; one image where an output that has cotangents has no axis of images."""
        sample = Sample(random_inputs(graph, image, further=further), image.name or "", tuple(cotangents))
        return sample if all(about.batched for about in cotangents) else sample.of_one_image()

    @property
    def images(self) -> int:
        """The number of images."""
        return len(self.feeds[self.image])

    def of_one_image(self) -> Sample:
        """The same with the first image alone."""
        images = self.images
        first = {name: array[:1] if array.shape[:1] == (images,) else array for name, array in self.feeds.items()}
        return replace(self, feeds=first)

    def targets(self, exported: onnx.ModelProto, outputs: Mapping[str, Array]) -> dict[str, Array]:
        """What the export takes beside the feeds, by the names of its inputs.

        Args:
            exported: an export, or the part of one that takes the targets.
            outputs: the source's outputs by name, as the feeds give them; read for cotangents only.

        Returns:
            The predicted class where targets are classes and have no default, or one cotangent for each output.
        """
        if self.cotangents:
            return random_cotangents(self.cotangents, outputs, self.images)
        return predicted_class(exported)


def random_inputs(
    graph: ir.Graph, image: ir.Value, seed: int = 0, further: Sequence[FurtherInput] = ()
) -> dict[str, Array]:
    """Standard normal images (two where the batch is free), and values of all further inputs that have no default.

    Args:
        further: what the metadata say of the further inputs, see :func:`fastcam_export.layers.further_inputs.fed`.
    """
    rng = np.random.default_rng(seed)
    free = {"N": 2, "C": 3, "T": FREE_FRAMES, "H": FREE_SIZE, "W": FREE_SIZE}
    dims = known_dims(image) or []
    shape = [d if d is not None else free[axis] for d, axis in zip(dims, image_order(image))]
    dtype = image.dtype.numpy()  # type: ignore[union-attr]
    sample = rng.standard_normal(shape) if dtype.kind == "f" else rng.integers(0, 256, shape)
    feed = sample.astype(dtype)
    about = {one.name: one for one in further}
    others = [value for value in further_inputs.of(graph, image) if value.name != schema.TARGETS]
    values = {value.name: further_inputs.fed(value, image, feed, about.get(value.name or ""), rng) for value in others}
    return {value.name or "": feed if value is image else values[value.name] for value in [image, *others]}


def random_cotangents(cotangents: Sequence[Cotangent], outputs: Mapping[str, Array], images: int) -> dict[str, Array]:
    """float32 [N, 1, ...] for each of ``cotangents``, by the names of their inputs.

    Each output has the same share in what is explained, a box in pixels and its score.

    Args:
        cotangents: the contract's description of the inputs.
        outputs: outputs of the model by name, as a run of ``images`` gave them.

    Raises:
        FastcamError: an output does not have one row per image, as was supposed.
    """
    rng = np.random.default_rng(3)
    drawn = {}
    for about in cotangents:
        have = outputs[about.output].shape
        if about.batched and have[:1] != (images,):
            raise FastcamError(
                f"output {about.output!r} has shape {list(have)} for {images} images, so its first axis does not "
                "count them; export a model whose batch is 1"
            )
        shape = (images, 1, *have[1:]) if about.batched else (1, 1, *have)
        largest = float(np.abs(outputs[about.output]).max(initial=0)) or 1.0
        drawn[about.input] = (rng.standard_normal(shape) / largest).astype(np.float32)
    return drawn


def predicted_class(model: onnx.ModelProto) -> dict[str, Array]:
    """The predicted class as targets, where a model needs to be told its targets."""
    defaults = {tensor.name for tensor in model.graph.initializer}
    needed = any(value.name == schema.TARGETS and value.name not in defaults for value in model.graph.input)
    return {schema.TARGETS: np.array([[-1]])} if needed else {}
