"""The contract between an exported file and whoever runs it: names, metadata, schema version.

Both sides import this module and nothing else of each other, so it needs the standard library only. An exported file
is an ordinary ONNX model; everything FastCAM adds to it carries the prefix ``fastcam.`` and everything a runtime has
to know about it is one JSON object under the metadata key ``fastcam``, which :class:`Metadata` reads and writes.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field, replace
from typing import Annotated, Any, Literal, cast, get_args

from fastcam.captioning import Captioning
from fastcam.errors import FastcamError as FastcamError
from fastcam.errors import shown
from fastcam.input_roles import FurtherInput as FurtherInput
from fastcam.input_roles import TextEncoderFile as TextEncoderFile
from fastcam.input_roles import TokenizerFile as TokenizerFile
from fastcam.preprocessing import PRESETS as PRESETS
from fastcam.preprocessing import Color as Color
from fastcam.preprocessing import Preprocessing as Preprocessing
from fastcam.preprocessing import Resize as Resize
from fastcam.preprocessing import preset as preset
from fastcam.typed_fields import BASE_NAME, NOT_EMPTY, SIDES, Rule, Unfit, at_least, built, parse_json, said

__version__ = "0.1.0"

SCHEMA_VERSION = 1
METADATA_KEY = "fastcam"
PREFIX = "fastcam."

TARGETS = PREFIX + "targets"
COTANGENT = PREFIX + "cotangent"
CLASSES = PREFIX + "classes"
ACTIVATIONS = PREFIX + "activations"
WEIGHTS = PREFIX + "weights"
GRADIENTS = PREFIX + "gradients"
CAM = PREFIX + "cam"
INPUT_GRADIENT = PREFIX + "input_gradient"
RELEVANCE = PREFIX + "relevance"
FRAMES = PREFIX + "frames"
TOKENS = PREFIX + "tokens"
KEPT = PREFIX + "kept."
SCORES = PREFIX + "scores"
GEOMETRY = PREFIX + "geometry"
"""Beside an input that somebody else has prepared: int64 [N, 12], which rectangle of the picture went where in it."""
ABOUT = "about.onnx"
"""A file that says what an exported one takes, gives and says of itself, without its weights: it computes nothing."""

Emit = Literal["weights", "gradients", "cam"]
EMITS: tuple[Emit, ...] = ("weights", "gradients", "cam")

OUTPUTS: dict[Emit, tuple[str, ...]] = {
    "weights": (CLASSES, ACTIVATIONS, WEIGHTS),
    "gradients": (CLASSES, ACTIVATIONS, GRADIENTS),
    "cam": (CLASSES, CAM),
}
"""What each emit level adds behind the model's own outputs, in order."""


def of_layer(name: str, number: int | None) -> str:
    """The output ``name`` of the layer with this number in :attr:`Metadata.layers`; the default layer has none."""
    return name if number is None else f"{name}.{number}"


Mode = Literal[
    "gradient",
    "guided",
    "deconvolution",
    "excitation",
    "contrastive-excitation",
    "lrp-epsilon",
    "lrp-composite",
    "lrp-gamma",
    "rollout",
    "rollout-max",
    "rollout-min",
    "legrad",
    "fullgrad",
    "shapleycam",
]
MODES: tuple[Mode, ...] = get_args(Mode)
"""What an export can hand back to the image: the gradient, what a changed backward pass makes of it, or a map."""
MAPS: tuple[Mode, ...] = ("rollout", "rollout-max", "rollout-min", "legrad", "fullgrad", "shapleycam")
"""Modes that give a map of their own, of which nobody chooses where it is read: :data:`RELEVANCE`."""
Place = Literal["image", "layer"]
PLACES: tuple[Place, ...] = get_args(Place)
"""Where that is read: :data:`INPUT_GRADIENT` at the image, :data:`RELEVANCE`, summed over channels, at the layer (of
:data:`MAPS` at the tokens of a vision transformer, of "fullgrad" at the image's pixels)."""

