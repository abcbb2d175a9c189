"""``fastcam report``: one HTML file of a model's pictures and maps, failures first."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fastcam.cli.evaluation.data_options import (
    DataAnnotations,
    DataExif,
    DataInPlace,
    DataPictures,
    Limit,
    MapFile,
    Offset,
    PicturesInPlace,
    Split,
    opened_data,
    opened_model,
)
from fastcam.cli.shared.console import counted, progress, say
from fastcam.cli.shared.options import (
    BatchSize,
    ColorsName,
    ExportedFile,
    Labels,
    MaxPixels,
    MethodName,
    MethodOptions,
    PreprocessName,
    PromptsPath,
    Providers,
    TextEncoderPath,
    Threads,
    TokenizerPath,
)
from fastcam.errors import FastcamError, listed
from fastcam.image.reading import MAX_PIXELS

EXAMPLES = ("fastcam report resnet50.cam.onnx photos/ -o report.html",)


def report(
    model: ExportedFile,
    images: PicturesInPlace = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="The HTML file.")] = Path("report.html"),
    data: DataInPlace = None,
    split: Split = None,
    pictures: DataPictures = None,
    annotations: DataAnnotations = None,
    mapping: MapFile = None,
    offset: Offset = None,
    limit: Limit = None,
    title: Annotated[str, typer.Option(help="Of the page.", show_default="model and data")] = "",
    thumbnail: Annotated[
        int, typer.Option(help="Pixels of a thumbnail's longer side; 240 makes about 10 KB a picture.")
    ] = 240,
    method: MethodName = None,
    option: MethodOptions = None,
    colors: ColorsName = "jet",
    batch_size: BatchSize = 8,
    preprocess: PreprocessName = None,
    labels: Labels = None,
    tokenizer: TokenizerPath = None,
    text_encoder: TextEncoderPath = None,
    prompts: PromptsPath = None,
    threads: Threads = None,
    providers: Providers = "auto",
    max_pixels: MaxPixels = MAX_PIXELS,
    exif: DataExif = None,
) -> None:
    """Write a report of a model: its failures first, with picture and map, and its classes with suspicious maps."""
    from fastcam.evaluation.report import write_report
    from fastcam.methods.options import parsed

    given = {"split": split, "pictures": pictures, "annotations": annotations, "exif": exif}
    shown = opened_data(images, data, given)
    opening = providers, threads, preprocess, labels
    texts = {"tokenizer": tokenizer, "text_encoder": text_encoder, "prompts": prompts}
    explainer, known = opened_model(
        model, shown, opening, mapping, offset, batch_size=batch_size, max_pixels=max_pixels, **texts
    )
    notes = (
        [f"{counted(len(known.unmapped), 'label')} not among the model's classes: {listed(known.unmapped)}"]
        if known.unmapped
        else []
    )
    with progress(len(shown) if limit is None else min(limit, len(shown))) as bar:
        made = write_report(
            explainer,
            shown,
            output,
            known.by_label or None,
            title=title,
            method=method,
            options=parsed(option or ()),
            side=thumbnail,
            colors=colors,
            notes=tuple(notes),
            limit=limit,
            progress=lambda: bar.advance(bar.task_ids[0]),
        )
    wrong = f", {made.failures} predicted wrong" if made.correct.n else ""
    typer.echo(f"{counted(made.pictures, 'picture')}{wrong}, {made.flagged} suspicious")
    if made.correct.n:
        say(f"predicted right: {made.correct}, n = {made.correct.n}")
    if made.inside.n:
        say(f"share of heat in boxes: {made.inside}, n = {made.inside.n}")
    for name in made.suspicious[:10]:
        say(f"suspicious: {name}")
    for kind in made.kinds[:10]:
        say(f"maps of {kind.title}: {', '.join(kind.lines)}")
    typer.echo(f"the report is {output}")
    if made.failed:
        name, error = made.errors[0]
        raise FastcamError(f"{made.failed} of {made.failed + made.pictures} pictures could not be explained: {error}")
