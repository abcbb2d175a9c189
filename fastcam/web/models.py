"""Which exported files a browser explains, and what lies beside them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from fastcam.errors import FastcamError, shown
from fastcam.explainer import Explainer
from fastcam.schema import Metadata

SUFFIX = ".cam.onnx"


@dataclass(frozen=True)
class WebModel:
    """A model of the page.

    Attributes:
        name: as the page calls it.
        files: the exported file, and what holds its weights.
    """

    name: str
    files: tuple[Path, ...]


def web_model(path: Path) -> WebModel:
    """The model in an exported file.

    Raises:
        FastcamError: it cannot be loaded, or not be explained in a browser.
    """
    why = refusal(Explainer(path).metadata)
    if why:
        raise FastcamError(f"{shown(path)}: {why}")
    stem = path.name.removesuffix(".onnx")
    return WebModel(stem.removesuffix(".cam"), (path, *sorted(path.parent.glob(f"{_literal(stem)}.*.data"))))


def _literal(name: str) -> str:
    """A name as a pattern of nothing but itself."""
    return "".join(f"[{c}]" if c in "*?[" else c for c in name)


def refusal(metadata: Metadata) -> str:
    """Why the page cannot explain a file, and what to do; "" where it can. ``fastcam-web`` says the same itself."""
    again, how = "export it again with --for-engine web", metadata.preprocessing
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
    if how is None:
        return f"the file does not say how pictures are prepared; {again} and --preprocess"
    if how.stack != 1 or how.color not in ("RGB", "BGR", "GRAY"):
        return (
            f"the page prepares single pictures in RGB, BGR or GRAY; the model takes {how.color}, {how.stack} at once"
        )
    return ""