Engine = Literal["onnxruntime", "cuda", "tensorrt", "web"]
ENGINES: tuple[Engine, ...] = ("onnxruntime", "cuda", "tensorrt", "web")
"""For whom the added nodes are: ONNX Runtime on any device; on CUDA, with nothing that has to be read on the host, as
CUDA graphs want it; an engine that reads fewer operators; or onnxruntime-web, which takes no input with a default."""

Kind = Literal["picture", "video", "volume", "spectrogram", "signal", "text"]
ORDERS = ("NCHW", "NHWC", "NCTHW", "NTHWC", "NTCHW", "NCDHW", "NDHWC", "NDHW", "NHW", "NCL", "NLC", "NL")
"""How the explained input may lie: pictures, spectrograms; videos and sequences of T pictures; volumes of D slices;
signals of L samples."""
LayoutName = Literal["NCHW", "NHWC", "NCTHW", "NTHWC", "NTCHW", "FCHW", "FHWC", "NCW", "NWC", "tokens", "LNC", "NCL"]
LAYOUTS: tuple[LayoutName, ...] = get_args(LayoutName)
"""How a target layer may lie in the source graph: maps, maps with channels last, both of videos (T frames), of pictures
that are folded into the batch (F = N T), of signals (W samples), and sequences: "tokens" is [N, L, C], the others are
named by their axes."""


def _measured(check: dict[str, Any]) -> bool:
    """Whether the sizes that a check has measured are sizes."""
    shapes, image = check.get("output_shapes", {}), check.get("image_shape", [])
    every = [image, *shapes.values()] if isinstance(shapes, dict) else [None]
    return all(isinstance(one, list) and SIDES.holds(one) for one in every)


MEASURED = Rule(_measured, "output_shapes by name and image_shape, lists of sizes above 0")
ORDER = Rule(lambda order: order in ("", *ORDERS), "an order of axes")


@dataclass(frozen=True)
class TargetLayer:
    """The value that is explained.

    Attributes:
        value: its name in the graph.
        node, op_type: name and operator of the node that computes it.
        scope: the exporter's module path of that node ("" where the file does not say).
        layout: how the value is laid out in the source graph; ``fastcam.activations`` is always [N, K, h, w] (of
            signals [N, K, l]; of videos and volumes [N, K, t, h, w], and so of pictures that are folded into the batch,
            whose ``fastcam.weights`` are [N, T, K, t]).
        prefix_tokens: of a sequence: the class token and its like in front of the positions; not among the activations.
        grid: of a sequence: (h, w) or (t, h, w) of its positions; None where it is free, or the layout has it as axes.
        reason: one sentence: why this layer.
        averaged: whether all that the score does with it is its mean over the positions and at most one matrix.
    """

    value: Annotated[str, NOT_EMPTY]
    node: str = ""
    op_type: str = ""
    scope: str = ""
    layout: LayoutName = "NCHW"
    prefix_tokens: Annotated[int, at_least(0)] = 0
    grid: Annotated[tuple[int, ...] | None, SIDES] = None
    reason: str = ""
    averaged: bool = False


@dataclass(frozen=True)
class Score:
    """The explained score: ``value`` is a [N, classes] tensor of the graph, ``output`` the model output it stands for.

    ``kind`` is "logit" (before the final softmax or sigmoid, as in the paper), "probability" (after it), "raw" (the
    output has no such activation) or "log-probability" (the logarithm of what the activation gives, or would give).
    ``reason`` says why this output, where the model has several that might be it; "" where there is nothing to say.
    ``axis`` is the axis of the classes in the output: 1, or the last of maps [N, h, w, classes]. ``single`` says what
    an output of one number for each image holds, of which the scores of two classes follow: s, "logit", which are -s
    and s; or p, "probability", which are 1 - p and p.
    """

    output: Annotated[str, NOT_EMPTY]
    value: Annotated[str, NOT_EMPTY]
    kind: Literal["logit", "probability", "raw", "log-probability"]
    classes: Annotated[int | None, at_least(1)]
    reason: str = ""
    axis: int = 1
    single: Literal["", "logit", "probability"] = ""


