"""What the check feeds to a model: random images, and random cotangents of the outputs that they give."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir

from fastcam import schema
from fastcam.schema import Cotangent, FastcamError, FurtherInput
from fastcam_export.graph.query import known_dims
from fastcam_export.layers import further_inputs
from fastcam_export.layers.axis_semantics import integers
from fastcam_export.layers.image_input import vocabulary
from fastcam_export.layers.image_order import image_order
from fastcam_export.layers.output_meaning import output_meanings
from fastcam_export.verify import pictures
from fastcam_export.verify.needed_memory import refuse_pictures

Array = npt.NDArray[Any]
FAINT = 1e-3
"""Largest probability of an output that the check takes as it is."""
FREE_SIZE = 224
FREE_SIZES = (FREE_SIZE, 256, 320, 384, 512, 640, 448, 192, 128, 96, 64, 32, 48, 299, 288, 416, 480, 800, 1024)
FREE_FRAMES, FREE_SLICES, FREE_SAMPLES = 16, 32, 1024
TEXTS = (64, 32, 16, 128, 256, 512)
SIGNALS = (1024, 1000, 5000, 2048, 512, 256, 128, 4096, 8000, 16000, 187, 3000)
VOLUMES = ((32, 64, 64), (64, 64, 64), (96, 96, 96), (128, 128, 128), (32, 32, 32), (16, 112, 112), (16, 16, 16))
"""Height and width of the check's image, those that are tried where the first does not run, and frames of its video,
where the model takes any."""
LINES = ((48, 320), (32, 320), (48, 192), (32, 128), (32, 100), (64, 256))
"""Heights and widths of lines of text."""
SIDES = "DHWL"
"""The letters of the sides of an input."""
STRIDES = (1, 2, 4, 8, 14, 16, 32, 64)
"""How many pixels a side of a map's cell may have."""
MOST = 48
"""How many sizes are tried."""
FEW, PATIENCE = 6, 10.0
"""How many are tried in any case; and the seconds behind which no further one is: many channels are many numbers.

Where a search was in vain the next ones have the seconds that are left, and try one size in any case.
"""
_spent: ContextVar[list[float] | None] = ContextVar("_spent", default=None)
LARGEST = 2 * 10**8
"""Numbers of the pictures behind which a size is not tried out."""


