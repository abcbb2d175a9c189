"""Arguments and options that several verbs share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from fastcam.schema import PRESETS, Engine

OnnxFile = Annotated[Path, typer.Argument(metavar="MODEL.onnx", help="The ONNX file.", show_default=False)]
ExportedFile = Annotated[
    Path, typer.Argument(metavar="MODEL.cam.onnx", help="A file that fastcam export wrote.", show_default=False)
]
Pictures = Annotated[
    list[Path], typer.Argument(metavar="IMAGE", help="Pictures, or folders of pictures.", show_default=False)
]
Labels = Annotated[Path | None, typer.Option("--labels", help="Class names, one per line.", show_default=False)]
OutputName = Annotated[
    str | None, typer.Option("--output-name", help="The model output to explain.", show_default="the first that fits")
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
MethodName = Annotated[str, typer.Option("--method", "-m", help="How maps are made; fastcam methods lists them.")]
MethodNames = Annotated[
    str, typer.Option("--method", "-m", help="How maps are made (fastcam methods), or several ways: a,b,c.")
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
