"""``fastcam explain``: heatmaps and boxes of pictures."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fastcam.cli import failures
from fastcam.cli.console import counted, print_table, progress, say
from fastcam.cli.shared_options import (
    ColorName,
    ColorsName,
    Cotangents,
    Exif,
    ExportedFile,
    InputValues,
    Labels,
    MaxPixels,
    Mean,
    MethodNames,
    MethodOptions,
    PicturesOrNone,
    PreprocessName,
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
    preprocess_option,
    sides,
    texts_of,
)
from fastcam.cli.sheets import explain_methods, method_names
from fastcam.cli.texts import explain_texts, print_texts
from fastcam.cli.words import add_words, sentences
from fastcam.errors import FastcamError
from fastcam.image.reading import MAX_PIXELS
from fastcam.methods.layer_fusion import Fuse

if TYPE_CHECKING:
    from rich.progress import Progress

    from fastcam.evaluation.dissection.neuron_names import Name
    from fastcam.explainer import Explainer
    from fastcam.results.explanation import Explanation

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
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON only; files are written only with -o.")] = False,
    threshold: Threshold = 0.15,
    batch_size: Annotated[int, typer.Option(help="Pictures per run where the model's batch is free.")] = 8,
    preprocess: PreprocessName = None,
    color: ColorName = None,
    mean: Mean = None,
    std: Std = None,
    scale: Scale = None,
    size: SizeOption = None,
    labels: Labels = None,
    threads: Threads = None,
    providers: Providers = "auto",
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
    from fastcam.explainer import Explainer
    from fastcam.methods.options import parsed
    from fastcam.results.explanation import write_json
    from fastcam.runtime.inputs import further_inputs
    from fastcam.targets.grammar import in_words

    targets = class_targets(target, cotangent)
    methods = method_names(method) if method is not None else []
    how = preprocess_option(preprocess, color, mean, std, scale, size=sides("size", size))
    opened: dict[str, Any] = {"preprocess": how, "labels": labels, "batch_size": batch_size, "tokenizer": tokenizer}
    opened |= {"text_encoder": text_encoder, "prompts": prompts}
    explainer = Explainer(model, providers, threads, **opened, max_pixels=max_pixels, exif=exif)
    if explainer.metadata.kind == "text":
        if words is not None:
            raise FastcamError("--words says what channels of pictures answer to; leave it out for texts")
        asked_so: dict[str, Any] = {"threshold": threshold, "style": style, "options": parsed(option or ())}
        asked_so |= {"fuse": fuse, "cotangent": cotangent or None, "layers": layers}
        asked_so["inputs"] = further_inputs.parsed(input_value or (), explainer.text_inputs)
        _explain_texts(explainer, images or [], text or [], targets, output, as_json, methods, colors, asked_so)
        return
    if not images:
        raise FastcamError("no picture given; give pictures, or folders of pictures")
    files = clip_files(images) if explainer.metadata.kind == "video" else picture_files(images)
    files, texts = texts_of(files, text)
    if texts:
        explainer.check_text(texts)
    if explainer.metadata.cotangents and not cotangent:
        cotangent, targets = in_words(targets, explainer.metadata, model.name), -1
    named = None if words is None else _names(explainer, words, len(methods) > 1 or bool(layers))
    folder = output or (None if as_json else Path("fastcam-out"))
    with ExitStack() as stack:
        stage = stack.enter_context(staged(folder)) if folder else None
        options: dict[str, Any] = {
            "threshold": threshold,
            "style": style,
            "cotangent": cotangent or None,
            "layers": "all" if layers == ["all"] else layers,
            "fuse": fuse,
            "options": parsed(option or ()),
            "inputs": further_inputs.parsed(input_value or (), explainer.text_inputs),
        }
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
        failures.raise_for(report)
        return
    print_report(report)
    for sentence in sentences(report) if named is not None else ():
        say(sentence)
    if method is None and report["method"] != "gradcam":
        typer.echo(f"by {_title(report)}; --method gradcam, the other way, forgets where a box or region is")
    if len(methods) > 1:
        typer.echo(f"{counted(len(names), 'sheet')} and explanation.json are in {folder}")
        failures.raise_for(report)
        return
    mode = explainer.metadata.input_gradient
    also = ([mode] if mode is not None else []) + ["strips of layers"] * ("layers" in report)
    also += ["words"] * (named is not None)
    also = ["arrays"] if explainer.metadata.kind in ("signal", "volume") else also
    kinds = counted(len(names), "overlay") if not also else f"{len(names)} files (overlays and {', '.join(also)})"
    typer.echo(f"{kinds} and explanation.json are in {folder}")
    failures.raise_for(report)


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


def explain_all(
    explainer: Explainer,
    files: Sequence[Path],
    targets: Any,
    stage: Path | None,
    method: str | None = None,
    colors: str = "jet",
    texts: Sequence[str] | None = None,
    **options: Any,
) -> tuple[dict[str, Any], list[str]]:
    """Explain ``files`` run by run, with one run's pictures in memory; the report and the overlays' names.

    A picture or a target that cannot be explained has its error in the report.

    ``texts``: of a model that takes one, that of each picture. ``options``: further arguments of
    :meth:`fastcam.Explainer.__call__`.

    Raises:
        FastcamError: a wrong call, or no picture could be explained.
    """
    from fastcam.methods import method as named
    from fastcam.results.explanation import unique_stems, write_json
    from fastcam.results.layer_sheet import write_strips

    preprocessing = explainer.metadata.preprocessing
    # pictures that keep their own size cannot share a run
    step = 1 if preprocessing is not None and preprocessing.size is None else explainer.batch_size
    stems = unique_stems([str(file) for file in files])
    report: dict[str, Any] = {"images": []}
    names: list[str] = []
    call = asker(explainer, files, texts, targets, method, options)
    asked = options["cotangent"] if options.get("cotangent") else targets if isinstance(targets, list) else [targets]
    again = method is not None and named(method).runs is not None
    with progress(len(files), again) as bar:
        for start, part in _runs(files, step):
            meter = partial(_advance, bar, start / len(part), len(files) / len(part))
            rows = range(start, start + len(part))
            for numbers, explanation, errors in failures.attempts(partial(call, meter), rows, asked):
                said = [{"text": texts[start + i]} for i in numbers] if texts is not None else [{}] * len(numbers)
                if explanation is None:
                    report["images"].append(failures.entry(part[numbers.start], errors[""]) | said[0])
                    continue
                if stage is not None:
                    own = by_row([stems[start + i] for i in numbers], len(explanation))
                    names += explanation.write_overlays(stage, own, colors)
                    names += write_strips(explanation, stage, own, colors)
                add(report, with_texts(explanation.to_dict(), said), errors)
            if not again:
                bar.advance(bar.task_ids[0], len(part))
    if "method" not in report:  # not one was explained
        raise FastcamError(report["images"][0]["error"])
    if stage is not None:
        write_json(stage, report)
    return report, names


def _runs(files: Sequence[Path], step: int) -> Iterator[tuple[int, list[Path]]]:
    """Pictures that run together, ``step`` of them or fewer large ones, and the number of the first.

    All pictures of a run are in memory until their overlays are drawn.
    """
    from fastcam.explain.streaming import HELD
    from fastcam.image.decode import weight

    start = 0
    while start < len(files):
        part, held = [files[start]], weight(files[start])
        for file in files[start + 1 : start + step]:
            held += weight(file)
            if held > HELD:
                break
            part.append(file)
        yield start, part
        start += len(part)


def with_texts(report: dict[str, Any], said: Sequence[Mapping[str, str]]) -> dict[str, Any]:
    """A report whose images say their text; of clips, each frame that of its clip."""
    images = report["images"]
    frames = len(images) // len(said)
    report["images"] = [{**image, **said[i // frames]} for i, image in enumerate(images)]
    return report


def asker(
    explainer: Explainer,
    files: Sequence[Path],
    texts: Sequence[str] | None,
    targets: Any,
    method: str | None,
    options: Mapping[str, Any],
) -> Any:
    """(progress, numbers of pictures, targets) -> their explanation.

    Raises:
        FastcamError: the call is wrong whatever the pictures are.
    """
    others = {name: value for name, value in options.items() if name != "cotangent"}
    cotangent = options.get("cotangent")
    bound = explainer.question(cotangent) if cotangent else None
    explainer.stream((), targets, method=method, cotangent=bound, **others)

    def call(progress: Any, rows: Sequence[int], asked: Sequence[Any]) -> Explanation:
        own: dict[str, Any] = {"targets": asked}
        if cotangent:
            own = {"targets": targets, "cotangent": bound if asked is cotangent else explainer.question(list(asked))}
        if texts is not None:
            own["text"] = [texts[row] for row in rows]
        return explainer([files[row] for row in rows], method=method, progress=progress, **own, **others)

    return call


def _title(report: dict[str, Any]) -> str:
    """The method of a report, and where: "HiResCAM at P3, P4 and P5"."""
    from fastcam.methods import method as named

    *names, last = report.get("fused", [report["layer"]])
    return f"{named(report['method']).title} at {', '.join(names)}{' and ' if names else ''}{last}"


def by_row(stems: Sequence[str], rows: int) -> list[str]:
    """One stem for each row of an explanation: of clips, a row for each frame, with its number."""
    frames = rows // len(stems)
    return [f"{stem}-{k:03}" for stem in stems for k in range(frames)] if frames > 1 else list(stems)


def _advance(bar: Progress, before: float, parts: float, done: int, total: int) -> None:
    """``done`` of ``total`` runs, behind ``before`` of all ``parts`` of as many runs."""
    bar.update(bar.task_ids[0], completed=before * total + done, total=parts * total)


def add(report: dict[str, Any], entry: dict[str, Any], errors: Mapping[str, FastcamError]) -> None:
    """Add what :meth:`fastcam.Explanation.to_dict` says of one run to that of all; of several layers to each.

    ``errors``: of targets that the run is without.
    """
    for image in entry["images"]:
        image["targets"] += [failures.target_entry(target, error) for target, error in errors.items()]
    if "method" not in report:
        report.update({**entry, "images": report["images"] + entry["images"]})
        return
    report["images"] += entry["images"]
    for layer, more in zip(report.get("layers", ()), entry.get("layers", ()), strict=True):
        add(layer, more, {})


def print_report(report: dict[str, Any]) -> None:
    from fastcam.labels import short_label

    parts = report.get("methods", [report])
    rows = []
    for part, image in ((one, image) for one in parts for image in one["images"]):
        name = Path(image["file"]).name
        if "error" in image:
            why = image["error"].removeprefix(f"{image['file']}: ")
            by = part["method"] if len(parts) > 1 else ""
            rows.append((name, image.get("text", ""), by, "", "", "", "", f"not explained: {why}"))
        for target in image["targets"]:
            label = target.get("target") or f"{target['class']} {short_label(target['label'] or '')}"
            absent = "" if "error" in target else "not finite"
            score = absent if target["score"] is None else f"{target['score']:.4g}"
            box = " ".join(f"{value:.0f}" for value in target["box"] or ()) or "-"
            own = " ".join(f"{value:.0f}" for value in target.get("predicted_box", ()))
            method = part["method"] if len(parts) > 1 else ""
            status = f"not explained: {target['error']}" if "error" in target else target["status"]
            rows.append((name, image.get("text", ""), method, label, score, box, own, status))
    sizes = {key for part in parts for image in part["images"] for key in image}
    corners = "segment x0 x1" if "samples" in sizes else "box x0 y0 x1 y1"
    corners = "box x0 y0 z0 x1 y1 z1" if "depth" in sizes else corners
    print_table(("image", "text", "method", "class", "score", corners, "predicted box", "status"), rows)
