"""The first step of an export: what is explained, and at which layers."""

from __future__ import annotations

from dataclasses import dataclass, replace

import onnx_ir as ir

from fastcam.language.tokenizer import Tokenizer
from fastcam.schema import FastcamError, FurtherInput, Metadata, Preprocessing
from fastcam_export import metadata_options, multi_layer
from fastcam_export.artifacts import classifier_head, uint8_frames
from fastcam_export.autodiff.core.stopped import is_stopped, stop
from fastcam_export.graph.broken_weights import broken_weights
from fastcam_export.graph.constants import remembered
from fastcam_export.graph.load import Loaded
from fastcam_export.graph.query import readable_dims
from fastcam_export.layers import image_order, target_layer
from fastcam_export.layers.explained_layer import ExplainedLayer
from fastcam_export.layers.image_input import find_image, vocabulary
from fastcam_export.outputs import cotangent_targets, input_attribution, target_kinds
from fastcam_export.outputs.target import Target, find_target
from fastcam_export.steps import texts
from fastcam_export.steps.options import ExportOptions
from fastcam_export.verify import input_size, needed_memory

OURS = ("auto", multi_layer.ALL)
"""Layers that nobody names."""


@dataclass(frozen=True)
class Plan:
    """What an export explains, where, and how it emits that. Its graph is the model's own; nothing is added to it.

    Attributes:
        loaded: the model, as given and as a graph. The values below are this graph's.
        image: the image input.
        target: the explained outputs.
        layers: the target layers: the default one, then the others by their numbers.
        options: the options of the export.
        metadata: what the file says of itself, without the check's result and the names of other files.
        size: of the explained input.
        notes: what was found out about the input, for people.
        tokenizer: of the inputs that hold a text, if the user gave one.
        unsigned: int8 values that the exported file has as uint8, see :mod:`fastcam_export.graph.signed_codes`.
    """

    loaded: Loaded
    image: ir.Value
    target: Target
    layers: tuple[ExplainedLayer, ...]
    options: ExportOptions
    metadata: Metadata
    size: input_size.InputSize
    notes: tuple[str, ...]
    unsigned: frozenset[str] = frozenset()
    tokenizer: Tokenizer | None = None

    def copy(self) -> Plan:
        """The same plan on a copy of the graph. The weights are shared."""
        model = self.loaded.model.clone()
        graph = model.graph
        values = {value.name: value for value in (*graph.inputs, *(y for node in graph for y in node.outputs))}
        layers = (
            replace(layer, value=values[layer.value.name], layout=layer.layout.among(values)) for layer in self.layers
        )
        return replace(
            self,
            loaded=replace(self.loaded, model=model),
            image=values[self.image.name],
            target=self.target.among(values),
            layers=tuple(layers),
        )

    def of_whole_gradient(self, layer: ExplainedLayer) -> Plan:
        """The plan of one file that emits the whole gradient at ``layer``, and nothing else."""
        return replace(self, layers=(replace(layer, number=None),), options=self.options.of_whole_gradient())


def plan(loaded: Loaded, options: ExportOptions) -> Plan:
    """Find what is explained and the target layers.

    Args:
        loaded: the model; it stays as it is.
        options: the options of the export.

    Raises:
        FastcamError: the options do not go together, or mean nothing for this model.
    """
    with remembered():
        return _plan(loaded, options)


