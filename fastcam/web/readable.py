"""Which exported files the page of browsers explains: the exporter asks before it writes one, the page's verb before it
copies one. The npm package ``fastcam-web`` says the same of files that come another way."""

from __future__ import annotations

from fastcam.schema import Metadata

ON_ONE_AXIS = ("NCW", "NWC", "LNC", "NCL")
"""Layouts of layers whose activations are no maps."""


def refusal(metadata: Metadata, image_type: str) -> str:
    """Why the page cannot explain a file, and what to do; "" where it can.

    Args:
        image_type: the element type of the image input, as ONNX Runtime names it: "float", "uint8".
    """
    again, how = "export it with --for-engine web", metadata.preprocessing
    if metadata.kind != "picture":
        return f"the page explains pictures, and this is a model of a {metadata.kind}; use fastcam explain"
    if metadata.cotangents:
        return "the page explains classes, and this file cotangents; use fastcam explain, or export class scores"
    if metadata.frames:
        return f"the file takes frames of one size, the page any picture; {again}, without --frames"
    if metadata.pair is not None:
        return f"the page reads exports in one file; {again}, without --on-demand"
    if metadata.inputs:
        return f"the model has inputs that the page cannot fill: {', '.join(one.name for one in metadata.inputs)}"
    if image_type != "float":
        return f"the page gives the model pictures of float32, and it takes {image_type}; use fastcam explain"
    if any(layer.layout in ON_ONE_AXIS for layer in (metadata.layer, *metadata.layers)):
        return f"the page shows maps, and {metadata.layer.value} has one axis of positions; choose another --layer"
    if metadata.fuse is not None:
        return "the page shows one layer, and the maps of this file's layers become one; choose one --layer"
    if how is None:
        return f"the file does not say how pictures are prepared; {again} and --preprocess"
    if how.stack != 1 or how.color not in ("RGB", "BGR", "GRAY"):
        return (
            f"the page prepares single pictures in RGB, BGR or GRAY; the model takes {how.color}, {how.stack} at once"
        )
    return ""
