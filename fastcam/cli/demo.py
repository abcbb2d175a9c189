"""``fastcam demo``: the bundled models and pictures."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import typer

import fastcam
from fastcam.cli.explain.pictures import explain_all
from fastcam.cli.explain.report import print_report
from fastcam.cli.export import exporter
from fastcam.errors import FastcamError

EXAMPLES: tuple[str, ...] = ()
TWO = "two_objects.jpg"
BUNDLED = (
    "scenes.onnx", "scenes.labels.txt", "scene.jpg", TWO, "captions.onnx", "captions.words.txt", "questions.onnx",
    "questions.answers.txt", "questions.tokenizer.json",
)  # fmt: skip
CLASSIFIER, CAPTIONER, ANSWERER = "scenes.cam.onnx", "captions.cam.onnx", "questions.cam.onnx"
QUESTION = "what colour is the star?"


def demo(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for what is written.")] = Path("demo"),
) -> None:
    """Explain the bundled models on bundled pictures: classes, a caption, the answer to a question."""
    from fastcam.atomic_files import staged

    data = Path(fastcam.__file__).parent / "data"
    missing = [name for name in BUNDLED if not (data / name).is_file()]
    if missing:
        raise FastcamError(f"{data}: {missing[0]}, which comes with fastcam, is missing; reinstall fastcam")
    with staged(output) as stage:
        report, names = _classes(data, stage)
        said, strip = _caption(data, stage)
        answer, maps = _question(data, stage)
    print_report(report)
    typer.echo(f"exported model: {output / CLASSIFIER}")
    for name in names:
        typer.echo(f"heatmap: {output / name}")
    typer.echo(f"\n{TWO}: {said}")
    typer.echo(f"exported model: {output / CAPTIONER}")
    typer.echo(f"strip: {output / strip}")
    typer.echo(f"\n{QUESTION} {answer}")
    for name in maps:
        typer.echo(f"{'heatmap' if name.endswith('.png') else 'exported model'}: {output / name}")


def _classes(data: Path, stage: Path) -> tuple[dict[str, Any], list[str]]:
    """The bundled classifier is exported, and its three best classes are explained; the report and overlays' names."""
    from fastcam.explainer import Explainer

    exported = stage / CLASSIFIER
    labels = data / "scenes.labels.txt"
    exporter().export_model(data / "scenes.onnx", exported, preprocess="imagenet", labels=labels)
    return explain_all(Explainer(exported), [data / "scene.jpg"], [-1, -2, -3], stage)


def _caption(data: Path, stage: Path) -> tuple[str, str]:
    """What the bundled captioner says, and the name of its strip."""
    from fastcam.atomic_files import write
    from fastcam.captions import Captioner
    from fastcam.render.drawing import encode_png

    exported = stage / CAPTIONER
    words = data / "captions.words.txt"
    how = {"start": 1, "end": 2, "pad": 0, "vocabulary": words, "preprocess": "imagenet"}
    exporter().export_captioner(data / "captions.onnx", exported, on_demand=False, **how)
    [made] = Captioner(exported)(data / TWO)
    name = f"{Path(TWO).stem}-caption.png"
    write(stage / name, encode_png(made.strip()))
    return made.text, name


def _question(data: Path, stage: Path) -> tuple[str, list[str]]:
    """The answer of the bundled network to :data:`QUESTION`, and the names of what is written."""
    from fastcam.explainer import Explainer

    if find_spec("tokenizers") is None:
        return "(not asked: texts need the library tokenizers; run: pip install fastcam[language])", []
    exported = stage / ANSWERER
    how = {"labels": data / "questions.answers.txt", "tokenizer": data / "questions.tokenizer.json"}
    exporter().export_model(data / "questions.onnx", exported, preprocess="imagenet", **how)
    answer = Explainer(exported)(data / TWO, text=QUESTION)
    return answer.label(0, 0), [ANSWERER, *answer.write_overlays(stage, [f"{Path(TWO).stem}-question"], "jet")]
