"""Which exported files a browser explains, and what lies beside them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from fastcam.errors import FastcamError, shown
from fastcam.explainer import Explainer
from fastcam.input_files import in_ort_format
from fastcam.web.readable import refusal

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
    explainer = Explainer(path)
    types = {one.name: one.type for one in explainer.signature[0]}
    why = refusal(explainer.metadata, types[explainer.metadata.input].removeprefix("tensor(").removesuffix(")"))
    if in_ort_format(path):
        why = "the page reads ONNX files, and this is one of ONNX Runtime's own format; give the .onnx file beside it"
    if why:
        raise FastcamError(f"{shown(path)}: {why}")
    stem = path.name.removesuffix(".onnx")
    return WebModel(stem.removesuffix(".cam"), (path, *sorted(path.parent.glob(f"{_literal(stem)}.*.data"))))


def _literal(name: str) -> str:
    """A name as a pattern of nothing but itself."""
    return "".join(f"[{c}]" if c in "*?[" else c for c in name)
