"""``export_model`` and ``inspect_model``: the two doors of the exporter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import NoneType
from typing import Any

import onnx

from fastcam import schema
from fastcam.errors import typed
from fastcam.labels import Labels
from fastcam.schema import Emit, Engine, FastcamError, Mode, Place, Preprocessing
from fastcam_export.graph import weights
from fastcam_export.graph.load import Source, load
from fastcam_export.inspection import InspectOptions, inspected, unread
from fastcam_export.layers.score import OutputLayout, Want
from fastcam_export.outputs.cam import Targets
from fastcam_export.result import Export, Inspection
from fastcam_export.steps.check import attach_or_say
from fastcam_export.steps.check import check as check_models
from fastcam_export.steps.options import Check, ExportOptions, one_of
from fastcam_export.steps.package import package, spare
from fastcam_export.steps.plan import plan
from fastcam_export.verify.sample import patience
from fastcam_export.verify.session import onnxruntime
from fastcam_export.verify.unexpected import as_fastcam_error

__all__ = ["FastcamError", "export_model", "inspect_model"]


def export_model(
    model: Source,
    output: str | Path | None = None,
    *,
    layer: str | Sequence[str] = "auto",
    layout: schema.LayoutName | None = None,
    prefix_tokens: int | None = None,
    grid: Sequence[int] | None = None,
    emit: Emit | None = None,
    targets: Targets = "default",
    score: Want = "logit",
    output_name: str | Sequence[str] | None = None,
    output_layout: OutputLayout | None = None,
    preprocess: str | Preprocessing | Mapping[str, Any] | None = None,
    resize: schema.Resize = "stretch",
    labels: Labels | None = None,
    for_engine: Engine = "onnxruntime",
    input_gradient: Mode | None = None,
    input_gradient_at: Place | None = None,
    on_demand: bool | None = None,
    head: bool = False,
    frames: bool | tuple[int, int] = False,
    check: Check = True,
    input_name: str | None = None,
    inputs: Mapping[str, Any] | None = None,
    roles: Mapping[str, str] | None = None,
    tokenizer: str | Path | None = None,
    text_encoder: str | Path | None = None,
    logit_scale: float = 1.0,
    logit_bias: float = 0.0,
    size: Sequence[int] | None = None,
    order: str | None = None,
    stop_gradient: str | Sequence[str] = (),
) -> Export:
    """Rewrite a model so that it also emits what explains its predictions.

    Args:
        model: path, bytes or ModelProto; opset 7 or later.
        output: file to write; None only returns the model.
        layer: "auto" (of numbers with a place the maps in front of the heads, see :mod:`fastcam_export.layers.heads`;
            else the last map before the head), or the name of a value, node or scope; several of them for one file that
            explains at each, the first by default; "all" for the last map of each resolution (``auto`` is its default
            layer). The outputs of further layers carry their number in :attr:`fastcam.schema.Metadata.layers`.
        layout: how the layer lies in the graph, one of :data:`fastcam.schema.LAYOUTS`; by default the graph tells.
        prefix_tokens: of a token sequence: tokens in front of the image's positions; by default the graph tells.
        grid: of a token sequence: (h, w) of its positions; by default the graph tells, else a square.
        emit: "weights" (activations and pooled gradient), "gradients" (activations and gradient) or "cam" (the map); by
            default gradients where an explained number has a place in the picture (cotangents of boxes, maps and
            sequences), else weights.
        targets: "default" (input ``fastcam.targets`` with default [[-1]]), "required" (no default), "constant"
            (the predicted class, no input), "cotangent" (any linear functional of outputs as the model gives them:
            the required input ``fastcam.cotangent`` float32 [N, T, *output without N], ``fastcam.cotangent.NAME`` of
            several outputs; no ``fastcam.classes``).
        score: "logit" explains what goes into a final softmax or sigmoid, "probability" what comes out,
            "log-probability" its logarithm, also of a model that ends before its softmax.
        output_name: the model output to explain; by default the one that reads as class scores
            (:mod:`fastcam_export.layers.score_choice`), a question where several do; with cotangents any float output,
            or a list of them, by default the only one.
        output_layout: where the classes of an output of maps lie: "NCHW", in front of the positions, or "NHWC"; by
            default the graph tells.
        preprocess: name of a preset, changes of one ({"preset": "tf", "mean": 0.4}) or a Preprocessing, kept in the
            metadata. Size and layout come from the model; one that does not fit it is refused.
        resize: resize rule of a named preset.
        labels: class names: a file with one per line, JSON or YAML of Hugging Face or Ultralytics, a list, or a dict
            from index to name, see :mod:`fastcam.labels`; by default those that the model brings: in its metadata, in a
            ZipMap, or in a config.json beside it.
        for_engine: "onnxruntime"; "cuda": ONNX Runtime on a GPU, where no added node then has to be read on the host,
            so that runs are queued whole and CUDA graphs can be recorded; or "tensorrt": what is added then consists of
            operators that TensorRT's parser reads, without indices of pools, Col2Im and scatters, and ``targets``
            "default" becomes "required", for its parser makes a constant of an input with a default. Results are equal,
            but for targets that the model does not have: class -1 and NaN in place of an error. Or "web": as
            onnxruntime-web takes it, targets "default" becomes "required", from 512 MiB on weights lie beside, and what
            the page of ``fastcam web`` does not explain is refused.
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
            of both lie in a third file, ``x.cam.*.data``; all of them belong together.
        head: also write ``x.cam.head.onnx``, what lies behind the layer, for methods that change the layer:
            ``fastcam.activations`` [M, K, h, w] (and of a sequence ``fastcam.tokens`` [M, P, K], what stands for no
            position) in, ``fastcam.scores`` [M, classes], the explained scores, out.
        frames: True puts the preprocessing into the file, which then takes uint8 RGB pictures [N, height, width, 3] of
            any size; (height, width) of one size, which is faster, and what TensorRT reads.
        check: run the check that ends an export; a failed one writes nothing. What it cannot confirm is said in the
            metadata and the summary, or refused if this is "strict".
        input_name: the input that is explained; by default the first that holds pictures (the first of three channels,
            if several do).
        inputs: values of other inputs by name: numbers or arrays, for one image or for all. The check runs with them,
            and who uses the file need not give them.
        roles: what other inputs hold, by name, one of :data:`fastcam.input_roles.ROLES`; by default types and names
            tell.
        tokenizer: the ``tokenizer.json`` that makes ids of texts: a small one goes into the metadata, of another a copy
            is written beside ``output``.
        text_encoder: of a model whose explained output is the embedding of a picture the ONNX file that makes
            embeddings of texts; the file names it by name and digest, and looks for it beside itself.
        logit_scale, logit_bias: the score of a text is logit_scale * cosine + logit_bias: what CLIP calls
            exp(logit_scale), SigLIP exp(logit_scale) and logit_bias.
        size: (height, width) of the input where the model leaves them free, for pictures and for the check; by default
            the file's metadata say them, or the first size is taken that the model runs at, and the summary says so.
        order: of the axes of the input, one of :data:`fastcam.schema.ORDERS`; by default the graph tells.
        stop_gradient: names of values that no gradient passes: those that the model detached where it was trained,
            which a file does not tell.

    Returns:
        The exported model with its metadata and the check's result.

    Raises:
        FastcamError: bad input, a failed check, a file that cannot be written, or a gradient that needs operators which
            the engine does not read; one line that says what to do.
        UnsupportedOperator: (a FastcamError) an operator between layer and score has no gradient rule.
    """
    options = ExportOptions(
        layer=layer,
        layout=layout,
        prefix_tokens=prefix_tokens,
        grid=grid,
        emit=emit,
        targets=targets,
        score=score,
        output_name=output_name,
        output_layout=output_layout,
        preprocess=preprocess,
        resize=resize,
        labels=labels,
        for_engine=for_engine,
        input_gradient=input_gradient,
        input_gradient_at=input_gradient_at,
        on_demand=on_demand,
        head=head,
        frames=frames,
        check=check,
        input_name=input_name,
        inputs=inputs,
        roles=roles,
        tokenizer=tokenizer,
        text_encoder=text_encoder,
        logit_scale=logit_scale,
        logit_bias=logit_bias,
        size=size,
        order=order,
        stop_gradient=stop_gradient,
    )
    typed("output", output, str | Path | NoneType, "the path of a file")
    if check:
        onnxruntime()  # said before the work, not after it
    with as_fastcam_error(model, "exported"), patience(), weights.folder() as room:
        loaded = load(model, room)
        spare(loaded.files, output)
        planned = plan(loaded, options)
        attached = attach_or_say(planned)
        result: dict[str, Any] = {}
        if check:
            attached, result = check_models(planned, attached)
        return package(planned, attached, result, output)


def inspect_model(
    model: Source,
    output_name: str | None = None,
    score: Want = "logit",
    for_engine: Engine = "onnxruntime",
    input_name: str | None = None,
) -> Inspection:
    """Inputs, outputs and layers of a model, what is explained and what blocks that, and the command that exports it.

    It answers for every ONNX graph, also one that cannot be exported, or whose weights are missing.

    Args:
        model, output_name, score, for_engine, input_name: as in :func:`export_model`.

    Raises:
        FastcamError: the file is no ONNX graph, or an output or input that is named is none.
    """
    one_of("for_engine", for_engine, schema.ENGINES)
    file = "MODEL.onnx" if isinstance(model, bytes | onnx.ModelProto) else str(model)
    with as_fastcam_error(model, "inspected"), patience(), weights.folder() as room:
        try:
            read = load(model, room, move=False)
        except FastcamError as error:
            return unread(model, error)
        return inspected(read, InspectOptions(output_name, score, for_engine, input_name), file)
