"""Arguments and options that several verbs share."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from fastcam.cli.shared.verb import THREADS
from fastcam.errors import FastcamError, shown
from fastcam.schema import PRESETS, Color, Engine

OnnxFile = Annotated[Path, typer.Argument(metavar="MODEL.onnx", help="The ONNX file.", show_default=False)]
ExportedFile = Annotated[
    Path, typer.Argument(metavar="MODEL.cam.onnx", help="A file that fastcam export wrote.", show_default=False)
]
Pictures = Annotated[
    list[Path], typer.Argument(metavar="IMAGE", help="Pictures, or folders of pictures.", show_default=False)
]
PicturesOrNone = Annotated[
    list[Path] | None,
    typer.Argument(
        metavar="IMAGE", help="Pictures, or folders of pictures; of a model of texts .txt files.", show_default=False
    ),
]
Labels = Annotated[
    Path | None,
    typer.Option("--labels", help="Class names: one per line, JSON, or YAML.", show_default="those of the file"),
]
OutputName = Annotated[
    str | None,
    typer.Option("--output-name", help="The model output to explain.", show_default="the one of class scores"),
]
ScoreKind = Annotated[
    Literal["logit", "probability", "log-probability"],
    typer.Option(
        "--score", help="Which number of a class is explained: before a final softmax, after it, or its logarithm."
    ),
]
PreprocessName = Annotated[
    str | None,
    typer.Option("--preprocess", help=f"How pictures become the input: {', '.join(PRESETS)}.", show_default=False),
]
InputName = Annotated[
    str | None,
    typer.Option("--input", help="The model's input that is explained.", show_default="the first that holds pictures"),
]
InputValues = Annotated[
    list[str] | None,
    typer.Option(
        "--input-value",
        metavar="NAME=VALUE",
        help="The value of another input of the model: numbers (age=0.4, meta=1,0,3), or a file (.npy, .json, .csv, a "
        "picture where it takes one); repeatable.",
        show_default=False,
    ),
]
Texts = Annotated[
    list[str] | None,
    typer.Option(
        "--text",
        help="What a model that takes a text is asked: one for all pictures, or repeated, one for each; of one picture "
        "also several.",
        show_default=False,
    ),
]
TokenizerPath = Annotated[
    Path | None,
    typer.Option("--tokenizer", help="The tokenizer.json that makes ids of texts.", show_default="the file's own"),
]
TextEncoderPath = Annotated[
    Path | None,
    typer.Option("--text-encoder", help="The ONNX file that makes embeddings of texts.", show_default="the file's own"),
]
PromptsPath = Annotated[
    Path | None,
    typer.Option(
        "--prompts",
        help="Texts that are the classes, of a model that compares pictures with texts: a prompt a line, or NAME, a "
        "tab and a prompt.",
        show_default=False,
    ),
]
ColorName = Annotated[
    Color | None,
    typer.Option(
        "--color", help="The channels of the input, in order; BANDS: as many as a picture has.", show_default=False
    ),
]
Mean = Annotated[
    str | None,
    typer.Option(
        "--mean", help="Subtracted after --scale: a number, or one a channel, as 0.48,0.46,0.41.", show_default=False
    ),
]
Std = Annotated[
    str | None, typer.Option("--std", help="What is then divided by: a number, or one a channel.", show_default=False)
]
Scale = Annotated[
    str | None,
    typer.Option("--scale", help="What pixels 0..255 are multiplied by first, as 1/255.", show_default=False),
]
SizeOption = Annotated[
    str | None,
    typer.Option(
        "--size", help="Height and width of the input where the model leaves them free, as 48x320.", show_default=False
    ),
]
ForEngine = Annotated[Engine, typer.Option("--for-engine", help="The engine that must be able to read what is added.")]
Providers = Annotated[
    str,
    typer.Option(
        "--providers",
        help="What runs the model: auto, cpu, cuda, tensorrt, openvino, several joined by commas, or openvino-runtime.",
    ),
]
ProfileName = Annotated[
    str,
    typer.Option(
        "--profile",
        metavar="auto|none|FILE",
        help="What fastcam tune found fastest: auto is MODEL.cam.profile.json where it holds. Other options win.",
    ),
]
ColorsName = Annotated[
    Literal["jet", "turbo", "viridis", "cividis", "inferno"],
    typer.Option("--colors", help="Colour map; viridis, cividis and inferno suit print and colour-blind readers."),
]
MaxPixels = Annotated[
    int,
    typer.Option("--max-pixels", help="The largest picture that is decoded: width times height, by its header."),
]
Exif = Annotated[
    bool,
    typer.Option("--exif/--no-exif", help="Turn pictures as their EXIF orientation says, or leave them as they lie."),
]
BY_TARGET = "hirescam of boxes, regions and elements, else gradcam"
MethodName = Annotated[
    str | None,
    typer.Option("--method", "-m", help="How maps are made; fastcam methods lists them.", show_default=BY_TARGET),
]
MethodNames = Annotated[
    str | None,
    typer.Option(
        "--method", "-m", help="How maps are made (fastcam methods), or several ways: a,b,c.", show_default=BY_TARGET
    ),
]
MethodOptions = Annotated[
    list[str] | None,
    typer.Option(
        "--option", metavar="KEY=VALUE", help="An option of the method, as samples=50; repeatable.", show_default=False
    ),
]
StyleName = Annotated[
    Literal["fastcam", "pytorch-grad-cam", "torch-cam", "captum"],
    typer.Option("--style", help="Whose heatmaps: ours, or those of another tool; boxes follow from them."),
]
TargetNames = Annotated[
    list[str] | None,
    typer.Option(
        "--target",
        "-t",
        help="What is explained: a class index, rank (-1 is the predicted class) or name; of other files box:dog, "
        "region:person, element:3, words (fastcam cotangents lists them); repeatable.",
        show_default="-1, the best boxes, the largest region or the words",
    ),
]
Cotangents = Annotated[
    list[str] | None,
    typer.Option(
        "--cotangent",
        "-c",
        help="Of files exported with --targets cotangent: region:person, box:dog,x0, probability:tabby, ... "
        "(see fastcam cotangents); repeatable. The same as --target.",
        show_default=False,
    ),
]
LayerName = Annotated[
    str | None,
    typer.Option("--layer", help="Which layer, of a file with several.", show_default="the default layer"),
]
BatchSize = Annotated[int, typer.Option("--batch-size", help="Pictures per run where the model's batch is free.")]
JsonAlone = Annotated[bool, typer.Option("--json", help="Print JSON only; files are written only with -o.")]
Threshold = Annotated[float, typer.Option("--threshold", help="Boxes surround what reaches this share of the maximum.")]


def _limited(ctx: typer.Context, threads: int | None) -> int | None:
    """NumPy and OpenCV keep to --threads while the verb runs; the Explainer refuses what is no number of threads."""
    ctx.meta[THREADS] = threads if threads is None or threads >= 1 else None
    return threads


Threads = Annotated[
    int | None,
    typer.Option(
        "--threads",
        help="Threads of ONNX Runtime, NumPy and OpenCV.",
        show_default="their choice",
        callback=_limited,
    ),
]


def preprocess_option(
    name: str | None, color: str | None, mean: str | None, std: str | None, scale: str | None, **more: Any
) -> str | dict[str, Any] | None:
    """What --preprocess, --color, --mean, --std and --scale say together: nothing, a preset, or changes.

    Raises:
        FastcamError: one is no number.
    """
    changes: dict[str, Any] = {key: value for key, value in {"color": color, **more}.items() if value is not None}
    for key, text in (("mean", mean), ("std", std)):
        if text is not None:
            changes[key] = tuple(_number(key, part) for part in text.split(","))
    if scale is not None:
        changes["scale"] = _number("scale", scale)
    if not changes:
        return name
    return changes | ({"preset": name} if name is not None else {})


def _number(option: str, text: str) -> float:
    above, _, below = text.partition("/")
    try:
        number = float(above) / float(below or 1)
    except (ValueError, ZeroDivisionError):
        raise FastcamError(f"--{option} has {shown(repr(text))}; give numbers, like 0.5 or 1/255") from None
    if not math.isfinite(number) or (option == "std" and number == 0):
        raise FastcamError(f"--{option} has {shown(repr(text))}; give a finite number, no standard deviation of 0")
    return number


SIDES = r"[0-9]{1,9}(x[0-9]{1,9})*"
"""Sides like 48x320."""


def sides(option: str, text: str | None, least: int = 2, most: int = 2) -> tuple[int, ...] | None:
    """An option like 48x320.

    Raises:
        FastcamError: it is none.
    """
    if text is None:
        return None
    found = tuple(int(side) for side in text.split("x")) if re.fullmatch(SIDES, text) else ()
    if not least <= len(found) <= most or min(found) < 1:
        raise FastcamError(
            f"--{option} is {shown(repr(text))}; give sides like {'x'.join(['48', '320', '320'][:most])}"
        )
    return found


def class_targets(names: Sequence[str] | None, cotangent: Sequence[str] | None) -> int | list[int | str]:
    """The --target options: what looks like a number is one, the rest are class names; the default of cotangents.

    Raises:
        FastcamError: --target and --cotangent were both given.
    """
    if names and cotangent:
        raise FastcamError("--target and --cotangent were both given; a file answers one of the two")
    if cotangent:
        return -1
    from fastcam.targets.classes import whole_number

    numbers = [(text, whole_number(text)) for text in names or ["-1"]]
    return [text if number is None else number for text, number in numbers]


def texts_of(files: Sequence[Path], texts: Sequence[str] | None) -> tuple[list[Path], list[str] | None]:
    """The pictures and the text of each; one picture is asked several texts, one text is asked of all pictures.

    Raises:
        FastcamError: there are other numbers of them.
    """
    if not texts:
        return list(files), None
    if len(files) == 1:
        return [*files] * len(texts), list(texts)
    if len(texts) not in (1, len(files)):
        raise FastcamError(
            f"{len(texts)} texts (--text) for {len(files)} pictures; give one for each picture, or one for all"
        )
    return list(files), list(texts) * (len(files) if len(texts) == 1 else 1)


def clip_files(paths: Sequence[Path]) -> list[Path]:
    """Clips: videos, arrays, and folders of a clip's pictures.

    Raises:
        FastcamError: a path that is none of these.
    """
    from fastcam.image.preprocess import pictures_in
    from fastcam.image.video_file import is_video

    for path in paths:
        if not os.path.exists(path):
            raise FastcamError(f"{shown(path)}: no such file; give a video, or a folder with a clip's pictures")
        if not (is_video(path) or path.suffix.lower() == ".npy" or (path.is_dir() and pictures_in(path))):
            raise FastcamError(
                f"{shown(path)}: no clip; give a video, a folder with a clip's pictures, or a .npy array of them"
            )
    return list(paths)


SAMPLES = (".npy", ".csv", ".nii", ".gz")
"""Endings of signals and volumes in a folder that holds no pictures."""


def picture_files(paths: Sequence[Path]) -> list[Path]:
    """Files as given; of a folder its pictures, where it has none its signals and volumes, sorted by name.

    Raises:
        FastcamError: a path that is not there, or a folder without pictures.
    """
    from fastcam.image.preprocess import SUFFIXES, pictures_in

    files: list[Path] = []
    for path in paths:
        if not os.path.exists(path):  # Path.exists raises where a name is too long
            raise FastcamError(f"{shown(path)}: no such file; give pictures or folders of pictures")
        inside = (pictures_in(path) or pictures_in(path, SAMPLES)) if path.is_dir() else [path]
        if not inside:
            raise FastcamError(f"{path}: no pictures in this folder ({', '.join((*SUFFIXES, *SAMPLES))})")
        files += inside
    return files