@dataclass(frozen=True)
class Sample:
    """Inputs of a source model, and what its export takes beside them.

    Attributes:
        feeds: inputs of the source by name.
        image: name of the image input.
        cotangents: the outputs whose cotangents the export takes; empty where its targets are classes.
        drawn: what the source drew at random, by the names of its values.
    """

    feeds: Mapping[str, Array]
    image: str
    cotangents: tuple[Cotangent, ...] = ()
    drawn: Mapping[str, Array] = field(default_factory=dict)

    @staticmethod
    def of(
        graph: ir.Graph,
        image: ir.Value,
        cotangents: Sequence[Cotangent] = (),
        further: Sequence[FurtherInput] = (),
        size: Sequence[int] | None = None,
    ) -> Sample:
        """Random inputs; one image where an output that has cotangents has no axis of images.

        Args:
            graph: a loaded model's.
            image: its image input.
            cotangents: the outputs whose cotangents the export takes.
            further: what the metadata say of further inputs.
            size: (height, width), where the model takes any.

        Raises:
            FastcamError: the model takes several images at once, and such an output does not say whose it is.
        """
        alone = [about.output for about in cotangents if not about.batched]
        at_once = (known_dims(image) or [None])[0]
        if alone and at_once not in (None, 1):
            raise FastcamError(
                f"the model takes {at_once} images at once, and output {alone[0]!r} has no axis of images, so that "
                "nothing tells whose it is; export the model with one image"
            )
        sample = Sample(random_inputs(graph, image, further=further, size=size), image.name or "", tuple(cotangents))
        return sample.of_one_image() if alone else sample

    @property
    def images(self) -> int:
        """The number of images."""
        return len(self.feeds[self.image])

    @property
    def with_drawn(self) -> Mapping[str, Array]:
        """The feeds of a model that takes what the source draws as inputs."""
        return {**self.feeds, **self.drawn}

    def of_kind(self, kind: int, graph: ir.Graph, image: ir.Value) -> Sample:
        """The same with pictures of another kind."""
        made = _drawn(kind, np.random.default_rng(0), self.feeds[self.image].shape, graph, image)
        return replace(self, feeds={**self.feeds, self.image: made})

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
    graph: ir.Graph,
    image: ir.Value,
    seed: int = 0,
    further: Sequence[FurtherInput] = (),
    size: Sequence[int] | None = None,
) -> dict[str, Array]:
    """Standard normal images (two where the batch is free), and values of all further inputs that have no default.

    Args:
        further: what the metadata say of the further inputs, see :func:`fastcam_export.layers.further_inputs.fed`.
        size: (height, width), where the model takes any.
    """
    rng = np.random.default_rng(seed)
    free = {"N": 2, "C": 3, "T": FREE_FRAMES, "H": FREE_SIZE, "W": FREE_SIZE, "D": FREE_SLICES, "L": FREE_SAMPLES}
    free |= dict(zip(filter(SIDES.__contains__, image_order(image)), size or ()))
    dims = known_dims(image) or []
    shape = [d if d is not None else free[axis] for d, axis in zip(dims, image_order(image))]
    refuse_pictures(image, shape)
    feed = _drawn(0, rng, shape, graph, image)
    about = {one.name: one for one in further}
    others = [value for value in further_inputs.of(graph, image) if value.name != schema.TARGETS]
    values = {value.name: further_inputs.fed(value, image, feed, about.get(value.name or ""), rng) for value in others}
    return {value.name or "": feed if value is image else values[value.name] for value in [image, *others]}


def _drawn(kind: int, rng: np.random.Generator, shape: Sequence[int], graph: ir.Graph, image: ir.Value) -> Array:
    """Pictures of a kind for an input; ids of words for one that holds a text."""
    assert image.dtype is not None
    words = vocabulary(graph, image)
    if words is not None:
        return _ids(rng, words, shape).astype(image.dtype.numpy())
    return pictures.picture(kind, rng, shape, image_order(image), image.dtype.numpy())


def _ids(rng: np.random.Generator, words: int, shape: Sequence[int]) -> Array:
    """Texts in which no word is there again before all others were.

    The largest of equal numbers has no derivative, and a filter of one word gives such numbers where words are equal.
    """
    texts, length = math.prod(shape[:-1]), shape[-1] if shape else 1
    rows = [np.resize(rng.permutation(words), length) for _ in range(texts)]
    return np.stack(rows).reshape(shape)


def sizes(graph: ir.Graph, image: ir.Value) -> list[tuple[int, ...]]:
    """Heights and widths to try, where the model takes any: usual ones, then those that its own shapes make likely.

    A file with free sizes may still take some only: multiples of 64, or those that a Reshape in it was traced for. Of
    models that read a text, and of a height that is fixed and at most 64, they are those of a line of text.
    """
    dims = known_dims(image) or []
    own = [dims[axis] for axis, letter in enumerate(image_order(image)) if letter in SIDES]
    if None not in own:
        return [tuple(side for side in own if side is not None)]
    values = (value for node in graph for value in node.outputs)
    sides = dict.fromkeys(side for value in values for side in (known_dims(value) or [])[2:4] if side and side > 1)
    for node in graph:
        if node.op_type == "Reshape":
            sides |= dict.fromkeys(n for n in (integers(node.inputs[1]) or [])[1:] if 1 < n <= 1024)
            tokens = [n for n in integers(node.inputs[1]) or [] if n > 3 and math.isqrt(n) ** 2 == n]
            sides |= dict.fromkeys(map(math.isqrt, tokens))
    likely = [side * stride for side in sides for stride in STRIDES if 32 <= side * stride <= 1024]
    squares = list(dict.fromkeys([*FREE_SIZES, *sorted(likely, key=lambda size: abs(size - FREE_SIZE))]))[:MOST]
    other = [side for side in own if side is not None]  # what is fixed may be as large as what is free
    tried: list[Sequence[int]] = [[side] * len(own) for side in [squares[0], *other, *squares[1:]]]
    if len(own) != 2:
        words = vocabulary(graph, image)
        rows = SIGNALS if words is None else tuple(dict.fromkeys((min(TEXTS[0], words), *TEXTS)))
        tried = [[side] for side in rows] if len(own) == 1 else list(VOLUMES)
    if len(own) == 2:
        fixed_height = own[0] is not None and own[0] <= 64
        line = fixed_height or any(one.kind == "sequence" for one in output_meanings(graph, image))
        tried = [*LINES, *tried] if line else [*tried, *LINES]
    fixed = [tuple(want if have is None else have for have, want in zip(own, sides)) for sides in tried]
    return list(dict.fromkeys(fixed))


