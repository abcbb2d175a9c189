"""``fastcam evaluate``: measures maps on a data set with boxes or masks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

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
    Labels,
    MaxPixels,
    MethodNames,
    MethodOptions,
    PreprocessName,
    PromptsPath,
    Providers,
    TextEncoderPath,
    Threads,
    Threshold,
    TokenizerPath,
)
from fastcam.errors import FastcamError
from fastcam.image.reading import MAX_PIXELS

if TYPE_CHECKING:
    from fastcam.evaluation.runner import Measured

EXAMPLES = (
    "fastcam evaluate resnet50.cam.onnx --data voc:VOCdevkit/VOC2012 --split val",
    "fastcam evaluate a.cam.onnx b.cam.onnx --data coco:instances.json --map coco_to_imagenet.json -m gradcam,hirescam",
    "fastcam evaluate scenes.cam.onnx --data scenes:200 --protocol pointing,energy",
)
DEFAULT = ("localization", "gt-known", "pointing", "energy")


def evaluate(
    models: Annotated[
        list[Path],
        typer.Argument(metavar="MODEL.cam.onnx", help="Files of fastcam export.", show_default=False),
    ],
    data: Data,
    split: Split = None,
    protocol: Annotated[
        str,
        typer.Option(
            "--protocol",
            "-p",
            help="What is measured, as a,b,c; all: what data and file allow; list: names them.",
        ),
    ] = ",".join(DEFAULT),
    setting: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="PROTOCOL.OPTION=VALUE", help="Of a protocol, as insertion.baseline=black."),
    ] = None,
    method: MethodNames = None,
    option: MethodOptions = None,
    output: Annotated[
        Path,
        typer.Option("--output", "-o", help="Folder for evaluation.json, .md, .html, and rows of pictures."),
    ] = Path("fastcam-evaluation"),
    mapping: MapFile = None,
    offset: Offset = None,
    pictures: DataPictures = None,
    annotations: DataAnnotations = None,
    threshold: Threshold = 0.15,
    limit: Limit = None,
    restart: Annotated[bool, typer.Option("--restart", help="Measure anew what an earlier run has measured.")] = False,
    batch_size: BatchSize = 16,
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
    """Measure maps on pictures with boxes or masks: localization, pointing game, faithfulness; with intervals.

    Stopped and called again, it goes on where it stood.
    """
    from fastcam.evaluation import tables
    from fastcam.evaluation.data import open_data
    from fastcam.evaluation.protocols import PROTOCOLS
    from fastcam.evaluation.protocols.options import chosen, described
    from fastcam.evaluation.runner import Contestant
    from fastcam.evaluation.runner import evaluate as measure
    from fastcam.methods.options import parsed

    if protocol == "list":
        known = [(name, each.title, described(each)) for name, each in PROTOCOLS.items()]
        print_table(("protocol", "what it measures", "--set"), known)
        return
    names = list(PROTOCOLS) if protocol == "all" else [name.strip() for name in protocol.split(",")]
    protocols = chosen(PROTOCOLS, names, setting or ())
    opened = open_data(data, split, pictures=pictures, annotations=annotations, exif=exif)
    titles, texts = _titles(models), {"tokenizer": tokenizer, "text_encoder": text_encoder, "prompts": prompts}
    contestants = []
    for file, title in zip(models, titles, strict=True):
        opening = providers, threads, preprocess, labels
        explainer, classes = opened_model(
            file, opened, opening, mapping, offset, batch_size=batch_size, max_pixels=max_pixels, **texts
        )
        say(f"{title}: {classes}")
        for one in dict.fromkeys(name.strip() for name in (method or "").strip(" ,").split(",")):
            contestants.append(Contestant(title, explainer, classes, one or None, parsed(option or ())))
            contestants[-1].check()
    total = len(opened) if limit is None else min(limit, len(opened))
    measured = []
    with progress(total * len(contestants), always=True) as bar:
        for number, contestant in enumerate(contestants):

            def told(title: str, done: int, before: int = number * total) -> None:
                bar.update(bar.task_ids[0], completed=before + done, description=title)

            how: Any = {"threshold": threshold, "limit": limit, "restart": restart, "lenient": protocol == "all"}
            measured.append(measure(contestant, opened, protocols, output, **how, told=told))
    if not any(each.pictures for each in measured):
        raise FastcamError(f"{opened.name}: no picture was measured; {measured[0].left_out}")
    files = tables.write(measured, opened.name, {"threshold": threshold, "protocols": names, "limit": limit}, output)
    _print(measured)
    say(f"written to {', '.join(map(str, files))}")


def _print(measured: Sequence[Measured]) -> None:
    """A table for each protocol, and what was left out."""
    from fastcam.evaluation import tables

    for table in tables.tables(measured):
        rows = [(name, *map(tables.cell, figures), tables.count_of(figures)) for name, figures in table.rows]
        print_table((table.protocol, *table.columns, "n"), rows)
        print()
    for line in tables.left_out(measured):
        say(line)


def _titles(models: list[Path]) -> list[str]:
    """What the models are called: their files' names, or paths where two files have one name."""
    names = [title_of(path) for path in models]
    if len(set(map(str, models))) < len(models):
        raise FastcamError("the same model was given twice; give each file once")
    return names if len(set(names)) == len(names) else [str(path) for path in models]
