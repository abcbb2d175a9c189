"""An exported file, opened: network, inputs, kernels, classes and texts, at one of the layers that it explains."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import partial
from numbers import Integral
from pathlib import Path
from types import NoneType
from typing import Any

import numpy as np

from fastcam import kernels as kernel_backends
from fastcam.errors import FastcamError, typed
from fastcam.explain import multilayer
from fastcam.explain.kinds import opened_by
from fastcam.explain.postprocess import View
from fastcam.explain.prompts import with_prompts
from fastcam.explain.runner import Runner
from fastcam.image.reading import MAX_PIXELS, Reading
from fastcam.image.video_file import is_video, read_video
from fastcam.labels import Labels, read_labels
from fastcam.language.prompts import Prompts, read_prompts
from fastcam.language.tokenizer import Tokenizer, open_tokenizer, read_tokenizer
from fastcam.results.prediction import Prediction, joined
from fastcam.runtime.exported_model import Network
from fastcam.runtime.inputs.base import Inputs, Preprocess, Sources
from fastcam.runtime.inputs.clips import ClipInputs, clips_of
from fastcam.runtime.inputs.further_inputs import Values
from fastcam.runtime.inputs.stacked_frames import StackInputs, stacks_of
from fastcam.runtime.profile import Choice, Goal, chosen, opening
from fastcam.runtime.providers import DEFAULT, Settings, stream_address
from fastcam.runtime.session import Model, Providers, create_session
from fastcam.runtime.text_encoder import TextEncoder
from fastcam.runtime.thread_limit import call_limits
from fastcam.runtime.thread_pipeline import Workers
from fastcam.schema import Metadata
from fastcam.targets.classes import ClassTargets, Targets
from fastcam.targets.prompts import TextSide

PREDICTED = ClassTargets(np.array([[-1]]))
"""The predicted class of every picture."""


@dataclass(frozen=True, eq=False)
class OpenOptions:
    """The parameters of :class:`fastcam.Explainer`, which says what each is."""

    model: Model
    providers: Providers = "auto"
    threads: int | None = None
    preprocess: Preprocess = None
    labels: Labels | None = None
    kernels: str = "auto"
    batch_size: int | None = None
    explanation: Model | None = None
    settings: Settings = DEFAULT
    head: Model | None = None
    inputs: Values | None = None
    max_pixels: int = MAX_PIXELS
    exif: bool = True
    tokenizer: str | Path | None = None
    text_encoder: Model | None = None
    prompts: Prompts | None = None
    profile: str | Path | Choice | None = None
    goal: Goal = "latency"

    def __post_init__(self) -> None:
        typed("settings", self.settings, Settings, "fastcam.Settings(...)")
        typed("batch_size", self.batch_size, Integral | NoneType, "a whole number")
        typed("tokenizer", self.tokenizer, str | Path | NoneType, "the path of a tokenizer.json")
        if self.batch_size is not None and self.batch_size < 1:
            raise FastcamError(f"the batch size must be at least 1, got {self.batch_size}")

    def with_profile(self) -> tuple[OpenOptions, Choice | None]:
        """The same with the profile's choice in place of the profile, and that choice."""
        choice = chosen(self.profile, self.model, self.goal, self.providers, self.settings.cache)
        how = self.goal, self.providers, self.threads, self.batch_size, self.settings
        providers, threads, batch, settings = opening(choice, *how)
        own = replace(self, providers=providers, threads=threads, batch_size=batch, settings=settings)
        return replace(own, profile=None, goal="latency"), choice

    @property
    def folder(self) -> Path | None:
        """Where the file lies; None of bytes."""
        return Path(self.model).parent if isinstance(self.model, str | Path) else None

    def tokenizer_of(self, metadata: Metadata, name: str) -> Callable[[], Tokenizer]:
        """Opens the tokenizer that the caller gave, or that the file names."""
        if self.tokenizer is not None:
            return partial(read_tokenizer, self.tokenizer)
        return partial(open_tokenizer, metadata.tokenizer, self.folder, name)


