"""Both sides of an exported file in Triton's Python backend: pictures to its input, its outputs to boxes.

``fastcam export --triton`` writes the repository in which these are the first and the last step of an ensemble. The
model itself runs between them, in Triton's ONNX Runtime backend; what these open is :data:`fastcam.schema.ABOUT`, which
has the file's inputs, outputs and metadata, and no weights.

Source: https://github.com/triton-inference-server/python_backend, "Usage".
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastcam.errors import FastcamError, shown
from fastcam.explain.request import ExplainOptions
from fastcam.explainer import Explainer
from fastcam.image.preprocess import Geometry
from fastcam.image.reading import MAX_PIXELS
from fastcam.runtime.inputs.batch import Batch, join_batches
from fastcam.schema import ABOUT, CLASSES, GEOMETRY, TARGETS
from fastcam.serving.open_inference import explained_arrays

PICTURES = "image"
"""The ensemble's input: encoded pictures."""


class Model:
    """What Triton makes of a ``model.py``: it is opened once and then answers requests, several at a time."""

    def initialize(self, args: Mapping[str, str]) -> None:
        """Open what lies beside ``model.py``.

        Args:
            args: of Triton: ``model_repository`` is the folder of the model, ``model_version`` that in it, and
                ``model_config`` the configuration as JSON.

        Raises:
            FastcamError: a parameter of the configuration is no number, or the file is not there.
        """
        said = json.loads(args["model_config"]).get("parameters", {})
        self._parameters = {name: value.get("string_value", "") for name, value in said.items()}
        about = Path(args["model_repository"]) / args["model_version"] / ABOUT
        self._explainer = Explainer(
            about, providers="cpu", threads=1, max_pixels=int(self._number("max_pixels", MAX_PIXELS))
        )
        self._steps = self._explainer.steps(
            ExplainOptions(
                lambda index, source: -1,  # classes come with the pictures
                threshold=self._number("threshold", 0.15),
                connectivity=int(self._number("connectivity", 8)),
            )
        )

    def _number(self, name: str, default: float) -> float:
        said = self._parameters.get(name) or default
        try:
            return float(said)
        except ValueError:
            raise FastcamError(f"the parameter {name} is {shown(repr(said))}; give a number in config.pbtxt") from None

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """A response for each request; one's error is no other's."""
        import triton_python_backend_utils as backend

        responses = []
        for request in requests:
            try:
                found = self.answer({tensor.name(): tensor.as_numpy() for tensor in request.inputs()})
                tensors = [backend.Tensor(name, array) for name, array in found.items()]
                responses.append(backend.InferenceResponse(output_tensors=tensors))
            except FastcamError as error:
                failed = backend.TritonError(str(error))
                responses.append(backend.InferenceResponse(output_tensors=[], error=failed))
        return responses

    def answer(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Outputs by name of one request."""
        raise NotImplementedError


class Pictures(Model):
    """The first step: encoded pictures [N, 1] and targets [N, T] to the file's input, its targets and the geometry."""

    def answer(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """See the class.

        Raises:
            FastcamError: a picture that cannot be read, or pictures of one request that become inputs of several sizes.
        """
        sources = [_content(one) for one in inputs[PICTURES].ravel()]
        parts = [self._steps.prepare(source) for source in sources]
        if len({part.tensor.shape for part in parts}) > 1:
            raise FastcamError(
                "the pictures of a request have different sizes, and the model keeps them; send one each"
            )
        batch = join_batches(parts)
        targets = inputs.get(TARGETS, np.array([[-1]]))
        return {
            self._explainer.metadata.input: np.asarray(batch.tensor),
            TARGETS: np.repeat(targets, len(sources), 0) if len(targets) == 1 else targets,
            GEOMETRY: np.array([flat(each) for each in batch.geometry], np.int64),
        }


class Boxes(Model):
    """The last step: the file's outputs and the geometry to maps, boxes in pixels of the pictures, and their status."""

    def answer(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """See the class."""
        outputs = dict(inputs)
        geometry = tuple(Geometry(*unflat(row)) for row in outputs.pop(GEOMETRY).tolist())
        count, classes = len(geometry), outputs[CLASSES]
        nothing = np.zeros((0, 0, 3), np.uint8)  # boxes need no pixels
        batch = Batch(np.zeros(count), (nothing,) * count, geometry, (None,) * count)
        request = self._steps.request(classes.tolist())
        explanation = self._steps.finish(self._steps.received(batch, outputs, request), request)
        found = explained_arrays([explanation])
        del found[CLASSES]  # the file has said them
        return found


def flat(geometry: Geometry) -> list[int]:
    """The numbers of a geometry: sizes of picture and input, rectangles in both."""
    return [*geometry.original, *geometry.network, *geometry.source, *geometry.target]


def unflat(row: Sequence[int]) -> tuple[Any, ...]:
    """What :func:`flat` has made flat: the arguments of a Geometry."""
    return tuple(row[0:2]), tuple(row[2:4]), tuple(row[4:8]), tuple(row[8:12])


def _content(one: Any) -> bytes:
    if not isinstance(one, bytes):
        raise FastcamError("a picture is no bytes; send its bytes as BYTES")  # a text would be read as a path
    return one