@contextmanager
def patience() -> Iterator[None]:
    """While it lasts, the searches of a size have :data:`PATIENCE` together."""
    token = _spent.set([])
    try:
        yield
    finally:
        _spent.reset(token)


def that_runs(
    graph: ir.Graph,
    image: ir.Value,
    cotangents: Sequence[Cotangent],
    run: Callable[[Sample], object],
    further: Sequence[FurtherInput] = (),
    size: Sequence[int] | None = None,
) -> Sample:
    """The first sample that a model runs on: two images of ``size`` or a usual one, else others, else one image.

    Raises:
        Exception: that of ``run`` for the first one, where it runs on none; its ``sizes_tried`` says how many.
    """
    first: Exception | None = None
    tries, begun = 0, time.monotonic()
    known = _spent.get()
    spent: list[float] = [] if known is None else known
    few = FEW if sum(spent) < PATIENCE else 1
    for tried in [size] if size is not None else sizes(graph, image):
        if tries and (_too_large(image, tried) or (tries >= few and sum(spent) + time.monotonic() - begun > PATIENCE)):
            continue
        tries += 1
        sample = Sample.of(graph, image, cotangents, further, tried)
        for each in [sample, sample.of_one_image()] if sample.images > 1 else [sample]:
            try:
                run(each)
            except Exception as error:  # the runtime's exceptions have no common base but this
                first = first or error
            else:
                return each
    assert first is not None
    spent.append(time.monotonic() - begun)
    first.sizes_tried = tries  # type: ignore[attr-defined]
    raise first


def _too_large(image: ir.Value, size: Sequence[int]) -> bool:
    """Whether two pictures of a size have more numbers than are drawn to try it out."""
    dims = known_dims(image) or []
    channels = [d for d, axis in zip(dims, image_order(image)) if d is not None and axis not in SIDES]
    return 2 * math.prod([*channels, *size]) > LARGEST


def random_cotangents(cotangents: Sequence[Cotangent], outputs: Mapping[str, Array], images: int) -> dict[str, Array]:
    """float32 [N, 1, ...] for each of ``cotangents``, by the names of their inputs.

    Each output has the same share in what is explained, a box in pixels and its score; but scores where nothing is
    found are not magnified beyond what their rounding bears.

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
        if about.activation in ("Sigmoid", "Softmax"):
            largest = max(largest, FAINT)
        drawn[about.input] = (rng.standard_normal(shape) / largest).astype(np.float32)
    return drawn


def predicted_class(model: onnx.ModelProto) -> dict[str, Array]:
    """The predicted class as targets, where a model needs to be told its targets."""
    defaults = {tensor.name for tensor in model.graph.initializer}
    needed = any(value.name == schema.TARGETS and value.name not in defaults for value in model.graph.input)
    return {schema.TARGETS: np.array([[-1]])} if needed else {}