@dataclass(frozen=True, eq=False)
class OpenedFile:
    """An exported file that is ready to explain.

    Attributes:
        runner: runs it, and has it at each of its layers.
        layer: number of the layer at which it explains; 0 is the default one.
        view: the file at that layer.
        texts: what compares its embeddings with texts, and the texts that are its classes, if any are.
        classes: names and numbers of its classes.
        reading: how pictures are read.
        threads: of NumPy and OpenCV while a call lasts; None leaves that to them.
        sessions: runs that go on at the same time.
        stream: address of the CUDA stream that its sessions use, or None.
    """

    runner: Runner
    layer: int
    view: View
    texts: TextSide
    classes: Targets
    reading: Reading
    threads: int | None
    sessions: int
    stream: int | None

    @property
    def name(self) -> str:
        """How messages call the file: its path, or a word for bytes."""
        return self.view.network.name

    @property
    def whole(self) -> View:
        """The file at its default layer."""
        return self.runner.whole

    @property
    def metadata(self) -> Metadata:
        """What the file says about itself, at its layer, with the caller's preprocessing and labels."""
        return self.view.metadata

    @property
    def inputs(self) -> Inputs:
        """What turns pictures into the network's input."""
        return self.view.inputs

    def at(self, layer: str | int) -> OpenedFile:
        """The same at another layer.

        Args:
            layer: name of its value, node or scope, or its number, from 1.

        Raises:
            FastcamError: the file does not explain there.
        """
        number = multilayer.numbers(self.whole.metadata, layer, self.name)[0]
        return replace(self, layer=number, view=self.runner.layers[number])

    def with_prompts(self, prompts: dict[str, str]) -> OpenedFile:
        """The same with texts as its classes, by their names.

        Raises:
            FastcamError: the file compares no picture with texts, or takes another number of them.
        """
        texts = replace(self.texts, prompts=prompts)
        runner = _runner(with_prompts(self.whole, texts, self.name), self.sessions)
        view = runner.layers[self.layer] if self.layer else runner.whole
        return replace(self, runner=runner, view=view, texts=texts, classes=_classes(runner.whole.metadata))

    def images(self, images: Any, inputs: Values | None = None, text: Any = None) -> Sources | Prediction:
        """What a caller gave as images: a prediction as it is, else pictures with the values of the further inputs.

        Raises:
            FastcamError: a prediction of another file, or a picture that cannot be used.
        """
        if not isinstance(images, Prediction):
            return self.inputs.sources(images, inputs, text)
        if images.metadata != self.whole.metadata:
            raise FastcamError(f"the prediction is not one of {self.name}; explain with the Explainer that predicted")
        return images

    @property
    def clip_frames(self) -> int | None:
        """Of a video model, how many frames a clip has; None of others."""
        return self.inputs.frames if isinstance(self.inputs, ClipInputs) else None

    def frames(self, frames: Iterable[Any] | str | Path) -> Iterable[Any]:
        """The frames of a stream: those of a video's path, as clips or stacks where the model takes such."""
        if isinstance(frames, str | Path):
            frames = read_video(frames, self.reading) if is_video(Path(frames)) else [frames]
            if self.clip_frames is not None and not isinstance(frames, list):
                frames = clips_of(frames, self.clip_frames)
        return stacks_of(frames, self.inputs.stack) if isinstance(self.inputs, StackInputs) else frames

    @property
    def predicted(self) -> ClassTargets | None:
        """What a prediction by an export in one file explains by the way: the predicted class, of a file of classes."""
        return None if self.metadata.cotangents else PREDICTED

    def predict(self, images: Any, inputs: Values | None = None, text: Any = None) -> Prediction:
        """See :meth:`fastcam.Explainer.predict`."""
        with self.limited():
            runs = list(self.runner.runs(self.inputs.sources(images, inputs, text), self.predicted))
            return joined(runs, self.whole.metadata)

    def limited(self) -> AbstractContextManager[None]:
        """What a call runs in: BLAS and OpenCV with this file's threads; forks wait for its end."""
        return call_limits(self.threads)


def open_file(options: OpenOptions) -> OpenedFile:
    """Open an exported file.

    Args:
        options: without a profile, see :meth:`OpenOptions.with_profile`.

    Raises:
        FastcamError: the file cannot be loaded or FastCAM did not export it; a setting does not fit it.
    """
    model, settings, threads = options.model, options.settings, options.threads
    how = options.providers, threads, settings
    reading = Reading(options.max_pixels, options.exif)
    kernels = kernel_backends.get(options.kernels)
    cupy = getattr(kernels, "cupy", None)  # of kernels that run on the GPU
    keep = cupy.from_dlpack if cupy is not None else None
    network = Network(model, options.explanation, *how, keep, options.head)
    stream = stream_address(settings.stream)
    name, metadata = network.name, network.metadata
    tokenizer = options.tokenizer_of(metadata, name)
    inputs_of, view_of = opened_by(metadata)
    preparing = None if threads is None else threads * settings.sessions
    of_pictures = options.preprocess, preparing, network.further, options.inputs, reading, tokenizer
    inputs = inputs_of(name, metadata, network.inputs[metadata.input], *of_pictures)
    metadata = replace(metadata, preprocessing=inputs.preprocessing)
    if options.labels is not None:
        metadata = replace(metadata, labels=read_labels(options.labels, metadata.score.classes), labels_from="")
    alone = not all(one.batched for one in metadata.cotangents)  # an output without an axis of images in front
    assert options.batch_size is not None
    batch_size = network.fixed_batch or (1 if alone else options.batch_size)
    whole = view_of(network, metadata, inputs, kernels, batch_size)
    runner = _runner(whole, settings.sessions)
    create = partial(create_session, providers=options.providers, threads=threads, settings=settings)
    encoder = TextEncoder(name, options.text_encoder, metadata.text_encoder, options.folder, tokenizer, create)
    texts = TextSide(encoder.embed, encoder.scale, encoder.bias)
    opened = OpenedFile(runner, 0, whole, texts, _classes(metadata), reading, threads, settings.sessions, stream)
    return opened if options.prompts is None else opened.with_prompts(read_prompts(options.prompts))


def _runner(whole: View, sessions: int) -> Runner:
    layers = {number: whole.at(number) for number, _ in enumerate(multilayer.layers_of(whole.metadata), 1)}
    return Runner(whole, layers, Workers(sessions) if sessions > 1 else None)


def _classes(metadata: Metadata) -> Targets:
    return Targets(metadata.score.classes, metadata.labels)
