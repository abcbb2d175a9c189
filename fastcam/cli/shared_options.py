"""Arguments and options that several verbs share."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import typer

from fastcam.errors import FastcamError
from fastcam.schema import PRESETS, Engine

OnnxFile = Annotated[Path, typer.Argument(metavar="MODEL.onnx", help="The ONNX file.", show_default=False)]
ExportedFile = Annotated[
    Path, typer.Argument(metavar="MODEL.cam.onnx", help="A file that fastcam export wrote.", show_default=False)
]
Pictures = Annotated[
    list[Path], typer.Argument(metavar="IMAGE", help="Pictures, or folders of pictures.", show_default=False)
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
ForEngine = Annotated[Engine, typer.Option("--for-engine", help="The engine that must be able to read what is added.")]
Providers = Annotated[
    str,
    typer.Option(
        "--providers", help="What runs the model: auto, cpu, cuda, tensorrt, openvino, or several joined by commas."
    ),
]
ColorsName = Annotated[
    Literal["jet", "turbo", "viridis", "cividis", "inferno"],
    typer.Option("--colors", help="Colour map; viridis, cividis and inferno suit print and colour-blind readers."),
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
        help="Class index, rank (-1 is the predicted class) or name; repeatable.",
        show_default="-1",
    ),
]
Cotangents = Annotated[
    list[str] | None,
    typer.Option(
        "--cotangent",
        "-c",
        help="Of files exported with --targets cotangent: region:person, box:dog,x0, probability:tabby, ... "
        "(see fastcam cotangents); repeatable.",
        show_default=False,
    ),
]
Threshold = Annotated[float, typer.Option("--threshold", help="Boxes surround what reaches this share of the maximum.")]
Threads = Annotated[int | None, typer.Option("--threads", help="Threads of ONNX Runtime.", show_default="its choice")]


def class_targets(names: Sequence[str] | None, cotangent: Sequence[str] | None) -> int | list[int | str]:
    """The --target options: what looks like a number is one, the rest are class names; the default of cotangents.

    Raises:
        FastcamError: --target and --cotangent were both given.
    """
    if names and cotangent:
        raise FastcamError("--target and --cotangent were both given; a file answers one of the two")
    if cotangent:
        return -1
    return [int(text) if re.fullmatch(r"[+-]?\d+", text.strip()) else text for text in names or ["-1"]]


def picture_files(paths: Sequence[Path]) -> list[Path]:
    """Files as given; of a folder its pictures, sorted by name.

    Raises:
        FastcamError: a path that is not there, or a folder without pictures.
    """
    from fastcam.image.preprocess import SUFFIXES, pictures_in

    files: list[Path] = []
    for path in paths:
        if not path.exists():
            raise FastcamError(f"{path}: no such file; give pictures or folders of pictures")
        inside = pictures_in(path) if path.is_dir() else [path]
        if not inside:
            raise FastcamError(f"{path}: no pictures in this folder ({', '.join(SUFFIXES)})")
        files += inside
    return files