@dataclass(frozen=True)
class Pair:
    """An export in two files: the forward part runs on every frame, the explanation part on those that are asked about.

    Attributes:
        part: which of the two the file is.
        other: base name of the other, which lies beside it; "" where they were not written to files.
        extra: names of the forward part's outputs that are there for the explanation part alone. That part's inputs,
            but for :data:`TARGETS`, have the names of the forward part's outputs or inputs that they take.
        sha256: hex digest of what both say, the same in both.
    """

    part: Literal["forward", "explanation"]
    other: Annotated[str, BASE_NAME]
    extra: tuple[str, ...]
    sha256: str


@dataclass(frozen=True)
class Head:
    """What lies behind the layer, in a file of its own: :data:`ACTIVATIONS` [M, K, h, w] in, :data:`SCORES` out.

    It may take more, which the model then emits, with an axis of images in front: :data:`TOKENS` [M, P, K], what stands
    for no position of a sequence, and values :data:`KEPT` that lead to the score by another way than the layer.

    Attributes:
        part: which of the two the file is.
        other: base name of the other, which lies beside it; "" where they were not written to files.
        kept: names of what else it takes.
        sha256: hex digest of what both say, the same in both.
    """

    part: Literal["model", "head"]
    other: Annotated[str, BASE_NAME]
    kept: tuple[str, ...]
    sha256: str


Answer = Literal["class", "element", "box", "region", "point", "words", "similarity", "text", ""]
"""The kind of target that an output is asked by where a person names none; "" where nothing tells."""


@dataclass(frozen=True)
class Cotangent:
    """An input that says what is explained of an output: sum_i cotangent[n, t, i] output[n, i], float32 [N, T, *shape].

    Attributes:
        input: its name: :data:`COTANGENT`, or of several outputs that and the output's.
        output: the model output.
        shape: of that output, for one image; free dimensions are strings.
        batched: whether the output's first axis counts the images. If not (the boxes of one image), N is 1.
        axes: a letter for each axis of ``shape`` where the graph tells more than the shape does: "HWC" of a map with
            the classes last, "CW" or "WC" of one along a signal, "LC" of a text, the words (characters) of each step,
            "LNC" with the images between them.
        answer: the kind of target by which it is asked, see :data:`Answer`.
        activation: what its values have passed last, as the graph tells; "" where they have passed none.
    """

    input: Annotated[str, NOT_EMPTY]
    output: Annotated[str, NOT_EMPTY]
    shape: Annotated[tuple[int | str, ...], SIDES]
    batched: bool
    axes: str = ""
    answer: Answer = ""
    activation: Literal["", "Softmax", "LogSoftmax", "Sigmoid"] = ""


