"""``fastcam study``: the paper's two human studies as a page, and what the answers say."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fastcam.cli.evaluation.data_options import (
    DataAnnotations,
    DataExif,
    DataInPlace,
    DataPictures,
    MapFile,
    Offset,
    PicturesInPlace,
    Split,
    opened_data,
    opened_model,
)
from fastcam.cli.explain.sheets import method_names
from fastcam.cli.shared.console import counted, print_table, progress, say
from fastcam.cli.shared.options import (
    ExportedFile,
    Labels,
    PreprocessName,
    PromptsPath,
    Providers,
    TextEncoderPath,
    Threads,
    TokenizerPath,
)
from fastcam.errors import FastcamError

EXAMPLES = (
    "fastcam study make resnet50.cam.onnx photos/ --method gradcam,guided-gradcam --raters 10",
    "fastcam study make a.cam.onnx --other b.cam.onnx --data coco:coco2017 --map coco_to_imagenet.json",
    "fastcam study score fastcam-study/key.json answers/",
)


def make(
    model: ExportedFile,
    images: PicturesInPlace = None,
    other: Annotated[
        Path | None,
        typer.Option(help="A second exported file: which of the two is the more trustworthy is asked too."),
    ] = None,
    method: Annotated[
        str, typer.Option("--method", "-m", help="How maps are made (fastcam methods), or several ways: a,b,c.")
    ] = "gradcam",
    raters: Annotated[int, typer.Option(help="How many people will answer; each gets a number.")] = 8,
    count: Annotated[int, typer.Option("--count", "-n", help="Pictures of each question, at most.")] = 24,
    seed: Annotated[int, typer.Option(help="Of all that is drawn.", show_default="0")] = 0,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for study.html and key.json.")] = Path(
        "fastcam-study"
    ),
    data: DataInPlace = None,
    split: Split = None,
    pictures: DataPictures = None,
    annotations: DataAnnotations = None,
    mapping: MapFile = None,
    offset: Offset = None,
    preprocess: PreprocessName = None,
    labels: Labels = None,
    tokenizer: TokenizerPath = None,
    text_encoder: TextEncoderPath = None,
    prompts: PromptsPath = None,
    threads: Threads = None,
    providers: Providers = "auto",
    exif: DataExif = None,
) -> None:
    """Write a page that asks people what maps show, which class and which of two models is the more trustworthy."""
    from fastcam.evaluation.study import Model, make_study

    given = {"split": split, "pictures": pictures, "annotations": annotations, "exif": exif}
    shown = opened_data(images, data, given)
    texts = {"tokenizer": tokenizer, "text_encoder": text_encoder, "prompts": prompts}
    models = []
    for path in (model, other):
        if path is not None:
            opening = providers, threads, preprocess, labels
            explainer, known = opened_model(path, shown, opening, mapping, offset, **texts)
            models.append(Model(str(path), explainer, known.by_label or None))
    with progress(None) as bar:
        made = make_study(
            models,
            shown,
            method_names(method),
            output,
            raters,
            count,
            seed,
            lambda: bar.advance(bar.task_ids[0]),
        )
    said = {"class": "which of two classes is depicted", "trust": "which model is the more trustworthy"}
    for question, number in made.pictures.items():
        say(f"{said[question]}: {counted(number, 'picture')}")
    for line in made.left_out.lines():
        say(line)
    say(f"give {made.page} to raters 1 to {raters}, {counted(made.trials, 'question')} each; keep {made.key}")


def score(
    key: Annotated[Path, typer.Argument(metavar="key.json", help="Of fastcam study make.", show_default=False)],
    answers: Annotated[
        list[Path],
        typer.Argument(
            metavar="ANSWERS", help="Files that the page has saved, or folders of them.", show_default=False
        ),
    ],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="A JSON file for the scores.", show_default=False)
    ] = None,
) -> None:
    """Score the answers of a study: accuracy, relative reliability and agreement, by method."""
    from fastcam.atomic_files import json_bytes, write_files
    from fastcam.evaluation.study import answer_files, score_study

    files = answer_files(answers)
    if output is not None and output.resolve() in {path.resolve() for path in (key, *files)}:
        raise FastcamError(f"{output} is the key or an answer; write the scores elsewhere")
    scores = score_study(key, files)
    if output is not None:
        write_files({output: json_bytes(scores.to_dict())})
    rows = []
    for row in scores.rows:
        interval = f"{row.wilson[0]:.3f} to {row.wilson[1]:.3f}" if row.wilson else ""
        bootstrap = f"{row.value.low:.3f} to {row.value.high:.3f}"
        figure = "accuracy" if row.kind == "class" else "reliability"
        agreement = "" if row.alpha != row.alpha else f"{row.alpha:.3f}"
        rows.append((row.method, figure, f"{row.value.value:.3f}", bootstrap, interval, agreement, str(row.value.n)))
    print_table(("method", "figure", "value", "95 % (pictures)", "95 % (answers)", "alpha", "answers"), rows)
    if any(row.kind == "trust" for row in scores.rows):
        say(f"reliability: -2 to 2, above 0 where {scores.models[0]} is found more trustworthy than {scores.models[1]}")
    say(f"{counted(scores.raters, 'rater')}, {counted(scores.missing, 'question')} not answered")
