"""``fastcam seeds``: seed masks for training a segmentation network, from a classifier's maps."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from fastcam.cli.evaluation.data_options import (
    Data,
    DataAnnotations,
    DataExif,
    DataPictures,
    Limit,
    MapFile,
    Offset,
    Split,
    opened_model,
    title_of,
)
from fastcam.cli.shared.console import print_table, progress, say
from fastcam.cli.shared.options import (
    BatchSize,
    ExportedFile,
    Labels,
    MaxPixels,
    MethodName,
    MethodOptions,
    PreprocessName,
    Providers,
    Threads,
)
from fastcam.image.reading import MAX_PIXELS

EXAMPLES = (
    "fastcam seeds resnet50.cam.onnx --data voc:VOCdevkit/VOC2012 --split train --map voc_to_imagenet.json",
    "fastcam seeds scenes.cam.onnx --data scenes:200 --foreground 0.3 -o seeds",
)


def seeds(
    model: ExportedFile,
    data: Data,
    split: Split = None,
    output: Annotated[
        Path,
        typer.Option("--output", "-o", help="Folder for SegmentationClass/, class_names.txt and seeds.json."),
    ] = Path("fastcam-seeds"),
    foreground: Annotated[
        float, typer.Option(help="A class's seed is what lies above this share of its map's maximum.")
    ] = 0.2,
    background: Annotated[
        float, typer.Option(help="The background's seed is this share of the pixels, those with the least saliency.")
    ] = 0.1,
    saliency: Annotated[
        Literal["gradient", "heatmap"] | None,
        typer.Option(
            help="What the background is low in: the gradient of files exported with --input-gradient gradient, or the "
            "classes' heatmaps.",
            show_default="the gradient where the file has it",
        ),
    ] = None,
    method: MethodName = None,
    option: MethodOptions = None,
    mapping: MapFile = None,
    offset: Offset = None,
    pictures: DataPictures = None,
    annotations: DataAnnotations = None,
    limit: Limit = None,
    restart: Annotated[bool, typer.Option("--restart", help="Make anew what an earlier run has made.")] = False,
    batch_size: BatchSize = 16,
    preprocess: PreprocessName = None,
    labels: Labels = None,
    threads: Threads = None,
    providers: Providers = "auto",
    max_pixels: MaxPixels = MAX_PIXELS,
    exif: DataExif = None,
) -> None:
    """Write seed masks of the classes that pictures show, as palette PNGs that segmentation trainers read.

    Where the data has masks, how far the seeds are right is said too. Stopped and called again, it goes on.
    """
    from fastcam.evaluation.data import open_data
    from fastcam.evaluation.runner import Contestant
    from fastcam.evaluation.seed_files import write_seeds
    from fastcam.evaluation.tables import left_out, tables
    from fastcam.methods.options import parsed

    opened = open_data(data, split, pictures=pictures, annotations=annotations, exif=exif)
    opening = providers, threads, preprocess, labels
    explainer, classes = opened_model(
        model, opened, opening, mapping, offset, batch_size=batch_size, max_pixels=max_pixels
    )
    say(str(classes))
    contestant = Contestant(title_of(model), explainer, classes, method, parsed(option or ()))
    with progress(len(opened) if limit is None else min(limit, len(opened)), always=True) as bar:

        def told(_: str, done: int) -> None:
            bar.update(bar.task_ids[0], completed=done)

        made = write_seeds(
            contestant,
            opened,
            output,
            foreground=foreground,
            background=background,
            saliency=saliency,
            limit=limit,
            restart=restart,
            told=told,
        )
    for table in tables([made]):
        rows = [(name, str(figure)) for name, figure in zip(table.columns, table.rows[0][1], strict=True)]
        print_table(("against the masks", f"n = {table.n}"), rows)
    for line in left_out([made]):
        say(line)
    say(f"seed masks are in {output / 'SegmentationClass'}, what their numbers mean in {output / 'class_names.txt'}")
