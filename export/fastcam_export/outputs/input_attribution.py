"""What an export hands back to the image beside the map: gradient, guided backpropagation, relevance."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from fastcam import schema
from fastcam.schema import FastcamError, Mode, Place
from fastcam_export.autodiff.core.builder import FLOATS, HALF, Builder
from fastcam_export.autodiff.modified.attention_lrp import with_attention
from fastcam_export.autodiff.modified.lrp import SHARES, relevance_mode, seed_of
from fastcam_export.autodiff.modified.relu_modes import Backward, refuse_without_relu, relu_mode
from fastcam_export.autodiff.reverse import backward, path
from fastcam_export.layers.layout import Layout
from fastcam_export.layers.target_layer import Maps
from fastcam_export.outputs import attention_maps
from fastcam_export.outputs.cam import FurtherOutput, Values
from fastcam_export.outputs.fullgrad import fullgrad
from fastcam_export.outputs.shapleycam import shapleycam


def place(mode: Mode | None, at: Place | None) -> Place:
    """Where a mode is read: as asked, or as its paper does: excitation at a layer in the middle, all else at the image.

    Raises:
        FastcamError: the mode is not read there.
    """
    if at is not None and mode is None:
        raise FastcamError("input_gradient_at says where input_gradient is read, which is not given; give both")
    if mode in schema.MAPS:
        if at is not None:
            raise FastcamError(f"{mode} has a place of its own; leave input_gradient_at (--input-gradient-at) out")
        return "layer"
    if at == "layer" and mode not in SHARES:
        raise FastcamError(f"{mode} is read at the image; leave input_gradient_at (--input-gradient-at) out")
    return at or ("layer" if mode in ("excitation", "contrastive-excitation") else "image")


def further(
    graph: ir.Graph,
    image: ir.Value,
    explained: Sequence[ir.Value],
    layer: ir.Value,
    layout: Layout,
    mode: Mode,
    at: Place,
) -> FurtherOutput:
    """What :func:`fastcam_export.outputs.cam.attach` adds for a mode.

    At the image the value has the image's shape. At the layer it is summed over the channels, [N, h, w], as Zhang et
    al. show it.

    Args:
        graph: a loaded model's.
        image: its image input.
        explained: the score before its own quantisation; of cotangents all their outputs.
        layer, layout: the target layer.
        mode: see :data:`fastcam.schema.MODES`.
        at: see :func:`place`.

    Raises:
        FastcamError: the mode means nothing for this model, or the image is no float tensor.
    """
    if mode in schema.MAPS:
        return _map(graph, image, explained, layer, layout, mode)
    wrt = image if at == "image" else layer
    if wrt.dtype not in FLOATS:
        raise FastcamError(
            f"input {image.name!r} is {image.dtype}, which has no gradient; export a model that takes float images"
        )
    between = path(graph, [wrt], explained)
    if mode in SHARES and any(value.dtype in HALF for node in between for value in node.outputs):
        raise FastcamError(f"{mode} divides by what float16 rounds to zero; give the float32 model")
    if mode in ("guided", "deconvolution"):
        refuse_without_relu(between, mode)
    chosen = relevance_mode(mode, explained[0]) if mode in SHARES else relu_mode(mode)
    if mode.startswith("lrp"):
        chosen = with_attention(chosen)

    def build(op: Builder, seeds: Values) -> ir.Value:
        starts = {y: seed_of(op, mode, seed, y) if mode in SHARES else seed for y, seed in seeds.items()}
        relevance = _swept(op, chosen, starts, wrt)
        if at == "image":
            return relevance
        maps = layout.maps(op, relevance, layer)
        return op.ReduceSum(maps, [1], keepdims=0)

    return FurtherOutput(schema.INPUT_GRADIENT if at == "image" else schema.RELEVANCE, wrt, build)


def _map(
    graph: ir.Graph, image: ir.Value, explained: Sequence[ir.Value], layer: ir.Value, layout: Layout, mode: Mode
) -> FurtherOutput:
    """What is added for a mode that gives a map of its own."""
    if len(explained) > 1:
        raise FastcamError(f"{mode} explains one output; name it with output_name (--output-name)")
    (score,) = explained
    if mode == "shapleycam":
        return FurtherOutput(
            schema.RELEVANCE, layer, lambda op, seeds: shapleycam(op, layer, layout, seeds[score], score)
        )
    maps = Maps.of(graph, image, score)
    if mode == "fullgrad":
        return FurtherOutput(
            schema.RELEVANCE, image, lambda op, seeds: fullgrad(op, maps, seeds[score], score), scaled=False
        )
    model = attention_maps.transformer(maps, mode)

    def build(op: Builder, seeds: Values) -> ir.Value:
        return (
            attention_maps.legrad(op, model, seeds[score])
            if mode == "legrad"
            else attention_maps.rollout(op, model, mode)
        )

    return FurtherOutput(schema.RELEVANCE, model.streams[0], build, scaled=mode == "legrad")


def _swept(op: Builder, mode: Backward, cotangents: Values, wrt: ir.Value) -> ir.Value:
    """The backward pass of a mode."""
    relevance = backward(op, cotangents, [wrt], mode.find)[wrt]
    if relevance is None:
        raise FastcamError(f"the score does not depend on {wrt.name!r}; export without input_gradient")
    return relevance
