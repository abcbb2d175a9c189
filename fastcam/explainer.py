"""Explainer: an exported file, ready to explain pictures: session, preprocessing, kernels; no state between calls."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

from fastcam.errors import FastcamError, checked, listed, shown
from fastcam.explain import on_device
from fastcam.explain.on_device import Resident
from fastcam.explain.opened_file import OpenedFile, OpenOptions, open_file
from fastcam.explain.prediction_steps import PredictionSteps
from fastcam.explain.prompts import texts_in
from fastcam.explain.request import ExplainOptions, Layers
from fastcam.explain.request_resolver import RequestResolver
from fastcam.explain.streaming import Frame, Steps, stream
from fastcam.image.reading import MAX_PIXELS
from fastcam.labels import Labels
from fastcam.language.prompts import Prompts, read_prompts
from fastcam.methods.context import Probe, Progress
from fastcam.results.explanation import Explanation
from fastcam.results.prediction import Prediction
from fastcam.runtime.exported_model import Network
from fastcam.runtime.inputs.base import Preprocess
from fastcam.runtime.inputs.further_inputs import Values
from fastcam.runtime.profile import Choice, Goal
from fastcam.runtime.providers import DEFAULT, Settings
from fastcam.runtime.session import Model, Providers
from fastcam.schema import Metadata
from fastcam.targets.resolved import CotangentSource
from fastcam.targets.spec_kinds import CotangentLike


class Explainer:
    """Explains what an exported file sees in pictures.

    Safe to share between threads: a call keeps no picture, and ONNX Runtime sessions run concurrently. Pickled (for
    worker processes) it is the model's path, or bytes, and the settings: the other process opens sessions of its own.

    Args:
        model: path or bytes of a file that ``fastcam export`` wrote.
        providers, settings: see :func:`fastcam.runtime.session.create_session`.
        threads: of one operator, and of NumPy and OpenCV while a call lasts
            (:mod:`fastcam.runtime.thread_limit`); None leaves the choice to each of them.
        preprocess: how pictures become the input, in place of what the file says: a name from
            :data:`fastcam.schema.PRESETS` (size, resize rule and layout stay the file's), changes ({"mean": 0.4}) of
            what the file says or of a "preset", or a Preprocessing.
        labels: class names by index in any form of :mod:`fastcam.labels`, in place of the file's.
        kernels: "auto", "native" or "reference"; "cuda" leaves activations on the GPU where the model runs there.
        batch_size: images per run where the file's batch is free, the file's own size where it is fixed; None is the
            profile's, or 16.
        explanation: path or bytes of the explanation part of an export on demand, where it is not beside ``model``.
        head: the same of what lies behind the layer, of a file exported with its head.
        inputs: values of the model's further inputs for every call, by name; see :meth:`__call__`.
        max_pixels: the largest picture that is decoded, asked of its header: width times height, of more than four
            channels once for each four. Arrays and tensors, which nobody decodes, have no limit.
        exif: whether pictures are turned as their EXIF orientation says, files and PIL images alike.
        tokenizer: path of the ``tokenizer.json`` that makes ids of texts, in place of the file's own.
        text_encoder: path or bytes of the ONNX file that makes embeddings of texts, in place of the file's own.
        prompts: texts that are the classes, see :meth:`with_prompts`.
        profile: what ``fastcam tune`` found fastest, for all that the arguments above leave open: "auto" is the file
            beside ``model``, MODEL.cam.profile.json; one that does not hold any more is passed over with a warning. The
            path of one that does not hold is refused. See :mod:`fastcam.runtime.profile`.
        goal: "latency", one picture as soon as can be, or "throughput", many: which of a profile's two choices is
            taken. Without a profile throughput on the CPU is runs of one thread, one for each core.

    Raises:
        FastcamError: the file cannot be loaded or FastCAM did not export it; a setting does not fit it.
    """

    @checked
    def __init__(
        self,
        model: Model,
        providers: Providers = "auto",
        threads: int | None = None,
        preprocess: Preprocess = None,
        labels: Labels | None = None,
        kernels: str = "auto",
        batch_size: int | None = None,
        explanation: Model | None = None,
        settings: Settings = DEFAULT,
        head: Model | None = None,
        inputs: Values | None = None,
        max_pixels: int = MAX_PIXELS,
        exif: bool = True,
        tokenizer: str | Path | None = None,
        text_encoder: Model | None = None,
        prompts: Prompts | None = None,
        profile: str | Path | Choice | None = None,
        goal: Goal = "latency",
    ) -> None:
        how = providers, threads, preprocess, labels, kernels, batch_size, explanation, settings, head, inputs
        more = max_pixels, exif, tokenizer, text_encoder, prompts, profile, goal
        self._options, self._profile = OpenOptions(model, *how, *more).with_profile()
        self._file = open_file(self._options)
        self._requests = RequestResolver(self._file)

    @property
    def metadata(self) -> Metadata:
        """What the file says about itself, with this Explainer's preprocessing and labels."""
        return self._file.metadata

    @property
    def providers(self) -> tuple[str, ...]:
        """ONNX Runtime's providers that are in use, in order of preference."""
        return self._network.providers

    @property
    def input_shape(self) -> tuple[int | str | None, ...]:
        """Shape of the image input; free dimensions are strings or None."""
        return self._file.inputs.shape

    @property
    def text_inputs(self) -> tuple[str, ...]:
        """Names of the inputs that hold a text."""
        return self._file.inputs.texts.names

    @property
    def missing_inputs(self) -> tuple[str, ...]:
        """Names of the further inputs that every call has to give a value, for neither the file nor this has one."""
        return self._file.inputs.missing

    def check_text(self, text: str | Sequence[str]) -> None:
        """Refuse a text that the file cannot be asked, before a picture is read.

        Raises:
            FastcamError: the file takes no text, has no tokenizer, or the text is too long.
        """
        texts = self._file.inputs.texts
        texts.encoded(texts.named(text))

    @property
    def clip_frames(self) -> int | None:
        """Of a video model, how many frames a clip has; None of others."""
        return self._file.clip_frames

    @property
    def exif(self) -> bool:
        """Whether pictures are turned as their EXIF orientation says."""
        return self._file.reading.exif

    @property
    def batch_size(self) -> int:
        """Images per run."""
        return self._file.whole.batch_size

    @property
    def sessions(self) -> int:
        """Runs that go on at the same time, in streams and in calls of several runs."""
        return self._file.sessions

    @property
    def profile(self) -> Choice | None:
        """What is used of a profile; None without one."""
        return self._profile

    def at(self, layer: str | int) -> Explainer:
        """This file, explaining at another of its layers: nothing is loaded again.

        Args:
            layer: name of its value, node or scope, or its number, from 1, in ``metadata.layers``.

        Raises:
            FastcamError: the file does not explain there.
        """
        return self._with_file(self._file.at(layer))

    @checked
    def with_prompts(self, prompts: Prompts) -> Explainer:
        """This file with texts as its classes: nothing is loaded again, and each text is embedded once.

        Of a file whose explained output is the embedding of a picture the score of a prompt is the cosine with the
        text's embedding, with scale and bias of the file; of one that takes texts and gives a score for each it is
        that. Predictions, names and ranks of classes are then those of the prompts.

        Args:
            prompts: a file with a prompt a line, or a name, a tab and a prompt; a list; or a dict from name to prompt.

        Raises:
            FastcamError: they cannot be read, or the file compares no picture with texts.
        """
        texts = read_prompts(prompts)
        other = self._with_file(self._file.with_prompts(texts))
        other._options = replace(self._options, prompts=texts)
        return other

    @property
    def prompts(self) -> dict[str, str]:
        """The texts that are the classes, by their names; empty of a file whose classes are its own."""
        return dict(self._file.texts.prompts)

    def _with_texts_of(self, targets: Any) -> tuple[Explainer, Any]:
        """This file, or of one that takes texts with a score each this one with those that the targets name."""
        file = self._file
        if file.metadata.cotangents or file.inputs.texts.prompts is None or callable(targets):
            return self, targets
        plain, prompts = texts_in(targets, file.metadata, file.texts.prompts)
        if prompts.keys() == file.texts.prompts.keys():
            return self, plain
        return self.with_prompts(prompts), plain

    @property
    def model(self) -> Model:
        """The file that this was made of: its path, or its bytes."""
        return self._options.model

    def with_model(self, model: Model) -> Explainer:
        """The same settings and the same layer for another export of the same model, in one file.

        Args:
            model: path or bytes.
        """
        return _opened(replace(self._options, model=model), self._file.layer)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled as what it was made of: another process opens the same files in sessions of its own."""
        options = vars(self._options).items()
        paths: dict[str, Any] = {name: str(value.resolve()) for name, value in options if isinstance(value, Path)}
        return _opened, (replace(self._options, **paths), self._file.layer)

    def __copy__(self) -> Explainer:
        """The same sessions: an Explainer keeps no picture between calls."""
        return self._with_file(self._file)

    def __deepcopy__(self, memo: object) -> Explainer:
        return self.__copy__()

    def _with_file(self, file: OpenedFile) -> Explainer:
        other = object.__new__(Explainer)
        other.__dict__ |= self.__dict__
        other._file, other._requests = file, RequestResolver(file)
        return other

    @checked
    def __call__(
        self,
        images: Any,
        targets: Any = -1,
        threshold: float = 0.15,
        connectivity: int = 8,
        cotangent: CotangentLike | None = None,
        method: str | None = None,
        layers: Layers = None,
        fuse: str | None = None,
        style: str = "fastcam",
        options: Mapping[str, Any] | None = None,
        progress: Progress | None = None,
        inputs: Values | None = None,
        text: str | Sequence[str] | None = None,
    ) -> Explanation:
        """Explain one or more pictures.

        The result holds every picture, and a heatmap of the network's input size for each target: 4 bytes a pixel. To
        explain a folder in bounded memory, call this for some pictures at a time, or use :meth:`stream`.

        Args:
            images: a path; a picture (uint8 [h, w, 3] RGB, grey [h, w] or with alpha [h, w, 4]; a PIL image; the bytes
                of a picture file, or an open one); a list of those; or a float tensor [N, C, H, W] (the model's own
                layout), used as it is. Tensors may be anything that speaks DLPack (torch, CuPy, ...); they are not
                copied, on a GPU either. Of a video model a clip: a video file, a list of pictures, or uint8 [frames, h,
                w, 3]; a list of those; or a float tensor. The explanation then has a row for each frame, see
                :mod:`fastcam.explain.video`. Of a model that sees a stack of frames the frames of one episode, see
                :mod:`fastcam.runtime.inputs.stacked_frames`. Of a model of signals or volumes arrays, or .npy, .csv or
                NIfTI files, see :mod:`fastcam.runtime.inputs.sample_inputs`.
            targets: what is explained, by default the predicted class: a class index, a rank (-1 is the predicted
                class, -2 the second, ...), a class name, or a combination of classes, {"tabby": 1, "tiger cat": -1}
                or "tabby - tiger cat", {"tabby": -1} or "not tabby" (the counterfactual); or what else the file
                answers, "box:dog", "region:person", "words" (:data:`fastcam.targets.spec_kinds.KINDS`), by default what
                it is most likely asked: the best boxes, the largest region. A list of those for every image, or one
                such list per image, which may be of different lengths.
            threshold: boxes surround what reaches this share of the heatmap's maximum; 0.15 is the paper's.
            connectivity: 8 or 4 neighbours of a pixel.
            cotangent: in place of targets, for a file exported with ``targets="cotangent"``: words, "region:person", a
                list of those, or such a list for each image (:data:`fastcam.targets.spec_kinds.KINDS`); float [N, T,
                ...], a dict of those by output, or a function of the outputs of the images that run together (a dict by
                name) that returns one of them; see :mod:`fastcam.targets.cotangents`. For words and functions the model
                runs first by itself.
            method: a name from :data:`fastcam.methods.METHODS` (``fastcam methods``): a member of the CAM family, a
                method that runs the model again, or a backward mode of the file. By default Grad-CAM; of targets with a
                place in the picture (boxes, regions, elements) HiResCAM where the file emits gradients.
            options: of the method: {"samples": 50}; see ``fastcam methods`` for names and defaults.
            progress: of a method that runs again, called as ``progress(done, total)``.
            layers: of a file with several target layers "all", or some by name or number: the explanation then has one
                of each as its ``layers``, and is itself that of the default layer, or of the last of them.
            fuse: a name from :data:`fastcam.methods.layer_fusion.FUSIONS`: explain the layers' maps as one.
            style: whose heatmaps, a name from :data:`fastcam.render.peer_styles.STYLES`; boxes follow from them.
            inputs: values of the model's other inputs by name: a row for each image, or one for all; numbers, arrays,
                .npy, .json or .csv files, or pictures; of an input that holds a text the text. ``images`` may also be a
                dict of all inputs.
            text: of a model that takes one, a question or a prompt: a text for all pictures, or a list with one for
                each. The file's tokenizer makes ids of it, and the mask that goes with them.

        Raises:
            FastcamError: a picture, target or layer that cannot be used, or a method that the file cannot serve; the
                message says why.
        """
        asked, targets = self._with_texts_of(targets)
        parameters = targets, threshold, connectivity, cotangent, method, layers, fuse, style, options, progress
        with asked._limited():
            given = asked._file.images(images, inputs, text)
            request = asked._requests.request(ExplainOptions(*parameters), len(given))
            return asked._file.runner.explain(request, given, asked._file.view)

    @checked
    def predict(self, images: Any, inputs: Values | None = None, text: str | Sequence[str] | None = None) -> Prediction:
        """Run the model on pictures; :meth:`explain` explains them later, if they are asked about.

        An export on demand (``fastcam export --on-demand``) runs the plain model here. One in one file explains the
        predicted class by the way, and runs again for other targets.

        Args:
            images, inputs, text: see :meth:`__call__`.

        Raises:
            FastcamError: a picture that cannot be used; the message says why.
        """
        return self._file.predict(images, inputs, text)

    @checked
    def explain(
        self,
        prediction: Prediction,
        targets: Any = -1,
        threshold: float = 0.15,
        connectivity: int = 8,
        cotangent: CotangentLike | None = None,
        method: str | None = None,
        layers: Layers = None,
        fuse: str | None = None,
        style: str = "fastcam",
        options: Mapping[str, Any] | None = None,
        progress: Progress | None = None,
    ) -> Explanation:
        """Explain what :meth:`predict` saw, any number of times and with any targets.

        Args:
            prediction: of this file, or some of its images: ``prediction[2]``.
            targets, threshold, connectivity, cotangent, method, layers, fuse, style, options, progress: see
                :meth:`__call__`.

        Raises:
            FastcamError: a prediction of another file, or a target or method that cannot be used.
        """
        parameters = targets, threshold, connectivity, cotangent, method, layers, fuse, style, options, progress
        with self._limited():
            given = self._file.images(prediction)
            request = self._requests.request(ExplainOptions(*parameters), len(given))
            return self._file.runner.explain(request, given, self._file.view)

    @checked
    def on_device(
        self,
        images: Any,
        targets: Any = -1,
        threshold: float = 0.15,
        connectivity: int = 8,
        heatmaps: bool = True,
    ) -> Resident:
        """Explain a batch on the GPU and leave everything there: CuPy arrays, which torch takes by DLPack.

        For Grad-CAM with kernels="cuda" on a session that runs on CUDA. With ``Settings(stream=...)`` the model and the
        kernels are queued on that stream, behind what was queued there before, and this returns without waiting;
        otherwise the model has run when it returns, and the kernels are queued on CuPy's current stream.

        Args:
            images: the network's input [N, ...], or of a file with frames uint8 [N, height, width, 3]: on the device
                (torch, CuPy, ...: not copied), or a NumPy array, which is all that crosses the bus.
            targets: classes, ranks and names, see :meth:`__call__`; no combinations.
            threshold, connectivity: see :meth:`__call__`.
            heatmaps: False leaves out the enlarged maps where boxes are enough.

        Raises:
            FastcamError: the session or the kernels are not on a GPU, or the batch or a target cannot be used.
        """
        parameters = ExplainOptions(targets, threshold, connectivity)
        kernels: Any = self._file.view.kernels
        if not hasattr(kernels, "cupy"):
            raise FastcamError('on_device needs kernels="cuda"; the Explainer has those of the CPU')
        further = self._file.inputs.further(None, len(images))
        request = self._requests.request(parameters, len(images))
        with self._limited(), kernels.on_stream(self._file.stream):
            return on_device.explain(self._network, kernels, images, further, request, heatmaps)

    @checked
    def stream(
        self,
        frames: Iterable[Any] | str | Path,
        targets: Any = -1,
        threshold: float = 0.15,
        connectivity: int = 8,
        batch_size: int | None = None,
        workers: int = 2,
        wait: float | None = None,
        method: str | None = None,
        cotangent: CotangentLike | None = None,
        layers: Layers = None,
        fuse: str | None = None,
        style: str = "fastcam",
        options: Mapping[str, Any] | None = None,
        inputs: Values | None = None,
        text: str | None = None,
    ) -> Iterator[Frame]:
        """Explain frames as they come: decoding, preprocessing, the model and post-processing overlap.

        Frames come out in the order in which they went in. A frame that cannot be read or explained has its error, and
        the others go on; what ``frames`` itself raises is raised in its place. A few frames are read ahead, never more:
        those on their way hold about 512 MiB together, of larger ones one or two. Large frames make small runs. Leaving
        the loop early ends all threads.

        Args:
            frames: paths or pictures: a list, a generator, a camera, which is read in a thread; or a video's path. Of a
                video model clips (:meth:`__call__`), each a frame here, whose explanation has a row for each of its own
                frames; a video's path is read as neighbouring clips (:mod:`fastcam.runtime.inputs.clips`). Of a model
                that sees the last frames at once the frames of one episode, each explained with those in front of it.
            targets: for every frame the same, see :meth:`__call__`; or a function of a frame's number and of what was
                given as the frame, which says its own targets.
            cotangent, method, layers, fuse, style, options, inputs, text: for every frame the same, see
                :meth:`__call__`; of a frame that is a dict of all inputs its own.
            batch_size: frames per run, neighbours of one size; by default the Explainer's.
            workers: threads that decode and prepare frames.
            wait: seconds that a frame may wait for others to fill its run; None waits, 0 suits a live camera.

        Raises:
            FastcamError: a target that cannot be used, or a setting out of range.
        """
        asked, targets = self._with_texts_of(targets)
        if asked is not self:
            same = {"method": method, "cotangent": cotangent, "layers": layers, "fuse": fuse, "style": style}
            how: Any = {**same, "options": options, "inputs": inputs, "text": text}
            return asked.stream(frames, targets, threshold, connectivity, batch_size, workers, wait, **how)
        asks = ExplainOptions(targets, threshold, connectivity, cotangent, method, layers, fuse, style, options)
        file = self._file
        steps = self.steps(asks, {**(inputs or {}), **file.inputs.texts.named(text)})
        size = self.batch_size if batch_size is None else batch_size
        if self._network.fixed_batch is not None:
            size = min(size, self._network.fixed_batch)
        return stream(steps, file.frames(frames), size, workers, wait, file.sessions)

    @property
    def fixed_batch(self) -> int | None:
        """How many pictures every run of the model takes; None where that is free."""
        return self._network.fixed_batch

    @property
    def name(self) -> str:
        """How messages call the file: its path, or a word for bytes."""
        return self._file.name

    @property
    def signature(self) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
        """Inputs and outputs of the exported file, FastCAM's own among them: each has name, type and shape."""
        return self._network.signature

    @checked
    def run(self, feed: Mapping[str, Any], names: Sequence[str] | None = None) -> dict[str, Any]:
        """Run the exported file as any host of ONNX Runtime would: arrays in, arrays out, nothing prepared or drawn.

        Args:
            feed: an array for each input without a default, by name.
            names: of the outputs wanted; None is all.

        Raises:
            FastcamError: no such output, or values that the file does not take.
        """
        have = [value.name for value in self.signature[1]]
        for name in names or ():
            if name not in have:
                raise FastcamError(f"{self.name} has no output {shown(repr(name))}; it has {listed(have)}")
        with self._limited():
            return self._network.run(feed, have if names is None else names)

    @checked
    def steps(self, asks: ExplainOptions, inputs: Values | None = None) -> Steps:
        """What a call does to pictures, step by step, for a host that schedules the steps itself, such as a server.

        Args:
            asks: the parameters of a call. Its targets are those of every picture, or a function of a picture's number
                and of the picture that says each one's own, see :meth:`stream`.
            inputs: see :meth:`__call__`.

        Raises:
            FastcamError: a target that cannot be used, or a method that the file cannot serve.
        """
        return self._requests.steps(asks, inputs)

    @checked
    def prediction_steps(self, inputs: Values | None = None) -> PredictionSteps:
        """What :meth:`predict` does to pictures, step by step, for a host that schedules the steps itself.

        Args:
            inputs: see :meth:`__call__`.
        """
        return self._file.runner.prediction_steps(self._file.predicted, inputs).each_within(self._limited)

    @checked
    def probes(
        self,
        images: Any,
        targets: Any = -1,
        inputs: Values | None = None,
        text: str | Sequence[str] | None = None,
    ) -> list[Probe]:
        """What a method may ask of each picture: its input, its layer, and the model once more on changed ones.

        Whoever measures maps asks the same: what happens to the score when the picture, or the layer, is changed.

        Args:
            images, targets, inputs, text: see :meth:`__call__`.

        Raises:
            FastcamError: a picture or target that cannot be used.
        """
        asked, targets = self._with_texts_of(targets)
        with asked._limited():
            file = asked._file
            given = file.inputs.sources(images, inputs, text)
            request = asked._requests.request(ExplainOptions(targets), len(given))
            return list(file.runner.probes(request, given, file.view))

    def question(self, cotangent: CotangentLike) -> CotangentSource:
        """Cotangents in words, made ready once for many calls: pictures that they name are read, errors raised.

        Raises:
            FastcamError: something that the file does not answer; the message says what it does.
        """
        return self._requests.question(cotangent)

    # --- inside -------------------------------------------------------------------------------------------------

    @property
    def _network(self) -> Network:
        return self._file.view.network

    def _limited(self) -> AbstractContextManager[None]:
        """What a call runs in: BLAS and OpenCV with this Explainer's threads; forks wait for its end."""
        return self._file.limited()


def _opened(options: OpenOptions, layer: int) -> Explainer:
    """An Explainer of what another one was made of, at its layer."""
    explainer = Explainer(**vars(options))
    return explainer.at(layer) if layer else explainer
