"""``fastcam caption``: what a captioner says of pictures, and where it looked for each word."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fastcam.cli.shared.console import counted, print_table, progress
from fastcam.cli.shared.options import (
    ColorsName,
    Exif,
    JsonAlone,
    MaxPixels,
    MethodOptions,
    PreprocessName,
    Providers,
    Threads,
    TokenizerPath,
    picture_files,
)
from fastcam.errors import FastcamError
from fastcam.image.reading import MAX_PIXELS

if TYPE_CHECKING:
    from fastcam.captions.captioner import Captioner
    from fastcam.captions.result import Caption

EXAMPLES = (
    "fastcam caption captioner.cam.onnx photo.jpg",
    "fastcam caption captioner.cam.onnx photos/ --beam 3 -o captions",
    "fastcam caption encoder.cam.onnx encoder.cam.decoder.onnx photo.jpg --json",
    'fastcam caption captioner.cam.onnx photo.jpg --text "a red star"',
)


def caption(
    model: Annotated[
        Path,
        typer.Argument(
            metavar="CAPTIONER.cam.onnx", help="A file that fastcam export --caption wrote.", show_default=False
        ),
    ],
    images: Annotated[
        list[Path],
        typer.Argument(
            metavar="[DECODER.onnx] IMAGE",
            help="Pictures, or folders of pictures; before them the decoder, where it does not lie beside its encoder.",
            show_default=False,
        ),
    ],
    beam: Annotated[
        int, typer.Option(help="Captions that are followed at a time; 1 takes the likeliest word at each step.")
    ] = 1,
    max_words: Annotated[
        int | None, typer.Option(help="Words at most.", show_default="those that the file takes, else 20")
    ] = None,
    text: Annotated[
        str | None,
        typer.Option(help="Explain this caption, not the one that the model says.", show_default=False),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Folder for strips and captions.json.", show_default="fastcam-out"),
    ] = None,
    as_json: JsonAlone = False,
    method: Annotated[str, typer.Option("--method", "-m", help="How maps are made; fastcam methods lists them.")] = (
        "gradcam"
    ),
    option: MethodOptions = None,
    labels: Annotated[
        Path | None,
        typer.Option("--labels", help="The words: one per line, JSON, or YAML.", show_default="those of the file"),
    ] = None,
    tokenizer: TokenizerPath = None,
    preprocess: PreprocessName = None,
    colors: ColorsName = "jet",
    threads: Threads = None,
    providers: Providers = "auto",
    max_pixels: MaxPixels = MAX_PIXELS,
    exif: Exif = True,
) -> None:
    """Caption pictures, and explain the whole caption and each word: one strip a picture, words across."""
    from fastcam.atomic_files import json_bytes, staged, write
    from fastcam.captions.captioner import Captioner
    from fastcam.methods.options import parsed
    from fastcam.render.drawing import encode_png
    from fastcam.results.explanation import unique_stems

    decoders = [path for path in images if path.suffix.lower() == ".onnx"]
    if len(decoders) > 1:
        raise FastcamError(f"{len(decoders)} decoders were given; a captioner has one")
    if len(decoders) == len(images):
        raise FastcamError("no picture was given; name pictures behind the captioner")
    files = picture_files([path for path in images if path not in decoders])
    decoder = decoders[0] if decoders else None
    opened: dict[str, Any] = {"tokenizer": tokenizer, "max_pixels": max_pixels, "exif": exif}
    captioner = Captioner(model, decoder, labels, providers, threads, preprocess, **opened)
    asked = {"beam": beam, "most": max_words, "captions": text, "method": method, "options": parsed(option or ())}
    folder = output or (None if as_json else Path("fastcam-out"))
    report: list[dict[str, Any]] = []
    with ExitStack() as stack:
        stage = stack.enter_context(staged(folder)) if folder else None
        bar = stack.enter_context(progress(len(files)))
        for file, stem in zip(files, unique_stems([str(file) for file in files]), strict=True):
            made = _one(captioner, file, asked)
            if isinstance(made, FastcamError):
                report.append({"file": str(file), "error": str(made)})
            else:
                report.append(made.to_dict())
                if stage is not None:
                    write(stage / f"{stem}-caption.png", encode_png(made.strip(colors=colors)))
            bar.advance(bar.task_ids[0])
        if all("error" in one for one in report):
            raise FastcamError(report[0]["error"])
        if stage is not None:
            write(stage / "captions.json", json_bytes({"captions": report}))
    if as_json:
        typer.echo(json.dumps({"captions": report}, indent=1, ensure_ascii=False))
    else:
        print_captions(report)
        good = sum("error" not in one for one in report)
        typer.echo(f"{counted(good, 'strip')} and captions.json are in {folder}")
    errors = [one["error"] for one in report if "error" in one]
    if errors:
        said = errors[0] if len(errors) == 1 else "their rows say why"
        raise FastcamError(f"{len(errors)} of {counted(len(report), 'picture')} could not be captioned: {said}")


def _one(captioner: Captioner, file: Path, asked: dict[str, Any]) -> Caption | FastcamError:
    """The caption of a picture, or why there is none."""
    try:
        return captioner(file, **asked)[0]
    except FastcamError as error:
        return error


def print_captions(report: Sequence[dict[str, Any]]) -> None:
    """A row for each picture: its caption, and how likely it is."""
    rows = []
    for one in report:
        name = Path(one["file"]).name
        if "error" in one:
            rows.append((name, f"not captioned: {one['error'].removeprefix(one['file'] + ': ')}", ""))
            continue
        cut = "" if one["ended"] else " ..."
        rows.append((name, one["caption"] + cut, f"{one['log_probability']:.3g}"))
    print_table(("image", "caption", "log-probability"), rows)
