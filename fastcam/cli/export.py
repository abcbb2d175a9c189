"""``fastcam export``: rewrite a model."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from fastcam.cli.shared.console import say
from fastcam.cli.shared.options import (
    ColorName,
    ForEngine,
    InputName,
    InputValues,
    Labels,
    Mean,
    OnnxFile,
    PreprocessName,
    Scale,
    ScoreKind,
    SizeOption,
    Std,
    preprocess_option,
    sides,
)
from fastcam.errors import FastcamError, shown
from fastcam.input_roles import ROLES
from fastcam.schema import ORDERS, Emit, LayoutName, Mode, Place, Resize

EXAMPLES = (
    "fastcam export resnet50.onnx --preprocess imagenet --labels classes.txt",
    "fastcam export resnet50.onnx -o middle.onnx --layer layer3",
    "fastcam export resnet50.onnx --layer all --emit gradients",
    "fastcam export vqa.onnx --preprocess imagenet --labels answers.txt --tokenizer tokenizer.json",
    "fastcam export vision_model.onnx --targets cotangent --output-name image_embeds --preprocess clip "
    "--tokenizer tokenizer.json --text-encoder text_model.onnx --logit-scale 100",
    "fastcam export detector.onnx --targets cotangent --output-name boxes --output-name scores --layer backbone",
    "fastcam export resnet50.onnx --preprocess imagenet --triton model_repository",
    "fastcam export mobilenet.onnx --preprocess imagenet --slim",
)


def export(
    model: OnnxFile,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Exported file.", show_default="MODEL.cam.onnx")
    ] = None,
    layer: Annotated[
        list[str] | None,
        typer.Option(
            help="Value, node or scope to explain; auto chooses. Repeatable: one file that explains at each of them; "
            "all takes the last map of each resolution.",
            show_default="auto",
        ),
    ] = None,
    layout: Annotated[
        LayoutName | None, typer.Option(help="How the layer lies in the graph.", show_default="as the graph tells")
    ] = None,
    prefix_tokens: Annotated[
        int | None,
        typer.Option(
            help="Of a sequence: how many tokens stand before the image's.", show_default="as the graph tells"
        ),
    ] = None,
    grid: Annotated[
        str | None,
        typer.Option(help="Of a sequence: its rows and columns, as 14x14.", show_default="as the graph tells"),
    ] = None,
    emit: Annotated[
        Emit | None,
        typer.Option(
            help="What the file adds: pooled gradients, gradients, or maps.",
            show_default="gradients of boxes and regions, else weights",
        ),
    ] = None,
    preprocess: PreprocessName = None,
    color: ColorName = None,
    mean: Mean = None,
    std: Std = None,
    scale: Scale = None,
    size: SizeOption = None,
    order: Annotated[
        str | None,
        typer.Option(
            help=f"The axes of the input: {', '.join(ORDERS)} (T pictures, D slices, L samples).",
            show_default="as the graph tells",
        ),
    ] = None,
    stack: Annotated[
        int | None,
        typer.Option(
            help="How many neighbouring frames lie in the channels, the newest last (an agent's 4).",
            show_default=False,
        ),
    ] = None,
    resize: Annotated[Resize, typer.Option(help="How a picture is brought to the input's size.")] = "stretch",
    labels: Labels = None,
    input_name: InputName = None,
    input_value: InputValues = None,
    role: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=ROLE",
            help=f"What another input of the model holds: {', '.join(ROLES)}; repeatable.",
            show_default="as types and names tell",
        ),
    ] = None,
    tokenizer: Annotated[
        Path | None,
        typer.Option(
            help="The tokenizer.json of a model that takes a text; it stays with the file.", show_default=False
        ),
    ] = None,
    text_encoder: Annotated[
        Path | None,
        typer.Option(
            help="Of a model of embeddings: the ONNX file that makes embeddings of texts, for prompts as targets.",
            show_default=False,
        ),
    ] = None,
    logit_scale: Annotated[
        float, typer.Option(help="What the cosine with a text is multiplied by, as CLIP's exp(logit_scale), 100.")
    ] = 1.0,
    logit_bias: Annotated[float, typer.Option(help="What is then added, as SigLIP's logit_bias.")] = 0.0,
    score: ScoreKind = "logit",
    output_name: Annotated[
        list[str] | None,
        typer.Option(
            help="The output to explain; with --targets cotangent several.", show_default="the one of class scores"
        ),
    ] = None,
    stop_gradient: Annotated[
        list[str] | None,
        typer.Option(
            "--stop-gradient",
            metavar="VALUE",
            help="A value that no gradient passes, as where the model detached it. May be given again.",
        ),
    ] = None,
    output_layout: Annotated[
        Literal["NCHW", "NHWC"] | None,
        typer.Option(
            help="Whether the classes of a map stand before its positions or behind.", show_default="as the graph tells"
        ),
    ] = None,
    targets: Annotated[
        Literal["default", "required", "constant", "cotangent"],
        typer.Option(
            help="What the file can be asked: classes (by an input with a default, or required, or the predicted one "
            "alone), or cotangents of any outputs."
        ),
    ] = "default",
    for_engine: ForEngine = "onnxruntime",
    frames: Annotated[
        str | None,
        typer.Option(
            help="The file takes uint8 pictures and prepares them itself: any, or all of one size, as 720x1280.",
            show_default=False,
        ),
    ] = None,
    input_gradient: Annotated[
        Mode | None,
        typer.Option(
            help="Also emit what this brings back to the image (guided: Guided Grad-CAM), or another method's map."
        ),
    ] = None,
    input_gradient_at: Annotated[
        Place | None, typer.Option(help="Where relevance is read: image or layer.", show_default="as its paper does")
    ] = None,
    head: Annotated[
        bool,
        typer.Option(
            "--head", help="Also write the part behind the layer as a file, for methods that change the layer."
        ),
    ] = False,
    on_demand: Annotated[
        bool | None,
        typer.Option(
            "--on-demand/--one-file",
            help="Two files: one to predict at the price of the model, one to explain later.",
            show_default="two where only a run tells the size of boxes or maps",
        ),
    ] = None,
    check: Annotated[
        Literal["default", "strict"],
        typer.Option(help="strict refuses a gradient that the check at the end cannot confirm; default says so."),
    ] = "default",
    caption: Annotated[
        str | None,
        typer.Option(
            "--caption",
            metavar="start=1,end=2",
            help="The model is a captioner, whose captions begin and end with these words, as numbers; pad=0: what "
            "fills up a text of fixed length. --labels are its words.",
            show_default=False,
        ),
    ] = None,
    decoder: Annotated[
        Path | None,
        typer.Option(
            help="Of a captioner in two files the decoder; the model is its encoder. Exported beside it.",
            show_default=False,
        ),
    ] = None,
    triton: Annotated[
        Path | None,
        typer.Option(
            "--triton",
            metavar="REPO",
            help="Also write a model repository of Triton's: the file for its ONNX Runtime backend, and around it an "
            "ensemble that takes pictures and gives boxes.",
            show_default=False,
        ),
    ] = None,
    slim: Annotated[
        bool,
        typer.Option(
            "--slim",
            help="Also write the file in ONNX Runtime's own format, MODEL.cam.ort, for small devices, and the list of "
            "operators that a reduced build of ONNX Runtime needs for it.",
        ),
    ] = False,
    no_check: Annotated[
        bool, typer.Option("--no-check", help="Leave out the check: the file is written as it was made.")
    ] = False,
) -> None:
    """Rewrite an ONNX model once, so that it explains itself wherever ONNX runs."""
    output = output or model.with_name(f"{model.stem}.cam.onnx")
    _refuse_two_files("--triton" if triton is not None else "--slim" if slim else "", on_demand or caption is not None)
    if triton is not None:
        exporter().triton_folders(output, triton)  # said before the export, not behind it
    from fastcam.runtime.inputs.further_inputs import arrays

    make, own = _export_of(caption, decoder, targets, labels, _one(output_name), on_demand)
    result = make(
        model,
        output,
        layer=layer[0] if layer is not None and len(layer) == 1 else layer or "auto",
        layout=layout,
        prefix_tokens=prefix_tokens,
        grid=_grid(grid),
        emit=emit,
        score=score,
        output_layout=output_layout,
        preprocess=preprocess_option(preprocess, color, mean, std, scale, stack=stack),
        size=sides("size", size),
        order=order,
        stop_gradient=stop_gradient or (),
        resize=resize,
        for_engine=for_engine,
        frames=_frames(frames),
        input_gradient=input_gradient,
        input_gradient_at=input_gradient_at,
        head=head,
        input_name=input_name,
        inputs=arrays(input_value or ()),
        roles=_roles(role or ()),
        tokenizer=tokenizer,
        text_encoder=text_encoder,
        logit_scale=logit_scale,
        logit_bias=logit_bias,
        check=not no_check and (check == "default" or "strict"),
        **own,
    )
    kind = result.taken_for() if targets == "default" and caption is None else ""
    if kind:
        typer.echo(f"{model.name} is taken for {kind}; --targets and --output-name say otherwise", err=True)
    for line in result.summary():
        say(line)
    if triton is not None:
        _write_triton(triton, output)
    if slim:
        for file in exporter().write_slim(output):
            say(f"wrote   {file}")


def _export_of(
    caption: str | None, decoder: Path | None, targets: str, labels: Path | None, output_name: Any, on_demand: Any
) -> tuple[Callable[..., Any], dict[str, Any]]:
    """What exports a model, or a captioner, and the arguments that it alone takes.

    Raises:
        FastcamError: an option is of the other one.
    """
    if caption is None:
        if decoder is not None:
            raise FastcamError("--decoder is of a captioner; say which words begin and end its captions with --caption")
        own: dict[str, Any] = {"targets": targets, "labels": labels, "output_name": output_name}
        return exporter().export_model, own | {"on_demand": on_demand}
    if targets != "default":
        raise FastcamError("--caption explains words; leave out --targets")
    own = {**_special(caption), "decoder": decoder, "vocabulary": labels, "scores": output_name}
    return exporter().export_captioner, own | ({} if on_demand is None else {"on_demand": on_demand})


def _refuse_two_files(option: str, two_files: bool) -> None:
    if option and two_files:
        raise FastcamError(f"{option} takes an export in one file; leave out --on-demand and --caption")


def _write_triton(repository: Path, output: Path) -> None:
    folders, alone = exporter().write_triton_repository(output, repository)
    for folder in folders:
        say(f"wrote   {folder}")
    if alone:
        say(f"        without an ensemble that takes pictures: {alone}")


def exporter() -> Any:
    """The module fastcam_export, which needs onnx."""
    try:
        import fastcam_export
    except ImportError as error:
        if (error.name or "").startswith("fastcam_export."):
            raise  # a defect of ours, not something that is missing
        raise FastcamError(f"exporting needs onnx and onnx-ir ({error}); run: pip install fastcam[export]") from error
    return fastcam_export


def _roles(texts: Sequence[str]) -> dict[str, str]:
    """The --role options: "question=text"."""
    found = {}
    for text in texts:
        name, sign, role = text.rpartition("=")
        if not sign or not name:
            raise FastcamError(f"--role is {shown(repr(text))}; give NAME=ROLE, like question=text")
        found[name] = role
    return found


def _one(names: list[str] | None) -> str | list[str] | None:
    """A name alone, of several all of them."""
    return names[0] if names is not None and len(names) == 1 else names


def _special(text: str) -> dict[str, int]:
    """The --caption option: "start=1,end=2,pad=0"."""
    parts = [part.strip().partition("=") for part in text.split(",")]
    found = {name: int(number) for name, _, number in parts if re.fullmatch(r"[0-9]{1,9}", number)}
    unknown = set(found) - {"start", "end", "pad"}
    if len(found) != len(parts) or unknown or not {"start", "end"} <= set(found):
        raise FastcamError(
            f"--caption is {shown(repr(text))}; give the words that begin and end a caption as numbers: start=1,end=2"
        )
    return found


def _frames(text: str | None) -> bool | tuple[int, int]:
    """The --frames option: "any", or height and width."""
    if text is None or text == "any":
        return text is not None
    if not re.fullmatch(r"[0-9]{1,9}x[0-9]{1,9}", text):
        raise FastcamError(f"--frames is {shown(repr(text))}; give any, or height and width, like 720x1280")
    height, width = map(int, text.split("x"))
    return height, width


def _grid(text: str | None) -> tuple[int, ...] | None:
    """The --grid option: "14x14"; of a video "8x7x7"."""
    if text is None:
        return None
    if not re.fullmatch(r"[0-9]{1,9}(x[0-9]{1,9}){1,2}", text):
        raise FastcamError(f"--grid is {shown(repr(text))}; give rows and columns, like 14x14")
    return tuple(int(side) for side in text.split("x"))
