"""``fastcam web``: a page of static files that explains pictures in the browser."""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer

import fastcam
from fastcam.cli.export import exporter
from fastcam.errors import FastcamError

EXAMPLES = (
    "fastcam web --out site",
    "fastcam web --out site resnet50.cam.onnx --onnxruntime-web onnxruntime-web-1.30.0.tgz",
)


def web(
    models: Annotated[
        list[Path] | None,
        typer.Argument(metavar="MODEL...", help="Exported files; without one the bundled model.", show_default=False),
    ] = None,
    out: Annotated[Path, typer.Option("--out", "--output", "-o", help="Folder for the page.")] = Path("fastcam-web"),
    onnxruntime_web: Annotated[
        Path | None,
        typer.Option(
            "--onnxruntime-web",
            help="npm's package onnxruntime-web: its folder, or the .tgz that `npm pack onnxruntime-web` writes. By "
            "default what is in this folder or in node_modules here.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Write a page that explains pictures and camera frames in the browser: static files, which any server can hold."""
    from fastcam.web import onnxruntime_web as runtime
    from fastcam.web.models import web_model
    from fastcam.web.site import write_site

    content = runtime.files(runtime.package_path(onnxruntime_web))
    data = Path(fastcam.__file__).parent / "data"
    with ExitStack() as stack:
        given = list(models or ())
        if not given:
            given = [_bundled(data, Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fastcam-"))))]
        files = write_site(out, [web_model(path) for path in given], content, data / "scene.jpg")
    size = sum(path.stat().st_size for path in files) / (1 << 20)
    typer.echo(f"wrote   {out}: {len(files)} files, {size:.0f} MiB")
    typer.echo(f"next    python -m http.server --directory {out}, and open http://localhost:8000")


def _bundled(data: Path, folder: Path) -> Path:
    """An export of the bundled model."""
    if not (data / "scenes.onnx").exists():
        raise FastcamError(f"{data}: the bundled model is missing; reinstall fastcam")
    made = folder / "scenes.cam.onnx"
    labels = data / "scenes.labels.txt"
    exporter().export_model(data / "scenes.onnx", made, preprocess="imagenet", labels=labels, for_engine="web")
    return made
