"""``fastcam dissect``: names the channels of a layer by the concepts that they answer to."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fastcam.cli.evaluation.data_options import Data, DataAnnotations, DataExif, DataPictures, Limit, Split
from fastcam.cli.shared.console import print_table, progress, say
from fastcam.cli.shared.options import BatchSize, ExportedFile, LayerName, MaxPixels, PreprocessName, Providers, Threads
from fastcam.image.reading import MAX_PIXELS

EXAMPLES = (
    "fastcam dissect resnet50.cam.onnx --data coco:annotations/instances_val2017.json -o neurons",
    "fastcam dissect scenes.cam.onnx --data scenes:500,marks=all",
)
_SHOWN = 15


def dissect(
    model: ExportedFile,
    data: Data,
    split: Split = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for neurons.csv and neurons.json.")] = Path(
        "fastcam-neurons"
    ),
    layer: LayerName = None,
    share: Annotated[
        float, typer.Option(help="A channel is active where it is among this share of its largest activations.")
    ] = 0.005,
    grid: Annotated[int, typer.Option(help="Cells a side in which masks and activations are compared.")] = 112,
    pictures: DataPictures = None,
    annotations: DataAnnotations = None,
    limit: Limit = None,
    batch_size: BatchSize = 16,
    preprocess: PreprocessName = None,
    threads: Threads = None,
    providers: Providers = "auto",
    max_pixels: MaxPixels = MAX_PIXELS,
    exif: DataExif = None,
) -> None:
    """Name the channels of a layer by the masks that they fit (Network Dissection), for explanations in words.

    Data with masks is needed: coco:, voc:, a folder of masks, or scenes, whose colours and textures marks=all adds.
    """
    from fastcam.atomic_files import json_bytes, staged, write
    from fastcam.evaluation.data import open_data
    from fastcam.evaluation.dissection.dissect import dissect as compare
    from fastcam.evaluation.dissection.neuron_names import names_of, table, to_dict
    from fastcam.explainer import Explainer

    opened = open_data(data, split, pictures=pictures, annotations=annotations, exif=exif)
    explainer = Explainer(
        model, providers, threads, preprocess, batch_size=batch_size, max_pixels=max_pixels, exif=opened.exif
    )
    with staged(output) as stage, progress(None, always=True) as bar:

        def told(done: int, total: int) -> None:
            bar.update(bar.task_ids[0], completed=done, total=total)

        found = compare(explainer if layer is None else explainer.at(layer), opened, share, grid, limit, told)
        write(stage / "neurons.csv", table(found).encode())
        write(stage / "neurons.json", json_bytes(to_dict(found, opened.name, share, grid)))
    best = names_of(found)
    rows = [(str(unit + 1), name.label, name.category, f"{name.score:.3f}") for unit, name in best[:_SHOWN]]
    print_table(("unit", "concept", "category", "IoU"), rows)
    if len(best) > _SHOWN:
        say(f"and {len(best) - _SHOWN} more")
    say(
        f"{found.detectors} of {len(best)} channels of {found.layer} fit a concept with an IoU above 0.04, in "
        f"{found.pictures} pictures"
    )
    for line in found.left_out.lines():
        say(line)
    say(
        f"neurons.csv and neurons.json are in {output}; fastcam explain --words {output / 'neurons.csv'} speaks by them"
    )
