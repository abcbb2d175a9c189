"""``fastcam demo``: the bundled model and picture."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import fastcam
from fastcam.cli.explain import explain_all, print_report
from fastcam.cli.export import exporter
from fastcam.errors import FastcamError

EXAMPLES: tuple[str, ...] = ()


def demo(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for what is written.")] = Path("demo"),
) -> None:
    """Export the bundled model, explain the bundled picture, and say where the heatmap is."""
    from fastcam.atomic_files import staged
    from fastcam.explainer import Explainer
    from fastcam.image.preprocess import is_picture

    data = Path(fastcam.__file__).parent / "data"
    picture = next((path for path in sorted(data.glob("scene.*")) if is_picture(path)), None)
    if picture is None or not (data / "scenes.onnx").exists():
        raise FastcamError(f"{data}: the bundled model is missing; reinstall fastcam")
    with staged(output) as stage:
        exported = stage / "scenes.cam.onnx"
        labels = data / "scenes.labels.txt"
        exporter().export_model(data / "scenes.onnx", exported, preprocess="imagenet", labels=labels)
        explainer = Explainer(exported)
        report, names = explain_all(explainer, [picture], [-1, -2, -3], stage)
    print_report(report)
    typer.echo(f"exported model: {output / 'scenes.cam.onnx'}")
    for name in names:
        typer.echo(f"heatmap: {output / name}")