def _plan(loaded: Loaded, options: ExportOptions) -> Plan:
    was, names = options, multi_layer.listed(options.layer)
    graph = loaded.model.graph
    stopped = stop(graph, options.stop_gradient)
    image = find_image(graph, options.input_name)
    image_order.say(image, options.order)
    if vocabulary(graph, image) is not None:
        _refuse_for_texts(image, options)
    further, tokenizer = texts.described(graph, image, options)
    if options.check:
        needed_memory.refuse_values(graph)
    names_known = metadata_options.names_known(options.labels, loaded)
    options = _by_kind(graph, image, options, names_known)
    if options.cotangents:
        cotangent_targets.refuse_options(options.score, options.input_gradient)
    asked = options.score, options.output_name, names_known, options.output_layout
    target = find_target(graph, image, options.cotangents, *asked)
    options = replace(options, emit=options.emit or ("gradients" if target.has_places else "weights"))
    if options.on_demand is None:
        options = replace(options, on_demand=target.needs_a_run and was.targets != options.targets)
    if options.head:
        classifier_head.refuse(options.emitted, options.cotangents)
    maps = target_layer.Maps.of(graph, image, target.value, *target.differentiated)
    size = _size(loaded, image, options, further)
    layers = multi_layer.Search(loaded.model, maps, target, options.user_layout, size.sides).find(names)
    for layer in layers:
        if is_stopped(layer.value):
            raise FastcamError(f"layer {layer.about.value!r} is itself stopped (--stop-gradient); name another")
    each = size.any and target.has_places  # small objects are lost in a picture that is made small
    sides = None if each else size.sides
    preprocessing, note = metadata_options.preprocessing(options.preprocess, options.resize, image, sides)
    if options.head and layers[0].layout.folded:
        raise FastcamError(
            f"layer {layers[0].about.value!r} holds the pictures of a sequence one after the other, and a head takes "
            "one map for each input; leave head (--head) out"
        )
    # at a layer that a person names Grad-CAM is the default, as of classes, unless gradients were asked for as well
    keeps_place = target.has_places and options.emit == "gradients" and (was.emit is not None or names[0] in OURS)
    metadata = _metadata(loaded, image, target, layers, options, keeps_place)
    further = texts.with_classes(further, graph, image, None if options.cotangents else target.score, options.roles)
    metadata = replace(metadata, inputs=further, preprocessing=preprocessing, size_step=size.step)
    metadata = replace(metadata, text_encoder=texts.encoder(options, further, options.cotangents))
    if options.frames:
        uint8_frames.refuse(metadata, options.frames, bool(options.on_demand))
    notes = [f"stopped {name}: no gradient passes it" for name in stopped]
    notes += [f"size    {size.of_each if each else size.note}"] * bool(size.note) + [f"pixels  {note}"] * bool(note)
    broken = broken_weights(graph)
    if broken:
        notes.append(f"warning: weights with NaN or infinity: {broken}; what comes of them is no number")
    return Plan(loaded, image, target, layers, options, metadata, size, tuple(notes), tokenizer=tokenizer)


def _refuse_for_texts(image: ir.Value, options: ExportOptions) -> None:
    """Raise for what is asked of a text and is for pictures."""
    if options.input_gradient is not None:
        raise FastcamError(
            f"input {image.name!r} holds ids of words, through which no gradient passes; leave input_gradient "
            "(--input-gradient) out"
        )
    if options.preprocess is not None or options.frames:
        raise FastcamError(
            f"input {image.name!r} holds ids of words, which are not prepared as pixels are; give the tokenizer "
            "(--tokenizer), and leave preprocess and frames out"
        )


def _order(image: ir.Value) -> str:
    """What the file says of the order of the input's axes: nothing where every run time takes it for granted."""
    order = image_order.image_order(image)
    return "" if order == image_order.guessed(readable_dims(image)) else order


def _size(
    loaded: Loaded, image: ir.Value, options: ExportOptions, further: tuple[FurtherInput, ...]
) -> input_size.InputSize:
    """The size of the input: as the option says, a Preprocessing that fits, or as found out."""
    said = options.preprocess.size if isinstance(options.preprocess, Preprocessing) else None
    own = input_size.spatial(image)
    if said is not None and (None not in own or not all(a in (None, b) for a, b in zip(own, said))):
        said = None
    return input_size.find(loaded, image, options.size or said, further, bool(options.check))


def _by_kind(graph: ir.Graph, image: ir.Value, options: ExportOptions, names: int | None) -> ExportOptions:
    """The options, with cotangents where the model has no class scores, but boxes, maps or words."""
    if options.targets != "default" or options.head or options.score != "logit":
        return options
    outputs = target_kinds.to_explain(graph, image, options.output_name, names)
    return options if outputs is None else options.by_kind(outputs)


def _metadata(
    loaded: Loaded,
    image: ir.Value,
    target: Target,
    layers: tuple[ExplainedLayer, ...],
    options: ExportOptions,
    keeps_place: bool,
) -> Metadata:
    """What the file says of itself."""
    labels, labels_from = metadata_options.labels(
        options.labels, loaded, target.score, target.words, target.map_classes
    )
    return Metadata(
        emit=options.emitted,
        layer=layers[0].about,
        layers=multi_layer.described(loaded.model.graph, layers),
        score=target.score,
        input=image.name or "",
        input_shape=readable_dims(image),
        order=_order(image),
        words=vocabulary(loaded.model.graph, image),
        labels=labels,
        labels_from=labels_from,
        source={"file": loaded.file, "sha256": loaded.sha256},
        engine=options.for_engine,
        input_gradient=options.input_gradient,
        input_gradient_at=input_attribution.place(options.input_gradient, options.input_gradient_at),
        cotangents=target.cotangents,
        method="hirescam" if keeps_place else "gradcam",
        fuse=multi_layer.fusion(layers),
    )
