"""``fastcam explain``: heatmaps and boxes of pictures."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fastcam.schema import FastcamError
from fastcam.verbs.console import counted, print_table, progress
from fastcam.verbs.options import ExportedFile, Labels, MethodName, MethodOptions, Pictures, PreprocessName, Providers

if TYPE_CHECKING:
    from rich.progress import Progress

    from fastcam.explainer import Explainer

EXAMPLES = (
    "fastcam explain resnet50.cam.onnx photo.jpg",
    "fastcam explain resnet50.cam.onnx photos/ -t -1 -t tabby -o heatmaps",
    "fastcam explain resnet50.cam.onnx photo.jpg --json",
    "fastcam explain resnet50.cam.onnx photo.jpg --method occlusion --option window=48x48 --option stride=16x16",
)


def explain(
    model: ExportedFile,
    images: Pictures,
    target: Annotated[
        list[str] | None,
        typer.Option(
            "--target",
            "-t",
            help="Class index, rank (-1 is the predicted class) or name; repeatable.",
            show_default="-1",
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Folder for overlays and explanation.json.", show_default="fastcam-out"),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON only; files are written only with -o.")] = False,
    threshold: Annotated[float, typer.Option(help="Boxes surround what reaches this share of the maximum.")] = 0.15,
    batch_size: Annotated[int, typer.Option(help="Pictures per run where the model's batch is free.")] = 8,
    preprocess: PreprocessName = None,
    labels: Labels = None,
    threads: Annotated[int | None, typer.Option(help="Threads of ONNX Runtime.", show_default="its choice")] = None,
    providers: Providers = "auto",
    method: MethodName = "gradcam",
    option: MethodOptions = None,
) -> None:
    """Explain pictures: heatmap overlays, boxes, classes and scores."""
    from fastcam.explainer import Explainer
    from fastcam.methods.options import parsed
    from fastcam.output import staged

    files = pictures(images)
    explainer = Explainer(model, providers, threads, preprocess=preprocess, labels=labels, batch_size=batch_size)
    folder = output or (None if as_json else Path("fastcam-out"))
    with ExitStack() as stack:
        stage = stack.enter_context(staged(folder)) if folder else None
        chosen = parsed(option or ())
        report, names = explain_all(explainer, files, targets(target), threshold, stage, method, chosen)
    if as_json:
        typer.echo(json.dumps(report, indent=1, ensure_ascii=False))
        return
    print_report(report)
    mode = explainer.metadata.input_gradient
    kinds = counted(len(names), "overlay") if mode is None else f"{len(names)} pictures (overlays and {mode})"
    typer.echo(f"{kinds} and explanation.json are in {folder}")


def explain_all(
    explainer: Explainer,
    files: Sequence[Path],
    targets: list[int | str],
    threshold: float,
    stage: Path | None,
    method: str = "gradcam",
    options: Mapping[str, Any] | None = None,
) -> tuple[dict[str, Any], list[str]]:
    """Explain ``files`` run by run, with one run's pictures in memory; the report and the overlays' names."""
    from fastcam.explanation import unique_stems, write_json
    from fastcam.methods import method as named

    how = explainer.metadata.preprocessing
    # pictures that keep their own size cannot share a run
    step = 1 if how is not None and how.size is None else explainer.batch_size
    stems = unique_stems([str(file) for file in files])
    report: dict[str, Any] = {}
    names: list[str] = []
    again = named(method).runs is not None
    with progress(len(files), again) as bar:
        for start in range(0, len(files), step):
            part = list(files[start : start + step])
            found = explainer(
                part,
                targets,
                threshold,
                method=method,
                options=options,
                progress=partial(_advance, bar, start / len(part), len(files) / len(part)),
            )
            if stage is not None:
                names += found.write_overlays(stage, stems[start : start + step])
            entry = found.to_dict()
            report = report or {**entry, "images": []}
            report["images"] += entry["images"]
            if not again:
                bar.advance(bar.task_ids[0], len(part))
    if stage is not None:
        write_json(stage, report)
    return report, names


def _advance(bar: Progress, before: float, parts: float, done: int, total: int) -> None:
    """``done`` of ``total`` runs, behind ``before`` of all ``parts`` of as many runs."""
    bar.update(bar.task_ids[0], completed=before * total + done, total=parts * total)


def print_report(report: dict[str, Any]) -> None:
    from fastcam.targets import short_label

    rows = []
    for image in report["images"]:
        for target in image["targets"]:
            label = target.get("target") or f"{target['class']} {short_label(target['label'] or '')}"
            score = "not finite" if target["score"] is None else f"{target['score']:.4g}"
            box = " ".join(f"{value:.0f}" for value in target["box"] or ()) or "-"
            rows.append((Path(image["file"]).name, label, score, box, target["status"]))
    print_table(("image", "class", "score", "box x0 y0 x1 y1", "status"), rows)


def targets(given: Sequence[str] | None) -> list[int | str]:
    """The --target options: what looks like a number is one, the rest are class names."""
    return [int(text) if re.fullmatch(r"[+-]?\d+", text.strip()) else text for text in given or ["-1"]]


def pictures(paths: Sequence[Path]) -> list[Path]:
    """Files as given; of a folder its pictures, sorted by name."""
    from fastcam.image import SUFFIXES

    files: list[Path] = []
    for path in paths:
        if not path.exists():
            raise FastcamError(f"{path}: no such file; give pictures or folders of pictures")
        found = [path]
        if path.is_dir():
            found = sorted(entry for entry in path.iterdir() if entry.suffix.lower() in SUFFIXES and entry.is_file())
            if not found:
                raise FastcamError(f"{path}: no pictures in this folder ({', '.join(SUFFIXES)})")
        files += found
    return files