@dataclass(frozen=True)
class Metadata:
    """Everything under ``metadata_props["fastcam"]``.

    Attributes:
        emit: emit level, see :data:`OUTPUTS`.
        layer, score: what is explained.
        layers: of a file with several target layers all of them, in the order in which an image passes them, ``layer``
            among them; empty of a file with one. ``layer`` has the plain names of :data:`OUTPUTS`, the others carry
            their number here, from 1: ``fastcam.activations.1``.
        input: name of the image input.
        input_shape: its shape; free dimensions are strings.
        preprocessing: None where the user gave none: pictures are then refused unless the user of the file says how.
        labels: class names by index, or None.
        method: the method by which the file is explained where none is asked for: "hirescam" of outputs whose numbers
            have a place in the picture, else "gradcam".
        fuse: how the maps of its layers then become one, a name of :data:`fastcam.methods.layer_fusion.FUSIONS`; None:
            the default layer alone is shown.
        source: ``{"file": base name, "sha256": hex digest}`` of the source model.
        check: result of the check that ended the export; empty if it was skipped. ``output_shapes`` are sizes of texts
            and maps that only a run tells, for pictures of ``image_shape``.
        engine: for which engine the added nodes were chosen, see :data:`ENGINES`.
        pair: what the file is a part of, or None where it is all of the export.
        input_gradient: the mode of :data:`INPUT_GRADIENT` or :data:`RELEVANCE`; None where the file has neither.
        input_gradient_at: which of the two it has.
        head: the file of what lies behind the layer, or None where the export has none.
        cotangents: the inputs of a file whose target is a cotangent, in place of :data:`TARGETS`; empty otherwise.
        frames: whether the input takes pictures as they are, uint8 RGB [N, height, width, 3], and the file itself makes
            of them what ``preprocessing`` says.
        labels_from: where the names are from, if the model brought them; "" where the user of the export gave them.
        inputs: the model's inputs beside ``input``, if it has any.
        tokenizer: how texts become the ids of those that hold a text; None where the user gave none.
        text_encoder: of pictures whose embedding is compared with that of texts; None where the user gave none.
        order: of the axes of ``input``, one of :data:`ORDERS`; empty of pictures and videos whose one or three channels
            say it.
        words: where ``input`` holds the ids of a text's words, how many there are; None of all other inputs.
        size_step: of what height and width are multiples, where the model leaves them free; pictures that keep their
            own size are brought to the nearest.
        captioning: of a captioner how words come out of it; or None.
        version: FastCAM's version that wrote the file.
    """

    emit: Emit
    layer: TargetLayer
    score: Score
    input: Annotated[str, NOT_EMPTY]
    input_shape: Annotated[tuple[int | str, ...], NOT_EMPTY, SIDES]
    preprocessing: Preprocessing | None = None
    labels: Annotated[tuple[str, ...] | None, NOT_EMPTY] = None
    method: str = "gradcam"
    fuse: str | None = None
    source: dict[str, str] = field(default_factory=dict)
    check: Annotated[dict[str, Any], MEASURED] = field(default_factory=dict)
    engine: Engine = "onnxruntime"
    pair: Pair | None = None
    input_gradient: Mode | None = None
    input_gradient_at: Place = "image"
    head: Head | None = None
    cotangents: tuple[Cotangent, ...] = ()
    frames: bool = False
    layers: tuple[TargetLayer, ...] = ()
    labels_from: str = ""
    inputs: tuple[FurtherInput, ...] = ()
    tokenizer: TokenizerFile | None = None
    text_encoder: TextEncoderFile | None = None
    order: Annotated[str, ORDER] = ""
    words: Annotated[int | None, at_least(1)] = None
    size_step: Annotated[int, at_least(1), Rule(lambda step: step <= 2**16, "65536 or less")] = 1
    captioning: Captioning | None = None
    version: str = __version__
    schema: int = SCHEMA_VERSION

    @property
    def kind(self) -> Kind:
        """What the explained input holds."""
        if self.words is not None:
            return "text"
        letters = {"L": "signal", "D": "volume", "T": "video"}
        plain = {5: "video", 3: "spectrogram"}.get(len(self.input_shape), "picture")
        return cast(Kind, next((letters[letter] for letter in self.order if letter in letters), plain))

    def emitted(self) -> tuple[str, ...]:
        """The outputs of the emit level: :data:`OUTPUTS`, without classes where the target is a cotangent."""
        plain = tuple(name for name in OUTPUTS[self.emit] if name != CLASSES or not self.cotangents)
        return plain + tuple(
            of_layer(name, n) for n in self.numbers() for name in OUTPUTS[self.emit] if name != CLASSES
        )

    def size_of(self, about: Cotangent, image: tuple[int, ...]) -> tuple[int, ...] | None:
        """The shape of an output for pictures of a shape [N, ...]; None where only a run tells it.

        The check that ended the export measured it for pictures of one size.
        """
        fixed = tuple(size for size in about.shape if isinstance(size, int))
        if len(fixed) == len(about.shape):
            return fixed
        measured = self.check.get("output_shapes", {}).get(about.output)
        same = measured is not None and list(image[1:]) == self.check.get("image_shape")
        return tuple(measured) if same and measured is not None else None

    def numbers(self) -> tuple[int, ...]:
        """The numbers of the layers beside the default one."""
        return tuple(n for n, one in enumerate(self.layers, 1) if one.value != self.layer.value)

    def at(self, number: int) -> Metadata:
        """What the file would say of itself if it explained only the layer with this number, from 1."""
        return replace(self, layer=self.layers[number - 1], layers=())

    def further(self) -> tuple[str, ...]:
        """The outputs beside those of the emit level."""
        kept = self.head.kept if self.head is not None else ()
        if self.input_gradient is None:
            return kept
        return (INPUT_GRADIENT if self.input_gradient_at == "image" else RELEVANCE, *kept)

    def of_layer_alone(self) -> bool:
        """Whether what the mode brings back is about the default layer, and says nothing of others."""
        mode, at = self.input_gradient, self.input_gradient_at
        return mode is not None and (mode == "shapleycam" or (at == "layer" and mode not in MAPS))

    def to_json(self) -> str:
        """One JSON object; :meth:`from_json` reads it back to an equal object."""
        # files with one layer and input say what they always said
        new = "layers", "inputs", "labels_from", "order", "fuse", "tokenizer", "text_encoder", "captioning", "words"
        unsaid = {name for name in new if not getattr(self, name)}
        every = {name: value for name, value in asdict(self).items() if name not in unsaid}
        if self.preprocessing is not None and self.preprocessing.stack == 1:
            del every["preprocessing"]["stack"]
        every |= {"score": said(self.score), "cotangents": [said(one) for one in self.cotangents]}
        every |= {"inputs": [said(one) for one in self.inputs]} if self.inputs else {}
        return json.dumps(every, ensure_ascii=False)

    @staticmethod
    def from_json(text: str) -> Metadata:
        """Read what :meth:`to_json` wrote. Fields of later versions are passed over.

        Raises:
            FastcamError: not such an object, a field of another type or range, fields that contradict each other, or
                written by a newer schema than this version reads.
        """
        try:
            raw = parse_json(text)
            version = raw["schema"]
        except (ValueError, KeyError, TypeError) as error:
            raise FastcamError(f"the file's fastcam metadata is not readable ({error}); export it again") from error
        if version != SCHEMA_VERSION:
            raise FastcamError(
                f"the file was exported with metadata schema {shown(repr(version))}, this fastcam reads "
                f"{SCHEMA_VERSION}; export it again or use the matching fastcam version"
            )
        try:
            found = cast(Metadata, built(Metadata, raw))
            _check_together(found)
        except Unfit as error:
            raise FastcamError(
                f"the file's fastcam metadata is incomplete or damaged: {error}; export the file again"
            ) from error
        return found


