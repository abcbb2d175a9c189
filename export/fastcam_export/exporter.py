"""``export_model`` and ``inspect_model``: load, choose, differentiate, check, write."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import onnx_ir as ir

from fastcam import schema
from fastcam.schema import Emit, Engine, FastcamError, Metadata, Mode, Place, Preprocessing, Score
from fastcam_export import metadata_options, multi_layer
from fastcam_export.artifacts import classifier_head as behind_
from fastcam_export.artifacts import engines
from fastcam_export.artifacts import on_demand as split
from fastcam_export.artifacts import uint8_frames as framing
from fastcam_export.autodiff.core.straight_through import unquantised
from fastcam_export.autodiff.reverse import path, unsupported
from fastcam_export.graph import float16
from fastcam_export.graph.load import Source, load
from fastcam_export.graph.save import stamp, write
from fastcam_export.layers import target_layer
from fastcam_export.layers.layout import Layout, given
from fastcam_export.layers.score import WANTS, Want, find_score
from fastcam_export.outputs import cam as head_
from fastcam_export.outputs import cotangent_targets
from fastcam_export.outputs import input_attribution as backwards
from fastcam_export.result import Export, InspectedLayer, Inspection
from fastcam_export.verify import check as verify
from fastcam_export.verify import finite_differences, image_gradient


def export_model(
    model: Source,
    output: str | Path | None = None,
    *,
    layer: str | Sequence[str] = "auto",
    layout: schema.LayoutName | None = None,
    prefix_tokens: int | None = None,
    grid: Sequence[int] | None = None,
    emit: Emit = "weights",
    targets: head_.Targets = "default",
    score: Want = "logit",
    output_name: str | Sequence[str] | None = None,
    preprocess: str | Preprocessing | None = None,
    resize: schema.Resize = "stretch",
    labels: str | Path | Sequence[str] | None = None,
    for_engine: Engine = "onnxruntime",
    input_gradient: Mode | None = None,
    input_gradient_at: Place | None = None,
    on_demand: bool = False,
    head: bool = False,
    frames: bool | tuple[int, int] = False,
    check: bool = True,
) -> Export:
    """Rewrite a model so that it also emits what explains its predictions.

    Args:
        model: path, bytes or ModelProto; opset 7 or later.
        output: file to write; None only returns the model.
        layer: "auto", or the name of a value, node or scope; several of them for one file that explains at each, the
            first by default; "all" for the last map of each resolution (``auto`` is its default layer). The outputs of
            further layers carry their number in :attr:`fastcam.schema.Metadata.layers`.
        layout: how the layer lies in the graph, one of :data:`fastcam.schema.LAYOUTS`; by default the graph tells.
        prefix_tokens: of a token sequence: tokens in front of the image's positions; by default the graph tells.
        grid: of a token sequence: (h, w) of its positions; by default the graph tells, else a square.
        emit: "weights" (activations and pooled gradient), "gradients" (activations and gradient) or "cam" (the map).
        targets: "default" (input ``fastcam.targets`` with default [[-1]]), "required" (no default), "constant"
            (the predicted class, no input), "cotangent" (any linear functional of outputs as the model gives them:
            the required input ``fastcam.cotangent`` float32 [N, T, *output without N], ``fastcam.cotangent.NAME`` of
            several outputs; no ``fastcam.classes``).
        score: "logit" explains what goes into a final softmax or sigmoid, "probability" what comes out,
            "log-probability" its logarithm, also of a model that ends before its softmax.
        output_name: the model output to explain; by default the first with one number per class; with cotangents any
            float output, or a list of them, by default the only one.
        preprocess: name of a preset or a Preprocessing, kept in the metadata; its size and layout come from the model.
        resize: resize rule of a named preset.
        labels: file with one class name per line, or the names.
        for_engine: "onnxruntime"; "cuda": ONNX Runtime on a GPU, where no added node then has to be read on the host,
            so that runs are queued whole and CUDA graphs can be recorded; or "tensorrt": what is added then consists of
            operators that TensorRT's parser reads, without indices of pools, Col2Im and scatters, and ``targets``
            "default" becomes "required", for its parser makes a constant of an input with a default. Results are equal,
            but for targets that the model does not have: class -1 and NaN in place of an error.
        input_gradient: also emit what a second backward pass brings to the image, ``fastcam.input_gradient`` [N, T,
            *image without N]: "gradient", "guided" (backpropagation), "deconvolution", "lrp-epsilon", "lrp-composite"
            or "lrp-gamma"; or what "excitation" or "contrastive-excitation" backpropagation brings to the layer,
            ``fastcam.relevance`` [N, T, h, w], summed over channels. See
            :mod:`fastcam_export.autodiff.modified.relu_modes` and :mod:`fastcam_export.autodiff.modified.lrp` for
            formulas. Or a map of its own, as ``fastcam.relevance``: "rollout", "legrad"
            (:mod:`fastcam_export.outputs.attention_maps`), "fullgrad" (:mod:`fastcam_export.outputs.fullgrad`) or
            "shapleycam" (:mod:`fastcam_export.outputs.shapleycam`).
        input_gradient_at: "image" or "layer", where excitation and lrp are read.
        on_demand: export two files, see :mod:`fastcam_export.artifacts.on_demand`: ``output`` is the model with what
            the explanation needs as further outputs, ``x.cam.explain.onnx`` beside it the explanation. Large constants
            of both lie in a
            third file, ``x.cam.*.data``; all of them belong together.
        head: also write ``x.cam.head.onnx``, what lies behind the layer, for methods that change the layer:
            ``fastcam.activations`` [M, K, h, w] (and of a sequence ``fastcam.tokens`` [M, P, K], what stands for no
            position) in, ``fastcam.scores`` [M, classes], the explained scores, out.
        frames: True puts the preprocessing into the file, which then takes uint8 RGB pictures [N, height, width, 3] of
            any size; (height, width) of one size, which is faster, and what TensorRT reads.
        check: run the check that ends an export; a failed one writes nothing.

    Returns:
        The exported model with its metadata and the check's result.

    Raises:
        FastcamError: bad input, a failed check, a file that cannot be written, or a gradient that needs operators which
            the engine does not read; one line that says what to do.
        UnsupportedOperator: (a FastcamError) an operator between layer and score has no gradient rule.
    """
    _one_of("emit", emit, schema.EMITS)
    _one_of("targets", targets, head_.TARGETS_MODES)
    _one_of("score", score, WANTS)
    _one_of("for_engine", for_engine, schema.ENGINES)
    _one_of("input_gradient", input_gradient or schema.MODES[0], schema.MODES)
    _one_of("input_gradient_at", input_gradient_at or schema.PLACES[0], schema.PLACES)
    if engines.has_list(for_engine) and targets == "default":
        targets = "required"
    if check:
        finite_differences.onnxruntime()  # said before the work, not after it
    loaded = load(model)
    graph = loaded.model.graph
    if head:
        behind_.refuse(emit, targets == "cotangent")
    if targets == "cotangent":
        cotangent_targets.refuse_options(score, input_gradient)
    names = multi_layer.listed(layer)
    named = names[0] if names != (multi_layer.ALL,) else "auto"
    asked = _question(graph, named, targets, score, output_name)
    image, functional, value, score_value = asked.image, asked.functional, asked.layer, asked.value
    lies = partial(given, name=layout, prefix_tokens=prefix_tokens, grid=grid)
    usable = target_layer.usable(
        asked.maps, value.name or "" if named == "auto" else named, value, lies(value, asked.layout)
    )
    if functional is not None:
        cotangent_targets.refuse_unreached(graph, image, value, functional)
    first = multi_layer.Place(value, usable, target_layer.describe(value, asked.reason, usable))
    places = multi_layer.find(loaded.model, names, first, asked.maps, asked.score.classes, functional, lies)
    places = multi_layer.with_heads(asked.maps, places, functional)
    all_layers, others = multi_layer.numbered(graph, places)
    metadata = Metadata(
        emit=emit,
        layer=places[0].about,
        layers=all_layers,
        score=asked.score,
        input=image.name or "",
        input_shape=_dims(image),
        preprocessing=metadata_options.preprocessing(preprocess, resize, image),
        labels=metadata_options.labels(labels, asked.score.classes),
        source={"file": loaded.file, "sha256": loaded.sha256},
        engine=for_engine,
        input_gradient=input_gradient,
        input_gradient_at=backwards.place(input_gradient, input_gradient_at),
        cotangents=functional.about if functional is not None else (),
    )
    if frames:
        framing.refuse(metadata, frames, on_demand)
    further = None
    explained = functional.explained if functional is not None else [unquantised(score_value)]
    if input_gradient is not None:
        place = metadata.input_gradient_at
        further = backwards.further(graph, image, explained, value, usable, input_gradient, place)
    behind = verify.tail(loaded.model, value, *explained) if check else None
    by_differences = check and input_gradient == "gradient"
    whole = verify.tail(loaded.model, image, *explained) if by_differences else None
    feeds = verify.random_inputs(graph, image) if check else {}
    part = behind_.head(loaded.model, value, usable, score_value) if head else None
    if functional is None:
        rest = part.emitted if part is not None else None
        values = head_.attach(graph, value, usable, score_value, targets, emit, for_engine, further, others, rest)
    else:
        feeds = functional.of_one(feeds, image)
        values = cotangent_targets.attach(graph, image, value, usable, functional, emit, for_engine, further, others)
    head_.emit(graph, values, emit, others)
    if not engines.has_list(for_engine):
        float16.settle(graph, loaded.opset)
    unread = engines.hold(graph, for_engine)
    loaded.model.producer_name, loaded.model.producer_version = "fastcam", schema.__version__
    exported = ir.to_proto(loaded.model)
    result = {}
    random = partial(functional.random, images=len(feeds[metadata.input])) if functional is not None and check else None
    if behind is not None:
        again = partial(export_model, model, layout=layout, prefix_tokens=prefix_tokens, grid=grid, targets=targets)
        again = partial(again, score=score, output_name=output_name, for_engine=for_engine)
        looked = multi_layer.examined(loaded.model, (value, usable, behind), others, explained, again)
        result = verify.check(loaded.proto, exported, feeds, values, looked, random).to_dict()
    if whole is not None:
        given_of = functional.random if functional is not None else None
        error = image_gradient.check(loaded.proto, exported, whole, feeds, metadata.input, given_of)
        result["input_gradient_error"] = error
    if part is not None:
        result |= behind_.check(exported, part.model, unquantised(score_value).name or "", feeds) if check else {}
        metadata = behind_.belonging(part, metadata)
    whole_head = part.model if part is not None else None
    opsets = (loaded.opset, graph.opset_imports[""])
    if frames:
        exported, metadata = framing.frame(exported, replace(metadata, check=result), frames, feeds if check else None)
        result = metadata.check
    if not on_demand:
        metadata = replace(metadata, check=result)
        return finish(Export(exported, metadata, result, None, opsets, unread, head=whole_head), output)
    parts = split.split(exported)
    if check:
        result |= split.check(loaded.proto, exported, parts, feeds, random)
    metadata = split.paired(parts, replace(metadata, check=result))
    return finish(Export(parts.forward, metadata, result, None, opsets, unread, parts.explanation, whole_head), output)


@dataclass(frozen=True)
class _Question:
    """What is explained, where: the score (of cotangents, their first output) and the layer."""

    image: ir.Value
    score: Score
    value: ir.Value
    functional: cotangent_targets.Functional | None
    maps: target_layer.Maps
    layer: ir.Value
    reason: str
    layout: Layout | None


def _question(
    graph: ir.Graph, layer: str, targets: head_.Targets, score: Want, output_name: str | Sequence[str] | None
) -> _Question:
    image = target_layer.find_image(graph)
    functional = cotangent_targets.find(graph, image, output_name) if targets == "cotangent" else None
    if functional is None:
        description, value = find_score(graph, _one_name(output_name), score)
    else:
        description, value = functional.score, functional.values[0]
    maps = target_layer.Maps.of(graph, image, value)
    if functional is None or layer != "auto":
        chosen, reason, layout = _layer(maps, description, layer)
    else:
        chosen, reason, layout = cotangent_targets.choose_layer(graph, image, functional)
    multi_layer.refuse_behind(graph, chosen, [value])
    return _Question(image, description, value, functional, maps, chosen, reason, layout)


def finish(made: Export, output: str | Path | None) -> Export:
    """The export with its metadata in the model, or in all parts, and written to ``output`` if that is given."""
    path = Path(output) if output is not None else None
    metadata, parts = made.metadata, {}
    if made.head is not None:
        metadata, parts["head"] = behind_.named(made.head, metadata, path), made.head
    pair = metadata.pair
    if made.explanation is not None and pair is not None:
        theirs = replace(pair, part="explanation", other=path.name if path is not None else "")
        stamp(made.explanation, replace(metadata, pair=theirs))
        metadata = replace(metadata, pair=replace(pair, other=split.beside(path).name if path is not None else ""))
        parts["explain"] = made.explanation
    stamp(made.model, metadata)
    files: dict[Path, bytes] = {}
    if path is not None:
        beside = {path.with_name(f"{path.stem}.{name}.onnx"): part for name, part in parts.items()}
        files = split.contents(beside | {path: made.model}, path) if beside else {path: made.model.SerializeToString()}
    write(files)
    return replace(made, metadata=metadata, output=path, files=tuple(files))


def inspect_model(
    model: Source, output_name: str | None = None, score: Want = "logit", for_engine: Engine = "onnxruntime"
) -> Inspection:
    """The layers of a model that can be explained, the one that "auto" chooses, and operators without a rule.

    Args:
        model, output_name, score, for_engine: as in :func:`export_model`.

    Raises:
        FastcamError: as in :func:`export_model`.
    """
    _one_of("for_engine", for_engine, schema.ENGINES)
    loaded = load(model).model
    graph = loaded.graph
    image = target_layer.find_image(graph)
    description, score_value = find_score(graph, output_name, score, any_output=True)
    maps = target_layer.Maps.of(graph, image, score_value)
    found = target_layer.find_layers(maps, description.classes)
    chosen, reason = target_layer.choose(found)
    taken = multi_layer.if_known(loaded, maps, found, chosen.value)
    if chosen.layout.name != "NCHW":
        reason += f"; {chosen.layout.found}"
    lines = []
    for one in found:
        about = target_layer.describe(one.value, "")
        said = (_dims(one.value), one is chosen, one.note, one.layout.name, one in taken)
        lines.append(InspectedLayer(about.value, about.scope, about.op_type, *said))
    missing = Counter(node.op_type for node in unsupported(path(graph, [image], [score_value])))
    unread = engines.report(graph, for_engine, engines.refused(graph, for_engine))
    return Inspection(lines, reason, description, missing.most_common(), unread)


def _one_name(names: str | Sequence[str] | None) -> str | None:
    """The output of class targets."""
    if names is None or isinstance(names, str) or len(names) == 1:
        return names if names is None or isinstance(names, str) else names[0]
    raise FastcamError("several outputs at once are explained by cotangents only; export with targets cotangent")


def _layer(maps: target_layer.Maps, about: Score, name: str) -> tuple[ir.Value, str, Layout | None]:
    """The layer's value, why it is the layer, and how the graph says that it is laid out."""
    if name != "auto":
        value, reason = target_layer.resolve(maps.graph, name)
        return value, reason, maps.layout(value)
    chosen, reason = target_layer.choose(target_layer.find_layers(maps, about.classes))
    return chosen.value, reason, chosen.layout


def _dims(value: ir.Value) -> tuple[int | str, ...]:
    """A shape for people and JSON: free dimensions by name, or "?"."""
    return tuple(d if isinstance(d, int) else str(d.value or "?") for d in value.shape or ())


def _one_of(option: str, value: str, allowed: Sequence[str]) -> None:
    if value not in allowed:
        raise FastcamError(f"{option} is {value!r}; it must be one of: {', '.join(allowed)}")
