"""``fastcam explain``: heatmaps and boxes of pictures."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fastcam.cli.explain.pictures import explain_all
from fastcam.cli.explain.report import print_report, title
from fastcam.cli.explain.sheets import explain_methods, method_names
from fastcam.cli.explain.texts import explain_texts, print_texts
from fastcam.cli.explain.words import add_words, sentences
from fastcam.cli.shared import failures
from fastcam.cli.shared.console import counted, say
from fastcam.cli.shared.opening import opened
from fastcam.cli.shared.options import (
    ColorName,
    ColorsName,
    Cotangents,
    Exif,
    ExportedFile,
    InputValues,
    JsonAlone,
    Labels,
    MaxPixels,
    Mean,
    MethodNames,
    MethodOptions,
    PicturesOrNone,
    PreprocessName,
    ProfileName,
    PromptsPath,
    Providers,
    Scale,
    SizeOption,
    Std,
    StyleName,
    TargetNames,
    TextEncoderPath,
    Texts,
    Threads,
    Threshold,
    TokenizerPath,
    class_targets,
    clip_files,
    picture_files,
    texts_of,
)
from fastcam.errors import FastcamError
from fastcam.image.reading import MAX_PIXELS
from fastcam.methods.layer_fusion import Fuse

if TYPE_CHECKING:
    from fastcam.evaluation.dissection.neuron_names import Name
    from fastcam.explainer import Explainer

EXAMPLES = (
    "fastcam explain resnet50.cam.onnx photo.jpg",
    "fastcam explain resnet50.cam.onnx photos/ -t -1 -t tabby -o heatmaps",
    "fastcam explain resnet50.cam.onnx photo.jpg --layers all --fuse max",
    "fastcam explain resnet50.cam.onnx photo.jpg --json",
    "fastcam explain segmenter.cam.onnx street.jpg --cotangent region:person --cotangent region:car",
    "fastcam explain resnet50.cam.onnx photo.jpg --method gradcam,layercam,eigencam",
    "fastcam explain resnet50.cam.onnx photo.jpg --words neurons.csv",
    'fastcam explain reviews.cam.onnx --text "a warm and funny film"',
    'fastcam explain clip.cam.onnx photo.jpg -t "text: a red square" -t "text: a red square - a blue square"',
    'fastcam explain vqa.cam.onnx photo.jpg --text "what colour is the cat?"',
    "fastcam explain resnet50.cam.onnx photo.jpg --method occlusion --option window=48x48 --option stride=16x16",
)


def explain(
    model: ExportedFile,
    images: PicturesOrNone = None,
    target: TargetNames = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Folder for overlays and explanation.json.", show_default="fastcam-out"),
    ] = None,
    as_json: JsonAlone = False,
    threshold: Threshold = 0.15,
    batch_size: Annotated[
        int | None,
        typer.Option(help="Pictures per run where the model's batch is free.", show_default="the profile's, or 8"),
    ] = None,
    preprocess: PreprocessName = None,
    color: ColorName = None,
    mean: Mean = None,
    std: Std = None,
    scale: Scale = None,
    size: SizeOption = None,
    labels: Labels = None,
    threads: Threads = None,
    providers: Providers = "auto",
    profile: ProfileName = "auto",
    method: MethodNames = None,
    option: MethodOptions = None,
    cotangent: Cotangents = None,
    layers: Annotated[
        list[str] | None,
        typer.Option(
            help="Explain at several layers of the file: all, or some by name; repeatable. One picture shows them."
        ),
    ] = None,
    fuse: Annotated[Fuse | None, typer.Option(help="Make one map of the layers' maps.")] = None,
    style: StyleName = "fastcam",
    colors: ColorsName = "jet",
    words: Annotated[
        Path | None,
        typer.Option(
            help="A table of what channels answer to, of fastcam dissect: say which of them speak for a class, and "
            "against it.",
            show_default=False,
        ),
    ] = None,
    input_value: InputValues = None,
    text: Texts = None,
    tokenizer: TokenizerPath = None,
    text_encoder: TextEncoderPath = None,
    prompts: PromptsPath = None,
    max_pixels: MaxPixels = MAX_PIXELS,
    exif: Exif = True,
) -> None:
    """Explain pictures: heatmap overlays, boxes, classes and scores; of several methods a sheet per picture."""
    from fastcam.atomic_files import staged
    from fastcam.methods.options import parsed
    from fastcam.results.explanation import write_json
    from fastcam.runtime.inputs import further_inputs
    from fastcam.targets.grammar import in_words

    targets = class_targets(target, cotangent)
    methods = method_names(method) if method is not None else []
    pixels = preprocess, color, mean, std, scale, size
    how: dict[str, Any] = {"threads": threads, "labels": labels, "max_pixels": max_pixels, "exif": exif}
    how |= {"tokenizer": tokenizer, "text_encoder": text_encoder, "prompts": prompts}
    explainer = opened(model, "latency", pixels, profile, providers, batch_size, **how)
    options: dict[str, Any] = {
        "threshold": threshold,
        "style": style,
        "cotangent": cotangent or None,
        "layers": "all" if layers == ["all"] else layers,
        "fuse": fuse,
        "options": parsed(option or ()),
        "inputs": further_inputs.parsed(input_value or (), explainer.text_inputs),
    }
    if explainer.metadata.kind == "text":
        if words is not None:
            raise FastcamError("--words says what channels of pictures answer to; leave it out for texts")
        _explain_texts(explainer, images or [], text or [], targets, output, as_json, methods, colors, options)
        return
    if not images:
        raise FastcamError("no picture given; give pictures, or folders of pictures")
    files = clip_files(images) if explainer.metadata.kind == "video" else picture_files(images)
    files, texts = texts_of(files, text)
    if texts:
        explainer.check_text(texts)
    if explainer.metadata.cotangents and not cotangent:
        options["cotangent"], targets = in_words(targets, explainer.metadata, model.name), -1
    named = None if words is None else _names(explainer, words, len(methods) > 1 or bool(layers))
    folder = output or (None if as_json else Path("fastcam-out"))
    with ExitStack() as stack:
        stage = stack.enter_context(staged(folder)) if folder else None
        if len(methods) > 1 and layers and not fuse:
            raise FastcamError(
                "strips of --layers are of one method; give one --method, or a sheet of maps that --fuse makes"
            )
        if len(methods) > 1:
            report, names = explain_methods(explainer, files, targets, stage, methods, colors, texts, **options)
        else:
            call = explainer, files, targets, stage, next(iter(methods), None), colors, texts
            report, names = explain_all(*call, **options)
        if named is not None:
            asked = targets if isinstance(targets, list) else [targets]
            names += add_words(explainer, files, asked, stage, report, named, colors, options["inputs"], texts)
            if stage is not None:
                write_json(stage, report)
    if as_json:
        typer.echo(json.dumps(report, indent=1, ensure_ascii=False))
    else:
        print_report(report)
        for sentence in sentences(report) if named is not None else ():
            say(sentence)
        if method is None and report["method"] != "gradcam":
            typer.echo(f"by {title(report)}; --method gradcam, the other way, forgets where a box or region is")
        files_of = counted(len(names), "sheet") if len(methods) > 1 else _kinds(names, explainer, report, named)
        typer.echo(f"{files_of} and explanation.json are in {folder}")
    failures.raise_for(report)


def _kinds(names: Sequence[str], explainer: Explainer, report: Mapping[str, Any], named: object) -> str:
    """How many files were written, and what is in them.

    Args:
        names: of the files.
        named: the table of --words, or None.
    """
    if explainer.metadata.kind in ("signal", "volume"):
        also = ["arrays"]
    else:
        mode = explainer.metadata.input_gradient
        also = ([mode] if mode is not None else []) + ["strips of layers"] * ("layers" in report)
        also += ["words"] * (named is not None)
    return counted(len(names), "overlay") if not also else f"{len(names)} files (overlays and {', '.join(also)})"


def _explain_texts(
    explainer: Explainer,
    files: Sequence[Path],
    texts: Sequence[str],
    targets: Any,
    output: Path | None,
    as_json: bool,
    methods: Sequence[str],
    colors: str,
    options: Mapping[str, Any],
) -> None:
    """The verb for a model of texts."""
    from fastcam.atomic_files import staged

    folder = output or (None if as_json else Path("fastcam-out"))
    with ExitStack() as stack:
        stage = stack.enter_context(staged(folder)) if folder else None
        report, names, explanation = explain_texts(explainer, files, texts, targets, stage, methods, colors, **options)
    if as_json:
        typer.echo(json.dumps(report, indent=1, ensure_ascii=False))
        return
    print_texts(explanation, colors)
    typer.echo(f"{len(names)} files (HTML and pictures) and explanation.json are in {folder}")


def _names(explainer: Explainer, table: Path, several: bool) -> Mapping[int, Name]:
    """The table of --words.

    Raises:
        FastcamError: it cannot be read, or is of no use to this call.
    """
    from fastcam.evaluation.dissection.neuron_names import read_names
    from fastcam.evaluation.dissection.words import check

    if several:
        raise FastcamError("--words is of one layer and one method; leave out --layers, or give one --method")
    names = read_names(table)
    check(explainer)
    return names