def _check_together(meta: Metadata) -> None:
    """Raise where fields contradict each other.

    Raises:
        Unfit: they do.
    """
    classes, names = meta.score.classes, len(meta.labels or ())
    if meta.labels is not None and classes is not None and names != classes:
        raise Unfit("labels", f"{names} names", f"a name for each of the {classes} classes")
    if meta.layers and meta.layer.value not in [one.value for one in meta.layers]:
        raise Unfit("layer", meta.layer.value, "one of the layers")
    if meta.order and len(meta.order) != len(meta.input_shape):
        raise Unfit("order", meta.order, f"the {len(meta.input_shape)} axes of the input")
    if meta.frames and (meta.preprocessing is None or meta.preprocessing.size is None):
        raise Unfit("frames", True, "a preprocessing with a size")
    if meta.captioning is not None:
        meta.captioning.check()
    how = meta.preprocessing
    order = meta.order or (how.layout if how is not None and len(meta.input_shape) == 4 and not meta.frames else "")
    channels = meta.input_shape[order.index("C")] if "C" in order else None
    if how is not None and isinstance(channels, int) and channels % how.stack:
        raise Unfit("preprocessing.stack", how.stack, f"a number of frames that {channels} channels are of")
    channels = channels // how.stack if how is not None and isinstance(channels, int) else channels
    if how is not None and isinstance(channels, int) and not {len(how.mean), len(how.std)} <= {1, channels}:
        raise Unfit("preprocessing", f"mean {how.mean} and std {how.std}", f"one number, or {channels}")
    for i, one in enumerate(meta.inputs):
        sides = [side or 1 for side in one.default_shape]
        if one.default is not None and (len(one.default) != math.prod(one.default_shape) or math.prod(sides) > 2**31):
            raise Unfit(f"inputs[{i}].default", one.default, f"numbers for a shape {list(one.default_shape)}")
